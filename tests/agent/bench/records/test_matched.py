"""Two strategies at the same CPU."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ponder.bench.records.matched import bound_for, costing, match, picked_within
from ponder.bench.records.offline import Cost, Search
from ponder.judges.candidates import Candidate


def search(task: str, answers: str, right: str, *, each: float, independent: bool = True) -> Search:
    """Return a search of one-letter answers in their order, each of which cost so many CPU seconds."""
    found = [
        Candidate(node=place, answer=answer, key=answer)
        for place, answer in enumerate(answers, 1)
    ]
    return Search(
        "s", task, independent=independent, samples=tuple((one,) for one in found), tests=(),
        right={one.node: one.answer in right for one in found}, cost=Cost(total_s=each * len(found)),
        spent={one.node: each * one.node for one in found},
    )  # fmt: skip


def test_what_comes_after_the_bound_does_not_count() -> None:
    one = search("s/1", "baa", "a", each=2.0)
    assert [picked_within(one, bound) for bound in (1.9, 2.0, 4.0, 6.0, math.inf)] == [0, 0, 0, 1, 1]


def test_a_whole_bill_is_parted_as_the_search_was() -> None:
    one = costing(search("s/1", "baa", "a", each=2.0), 12.0)
    assert one.cost.total_s == 12.0
    assert [picked_within(one, bound) for bound in (8.0, 11.9, 12.0)] == [0, 0, 1]


def test_the_bound_makes_the_mean() -> None:
    found = [search("s/1", "aa", "a", each=1.0), search("s/2", "aaaaaaaa", "a", each=1.0)]
    assert bound_for(found, 3.0) == pytest.approx(4.0)
    assert bound_for(found, 1.0) == pytest.approx(1.0)
    assert bound_for(found, 5.0) == math.inf


def test_the_other_strategy_gets_the_cpu_of_the_first() -> None:
    own = [search("s/1", "aa", "a", each=1.0), search("s/2", "bbaaa", "a", each=1.0), search("s/3", "a", "a", each=1.0)]
    other = [search("s/1", "bbaaa", "a", each=1.0), search("s/2", "bbaaa", "a", each=1.0)]
    made = match(own, other)
    assert (made.tasks, made.cpu_s, made.other_cpu_s, made.bound_s) == (2, 3.5, pytest.approx(3.5), pytest.approx(3.5))
    assert (made.own.value, made.other.value, made.ahead.value) == (1.0, 0.0, 1.0)
    assert made.own_bound_s == math.inf


def test_both_can_be_held_to_a_mean() -> None:
    own = [search("s/1", "ba", "a", each=1.0), search("s/2", "bbaaa", "a", each=1.0)]
    other = [search("s/1", "bbaaa", "a", each=1.0), search("s/2", "bbaaa", "a", each=1.0)]
    made = match(own, other, 2.0)
    assert (made.cpu_s, made.other_cpu_s) == (pytest.approx(2.0), pytest.approx(2.0))
    assert (made.own_bound_s, made.bound_s) == (pytest.approx(2.0), pytest.approx(2.0))
    assert (made.own.value, made.other.value) == (0.0, 0.0)
    with pytest.raises(ValueError, match="larger"):
        match([replace(own[0], ended_by_budget=True), own[1]], other, 3.0)


def test_a_search_that_its_budget_ended_too_soon_is_no_match() -> None:
    own = [search("s/1", "aaaa", "a", each=1.0), search("s/2", "aaaa", "a", each=1.0)]
    cut = replace(search("s/1", "aaa", "a", each=1.0), ended_by_budget=True)
    with pytest.raises(ValueError, match="larger"):
        match(own, [cut, search("s/2", "aaaaaa", "a", each=1.0)])
    enough = replace(search("s/1", "aaaaa", "a", each=1.0), ended_by_budget=True)
    assert match(own, [enough, search("s/2", "aaaaaa", "a", each=1.0)]).bound_s == pytest.approx(4.0)


def test_without_a_common_task_there_is_no_comparison() -> None:
    with pytest.raises(ValueError, match="no task"):
        match([search("s/1", "a", "a", each=1.0)], [])
