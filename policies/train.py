"""Training of the stop policy on recorded searches, and the calibration of its risk.

What a value is weighed by is fitted on all tasks. What a risk is judged by is not: tasks are parted by a hash of their
names, three fifths fit those models, and the rest only set the thresholds of risks, so that a certificate rests on
tasks which its models have never seen. (What they look at was chosen, and the judge's probability fitted, on all.) It
is of the searches of one strategy: each of its tasks counts once.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from statistics import fmean, pstdev
from typing import Any

from ponder.bench.records.offline import INDEPENDENT
from ponder.errors import UsageError
from ponder.policies.learned import HEADS, Head, Input, Kind, Model, Weights, at_this_rate, inputs, kind_of
from ponder.policies.replay.past import Prefix
from ponder.policies.replay.traces import Trace, as_recorded
from ponder.policies.risk import Certificate, certify
from ponder.records import Features, Record

SCORED = frozenset({"open_ended"})
"""Suites whose answers are not right or wrong, but meet more or fewer constraints: there a better score is the gain."""
RISKS = (0.02, 0.05, 0.1, 0.15, 0.2)
FEWEST = 30
"""Snapshots that a model takes at least."""
FIT_SHARE = 0.6
STRENGTHS = (0.1, 1.0, 10.0)
"""Inverse strengths of the penalty that cross-fitting over tasks chooses from."""
FOLDS = 5
DIGITS = 6
INPUTS: dict[Kind, dict[str, tuple[str, ...]]] = {
    "programs": {"now": ("odds",), "found": ("samples", "doubt")},
    "answers": {"now": ("confidence", "lead"), "found": ("samples", "doubt", "other_open")},
    "texts": {"now": ("left", "followed"), "found": ("left", "followed")},
    "none": {"now": (), "found": ("samples", "failed")},
}
"""By kind of search what is looked at for whether the best answer is right, and for whether a right one is found. There
are few tasks to learn from: of what cross-fitting chose among thirty inputs, the first few; all of them together told
less of training tasks that were left out."""


Course = list[tuple[float, bool]]
"""Of a search, place by place: how likely the policy says that stopping loses it, and whether it does."""


class Snapshot(Record):
    """A recorded search as it stood once, and what became of it. Figures are 0 or 1, or scores between."""

    task: str
    kind: Kind
    share: float
    """What it counts for beside other orders of its search."""
    weight: float
    """What it counts for: the same, times the share of the cost that is left."""
    values: dict[str, float]
    now: float
    next: float
    end: float

    def target(self, head: Head) -> tuple[float, float]:
        """Return what a head is to say, and what this counts for: of a score, what is left to be found."""
        if head == "now":
            return self.now, self.weight
        then, left = self.next if head == "found_next" else self.end, 1 - self.now
        return (max(0.0, then - self.now) / left if left else 0.0), left * self.weight


def worth(suite: str, at: Prefix) -> float:
    """Return what the best answer is worth: right or wrong, or its score."""
    return at.score if suite in SCORED else at.right


def snapshots(trace: Trace) -> list[Snapshot]:
    """Return a search at each place where it could have gone on; each counts for the share of the cost that is left."""
    return [
        Snapshot(
            task=_name(trace), kind=kind_of(one.features), share=trace.weight, weight=trace.weight * _left(trace, one),
            values=dict(inputs(one.features)),
            now=worth(trace.suite, one), next=worth(trace.suite, after), end=worth(trace.suite, trace.full),
        )
        for one, after in zip(trace.prefixes, trace.prefixes[1:], strict=False)
    ]  # fmt: skip


def _left(trace: Trace, at: Prefix) -> float:
    return max(0.0, 1 - at.cost / trace.full.cost) if trace.full.cost else 1.0


def part_of(task: str) -> float:
    """Return a number between 0 and 1 that the task's name gives, the same always."""
    return int.from_bytes(hashlib.sha256(task.encode()).digest()[:8], "big") / 2**64


def train(traces: Sequence[Trace], *, core: str, records: Sequence[str]) -> Weights:
    """Return a policy: models fitted on all tasks, others on a share of them, and thresholds set on the rest.

    Raises:
        UsageError: there are too few searches for any model.
        ImportError: scikit-learn or scipy is not installed.
    """
    fitted = [trace for trace in traces if part_of(_name(trace)) < FIT_SHARE]
    rest = [trace for trace in traces if part_of(_name(trace)) >= FIT_SHARE]
    models = fit(traces)
    if not models:
        there = f"{len(as_recorded(traces))} recorded searches"
        wrong = f"{there} are too few to train on: each kind takes {FEWEST} snapshots"
        raise UsageError(wrong, fix="benchmarks/record.py run makes more")
    version = int(Features.model_fields["version"].default)
    weights = Weights(
        features=version, core=core, records=tuple(records), tasks=tuple(sorted({one.task for one in traces})),
        models=tuple(models), careful=tuple(fit(fitted)),
    )  # fmt: skip
    return weights.model_copy(update={"certificates": tuple(certificates(weights, rest))})


def fit(traces: Sequence[Trace]) -> list[Model]:
    """Return a model for each kind of search that there are enough snapshots of."""
    by_kind: dict[Kind, list[Snapshot]] = defaultdict(list)
    left: dict[Kind, list[tuple[float, float]]] = defaultdict(list)
    for trace in traces:
        for one, prefix in zip(snapshots(trace), trace.prefixes, strict=False):
            by_kind[one.kind].append(one)
            if (naive := at_this_rate(prefix.features)) > 0:
                left[one.kind].append(((trace.full.cost - prefix.cost) / naive, one.share))
    return [
        _model(kind, found, max(0.05, fmean(*zip(*left[kind], strict=True)) if left[kind] else 1.0))
        for kind, found in by_kind.items()
        if _count(found) >= FEWEST
    ]


def _count(found: Sequence[Snapshot]) -> int:
    """Return how many snapshots there are, all orders of a search counted as one."""
    return round(sum(one.share for one in found))


def _model(kind: Kind, found: Sequence[Snapshot], cost_left: float) -> Model:
    names = tuple(dict.fromkeys(chain.from_iterable(INPUTS[kind].values())))
    columns = [[one.values[name] for one in found] for name in names]
    seen = tuple(
        Input(name=name, mean=_short(fmean(values)), scale=_short(pstdev(values)) or 1.0, low=_short(min(values)),
              high=_short(max(values)))
        for name, values in zip(names, columns, strict=True)
    )  # fmt: skip
    scaled = {
        one.name: [one.scaled(value) for value in values] for one, values in zip(seen, columns, strict=True)
    }  # fmt: skip
    bias: dict[Head, float] = {}
    weights: dict[Head, dict[str, float]] = {}
    for head in HEADS:
        used = INPUTS[kind][head.partition("_")[0]]
        bias[head], fitted = _fitted([scaled[name] for name in used], found, head)
        weights[head] = dict(zip(used, fitted, strict=True))
    return Model(kind=kind, inputs=seen, bias=bias, weights=weights, cost_left=_short(cost_left),
                 snapshots=_count(found), tasks=len({one.task for one in found}))  # fmt: skip


def _fitted(columns: list[list[float]], found: Sequence[Snapshot], head: Head) -> tuple[float, tuple[float, ...]]:
    """Return a logistic model's bias and weights; its penalty is what does best on tasks that were left out."""
    import numpy as np

    targets = np.asarray([one.target(head) for one in found])
    there = targets[:, 1] > 0
    y, shares = targets[there, 0], targets[there, 1]
    if not columns or not len(y) or y.max() - y.min() < 1e-9:
        # As the rule of succession says: what never came may come yet.
        mean = (float((y * shares).sum()) + 1) / (float(shares.sum()) + 2)
        return _short(float(np.log(mean / (1 - mean)))), (0.0,) * len(columns)
    x = np.asarray(columns).T[there]
    folds = np.asarray([int(part_of(f"fold {one.task}") * FOLDS) for one in found])[there]
    losses = {strength: _loss(x, y, shares, folds, strength) for strength in STRENGTHS}
    made = _logistic(x, y, shares, min(losses, key=lambda strength: losses[strength]))
    return _short(float(made.intercept_[0])), tuple(_short(float(one)) for one in made.coef_[0])


def _loss(x: Any, y: Any, shares: Any, folds: Any, strength: float) -> float:
    import numpy as np

    total = 0.0
    for fold in range(FOLDS):
        rest, held = folds != fold, folds == fold
        if not held.any() or not rest.any() or y[rest].max() - y[rest].min() < 1e-9:
            continue
        said = _logistic(x[rest], y[rest], shares[rest], strength).predict_proba(x[held])[:, 1].clip(1e-6, 1 - 1e-6)
        total -= float((shares[held] * (y[held] * np.log(said) + (1 - y[held]) * np.log(1 - said))).sum())
    return total


def _logistic(x: Any, y: Any, shares: Any, strength: float) -> Any:
    """Return the model of targets between 0 and 1: each row counts as both outcomes, by its share and theirs."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    both = np.concatenate([x, x]), np.concatenate([np.ones(len(y)), np.zeros(len(y))])
    parts = np.concatenate([shares * y, shares * (1 - y)])
    return LogisticRegression(C=strength, solver="newton-cholesky", max_iter=500).fit(*both, sample_weight=parts)


def certificates(weights: Weights, traces: Sequence[Trace], risks: Sequence[float] = RISKS) -> list[Certificate]:
    """Return what tasks that the models have not seen say of each risk, strategy by strategy.

    Each task counts once: by one search, in the order that it had. Independent samples have no certificate: replay
    takes them a few at a time, a live search is asked after whichever ends, and each look more is a chance more to
    stop wrongly.
    """
    found = []
    for strategy in sorted({trace.strategy for trace in traces} - {INDEPENDENT}):
        own = {trace.task: trace for trace in as_recorded(traces) if trace.strategy == strategy}
        paths = courses(weights, list(own.values()))
        searched = {"strategy": strategy, "samples": max(one.full.features.max_samples for one in own.values())}
        found += [one.model_copy(update=searched) for one in certified(paths, risks)]
    return found


def courses(weights: Weights, traces: Sequence[Trace]) -> list[Course]:
    """Return the courses of those searches that the full depth gets right: the others cannot be lost."""
    return [lost_when_stopped(weights, trace) for trace in traces if trace.full.right == 1]


def certified(paths: Sequence[Course], risks: Sequence[float]) -> list[Certificate]:
    """Return what searches that the full depth gets right say of each risk."""
    thresholds = sorted({said for path in paths for said, _ in path})
    losses = [sum(is_lost(path, threshold) for path in paths) for threshold in thresholds]
    return [certify(thresholds, losses, len(paths), risk) for risk in risks]


def lost_when_stopped(weights: Weights, trace: Trace) -> Course:
    """Return, for each place of a search that the full depth gets right, what the policy says is lost, and what is.

    Where the policy would not judge, nothing is said: it goes on.
    """
    found = []
    for prefix in trace.prefixes[:-1]:
        model, values = weights.of(kind_of(prefix.features), careful=True), inputs(prefix.features)
        if model is not None and not model.outside(values):
            found.append((model.chances(values).late, prefix.right < trace.full.right))
    return found


def is_lost(path: Course, threshold: float) -> bool:
    """Return whether a search is lost that stops where the loss is first said to be at most the threshold."""
    return next((lost for said, lost in path if said <= threshold), False)


def _name(trace: Trace) -> str:
    return f"{trace.suite}/{trace.task}"


def _short(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
