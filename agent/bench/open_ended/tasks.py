"""Sixty open-ended tasks: prompts without a success criterion, and hidden constraints that grade the answers.

Twelve each of explain, plan, compare, write and research. What a search may see is `OpenTask.task`; the constraints
stay with the grader. An answer's score is the share of its task's constraints that it meets, and it is right if it
meets all of them. What any platitude meets ("avoid", "at most") counts only in an answer that also meets something
else: to do nothing wrong is not enough.

The research tasks stand on the pages of `pages`, whose facts are invented, so that no model knows them.
`serve_pages` serves them on loopback; the browser tool must permit that origin, because the task's own urls name it.
"""

from __future__ import annotations

import hashlib
import random
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from pydantic import Field

from ponder.bench.open_ended.pages import contents, page_text, serve_pages
from ponder.bench.problems import Grade, Problem, Rooms
from ponder.errors import UnknownName
from ponder.instructions.constraints import Constraint
from ponder.instructions.reading import instructions_of
from ponder.records import Record, Task

__all__ = ["FAMILIES", "OpenTask", "check_families", "digest", "problems", "serve_pages", "tasks"]

FAMILIES = ("explain", "plan", "compare", "write", "research")
_FILE = "tasks.toml"
_PAGE = "The page {name}:\n\n{text}"

_PLATITUDE = "Sure, I can help you with that."
"""It answers nothing: a constraint that it meets asks for nothing by itself."""


class OpenTask(Record):
    """A prompt, and what a good answer to it looks like. Only `task` may reach a prompt, a judge or a policy."""

    id: str
    """`open/FAMILY/NUMBER`, the same as `task.id`."""
    task: Task
    constraints: tuple[Constraint, ...] = Field(min_length=1)

    @property
    def family(self) -> str:
        """The task's kind: explain, plan, compare, write or research."""
        return self.id.split("/")[1]

    def score(self, answer: str) -> tuple[bool, ...]:
        """Return for each constraint whether the answer meets it.

        All are false for an empty answer, and for one that meets no constraint that a platitude does not meet, too.
        """
        met = tuple(constraint.met(answer) for constraint in self.constraints)
        asks = (not constraint.met(_PLATITUDE) for constraint in self.constraints)
        says_something = any(wanted and is_met for wanted, is_met in zip(asks, met, strict=True))
        return met if says_something else (False,) * len(met)

    def unread(self, answer: str) -> tuple[bool, ...]:
        """Return the same for those constraints only that no search checks: neither does the prompt say them in so many
        words, nor are they meant of every text.
        """
        read = {one.check.model_dump_json() for one in instructions_of(self.task)}
        pairs = zip(self.constraints, self.score(answer), strict=True)
        return tuple(met for constraint, met in pairs if constraint.model_dump_json() not in read)

    def share(self, answer: str) -> float:
        """Return the share of constraints met, in [0, 1]; 1 means that all are."""
        met = self.score(answer)
        return sum(met) / len(met)


class _Row(Record):
    """One task as the data file has it; `pages` are file names in the package's folder `pages`."""

    prompt: str
    pages: tuple[str, ...] = ()
    constraints: tuple[Constraint, ...] = Field(min_length=1)


class _File(Record):
    """The data file: per family its rows, in the order of their numbers."""

    explain: tuple[_Row, ...]
    plan: tuple[_Row, ...]
    compare: tuple[_Row, ...]
    write: tuple[_Row, ...]
    research: tuple[_Row, ...]


@dataclass(frozen=True, repr=False)
class ConstraintsGrader:
    """Right when the answer meets every constraint of its task; its score is the share that it meets."""

    task: OpenTask

    async def grade(self, answer: str, rooms: Rooms) -> Grade:  # noqa: ARG002 - constraints need no room
        """See `Grader.grade`."""
        met = self.task.score(answer)
        return Grade(right=all(met), score=sum(met) / len(met), outcome="right" if all(met) else "wrong")


def _content() -> bytes:
    return files(__package__).joinpath(_FILE).read_bytes()


@cache
def _rows() -> dict[str, _Row]:
    """Return the data file's rows by task id."""
    families: dict[str, tuple[_Row, ...]] = dict(_File.model_validate(tomllib.loads(_content().decode("utf-8"))))
    return {
        f"open/{family}/{number:02}": row for family, rows in families.items() for number, row in enumerate(rows, 1)
    }


def tasks(pages_url: str) -> list[OpenTask]:
    """Return the sixty tasks.

    Args:
        pages_url: where `serve_pages` serves the pages that research tasks name, without a slash at its end.
    """
    return [
        OpenTask(
            id=name,
            task=Task(id=name, prompt=row.prompt, urls=tuple(f"{pages_url}/{page}" for page in row.pages)),
            constraints=row.constraints,
        )
        for name, row in _rows().items()
    ]


def problems(pages_url: str, families: Sequence[str], seed: int) -> list[Problem]:
    """Return the tasks of these families as problems, one of each family in turn, in an order that the seed sets.

    The baseline, which has no browser, gets the pages' text in its prompt.
    """
    left = {family: [task for task in tasks(pages_url) if task.family == family] for family in families}
    for family, own in left.items():
        random.Random(f"{seed}/{family}").shuffle(own)
    made: list[Problem] = []
    while any(left.values()):
        turn = [family for family in left if left[family]]
        random.Random(f"{seed}/{len(made)}").shuffle(turn)
        made += [_problem(left[family].pop()) for family in turn]
    return made


def _problem(task: OpenTask) -> Problem:
    row = _rows()[task.id]
    pages = [_PAGE.format(name=name, text=page_text(name)) for name in row.pages]
    return Problem(
        task=task.task, grader=ConstraintsGrader(task), plain="\n\n".join([*pages, row.prompt]), reply="whole"
    )


def check_families(names: Sequence[str]) -> tuple[str, ...]:
    """Return the families without repeats, all of them where none is named. Raises UnknownName."""
    for name in names:
        if name not in FAMILIES:
            raise UnknownName("family", name, list(FAMILIES))
    return tuple(dict.fromkeys(names)) or FAMILIES


def digest() -> str:
    """Return the SHA-256 of the tasks and the pages that they stand on."""
    found = hashlib.sha256(_content())
    for name, page in contents().items():
        found.update(name.encode() + b"\n" + page)
    return found.hexdigest()
