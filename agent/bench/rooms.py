"""Where answers are graded: a sandbox of the grader's own, apart from any run's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from ponder.background import BackgroundLoop
from ponder.bench.problems import NO_ANSWER, Grade, GradeOutcome, Problem
from ponder.program_tests import stopped_by
from ponder.records import Limits, Outcome, Usage
from ponder.sandboxes import open_sandbox
from ponder.tools.python import PythonTool


class GradingRooms:
    """Grades answers in the background; the sandbox is opened with the first program."""

    def __init__(self) -> None:
        self._loop = BackgroundLoop("ponder-grading")
        self._python: PythonTool | None = None
        self._opening = asyncio.Lock()

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        """Return what an answer is worth. Raises MachineError: it cannot be graded on this machine."""
        if answer is None or not answer.strip():
            return NO_ANSWER
        return self._loop.submit(problem.grader.grade(answer, self)).result()

    async def run_tests(self, program: str, tests: Sequence[str], limits: Limits) -> Grade:
        """See `Rooms.run_tests`. Program and tests run in two sandboxes: the verdict cannot be forged."""
        async with self._opening:  # several may be graded at once
            if self._python is None:
                self._python = PythonTool(await open_sandbox())
        used: list[Usage] = []
        seen = await self._python.check(program, tests, limits=limits, on_usage=used.append)
        return Grade(
            right=seen.ok,
            score=(seen.passed or 0) / seen.total if seen.total else 0.0,
            outcome="right" if seen.ok else _ending(seen.outcome, seen.text),
        )

    def close(self) -> None:
        """Close the sandbox. Safe to call twice."""
        if self._python is not None:
            python, self._python = self._python, None
            self._loop.submit(python.close()).result(timeout=30)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ending(outcome: Outcome, text: str) -> GradeOutcome:
    """Return how a failed check ended, from its outcome and its words: a test that was stopped, or one that failed."""
    if outcome not in ("ok", "error"):
        return outcome
    return stopped_by(text) or "wrong"
