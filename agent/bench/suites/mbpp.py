"""MBPP (Austin et al. 2021): a program from a sentence. The first test is visible, all others only grade.

The visible test also names the function, as in the data set's own prompt. It does not grade: a program that knows only
the answer to it is wrong.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from ponder.bench.grading import ProgramGrader
from ponder.bench.problems import Problem
from ponder.bench.suites.rows import Data, Row, read_rows
from ponder.records import SuccessCriterion, Task

PLAIN = "{text}\n\nYour code should pass this test:\n{test}\n\nReply with the whole program in a ```python block."


class MbppRow(Row):
    """A row, in the field names of the official split. `code` is not even read."""

    task_id: int
    text: str = Field(min_length=1)
    test_list: tuple[str, ...] = Field(strict=False)
    challenge_test_list: tuple[str, ...] = Field(default=(), strict=False)
    test_setup_code: str = ""

    @field_validator("test_list")
    @classmethod
    def _has_hidden_tests(cls, tests: tuple[str, ...]) -> tuple[str, ...]:
        if not _plain_lines(tests[0] if tests else "") or len({*map(_plain_lines, tests)} - {""}) < 2:
            raise ValueError("one test is visible, so it takes two different ones at least")
        return tests


def read(path: Path) -> Data[MbppRow]:
    """Return the rows of a file. Raises UsageError: it is no MBPP file."""
    return read_rows(path, MbppRow)


def problem(row: MbppRow) -> Problem:
    """Return the row as a problem `mbpp/NUMBER`."""
    setup = _plain_lines(row.test_setup_code)
    every = filter(None, map(_plain_lines, (*row.test_list, *row.challenge_test_list)))
    visible, *hidden = (f"{setup}\n{test}" if setup else test for test in every)
    text = _plain_lines(row.text)
    return Problem(
        task=Task(id=f"mbpp/{row.task_id}", prompt=text, success=SuccessCriterion(kind="tests", visible=(visible,))),
        grader=ProgramGrader(tests=tuple(test for test in hidden if test != visible)),
        plain=PLAIN.format(text=text, test=visible),
        reply="program",
    )


def _plain_lines(source: str) -> str:
    """Return source as Python reads it: the data has carriage returns and blanks at ends of lines."""
    return "\n".join(line.rstrip() for line in source.strip().splitlines())
