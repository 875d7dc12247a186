"""The frontier: costs at equal accuracy, and risks over re-splits."""

from __future__ import annotations

import random

import pytest

from ponder.policies.learned import Weights
from ponder.policies.replay import Trace
from ponder.policies.replay_frontier import Outcome, cost_at, held, outcomes, row, saved_at_equal_accuracy
from ponder.policies.rules import FixedN
from ponder.policies.train import train

from .test_train import made


def test_between_two_points_policies_can_be_mixed() -> None:
    points = [(0.6, 10.0), (0.8, 30.0), (0.7, 100.0)]
    assert cost_at(points, 0.8) == 30.0
    assert cost_at(points, 0.7) == pytest.approx(20.0)
    assert cost_at(points, 0.5) == 10.0
    assert cost_at(points, 0.9) == 30.0


def test_savings_are_ratios_of_sums() -> None:
    own = [Outcome(right=1, cost=10), Outcome(right=0, cost=30)]
    full = [Outcome(right=1, cost=20), Outcome(right=1, cost=60)]
    assert row(own, full, policy="p").saved.value == pytest.approx(0.5)
    assert saved_at_equal_accuracy([full, own], own).value == pytest.approx(0.0)
    cheap = [Outcome(right=1, cost=5), Outcome(right=0, cost=5)]
    assert saved_at_equal_accuracy([cheap], own).value == pytest.approx(0.75)
    assert row(own, full, policy="p").difference.value == -0.5


@pytest.fixture(scope="module")
def trained() -> tuple[Weights, list[Trace]]:
    draw = random.Random(3)
    return (
        train([made(task, draw) for task in range(200)], core="c", records=["r"]),
        [made(task, draw) for task in range(200, 500)],
    )


def test_a_smaller_n_is_cheaper_and_worse(trained: tuple[Weights, list[Trace]]) -> None:
    _, traces = trained
    full = outcomes(traces, None)
    found = [row(outcomes(traces, FixedN(n)), full, policy=f"fixed-{n}") for n in (4, 8, 16)]
    assert [one.saved.value for one in found] == [pytest.approx(0.75), pytest.approx(0.5), pytest.approx(0.0)]
    assert found[0].accuracy.value < found[2].accuracy.value
    assert found[2].difference.value == 0


def test_a_certified_risk_is_held_over_re_splits(trained: tuple[Weights, list[Trace]]) -> None:
    weights, traces = trained
    found = held(weights, traces, 0.2, splits=20)
    assert found.certified == 20
    assert found.is_held
    assert 0 < found.loss < 0.2
    none = held(weights, traces[:20], 0.05, splits=5)
    assert (none.certified, none.is_held) == (0, True)
