"""Small statistics that judges and policies share."""

from __future__ import annotations

import math

_STEPS = 400


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


def laplace(successes: float, trials: float) -> float:
    """Return the rule-of-succession estimate of a rate: (successes + 1) / (trials + 2)."""
    return (successes + 1.0) / (trials + 2.0)
