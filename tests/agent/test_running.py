"""What a result tells besides the answer."""

from __future__ import annotations

from typing import Any

import pytest

from ponder.records import Answer, Observation, SuccessCriterion, Task
from ponder.running import endless_tests

TESTS = Task(prompt="q", success=SuccessCriterion(kind="tests", visible=("assert f(1) == 1",)))
LATE = "0 of 1 tests passed.\nFAILED assert f(1) == 1: the test did not end within 17.0 s"


def checked(text: str) -> Observation:
    return Observation(tool="python", ok=False, text=text, passed=0, total=1)


@pytest.mark.parametrize(
    ("reports", "warned"), [([LATE, LATE], True), ([LATE], False), ([LATE, "0 of 1 tests passed."], False), ([], False)]
)
def test_tests_that_no_program_comes_to_the_end_of(grow: Any, reports: list[str], warned: bool) -> None:
    maker = grow(TESTS)
    for number, report in enumerate(reports):
        maker.add(Answer(text=f"def f(x): return {number}"), seen=checked(report))
    told = endless_tests(maker.tree)
    assert (told is not None) == warned
    assert told is None or "none of 2 programs" in told
