"""Strategies at the same CPU: each recorded search is cut off where its share of the CPU is used up.

A strategy that spends more on a task is given less of it, by one bound of CPU seconds for all of its tasks, such that
its tasks cost so much on average: as much as one says, or as much as those of the strategy that it is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ponder.bench.records.offline import Search
from ponder.judges.choosing import choose
from ponder.records import Record
from ponder.stats import Interval, paired_bootstrap

_HALVINGS = 60


class Matched(Record):
    """One strategy against another on the same tasks, at the same mean CPU."""

    tasks: int
    own: Interval
    """Accuracy of the first strategy, cut off."""
    other: Interval
    """Accuracy of the other one, cut off."""
    ahead: Interval
    """The first less the other, task by task."""
    cpu_s: float
    """Of the first strategy, a task."""
    other_cpu_s: float
    """Of the other: less, where all it has costs less."""
    own_bound_s: float
    """Where the first one's tasks are cut off; infinite: nowhere."""
    bound_s: float
    """Where the other's are."""


def costing(search: Search, total_s: float) -> Search:
    """Return a search that costs so many CPU seconds in all, each part of it as much more or less."""
    times = total_s / search.cost.total_s if search.cost.total_s else 1.0
    spent = {node: by * times for node, by in search.spent.items()}
    return replace(search, spent=spent, cost=replace(search.cost, total_s=total_s))


def picked_within(search: Search, bound_s: float) -> float:
    """Return 1 where the judge picks a right answer among what was there after so many CPU seconds, else 0."""
    there = [one for sample in search.samples for one in sample if search.spent[one.node] <= bound_s]
    best = choose(sorted(there, key=lambda one: one.node), search.tests)
    return float(best is not None and search.right[best.node])


def bound_for(found: Sequence[Search], mean_s: float) -> float:
    """Return the bound at which these searches cost so many CPU seconds on average; infinite: they never do."""
    if mean_within(found, math.inf) <= mean_s:
        return math.inf
    low, high = 0.0, max(search.cost.total_s for search in found)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if mean_within(found, middle) < mean_s:
            low = middle
        else:
            high = middle
    return low


def mean_within(found: Sequence[Search], bound_s: float) -> float:
    """Return what these searches cost on average when each is cut off after so many CPU seconds."""
    return sum(min(search.cost.total_s, bound_s) for search in found) / len(found)


def match(own: Sequence[Search], other: Sequence[Search], mean_s: float = math.inf) -> Matched:
    """Compare two strategies on the tasks that both have searched.

    Args:
        own: of the first strategy.
        other: of the other one.
        mean_s: CPU seconds that a task may cost on average; infinite: what the first strategy's cost with all it has.

    Raises:
        ValueError: there are none, or a budget ended searches before their share of the CPU was used up.
    """
    ours, theirs = _by_task(own), _by_task(other)
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        raise ValueError("the two have no task in common")
    first, second = [ours[key] for key in both], [theirs[key] for key in both]
    own_bound_s = bound_for(first, mean_s)
    cpu_s = mean_within(first, own_bound_s)
    bound_s = bound_for(second, cpu_s)
    for found, bound in ((first, own_bound_s if math.isfinite(mean_s) else -math.inf), (second, bound_s)):
        if any(search.ended_by_budget and search.cost.total_s < bound for search in found):
            raise ValueError("a budget ended searches too soon for this comparison: record them with a larger one")
    one, two = [picked_within(each, own_bound_s) for each in first], [picked_within(each, bound_s) for each in second]
    return Matched(
        tasks=len(both),
        own=paired_bootstrap(one),
        other=paired_bootstrap(two),
        ahead=paired_bootstrap([a - b for a, b in zip(one, two, strict=True)]),
        cpu_s=cpu_s,
        other_cpu_s=mean_within(second, bound_s),
        own_bound_s=own_bound_s,
        bound_s=bound_s,
    )


def _by_task(found: Sequence[Search]) -> Mapping[tuple[str, str], Search]:
    return {(search.suite, search.task): search for search in found}
