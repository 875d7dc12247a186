"""What policies make of recorded searches: accuracy against cost, task by task.

Costs are compared at equal accuracy: the learned policy's frontier over `value` is read off, between its points, at the
accuracy of the rule that it is compared with. Intervals are 95% bootstrap intervals over tasks, each draw of which goes
through the whole comparison.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from ponder.bench.records.offline import INDEPENDENT
from ponder.bench.records.recording import by_strategy
from ponder.errors import UsageError
from ponder.policies.checks_and_votes import ChecksAndVotes
from ponder.policies.full_depth import FullDepth
from ponder.policies.learned import LearnedStop, Weights
from ponder.policies.replay.guarantees import Held, Kept, held, kept
from ponder.policies.replay.past import Prefix
from ponder.policies.replay.traces import Replay, Trace, replayed
from ponder.policies.rules import AdaptiveConsistency, EarlyStopping, FixedN
from ponder.policies.train import worth
from ponder.protocols import StopPolicy
from ponder.records import Record
from ponder.stats import Interval

VALUES = (
    50.0, 100.0, 200.0, 400.0, 550.0, 700.0, 850.0, 1000.0, 1250.0, 1500.0, 1750.0, 2000.0, 2500.0, 3000.0, 4000.0,
    6000.0, 8000.0, 16e3, 32e3, 64e3, 25e4, 1e6,
)  # fmt: skip
"""What a right answer is worth, for the learned policy's frontier."""
STEPS = (1, 4, 5, 8)
"""Samples at once that rules are tried with."""
MOST, FIXED, CHECKED = 16, (4, 8), (0.02, 0.05, 0.1)
DRAWS = 2000


class Outcome(Record):
    """What one policy makes of one search."""

    right: float
    """0 or 1; of a suite that is scored, the score."""
    cost: float


class Row(Record):
    """A policy on a set of tasks: a point of the frontier."""

    policy: str
    value: float | None
    """What a right answer was worth, for the learned policy."""
    tasks: int
    accuracy: Interval
    cost: Interval
    """A task's, in prices (by default CPU seconds)."""
    saved: Interval
    """The share of the full depth's cost that it saves."""
    difference: Interval
    """Its accuracy less that of the full depth, task by task."""


class Against(Record):
    """The learned policy against a rule, where the two are equally accurate."""

    rule: str
    step: int
    """Samples that the rule takes at once: of those that were tried, the one that suits it best."""
    accuracy: Interval
    cost: Interval
    saved: Interval
    """The share of the rule's cost that the learned policy saves."""


class Evaluation(Record):
    """What a policy makes of records that it has not seen."""

    core: str
    records: tuple[str, ...]
    strategy: str
    tasks: int
    full: Row
    rows: tuple[Row, ...]
    """The learned policy by value, then the rules; `oracle` stops each search where it is best."""
    chosen: Row
    """The learned policy at the value that was asked for."""
    against: tuple[Against, ...]
    guarantees: tuple[Held, ...]
    """Of searches by trees: see `certificates`."""
    shipped: tuple[Kept, ...] = ()

    @property
    def frontier(self) -> tuple[Row, ...]:
        """The full depth, the learned policy by value (also at the one that was asked for), and the rules."""
        asked = () if self.chosen.value in {one.value for one in self.rows} else (self.chosen,)
        learned = [one for one in (*self.rows, *asked) if one.value is not None]
        rules = [one for one in self.rows if one.value is None]
        return (self.full, *sorted(learned, key=lambda one: one.value or 0.0), *rules)

    def points(self) -> dict[str, list[tuple[float, float]]]:
        """Return cost and accuracy of each policy's points, as `draw_frontier` takes them."""
        found: dict[str, list[tuple[float, float]]] = {}
        for one in (self.full, *self.rows):
            found.setdefault(one.policy, []).append((one.cost.value, one.accuracy.value))
        return found

    def summary(self) -> dict[str, Any]:
        """Return the few figures of `ponder policy eval --json`: fractions of 1, but for the points."""
        saved = {one.rule: one.saved.value for one in self.against}
        return {
            "cpu_saved": self.chosen.saved.value,
            "accuracy_difference_points": 100 * self.chosen.difference.value,
            "accuracy_lower_bound_points": 100 * self.chosen.difference.low,
            "cpu_saved_vs_adaptive_consistency": saved[AdaptiveConsistency.name],
            "cpu_saved_vs_esc": saved[EarlyStopping.name],
            "guarantee_held": any(one.certified for one in self.guarantees)
            and all(one.is_held for one in self.guarantees if one.certified),
        }


def evaluate(
    weights: Weights, replay: Replay, folders: Sequence[Path], *, value: float, risks: Sequence[float] = CHECKED
) -> Evaluation:
    """Return what the policy makes of recorded searches, against full depth and against rules.

    Args:
        folders: packed records of one strategy; tasks that the policy was trained on are left out.
        value: what a right answer is worth.

    Raises:
        UsageError: there are no records of other tasks, of several strategies, of a task twice, or they cost nothing.
        ImportError: pyarrow or scipy is not installed.
    """
    names = by_strategy(folders)
    if len(names) != 1:
        raise UsageError(f"these are searches of {', '.join(sorted(names)) or 'no strategy'}", fix="name one's")
    (strategy,) = names
    steps, whole = (STEPS, MOST) if strategy == INDEPENDENT else ((replay.step,), replay.step)
    seen = {
        step: unseen(weights, dataclasses.replace(replay, step=step), folders)
        for step in {replay.step, whole, *steps}
    }
    traces = seen[replay.step]
    # All samples at once, where they are independent: a full search has no reason to take them a few at a time.
    full = outcomes(seen[whole], None)
    if not sum(one.cost for one in full):
        raise UsageError("these searches cost nothing at these prices", fix="let one of them be more than 0")
    frontier = [outcomes(traces, LearnedStop(weights, value=one)) for one in VALUES]
    chosen_of = outcomes(traces, LearnedStop(weights, value=value))
    chosen = row(chosen_of, full, policy=LearnedStop.name, value=value)
    rows = [row(one, full, policy=LearnedStop.name, value=at) for one, at in zip(frontier, VALUES, strict=True)]
    plain: tuple[StopPolicy, ...] = (ChecksAndVotes(), *map(FixedN, FIXED))
    rows += [row(outcomes(traces, rule), full, policy=rule.name) for rule in plain]
    rows.append(row(oracle(traces), full, policy="oracle"))
    against = []
    for rule in (AdaptiveConsistency(), EarlyStopping()):
        tried = [(step, outcomes(seen[step], rule)) for step in steps]
        # A value without bound is the full search: the frontier ends there.
        saved = [(saved_at_equal_accuracy([*frontier, full], found), step, found) for step, found in tried]
        least, step, found = min(saved, key=lambda one: one[0].value)
        own = row(found, full, policy=rule.name)
        rows.append(own)
        against.append(Against(rule=rule.name, step=step, accuracy=own.accuracy, cost=own.cost, saved=least))
    return Evaluation(
        core=weights.core, records=tuple(folder.name for folder in folders), strategy=strategy, tasks=len(chosen_of),
        full=row(full, full, policy=FullDepth.name), rows=tuple(rows), chosen=chosen, against=tuple(against),
        guarantees=tuple(held(weights, traces, risk) for risk in risks if strategy != INDEPENDENT),
        shipped=tuple(kept(weights, traces, one) for one in weights.certificates
                      if one.strategy == strategy and one.threshold is not None and one.risk in risks),
    )  # fmt: skip


def unseen(weights: Weights, replay: Replay, folders: Sequence[Path]) -> list[Trace]:
    """Return the recorded searches of tasks that neither the policy nor the judge's probability was fitted on.

    Raises:
        UsageError: there are none, or two of one task by one strategy.
    """
    found, where = list[Trace](), dict[tuple[str, str], Path]()
    known = {*weights.tasks, *chain.from_iterable(replay.calibration.tasks.values())}
    for folder in folders:
        own = [trace for trace in replay.traces(folder) if trace.task not in known]
        for key in sorted({(trace.strategy, trace.task) for trace in own}):
            if key in where:
                raise UsageError(f"{key[1]} is recorded in {where[key].name} and in {folder.name}", fix="name one only")
            where[key] = folder
        found += own
    if not found:
        raise UsageError("the policy or the judge was trained on all of these tasks", fix="name some that are held out")
    return found


def outcome(trace: Trace, at: Prefix) -> Outcome:
    """Return what a search comes to that ends at one of its places."""
    return Outcome(right=worth(trace.suite, at), cost=at.cost)


def outcomes(traces: Sequence[Trace], policy: StopPolicy | None) -> list[Outcome]:
    """Return what a policy makes of each search, on average over the orders it is seen in; None: the full depth."""
    return _each(traces, lambda trace: trace.full if policy is None else replayed(trace, policy).at)


def oracle(traces: Sequence[Trace]) -> list[Outcome]:
    """Return what each search would come to that ends where it is best, at the first such place: what can be had."""
    def best(trace: Trace) -> Prefix:
        return max(trace.prefixes, key=lambda at: (outcome(trace, at).right, -at.cost))

    return _each(traces, best)


def _each(traces: Sequence[Trace], place: Callable[[Trace], Prefix]) -> list[Outcome]:
    found: dict[tuple[str, str], list[Outcome]] = {}
    for trace in traces:
        found.setdefault((trace.suite, trace.task), []).append(outcome(trace, place(trace)))
    return [Outcome(right=fmean(one.right for one in own), cost=fmean(one.cost for one in own))
            for own in found.values()]  # fmt: skip


def row(found: Sequence[Outcome], full: Sequence[Outcome], *, policy: str, value: float | None = None) -> Row:
    """Return one point of the frontier, against the same tasks at full depth."""
    right, cost = _means(found)
    full_right, full_cost = _means(full)
    return Row(
        policy=policy, value=value, tasks=len(found), accuracy=_interval(right), cost=_interval(cost),
        saved=_interval(_share_saved(cost, full_cost)), difference=_interval(right - full_right),
    )  # fmt: skip


def saved_at_equal_accuracy(frontier: Sequence[Sequence[Outcome]], rule: Sequence[Outcome]) -> Interval:
    """Return the share of a rule's cost that the frontier saves where it is as accurate.

    Where it is nowhere so accurate it saves nothing, and what its most accurate point costs more than the rule is lost.

    Args:
        frontier: outcomes on the same tasks, a list for each point.
    """
    import numpy as np

    right, cost = _means(rule)
    points = [_means(point) for point in frontier]
    found = []
    for draw in range(len(right)):
        own = [(float(r[draw]), float(c[draw])) for r, c in points]
        costs = cost_at(own, float(right[draw]))
        if math.isinf(costs):
            costs = max(max(own)[1], float(cost[draw]))
        found.append(costs)
    return _interval(_share_saved(np.asarray(found), cost))


def _share_saved(costs: Any, of: Any) -> Any:
    """Return the shares that are saved, draw by draw: nothing of what costs nothing."""
    import numpy as np

    return np.where(of > 0, 1 - costs / np.where(of > 0, of, 1.0), 0.0)


def cost_at(points: Sequence[tuple[float, float]], accuracy: float) -> float:
    """Return what a frontier's points cost at an accuracy: the cheapest mix of two points that is as accurate.

    Of two policies, each used for a share of the tasks, accuracy and cost are the mean: what lies between points can be
    had. Where no point is so accurate, infinity.
    """
    below = [(right, cost) for right, cost in points if right < accuracy]
    above = [(right, cost) for right, cost in points if right >= accuracy]
    if not above:
        return math.inf
    mixes = [
        low_cost + (accuracy - low) / (high - low) * (high_cost - low_cost)
        for low, low_cost in below
        for high, high_cost in above
    ]
    return min([cost for _, cost in above] + mixes)


def _means(found: Sequence[Outcome]) -> tuple[Any, Any]:
    """Return accuracy and mean cost: of all tasks first, then of each bootstrap draw of them."""
    import numpy as np

    n = len(found)
    drawn = np.random.default_rng(2026).integers(n, size=(DRAWS, n))  # the same draws for all policies: paired
    figures = np.asarray([[one.right, one.cost] for one in found])
    means = np.concatenate([figures.mean(axis=0)[None], figures[drawn].mean(axis=1)])
    return means[:, 0], means[:, 1]


def _interval(values: Any) -> Interval:
    """Return the first value with the percentile interval of the others."""
    import numpy as np

    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Interval(value=float(values[0]), low=float(low), high=float(high))
