"""Risk control: what is certified holds, and what a record cannot show is not claimed."""

from __future__ import annotations

import random

import pytest

from ponder.policies.risk import certify, lower_bound, tail, tasks_needed


def test_so_many_tasks_are_needed() -> None:
    """By hand: 0.95**58 = 0.0510, 0.95**59 = 0.0485; 0.9**28 = 0.052, 0.9**29 = 0.047; 0.98**149 = 0.0493."""
    assert [tasks_needed(risk) for risk in (0.05, 0.1, 0.02)] == [59, 29, 149]
    assert tail(0, 59, 0.05) < 0.05 < tail(0, 58, 0.05)


def test_the_least_careful_threshold_that_passes_before_one_fails() -> None:
    made = certify([0.9, 0.8, 0.7, 0.6], [0, 0, 9, 0], 100, 0.05)
    assert (made.threshold, made.losses, made.tasks) == (0.8, 0, 100)
    assert made.why == "risk 5.0% at 95% confidence: 0 of 100 calibration tasks were lost"


def test_what_a_record_cannot_show_is_not_claimed() -> None:
    small = certify([0.9, 0.8], [0, 0], 50, 0.05)
    assert small.threshold is None
    assert small.why == "risk 5.0% cannot be certified with this record: 50 tasks, 59 are needed"
    lost = certify([0.9, 0.8], [7, 9], 100, 0.05)
    assert lost.threshold is None
    assert lost.why == "risk 5.0% cannot be certified with this record: 7 of 100 tasks were lost"
    assert certify([], [], 0, 0.1).threshold is None


@pytest.mark.parametrize("risk", [0.0, -0.1, 1.0, 5.0])
def test_an_impossible_risk_is_refused(risk: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        certify([0.5], [0], 10, risk)


def test_the_guarantee_holds_over_many_records() -> None:
    """Thresholds that lose 1% to 20% of tasks: the chosen one loses more than 5% in at most 5% of records."""
    draw, thresholds = random.Random(7), [1 - loss for loss in (0.01, 0.02, 0.04, 0.06, 0.1, 0.2)]
    broken = 0
    for _ in range(400):
        tasks = [draw.random() for _ in range(120)]
        losses = [sum(one < 1 - threshold for one in tasks) for threshold in thresholds]
        chosen = certify(thresholds, losses, len(tasks), 0.05).threshold
        broken += chosen is not None and 1 - chosen > 0.05
    assert broken <= 400 * 0.07


def test_the_lower_bound_is_the_exact_one() -> None:
    """Clopper-Pearson: P(at least k losses) at the bound is 5%."""
    assert lower_bound(0, 100) == 0.0
    for losses, tasks in ((1, 10), (5, 100), (10, 10)):
        assert 1 - tail(losses - 1, tasks, lower_bound(losses, tasks)) == pytest.approx(0.05)
