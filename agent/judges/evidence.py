"""The judge: visible checks, what the task's words ask, execution, and agreement: by behaviour, answer or words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ponder.answers import is_text, shown
from ponder.judges.agreement import behaves_like, dual_agreement, groups, kind_of, most_faithful, reads_like, weight
from ponder.judges.calibration import load, signals
from ponder.judges.candidates import Candidate, candidates, compared_calls, own_tests
from ponder.program_tests import OwnTest, has_tests
from ponder.protocols import TreeView
from ponder.records import Best, Node, Verdict
from ponder.stats import chance_of_lead, laplace

FAILED_SCORE = 0.1
OPEN_SCORE = 0.5


class EvidenceJudge:
    """Trusts, in this order: visible checks and what the task's words ask, what ran, how many branches agree.

    Its confidence is the calibrated probability of `ponder.judges.calibration` where that has a model for such a
    search. Else it is, with checks, the rule of succession over those that passed, or the chance that the leading
    answer is the core's most likely one.
    """

    def judge(self, tree: TreeView, new: Sequence[int]) -> Mapping[int, Verdict]:
        """See `Judge.judge`."""
        found = {candidate.node: candidate for candidate in candidates(tree)}
        total = sum(candidate.weight for candidate in found.values())
        return {node: _verdict(tree.nodes[node], found, total) for node in new}

    def best(self, tree: TreeView) -> Best | None:
        """See `Judge.best`."""
        found, tests = candidates(tree), own_tests(tree)
        best, calibration = choose(found, tests), load()
        if best is None or not calibration.models:
            return best
        chance = calibration.probability(signals(found, tests, best))
        return best if chance is None else best.model_copy(update={"confidence": chance})

    def votes(self, tree: TreeView) -> Sequence[float]:
        """See `Judge.votes`."""
        return [weight(group) for group in groups(most_faithful(candidates(tree)))]

    def inputs(self, tree: TreeView) -> Sequence[str]:
        """See `Judge.inputs`."""
        return compared_calls(tree)

    def unclear(self, tree: TreeView, new: Sequence[int]) -> Sequence[int]:
        """See `Judge.unclear`: texts, of which nothing else says how good they are, and what a rubric is for.

        Only those that do most of what the task's words ask: no opinion makes up for what others do.
        """
        success = tree.task.success
        every = most_faithful(candidates(tree))
        found = [candidate for candidate in every if not candidate.checks and candidate.rubric is None]
        if success is not None and success.kind == "rubric":
            return [candidate.node for candidate in found if candidate.node in new]
        texts = [c.node for c in found if not c.executed and is_text(c.answer) and not has_tests(tree.task)]
        return texts if len(every) > 1 else []

    def best_followed(self, tree: TreeView) -> float:
        """See `Judge.best_followed`."""
        return max((candidate.obeys for candidate in candidates(tree)), default=0.0)

    def best_passed(self, tree: TreeView) -> float | None:
        """Return the largest share of visible checks that one candidate passed; None while none was checked."""
        return max((candidate.share for candidate in candidates(tree) if candidate.checks), default=None)


def choose(found: Sequence[Candidate], tests: Sequence[OwnTest] = ()) -> Best | None:
    """Return the best of the candidates, or None where there are none.

    Args:
        tests: what the core wrote to test programs with, if it did.
    """
    if not found:
        return None
    kind = kind_of(found)
    if kind == "programs":
        return _best_program(found, tests)
    if kind == "texts":
        return _best_text(found)
    ranked = groups(most_faithful(found))
    leader = ranked[0]
    second = weight(ranked[1]) if len(ranked) > 1 else 0.0
    forms = [shown(candidate.answer) for candidate in leader]
    return Best(
        answer=max(forms, key=lambda form: (forms.count(form), -len(form))),
        confidence=chance_of_lead(weight(leader), second),
        node=leader[0].node,
        votes=len(leader),
        total=len(found),
    )


def _best_program(found: Sequence[Candidate], tests: Sequence[OwnTest]) -> Best:
    top = max(candidate.share for candidate in found)
    most = [candidate for candidate in found if candidate.share == top]
    dual = dual_agreement(most, tests)
    best = max(most, key=lambda c: (behaves_like(c, most, tests) + dual[c.node], c.mean_logprob, -c.node))
    passes_all = best.passed == best.checks
    confidence = laplace(best.passed, best.checks) if passes_all else best.passed / (best.checks + 2)
    return Best(answer=best.answer, confidence=confidence, node=best.node, votes=1, total=len(found))


def _best_text(found: Sequence[Candidate]) -> Best:
    best = max(most_faithful(found), key=lambda c: (c.rubric or 0.0, reads_like(c, found), -c.node))
    lead = chance_of_lead(best.weight, best.weight if len(found) > 1 else 0.0)
    return Best(answer=shown(best.answer), confidence=lead, node=best.node, votes=1, total=len(found))


def _verdict(node: Node, found: Mapping[int, Candidate], total: float) -> Verdict:
    evidence: dict[str, float | int | str | bool] = {}
    if node.observation is not None:
        evidence["outcome"] = node.observation.outcome
    candidate = found.get(node.id)
    if candidate is None:
        failed = node.status == "failed" or (node.observation is not None and not node.observation.ok)
        return Verdict(score=FAILED_SCORE if failed else OPEN_SCORE, evidence=evidence)
    evidence["executed"] = candidate.executed
    if candidate.checks:
        evidence |= {"passed": candidate.passed, "checks": candidate.checks}
        return Verdict(score=candidate.passed / candidate.checks, evidence=evidence)
    if candidate.asked:
        evidence |= {"followed": candidate.followed, "asked": candidate.asked}
    if candidate.rubric is not None:
        evidence["rubric"] = candidate.rubric
        return Verdict(score=candidate.rubric * candidate.obeys, evidence=evidence)
    agree = sum(other.weight for other in found.values() if other.key == candidate.key)
    evidence |= {"agree": agree, "of": total}
    return Verdict(score=laplace(agree, total) * candidate.obeys, evidence=evidence)
