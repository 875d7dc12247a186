"""GSM8K (Cobbe et al. 2021): word problems with a number as their answer. Nothing is visible but the question."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from ponder.answers import number
from ponder.bench.grading import NumberGrader
from ponder.bench.problems import Problem
from ponder.bench.suites.rows import Data, Row, read_rows
from ponder.records import Task

MARK = "####"
PLAIN = "{question}\n\nThink step by step. End with the number on a line that starts with ANSWER:"


class Gsm8kRow(Row):
    """A row, in the data set's field names."""

    question: str = Field(min_length=1)
    answer: str

    @field_validator("answer")
    @classmethod
    def _ends_with_a_number(cls, answer: str) -> str:
        if MARK not in answer or number(answer.rpartition(MARK)[2]) is None:
            raise ValueError(f"it does not end with {MARK} and a number")
        return answer


def read(path: Path) -> Data[Gsm8kRow]:
    """Return the rows of a file. Raises UsageError: it is no GSM8K file."""
    return read_rows(path, Gsm8kRow)


def problem(row: Gsm8kRow, place: int) -> Problem:
    """Return the row as a problem `gsm8k/PLACE`; places in the file count from 0."""
    expected = number(row.answer.rpartition(MARK)[2])
    assert expected is not None
    question = row.question.strip()
    return Problem(
        task=Task(id=f"gsm8k/{place}", prompt=question),
        grader=NumberGrader(expected),
        plain=PLAIN.format(question=question),
        reply="number",
    )
