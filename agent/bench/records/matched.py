"""Strategies at the same CPU: each recorded search is cut off where its share of the CPU is used up.

A strategy that spends more on a task is given less of it, by one bound of CPU seconds for all of its tasks, such that
its tasks cost as much on average as those of the strategy that it is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ponder.bench.records.offline import Search
from ponder.judges.choosing import choose
from ponder.records import Record
from ponder.stats import Interval, paired_bootstrap

_HALVINGS = 60


class Matched(Record):
    """One strategy against another on the same tasks, at the same mean CPU."""

    tasks: int
    own: Interval
    """Accuracy of the first strategy, whole."""
    other: Interval
    """Accuracy of the other one, cut off."""
    ahead: Interval
    """The first less the other, task by task."""
    cpu_s: float
    """Of the first strategy, a task."""
    other_cpu_s: float
    """Of the other, cut off: less, where all it has costs less."""
    bound_s: float
    """Where the other's tasks are cut off; infinite: nowhere."""
    other_whole: Interval
    """Accuracy of the other strategy with all that it recorded."""
    other_whole_cpu_s: float


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


def match(own: Sequence[Search], other: Sequence[Search]) -> Matched:
    """Compare two strategies on the tasks that both have searched.

    Raises:
        ValueError: there are none, or a budget ended searches before their share of the CPU was used up.
    """
    ours, theirs = _by_task(own), _by_task(other)
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        raise ValueError("the two have no task in common")
    first, second = [ours[key] for key in both], [theirs[key] for key in both]
    cpu_s = mean_within(first, math.inf)
    bound_s = bound_for(second, cpu_s)
    if any(search.ended_by_budget and search.cost.total_s < bound_s for search in second):
        raise ValueError("a budget ended searches too soon for this comparison: record them with a larger one")
    whole, cut = [picked_within(one, math.inf) for one in first], [picked_within(one, bound_s) for one in second]
    return Matched(
        tasks=len(both),
        own=paired_bootstrap(whole),
        other=paired_bootstrap(cut),
        ahead=paired_bootstrap([a - b for a, b in zip(whole, cut, strict=True)]),
        cpu_s=cpu_s,
        other_cpu_s=mean_within(second, bound_s),
        bound_s=bound_s,
        other_whole=paired_bootstrap([picked_within(one, math.inf) for one in second]),
        other_whole_cpu_s=mean_within(second, math.inf),
    )


def _by_task(found: Sequence[Search]) -> Mapping[tuple[str, str], Search]:
    return {(search.suite, search.task): search for search in found}
