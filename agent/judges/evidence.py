"""The judge: visible checks, what the task's words ask, execution, and agreement: by behaviour or answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ponder.judges.agreement import most_faithful, same_answer, votes
from ponder.judges.calibration import UNCALIBRATED, Calibration
from ponder.judges.candidates import Candidate, candidates, compared_calls, own_tests
from ponder.judges.standing import assessed, standing
from ponder.protocols import TreeView
from ponder.records import Best, Node, Standing, Verdict
from ponder.stats import laplace

FAILED_SCORE = 0.1
OPEN_SCORE = 0.5


class EvidenceJudge:
    """Trusts, in this order: visible checks and what the task's words ask, what ran, how many branches agree.

    Its confidence is the calibrated probability of `ponder.judges.calibration` where that has a model for such a
    search. Else it is, with checks, the rule of succession over those that passed, or the chance that the leading
    answer is the core's most likely one.

    Args:
        calibration: of the core that searches.
    """

    def __init__(self, calibration: Calibration = UNCALIBRATED) -> None:
        self._calibration = calibration

    def judge(self, tree: TreeView, new: Sequence[int]) -> Mapping[int, Verdict]:
        """See `Judge.judge`."""
        found = {candidate.node: candidate for candidate in candidates(tree)}
        own = votes(list(found.values()))
        return {node: _verdict(tree.nodes[node], found, own) for node in new}

    def best(self, tree: TreeView) -> Best | None:
        """See `Judge.best`."""
        return assessed(candidates(tree), own_tests(tree), self._calibration)

    def standing(self, tree: TreeView) -> Standing:
        """See `Judge.standing`."""
        return standing(candidates(tree), own_tests(tree), self._calibration)

    def inputs(self, tree: TreeView) -> Sequence[str]:
        """See `Judge.inputs`."""
        return compared_calls(tree)

    def unclear(self, tree: TreeView, new: Sequence[int]) -> Sequence[int]:
        """See `Judge.unclear`: where a rubric is given, answers that do most of what the task's words ask.

        Without a rubric the opinion of a small core parts good texts from bad ones too seldom for what it costs.
        """
        success = tree.task.success
        if success is None or success.kind != "rubric":
            return []
        return [candidate.node for candidate in most_faithful(candidates(tree)) if candidate.node in new]


def _verdict(node: Node, found: Mapping[int, Candidate], own: Mapping[int, float]) -> Verdict:
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
    agree = sum(own[other.node] for other in found.values() if same_answer(other, candidate))
    total = sum(own.values())
    evidence |= {"agree": agree, "of": total}
    return Verdict(score=laplace(agree, total) * candidate.obeys, evidence=evidence)
