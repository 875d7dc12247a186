"""What all strategies ask of a tree: where branches begin, which steps belong together, which step comes next.

An attempt is what one wish of a strategy leads to: a program and, where that printed no answer, the step that reads
what it printed; a page and what was done with it. It is settled when nothing has to follow: it answered, or it failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ponder.answers import is_text, normalise
from ponder.program_tests import has_tests
from ponder.protocols import TreeView
from ponder.records import Answer, Browse, Expansion, Node, Reason, RunCode, StepKind

ON_ITS_WAY = ("asked", "thought", "observed")

def base_of(tree: TreeView) -> int | Expansion | None:
    """Return the node that branches start from, the next page to open on the way to it, or None: one is on its way."""
    at = 0
    for url in tree.task.urls:
        pages = [child for child in tree.children(at) if child.action == Browse(op="goto", url=url)]
        if not pages:
            return Expansion(parent=at, kind="browse", action=Browse(op="goto", url=url))
        at = pages[0].id
    return at if tree.nodes[at].status in ("judged", "failed") else None


def end_of(tree: TreeView, head: Node) -> Node:
    """Return the last step of a branch."""
    node = head
    while children := tree.children(node.id):
        node = children[-1]
    return node


def below(tree: TreeView, base: int) -> Iterator[Node]:
    """Yield all nodes below one, in the order in which they were asked for."""
    inside = {base}
    for node in tree.nodes.values():
        if node.parent in inside and node.id not in inside:
            inside.add(node.id)
            yield node


def first_kind(tree: TreeView, base: int) -> StepKind:
    """Return how a branch begins where nothing is known yet: on the page that is there, else as the core chooses."""
    return "browse" if base and _page_is_there(tree.nodes[base]) else "free"


def began_with(tree: TreeView, end: Node) -> StepKind | None:
    """Return the kind of step that the branch of this end began with, pages aside; None while there is no such step."""
    acted = (step for step in tree.path(end.id) if step.action is not None)
    first = next((step for step in acted if not isinstance(step.action, Browse)), None)
    return None if first is None else first.worked


def next_kind(end: Node) -> StepKind:
    """Return the step that follows this one."""
    match end.action:
        case RunCode() if end.observation is not None and end.observation.ok:
            return "answer"
        case RunCode() | Answer():
            return "code"
        case Browse():
            return "browse"
        case Reason():
            return "answer"
    return "free"


def is_settled(node: Node) -> bool:
    """Return whether an attempt ends with this node: it answered, or it went wrong."""
    if node.status not in ("judged", "failed", "cancelled"):
        return False
    wrong = isinstance(node.action, RunCode) and node.observation is not None and not node.observation.ok
    return node.status != "judged" or bool(node.answer) or wrong


def fails_checks(node: Node) -> bool:
    """Return whether visible tests of the program that this node answers with fail."""
    seen = node.observation
    return isinstance(node.action, Answer) and seen is not None and not seen.ok


def repeats_itself(tree: TreeView, end: Node) -> bool:
    """Return whether the branch took the very same step before: going on would only repeat it once more."""
    return any(step.action == end.action for step in tree.path(end.id)[:-1])


def another_kind(tree: TreeView, attempt: Node) -> StepKind:
    """Return the step that tries again below an attempt, with what came of it in view."""
    if has_tests(tree.task) or isinstance(attempt.action, RunCode):
        return "code"
    line = tree.path(attempt.id)
    if any(isinstance(step.action, RunCode) for step in line):
        return "code"
    return "reason" if any(step.kind == "reason" for step in line) else "answer"


def none_agree(answers: Sequence[str]) -> bool:
    """Return whether several short answers all differ: that texts do says nothing."""
    differ = len(answers) > 1 and len({normalise(answer) for answer in answers}) == len(answers)
    return differ and not any(map(is_text, answers))


def own_scores(tree: TreeView, judged: Sequence[int]) -> Mapping[int, float]:
    """Return the nodes' own scores, for strategies whose values do not depend on other nodes."""
    return {node: verdict.score for node in judged if (verdict := tree.nodes[node].verdict) is not None}


def _page_is_there(node: Node) -> bool:
    return node.observation is not None and node.observation.tool == "browser" and node.observation.ok
