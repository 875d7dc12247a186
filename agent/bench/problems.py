"""A problem: the task that a search gets, and the grader that alone knows what the right answer is.

The wall between the two is this record. A task that is searched holds no hidden check at all, so nothing that reads
tasks (prompts, judges, strategies, policies, the store of runs) can show one; the grader is called when the run is
over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol, Self

from ponder.policies.hosts import HostRules
from ponder.records import Limits, Outcome, Record, Task

ReplyKind = Literal["program", "number", "text", "whole"]
"""What a plain reply to a problem is read as; `whole`: all of it is the answer."""

GradeOutcome = Literal["right", "wrong", "no answer"] | Outcome
"""How grading ended: besides right and wrong, the limit that stopped the tests (`cpu`, `wall`, `memory`...)."""


class Grade(Record):
    """What an answer is worth."""

    right: bool
    score: float = 0.0
    """In [0, 1]: the share of hidden checks that passed or constraints that are met, or the family's own score."""
    outcome: GradeOutcome


NO_ANSWER = Grade(right=False, outcome="no answer")


class Rooms(Protocol):
    """Where answers are graded, apart from where they are searched for."""

    async def run_tests(self, program: str, tests: Sequence[str], limits: Limits) -> Grade:
        """Run hidden tests against a program in a sandbox of the grader's own. Raises NoSandbox."""


class Grader(Protocol):
    """Knows what a right answer is."""

    async def grade(self, answer: str, rooms: Rooms) -> Grade:
        """Return what an answer is worth. Raises MachineError when the machine, not the answer, is at fault."""


@dataclass(frozen=True)
class Problem:
    """One problem of a suite.

    Raises:
        ValueError: the task holds hidden checks, or has no id.
    """

    task: Task
    grader: Grader = field(repr=False)
    """Never printed: its fields are the hidden part."""
    plain: str
    """The whole prompt of the greedy baseline."""
    reply: ReplyKind

    def __post_init__(self) -> None:
        if self.task.success is not None and self.task.success.hidden:
            raise ValueError("hidden checks belong to the grader, not to the task")
        if not self.task.id:
            raise ValueError("a problem's task has an id")

    @property
    def id(self) -> str:
        """The task's id: `SUITE/...`, the same in every run."""
        assert self.task.id is not None
        return self.task.id


@dataclass(frozen=True)
class Suite:
    """A suite, opened: its problems in the order in which a run takes them, and what identifies them.

    A context manager: what its tasks stand on (pages that are served, reasoning-gym's process) is there until its end.
    """

    name: str
    manifest: dict[str, str | int]
    """What a results file must agree on: the data's digest, or the families and the package's version."""
    size: int
    problems: Callable[[int], Sequence[Problem]]
    """Return the first so many problems: of fewer, always the same ones come first."""
    tools: tuple[str, ...] = ("python",)
    """What a search for its answers may use."""
    hosts: HostRules = field(default_factory=HostRules)
    """Where its pages may lie, for the browser. No part of the manifest: the port is another one in every run."""
    resources: ExitStack = field(default_factory=ExitStack, repr=False)

    def close(self) -> None:
        """End what the tasks stand on. Safe to call twice."""
        self.resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
