"""Others' rules stop where their papers say."""

from __future__ import annotations

from typing import Any

import pytest

from ponder.policies.rules import AdaptiveConsistency, EarlyStopping, FixedN
from ponder.records import Features


def features(**given: Any) -> Features:
    base: dict[str, Any] = {
        "rounds": 1, "samples": 4, "answered": 4, "pending": 0, "max_samples": 16, "votes": (), "answer_words": 1.0,
        "checks": 0, "best_passed": None, "failed_steps": 0, "cpu_spent_s": 1.0, "wall_spent_s": 1.0,
        "tokens_spent": 10,
    }  # fmt: skip
    return Features(**{**base, **given})


def test_fixed_n_counts_samples_with_an_answer_or_without() -> None:
    assert [FixedN(4).decide(features(samples=n)).stop for n in (3, 4, 5)] == [False, True, True]
    with pytest.raises(ValueError, match="no search of 0"):
        FixedN(0)


@pytest.mark.parametrize(
    ("counts", "stop"), [((), False), ((3,), False), ((4,), True), ((5, 1), False), ((7, 1), True)]
)
def test_a_lead_that_will_hardly_be_lost_is_enough(counts: tuple[int, ...], stop: bool) -> None:
    """Chances of the Beta criterion by hand: 1 - 2**-4 = 0.938, 1 - 2**-5 = 0.969, 0.938, 0.980."""
    assert AdaptiveConsistency(0.95).decide(features(counts=counts)).stop is stop


def test_a_window_of_one_answer_is_enough() -> None:
    assert [EarlyStopping(5).decide(features(same_in_a_row=n)).stop for n in (0, 4, 5, 9)] == [False, False, True, True]


def test_rules_look_at_answers_alone() -> None:
    passes = features(checks=3, best_passed=1.0, counts=(1,))
    assert not any(rule.decide(passes).stop for rule in (FixedN(8), AdaptiveConsistency(), EarlyStopping()))
