"""The figures of a search that a stop policy may look at: made by the same function in a run and in a replay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

from ponder.protocols import TreeView
from ponder.records import Expansion, Features, Node, Spending, Standing, StepKind

STILL_TO_COME = 0.3
"""Of what a step on its way will cost, the part that it has not cost yet: it was begun with those that are done. As
recorded trees of the default core have it, at 268 places."""


def extract(
    tree: TreeView,
    *,
    standing: Standing,
    max_samples: int,
    wished: Sequence[Expansion] = (),
    spent: Spending,
) -> Features:
    """Return the features of a tree after a round.

    Args:
        standing: what the judge sees of the answers.
        max_samples: samples that the strategy takes at most.
        wished: the steps that the strategy would take next; an end of a branch that one follows on has not ended.
        spent: what the run has used so far.
    """
    steps = [node for node in tree.nodes.values() if node.id and node.kind != "check"]
    settled = [node for node in steps if node.status in ("judged", "failed")]
    answers = [node.answer for node in settled if node.answer and node.status == "judged"]
    pending = [node for node in steps if node.status in ("asked", "thought", "observed")]
    goes_on = {wish.parent for wish in wished}
    coming = [*((node.worked, STILL_TO_COME) for node in pending), *((wish.kind, 1.0) for wish in wished)]
    done = max(1.0, len(settled) + (1 - STILL_TO_COME) * len(pending))
    criterion = tree.task.success
    visible = len(criterion.visible) if criterion else 0
    checked = [node.observation.total for node in steps if node.observation and node.observation.total]
    return Features(
        rounds=tree.rounds + 1,
        samples=sum(_ended(tree, node) and node.id not in goes_on for node in steps),
        answered=len(answers),
        pending=len(pending),
        max_samples=max_samples,
        width=sum(not tree.children(node.id) for node in steps),
        depth=max((node.depth for node in settled), default=0),
        counts=standing.counts,
        stale=standing.stale,
        same_in_a_row=standing.same_in_a_row,
        votes=standing.votes,
        answer_words=float(median(len(answer.split()) for answer in answers)) if answers else 0.0,
        checks=max([visible, *checked]),
        best_passed=standing.best_passed,
        best_followed=standing.best_followed,
        kind=standing.kind,
        confidence=standing.best.confidence if standing.best is not None else 0.0,
        signals=standing.signals,
        steady=standing.steady,
        gain=standing.gain,
        failed_steps=sum(node.status == "failed" or _went_wrong(node) for node in steps),
        cpu_spent_s=spent.cpu_s,
        wall_spent_s=spent.wall_s,
        tokens_spent=spent.tokens,
        cost_by_tool=spent.cost_by_tool,
        next_steps=len(coming),
        next_cost_by_tool=_expected(coming, settled, {tool: cost / done for tool, cost in spent.cost_by_tool.items()}),
        next_other=_other([node.worked for node in settled], [kind for kind, _ in coming]),
    )


def _expected(
    coming: Sequence[tuple[StepKind, float]], past: Sequence[Node], mean: Mapping[str, float]
) -> dict[str, float]:
    """Return what steps will cost, by tool.

    Args:
        coming: their kinds, and the share of each that is still to come.
        mean: what a step of the past has cost on average, by tool.
    """
    shares = defaultdict[StepKind, float](float)
    for kind, share in coming:
        shares[kind] += share
    return {
        tool: cost * sum(share * _beside(past, kind, tool) for kind, share in shares.items())
        for tool, cost in mean.items()
    }


def _beside(past: Sequence[Node], kind: StepKind, tool: str) -> float:
    """Return what a step of a kind takes of a tool, where a step of the past takes 1 on average.

    Of the core that is tokens: whether one was written alone or beside others is chance. There are few steps, so that
    one more of each kind is assumed, which takes as much as any.
    """
    took = [float(node.tokens_out) if tool == "core" else node.costs.get(tool, 0.0) for node in past]
    mean = sum(took) / max(1, len(took))
    own = [one for one, node in zip(took, past, strict=True) if node.worked == kind]
    return (sum(own) + mean) / (len(own) + 1) / mean if mean else 1.0


def _other(past: Sequence[StepKind], coming: Sequence[StepKind]) -> float:
    """Return how far what comes is of other kinds than what was; what the core will choose is taken to be the same."""
    known = [0.0 if kind == "free" else 1 - past.count(kind) / len(past) for kind in coming if past]
    return sum(known) / len(known) if known else 0.0


def _ended(tree: TreeView, node: Node) -> bool:
    return node.status in ("judged", "failed") and (bool(node.answer) or not tree.children(node.id))


def _went_wrong(node: Node) -> bool:
    return node.observation is not None and not node.observation.ok
