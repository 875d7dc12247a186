"""Stop v1: every reason, exactly."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ponder.policies.checks_and_votes import ChecksAndVotes
from ponder.records import Features

POLICY = ChecksAndVotes()


def features(**given: Any) -> Features:
    base: dict[str, Any] = {
        "rounds": 1, "samples": 3, "answered": 3, "pending": 0, "max_samples": 8, "votes": (2.0, 1.0),
        "counts": (2, 1),
        "answer_words": 1.0, "checks": 0, "best_passed": None, "failed_steps": 0, "cpu_spent_s": 1.0,
        "wall_spent_s": 1.0, "tokens_spent": 10,
    }  # fmt: skip
    return Features(**{**base, **given})


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"votes": (4.0,), "samples": 2, "answered": 2}, "confident"),
        ({"votes": (4.0,), "samples": 2, "answered": 2, "best_followed": 0.5}, None),  # all of them too short
        ({"votes": (2.0,), "samples": 2, "answered": 2}, None),
        ({"votes": (2.0, 2.0)}, None),
        ({"votes": (5.0, 2.0), "counts": (4, 1), "samples": 7, "answered": 5}, "not_worth_it"),
        ({"votes": (1.0, 1.0, 1.0), "counts": (1, 1, 1), "kind": "texts"}, "not_worth_it"),
        ({"votes": (1.0, 1.0), "counts": (1, 1), "kind": "texts", "samples": 2, "answered": 2}, None),
        ({"votes": (1.0, 1.0, 1.0), "counts": (1, 1, 1), "kind": "texts", "best_followed": 0.5}, None),
        ({"votes": (1.0,), "counts": (1, 1, 1), "kind": "texts"}, "not_worth_it"),  # two do less
        ({"votes": (), "answered": 0, "samples": 4}, "hopeless"),
        ({"votes": (), "answered": 0, "samples": 3}, None),
        ({"checks": 3, "best_passed": 1.0}, "confident"),
        ({"checks": 3, "best_passed": 2 / 3}, None),
        ({"checks": 3, "best_passed": 1.0, "signals": {"log_alike": math.log2(3)}}, "confident"),
        ({"checks": 3, "best_passed": 1.0, "signals": {"log_alike": math.log2(2.9)}}, "confident"),  # on most calls
        ({"checks": 3, "best_passed": 1.0, "signals": {"log_alike": 1.0}}, None),
        ({"checks": 3, "best_passed": 2 / 3, "signals": {"log_alike": 3.0}}, None),
    ],
)
def test_reasons(given: dict[str, Any], reason: str | None) -> None:
    decision = POLICY.decide(features(**given))
    assert decision.reason == reason
    assert decision.stop == (reason is not None)
    assert decision.why


def test_confidence_is_that_of_the_lead() -> None:
    assert POLICY.decide(features(votes=(4.0,))).confidence == pytest.approx(1 - 0.5**5, abs=1e-6)
