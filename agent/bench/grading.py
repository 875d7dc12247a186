"""Graders: hidden tests in the sandbox, a number, a family's own score. Called when a run is over, never before."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from decimal import Decimal

from ponder.answers import final_value, number
from ponder.bench.problems import Grade, Rooms
from ponder.bench.suites.gym_talk import GymTalk
from ponder.records import Limits

TEST_LIMITS = Limits(cpu_s=10.0, wall_s=30.0)
"""Of one answer's hidden tests together. HumanEval's own harness gives 3 s of wall time; a search runs beside this."""

_NUMBERS = re.compile(
    r"(?:(?<![\w.])[-+])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|(?:(?<![\w.])[-+])?\.\d+"
)
"""A minus behind a digit is none: 10-20 ends with 20."""


@dataclass(frozen=True, repr=False)
class ProgramGrader:
    """Right when the program passes every hidden test.

    Args:
        tests: each with all the setup that it needs.
        prelude: code that stands before the program (what the prompt itself defined).
    """

    tests: tuple[str, ...]
    prelude: str = ""
    limits: Limits = TEST_LIMITS

    async def grade(self, answer: str, rooms: Rooms) -> Grade:
        """See `Grader.grade`. A test that never ends is stopped by the limits: outcome `cpu` or `wall`."""
        return await rooms.run_tests(f"{self.prelude}\n\n{answer}" if self.prelude else answer, self.tests, self.limits)


@dataclass(frozen=True, repr=False)
class NumberGrader:
    """Right when the answer is the number, or its last number is."""

    expected: Decimal

    async def grade(self, answer: str, rooms: Rooms) -> Grade:  # noqa: ARG002 - a number needs no room
        """See `Grader.grade`."""
        right = last_number(answer) == self.expected
        return Grade(right=right, score=float(right), outcome="right" if right else "wrong")


@dataclass(frozen=True, repr=False)
class PuzzleGrader:
    """Right when the family's own verifier gives the full score.

    Args:
        talk: with reasoning-gym's process; the suite closes it.
    """

    talk: GymTalk
    family: str
    seed: int
    index: int

    async def grade(self, answer: str, rooms: Rooms) -> Grade:  # noqa: ARG002 - the verifier has its own process
        """See `Grader.grade`. Raises MachineError: reasoning-gym is not there or died."""
        return await asyncio.to_thread(self.talk.score, self.family, self.seed, self.index, answer)


def last_number(text: str) -> Decimal | None:
    """Return the number that a text is, states at its end ("so it is $1,200."), or names last; None without any."""
    value = number(final_value(text))
    if value is not None:
        return value
    found = _NUMBERS.findall(text.replace("\N{MINUS SIGN}", "-"))
    return number(found[-1]) if found else None
