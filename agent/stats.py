"""Small statistics that judges, policies and benchmarks share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

from ponder.records import Record

_STEPS = 400
_AT_ONCE = 1_000_000
"""Numbers that a bootstrap draws at once."""


@lru_cache(maxsize=4096)  # a replay of many searches asks for the same votes again and again
def chance_of_lead(first: float, second: float) -> float:
    """Return the chance that the leading answer is the core's most likely one.

    The Beta criterion of Adaptive-Consistency (Aggarwal et al. 2023, arXiv 2305.11860): with `first` and `second` the
    (weighted) votes of the two leading answers and a uniform prior, P(p > 1/2) under Beta(first + 1, second + 1).
    """
    a, b = first + 1.0, second + 1.0
    log_norm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)

    def density(x: float) -> float:
        if x <= 0.0 or x >= 1.0:
            edge = 1.0 if (x <= 0.0 and a == 1.0) or (x >= 1.0 and b == 1.0) else 0.0
            return edge * math.exp(log_norm)
        return math.exp(log_norm + (a - 1) * math.log(x) + (b - 1) * math.log1p(-x))

    # Simpson's rule over [1/2, 1]; the density is smooth there for votes of at least zero.
    width = 0.5 / _STEPS
    total = density(0.5) + density(1.0)
    total += sum((4 if i % 2 else 2) * density(0.5 + i * width) for i in range(1, _STEPS))
    return min(1.0, max(0.0, total * width / 3))


def logistic(total: float) -> float:
    """Return the chance whose log odds are `total`."""
    return 1 / (1 + math.exp(-total)) if total > -700 else 0.0  # far out on that side `exp` overflows


def laplace(successes: float, trials: float) -> float:
    """Return the rule-of-succession estimate of a rate: (successes + 1) / (trials + 2)."""
    return (successes + 1.0) / (trials + 2.0)


class Interval(Record):
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float


def wilson(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Return a share with its Wilson score interval (Wilson 1927); without trials: nothing is known, [0, 1]."""
    if trials == 0:
        return Interval(value=0.0, low=0.0, high=1.0)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low, high = max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
    # The arithmetic leaves some 1e-17 where the bound is exactly the share.
    return Interval(value=share, low=min(low, share), high=max(high, share))


def paired_bootstrap(
    differences: Sequence[float], *, level: float = 0.95, draws: int = 10_000, seed: int = 2026
) -> Interval:
    """Return the mean of paired differences with its percentile bootstrap interval; the same seed gives the same.

    Args:
        differences: for each task, one figure less the other. Tasks are drawn with replacement.

    Raises:
        ValueError: there are no differences.
    """
    if not differences:
        raise ValueError("there is nothing to compare")
    import numpy as np

    draw, n, each = np.random.default_rng(seed), len(differences), np.asarray(differences, dtype=float)
    some = max(1, min(draws, _AT_ONCE // n))
    means = np.concatenate([
        each[draw.integers(n, size=(min(some, draws - done), n))].mean(axis=1) for done in range(0, draws, some)
    ])  # fmt: skip
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=math.fsum(differences) / n, low=float(low), high=float(high))
