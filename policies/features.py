"""The figures of a search that a stop policy may look at: made by the same function in a run and in a replay."""

from __future__ import annotations

from collections.abc import Collection
from statistics import median

from ponder.protocols import TreeView
from ponder.records import Features, Node, Standing


def extract(
    tree: TreeView,
    *,
    standing: Standing,
    max_samples: int,
    open_ends: Collection[int] = (),
    cpu_spent_s: float,
    wall_spent_s: float,
    tokens_spent: int,
) -> Features:
    """Return the features of a tree after a round.

    Args:
        standing: what the judge sees of the answers.
        max_samples: samples that the strategy takes at most.
        open_ends: ends of branches that the strategy means to go on with: they have not ended.
        cpu_spent_s, wall_spent_s, tokens_spent: what the run has used so far.
    """
    steps = [node for node in tree.nodes.values() if node.id and node.kind != "check"]
    answers = [node.answer for node in steps if node.answer and node.status == "judged"]
    criterion = tree.task.success
    visible = len(criterion.visible) if criterion else 0
    checked = [node.observation.total for node in steps if node.observation and node.observation.total]
    rounds = tree.rounds + 1
    return Features(
        rounds=rounds,
        samples=sum(_ended(tree, node) and node.id not in open_ends for node in steps),
        answered=len(answers),
        pending=sum(node.status in ("asked", "thought") for node in steps),
        max_samples=max_samples,
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
        cpu_spent_s=cpu_spent_s,
        wall_spent_s=wall_spent_s,
        tokens_spent=tokens_spent,
        round_cost_s=cpu_spent_s / rounds,
    )


def _ended(tree: TreeView, node: Node) -> bool:
    return node.status in ("judged", "failed") and (bool(node.answer) or not tree.children(node.id))


def _went_wrong(node: Node) -> bool:
    return node.observation is not None and not node.observation.ok
