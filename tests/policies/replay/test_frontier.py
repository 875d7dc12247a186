"""The frontier: costs at equal accuracy, and risks over re-splits."""

from __future__ import annotations

import dataclasses
import math
import random
import shutil
from pathlib import Path

import pytest

from ponder.errors import UsageError
from ponder.judges.calibration import Calibration
from ponder.policies.learned import Weights
from ponder.policies.replay.frontier import (
    Outcome,
    cost_at,
    oracle,
    outcomes,
    row,
    saved_at_equal_accuracy,
    unseen,
)
from ponder.policies.replay.guarantees import held, kept
from ponder.policies.replay.rates import Rates
from ponder.policies.replay.traces import Replay, Trace
from ponder.policies.rules import FixedN
from ponder.policies.train import train

from ..searches import made

pytest.importorskip("pyarrow")

SAMPLE = Path(__file__).parents[2] / "agent" / "bench" / "records" / "sample"


def test_between_two_points_policies_can_be_mixed() -> None:
    points = [(0.6, 10.0), (0.8, 30.0), (0.7, 100.0)]
    assert cost_at(points, 0.8) == 30.0
    assert cost_at(points, 0.7) == pytest.approx(20.0)
    assert cost_at(points, 0.5) == 10.0
    assert cost_at(points, 0.9) == math.inf


def test_savings_are_ratios_of_sums() -> None:
    own = [Outcome(right=1, cost=10), Outcome(right=0, cost=30)]
    full = [Outcome(right=1, cost=20), Outcome(right=1, cost=60)]
    assert row(own, full, policy="p").saved.value == pytest.approx(0.5)
    assert saved_at_equal_accuracy([full, own], own).value == pytest.approx(0.0)
    cheap = [Outcome(right=1, cost=5), Outcome(right=0, cost=5)]
    assert saved_at_equal_accuracy([cheap], own).value == pytest.approx(0.75)
    assert saved_at_equal_accuracy([cheap], full).value == 0.0, "it is nowhere so accurate: nothing is saved"
    assert saved_at_equal_accuracy([[Outcome(right=0, cost=100)] * 2], own).value == -4.0
    assert row(own, full, policy="p").difference.value == -0.5


@pytest.fixture(scope="module")
def trained() -> tuple[Weights, list[Trace]]:
    draw = random.Random(3)
    return (
        train([made(task, draw) for task in range(200)], core="c", records=["r"]),
        [made(task, draw) for task in range(200, 500)],
    )


def test_of_what_costs_nothing_nothing_is_saved() -> None:
    """Few tasks ran code, and only that has a price: some draws of them cost nothing."""
    free = [Outcome(right=1.0, cost=0.0)] * 7
    rule, own = [*free, Outcome(right=1.0, cost=10.0)], [*free, Outcome(right=1.0, cost=5.0)]
    found = saved_at_equal_accuracy([own], rule)
    assert (found.value, found.low, found.high) == (0.5, 0.0, 0.5)
    assert row(own, rule, policy="p").saved.value == 0.5


def test_a_smaller_n_is_cheaper_and_worse(trained: tuple[Weights, list[Trace]]) -> None:
    _, traces = trained
    full = outcomes(traces, None)
    found = [row(outcomes(traces, FixedN(n)), full, policy=f"fixed-{n}") for n in (4, 8, 16)]
    assert [one.saved.value for one in found] == [pytest.approx(0.75), pytest.approx(0.5), pytest.approx(0.0)]
    assert found[0].accuracy.value < found[2].accuracy.value
    assert found[2].difference.value == 0


def test_an_oracle_is_the_most_that_can_be_had(trained: tuple[Weights, list[Trace]]) -> None:
    _, traces = trained
    best = oracle(traces)
    for n in (4, 8, 16):
        assert all(one.right >= other.right for one, other in zip(best, outcomes(traces, FixedN(n)), strict=True))
    never = [one.cost for one in best if not one.right]
    assert set(never) == {10.0}, "what is never right ends at once"


def test_a_certified_risk_is_held_over_re_splits(trained: tuple[Weights, list[Trace]]) -> None:
    weights, traces = trained
    found = held(weights, traces, 0.2, splits=20)
    assert found.certified == 20
    assert found.is_held
    assert 0 < found.loss < 0.2
    assert 0 <= found.over <= 1
    assert "more than the risk in" in found.told
    none = held(weights, traces[:20], 0.05, splits=5)
    assert (none.certified, none.is_held) == (0, False)
    assert none.told == "risk 5%: cannot be certified in any of 5 re-splits"


def test_what_a_certificate_of_the_policy_comes_to(trained: tuple[Weights, list[Trace]]) -> None:
    weights, traces = trained
    own = next(one for one in weights.certificates if one.risk == 0.2)
    found = kept(weights, traces, own)
    assert found.tasks == sum(trace.full.right for trace in traces)
    assert 0 < found.lost < 0.2 * found.tasks
    assert "certificate of risk 20% is kept" in found.told
    with pytest.raises(ValueError, match="nothing was certified"):
        kept(weights, traces, own.model_copy(update={"threshold": None}))


def test_nothing_is_measured_on_tasks_that_were_trained_on(tmp_path: Path) -> None:
    replay = Replay(Rates(core="c", prompt_token_s=0.01, token_s={1: 0.1}))
    every = [trace.task for trace in replay.traces(SAMPLE)]
    weights = Weights(features=5, core="c", records=(), models=(), careful=(), tasks=tuple(every[1:]))
    assert {trace.task for trace in unseen(weights, replay, [SAMPLE])} == set(every[:1])
    with pytest.raises(UsageError, match="trained on all of these tasks"):
        unseen(weights.model_copy(update={"tasks": tuple(every)}), replay, [SAMPLE])
    judged = dataclasses.replace(replay, calibration=Calibration(tasks={"c": tuple(every)}))
    with pytest.raises(UsageError, match="trained on all of these tasks"):
        unseen(weights, judged, [SAMPLE])
    copy = shutil.copytree(SAMPLE, tmp_path / "copy")
    with pytest.raises(UsageError, match="is recorded in sample and in copy"):
        unseen(weights, replay, [SAMPLE, copy])
