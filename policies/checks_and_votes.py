"""A rule to stop by where nothing was learned: visible checks, and votes that execution makes heavier."""

from __future__ import annotations

from ponder.records import Decision, Features
from ponder.stats import chance_of_lead

_MIN_SAMPLES = 3
_ENOUGH_ALIKE = 3
"""Programs that pass all visible tests and do the same on all calls, at least, before they are believed: such tests are
few, so that a wrong program passes them now and then (figures: docs/stop.md)."""


class ChecksAndVotes:
    """Stop where programs that pass all visible checks agree, or the leading answer is unlikely to lose its lead.

    The latter is the criterion of Adaptive-Consistency (Aggarwal et al. 2023, arXiv 2305.11860).

    Args:
        threshold: chance of the lead at which to stop. The paper has 0.95 for single votes; here an answer that was
            worked out has two (`ponder.judges.agreement.votes`): 0.9 stops at two programs that agree, or at three
            against one.
        alike: other programs, at least, that pass all visible checks and do on all calls what the best one does.

    With visible checks: stop when a candidate passes all of them, and, of programs, enough others that pass them do the
    same. Without them, answers that all do less than the task's words ask end nothing. Besides: stop as `not_worth_it`
    when the samples that are left could not change the leader, or when the answers are texts, which never agree; as
    `hopeless` when half of the samples brought no answer at all.
    """

    name = "checks-and-votes"

    def __init__(self, threshold: float = 0.9, alike: int = _ENOUGH_ALIKE - 1) -> None:
        self.threshold, self.alike = threshold, alike

    def decide(self, features: Features) -> Decision:
        """See `StopPolicy.decide`."""
        if features.checks and features.best_passed is not None:
            return self._by_checks(features)
        if not features.answered:
            return self._without_answer(features)
        return self._by_votes(features)

    def _by_checks(self, features: Features) -> Decision:
        passed = round((features.best_passed or 0.0) * features.checks)
        if passed < features.checks:
            why = f"the best candidate passes {passed} of {features.checks} visible checks"
            return Decision(stop=False, confidence=passed / (features.checks + 2), why=why)
        why = f"a candidate passes all {features.checks} visible checks"
        if (log_alike := features.signals.get("log_alike")) is not None:
            alike = round(2**log_alike - 1)
            why += f", and {alike} others that pass them do the same"
            if alike < self.alike:
                return Decision(stop=False, confidence=features.confidence, why=f"{why}, less than {self.alike}")
        return Decision(stop=True, reason="confident", confidence=features.confidence, why=why)

    def _without_answer(self, features: Features) -> Decision:
        if features.samples * 2 >= features.max_samples:
            why = f"{features.samples} of at most {features.max_samples} samples, and none brought an answer"
            return Decision(stop=True, reason="hopeless", why=why)
        return Decision(stop=False, why="no answer yet")

    def _by_votes(self, features: Features) -> Decision:
        first, second = (*features.votes, 0.0, 0.0)[:2]
        most, next_most = (*features.counts, 0, 0)[:2]
        lead = chance_of_lead(first, second)
        votes = f"votes {first:.3g} to {second:.3g}"
        if features.best_followed < 1:
            return Decision(stop=False, confidence=lead, why=f"{votes}: no answer does all that the task's words ask")
        if lead >= self.threshold:
            why = f"{votes}: the leader is the likeliest answer with chance {lead:.3f}, at least {self.threshold:g}"
            return Decision(stop=True, reason="confident", confidence=lead, why=why)
        left = features.max_samples - features.samples
        if 0 < left < most - next_most:
            why = f"{votes}: the samples that are left cannot change the leader"
            return Decision(stop=True, reason="not_worth_it", confidence=lead, why=why)
        if features.kind == "texts" and features.answered >= _MIN_SAMPLES:
            why = f"{features.answered} texts: further ones will not agree either"
            return Decision(stop=True, reason="not_worth_it", confidence=lead, why=why)
        why = f"{votes}: the leader is the likeliest answer with chance {lead:.3f}, below {self.threshold:g}"
        return Decision(stop=False, confidence=lead, why=why)
