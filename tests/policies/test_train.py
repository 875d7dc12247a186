"""Training on recorded searches: what is learned, what is certified, and records that are too few."""

from __future__ import annotations

import dataclasses
import random

import pytest

from ponder.errors import UsageError
from ponder.policies.learned import LearnedStop, Weights
from ponder.policies.replay.traces import Trace, replayed
from ponder.policies.train import Snapshot, certificates, part_of, snapshots, train

from .searches import made


@pytest.fixture(scope="module")
def traces() -> list[Trace]:
    draw = random.Random(1)
    return [made(task, draw) for task in range(300)]


@pytest.fixture(scope="module")
def weights(traces: list[Trace]) -> Weights:
    return train(traces, core="c", records=["r"])


def test_it_stops_where_answers_agree_and_goes_on_where_they_do_not(traces: list[Trace], weights: Weights) -> None:
    policy = LearnedStop(weights, value=100.0)
    stops = [(trace.prefixes[0].features.counts == (4,), replayed(trace, policy).at) for trace in traces]
    agreed = [at.cpu_s for easy, at in stops if easy]
    others = [at.cpu_s for easy, at in stops if not easy]
    assert sum(agreed) / len(agreed) < 15 < sum(others) / len(others)


def test_a_right_answer_that_is_worth_more_is_searched_for_longer(traces: list[Trace], weights: Weights) -> None:
    spent = [
        sum(replayed(trace, LearnedStop(weights, value=value)).at.cpu_s for trace in traces)
        for value in (1.0, 50.0, 1e4)
    ]
    assert spent[0] < spent[1] < spent[2]


def test_thresholds_rest_on_tasks_that_no_model_has_seen(traces: list[Trace], weights: Weights) -> None:
    held = [trace for trace in traces if part_of(f"s/{trace.task}") >= 0.6]
    assert weights.certificates == tuple(certificates(weights, held))
    assert {one.tasks for one in weights.certificates} == {sum(trace.full.right for trace in held)}
    assert {(one.strategy, one.samples) for one in weights.certificates} == {("auto", 16)}
    assert 90 < len(held) < 150
    by_risk = {one.risk: one for one in weights.certificates}
    assert by_risk[0.2].threshold is not None
    policy = LearnedStop(weights, risk=0.2)
    lost = [replayed(trace, policy).at.right < 1 for trace in held if trace.full.right]
    assert sum(lost) == by_risk[0.2].losses


def test_a_task_counts_once_in_a_certificate_and_strategies_are_apart(traces: list[Trace], weights: Weights) -> None:
    held = [trace for trace in traces if part_of(f"s/{trace.task}") >= 0.6]
    assert certificates(weights, [*held, *held]) == certificates(weights, held)
    both = [*held, *(dataclasses.replace(trace, strategy="mcts") for trace in held[:20])]
    found = {(one.strategy, one.risk): one.tasks for one in certificates(weights, both)}
    assert found["auto", 0.2] == sum(trace.full.right for trace in held)
    assert found["mcts", 0.2] == sum(trace.full.right for trace in held[:20])


def test_independent_samples_are_not_certified(traces: list[Trace], weights: Weights) -> None:
    """Replay looks at them a few at a time, a live search after each that ends."""
    held = [dataclasses.replace(trace, strategy="self-consistency") for trace in traces[:100]]
    assert certificates(weights, held) == []


def test_training_is_the_same_each_time(traces: list[Trace], weights: Weights) -> None:
    assert train(traces, core="c", records=["r"]) == weights


def test_a_search_is_seen_at_each_place_but_the_last(traces: list[Trace]) -> None:
    taken = snapshots(traces[0])
    assert [one.next for one in taken] == [prefix.right for prefix in traces[0].prefixes[1:]]
    assert {one.end for one in taken} == {traces[0].full.right}
    assert [one.target("now")[0] for one in taken] == [one.now for one in taken]
    assert [one.weight for one in taken] == [0.75, 0.5, 0.25], "the share of the cost that is left"


def test_what_is_found_is_a_share_of_what_can_be() -> None:
    text = Snapshot(task="t", kind="texts", share=1.0, weight=0.5, values={}, now=0.6, next=0.8, end=0.3)
    assert text.target("found_next") == (pytest.approx(0.5), pytest.approx(0.2))
    assert text.target("found_end") == (0.0, pytest.approx(0.2))
    right = text.model_copy(update={"now": 1.0, "next": 1.0, "end": 0.0})
    assert right.target("found_end") == (0.0, 0.0), "nothing is left to find: it counts for nothing"


def test_too_few_records_are_a_clear_line(traces: list[Trace]) -> None:
    with pytest.raises(UsageError, match="3 recorded searches are too few to train on"):
        train(traces[:3], core="c", records=["r"])
