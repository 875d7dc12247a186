"""Rules that others stop by, behind the same protocol: what the learned policy is measured against.

They look at answers alone, as their authors' do: which pass visible checks is for the judge, when they have stopped.
"""

from __future__ import annotations

from ponder.records import Decision, Features
from ponder.stats import chance_of_lead


class FixedN:
    """Stops after so many samples: best-of-N, or self-consistency (Wang et al. 2022, arXiv 2203.11171), of a smaller N.

    Args:
        n: samples.
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError(f"there is no search of {n} samples")
        self.n, self.name = n, f"fixed-{n}"

    def decide(self, features: Features) -> Decision:
        """See `StopPolicy.decide`."""
        why = f"{features.samples} of {self.n} samples"
        if features.samples < self.n:
            return Decision(stop=False, confidence=features.confidence, why=why)
        return Decision(stop=True, reason="exhausted", confidence=features.confidence, why=why)


class AdaptiveConsistency:
    """Adaptive-Consistency (Aggarwal et al. 2023, arXiv 2305.11860): stops when the lead is unlikely to be lost.

    Args:
        threshold: the chance of that, 0.95 in the paper.
    """

    name = "adaptive-consistency"

    def __init__(self, threshold: float = 0.95) -> None:
        self.threshold = threshold

    def decide(self, features: Features) -> Decision:
        """See `StopPolicy.decide`."""
        first, second = (*features.counts, 0, 0)[:2]
        lead = chance_of_lead(first, second) if first else 0.0
        why = f"{first} answers to {second}: chance of the lead {lead:.3f}"
        if lead < self.threshold:
            return Decision(stop=False, confidence=lead, why=why)
        return Decision(stop=True, reason="confident", confidence=lead, why=why)


class EarlyStopping:
    """ESC, early-stopping self-consistency (Li et al. 2024, arXiv 2401.10480): stops when a window holds one answer.

    Args:
        window: answers in a row that have to be the same, 5 in the paper for tasks in arithmetic.
    """

    name = "esc"

    def __init__(self, window: int = 5) -> None:
        self.window = window

    def decide(self, features: Features) -> Decision:
        """See `StopPolicy.decide`."""
        why = f"the last {features.same_in_a_row} answers are the same, of {self.window}"
        if features.same_in_a_row < self.window:
            return Decision(stop=False, confidence=features.confidence, why=why)
        return Decision(stop=True, reason="confident", confidence=features.confidence, why=why)
