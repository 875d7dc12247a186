"""Whether a certified risk holds on recorded searches that the policy has not seen."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import fmean

from ponder.policies.learned import Weights
from ponder.policies.replay.traces import Trace, as_recorded
from ponder.policies.risk import Certificate, lower_bound
from ponder.policies.train import certified, courses, is_lost, lost_when_stopped
from ponder.records import Record

SPLITS = 200
ENOUGH = 0.95
"""A risk is held if so many re-splits hold it."""


class Held(Record):
    """Whether a risk holds over random re-splits of tasks into those that set the threshold and those that test it."""

    risk: float
    splits: int
    certified: int
    """Splits in which a threshold was certified; the others claim nothing."""
    held: float
    """The share of these in which the lower 95% bound of the test tasks' loss is at most the risk."""
    loss: float
    """The mean loss on test tasks."""
    over: float = 0.0
    """The share of these in which that loss was more than the risk."""

    @property
    def is_held(self) -> bool:
        """Whether enough splits hold it, of which there is one at least."""
        return self.certified > 0 and self.held >= ENOUGH

    @property
    def told(self) -> str:
        """What it says, in words."""
        if not self.certified:
            return f"risk {self.risk:.0%}: cannot be certified in any of {self.splits} re-splits"
        claim = f"held in {self.held:.0%} of {self.certified} of {self.splits} re-splits"
        loss = f"mean loss {self.loss:.1%}, more than the risk in {self.over:.0%} of them"
        return f"risk {self.risk:.0%}: {claim}; {loss}"


class Kept(Record):
    """What a certificate of the policy comes to on tasks that it has not seen."""

    risk: float
    tasks: int
    """That the full search gets right."""
    lost: int
    at_least: float
    """The one-sided lower 95% bound of the loss."""

    @property
    def told(self) -> str:
        """What it says, in words."""
        kept = "kept" if self.at_least <= self.risk else "broken"
        lost = f"{self.lost} of {self.tasks} tasks lost, surely {self.at_least:.1%}"
        return f"the policy's own certificate of risk {self.risk:.0%} is {kept}: {lost}"


def held(weights: Weights, traces: Sequence[Trace], risk: float, *, splits: int = SPLITS, seed: int = 2026) -> Held:
    """Return whether a risk holds over re-splits: half of the tasks set the threshold, the other half test it."""
    draw = random.Random(seed)
    recorded = as_recorded(traces)
    every = [lost_when_stopped(weights, trace) if trace.full.right == 1 else None for trace in recorded]
    good, losses = 0, []
    for _ in range(splits):
        mixed = draw.sample(every, len(every))
        half = len(mixed) // 2
        (certificate,) = certified([one for one in mixed[:half] if one is not None], [risk])
        if certificate.threshold is None:
            continue
        kept = [one for one in mixed[half:] if one is not None]
        lost = sum(is_lost(course, certificate.threshold) for course in kept)
        losses.append(lost / max(1, len(kept)))
        good += lower_bound(lost, len(kept)) <= risk
    if not losses:
        return Held(risk=risk, splits=splits, certified=0, held=0.0, loss=0.0)
    return Held(
        risk=risk, splits=splits, certified=len(losses), held=good / len(losses), loss=fmean(losses),
        over=fmean(loss > risk for loss in losses),
    )


def kept(weights: Weights, traces: Sequence[Trace], certificate: Certificate) -> Kept:
    """Return what a certificate's threshold loses on these tasks. Raises ValueError: it has none."""
    if certificate.threshold is None:
        raise ValueError("nothing was certified")
    paths = courses(weights, as_recorded(traces))
    lost = sum(is_lost(path, certificate.threshold) for path in paths)
    return Kept(risk=certificate.risk, tasks=len(paths), lost=lost, at_least=lower_bound(lost, len(paths)))
