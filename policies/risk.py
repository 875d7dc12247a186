"""Risk control: how careful a stop has to be so that it loses no more than the user said.

The loss of a task that the full search gets right is 1 where the early answer is wrong, else 0. A threshold is
certified for a risk R if its expected loss is at most R with 95% confidence, by Learn-then-Test (Angelopoulos et al.
2021, arXiv 2110.01052): thresholds are tested one after the other, from the most careful on, each by the exact binomial
tail, until one fails. Testing in a fixed order needs no correction for their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from ponder.records import Record

LEVEL = 0.95


class Certificate(Record):
    """What is known of one risk, of the searches of one strategy."""

    risk: float = Field(gt=0, lt=1)
    strategy: str = ""
    samples: int = 0
    """That a full search takes at most."""
    threshold: float | None = Field(ge=0, le=1, allow_inf_nan=False)
    """The least careful threshold that is certified; None: none is, the record is too small or the losses too many."""
    tasks: int
    """Calibration tasks: those that the full search gets right."""
    losses: int
    """How many of them the threshold loses; at the most careful one, where none is certified."""
    level: float = LEVEL

    @property
    def why(self) -> str:
        """What it says, in words."""
        if self.threshold is not None:
            lost = f"{self.losses} of {self.tasks} calibration tasks were lost"
            return f"risk {self.risk:.1%} at {self.level:.0%} confidence: {lost}"
        needed, cannot = tasks_needed(self.risk, self.level), "cannot be certified with this record"
        if self.tasks < needed:
            return f"risk {self.risk:.1%} {cannot}: {self.tasks} tasks, {needed} are needed"
        return f"risk {self.risk:.1%} {cannot}: {self.losses} of {self.tasks} tasks were lost"


def tasks_needed(risk: float, level: float = LEVEL) -> int:
    """Return how many calibration tasks certify a risk at least, were none of them lost."""
    return math.ceil(math.log(1 - level) / math.log(1 - risk))


def tail(losses: int, tasks: int, risk: float) -> float:
    """Return the chance of so few losses or fewer if each task were lost with chance `risk`: the test's p-value.

    Raises ImportError: scipy is not installed.
    """
    from scipy.stats import binom

    return float(binom.cdf(losses, tasks, risk))


def certify(
    thresholds: Sequence[float], losses: Sequence[int], tasks: int, risk: float, *, level: float = LEVEL
) -> Certificate:
    """Return the least careful threshold whose loss is at most `risk`.

    Args:
        thresholds: from the most careful one on.
        losses: of each, how many tasks it loses.
        tasks: calibration tasks.

    Raises:
        ValueError: `risk` is no risk between 0 and 1, or there is not one count for each threshold.
    """
    if not 0 < risk < 1:
        raise ValueError(f"a risk is between 0 and 1, not {risk:g}")
    found = None
    for threshold, lost in zip(thresholds, losses, strict=True):
        if tail(lost, tasks, risk) > 1 - level:
            break
        found = (threshold, lost)
    if found is None:
        return Certificate(risk=risk, threshold=None, tasks=tasks, losses=losses[0] if losses else 0, level=level)
    return Certificate(risk=risk, threshold=found[0], tasks=tasks, losses=found[1], level=level)


def lower_bound(losses: int, tasks: int, *, level: float = LEVEL) -> float:
    """Return the one-sided lower confidence bound of a loss (Clopper-Pearson 1934); 0 where nothing was lost.

    Raises ImportError: scipy is not installed.
    """
    from scipy.stats import beta

    return float(beta.ppf(1 - level, losses, tasks - losses + 1)) if losses else 0.0
