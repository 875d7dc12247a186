"""Best-of-N in rounds: independent branches, each followed until it answers, stopped early by the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ponder.program_tests import has_tests
from ponder.protocols import TreeView
from ponder.records import Expansion, Node, RunCode, StepKind
from ponder.search.steps import (
    ON_ITS_WAY,
    base_of,
    began_with,
    end_of,
    fails_checks,
    first_kind,
    next_kind,
    none_agree,
    own_scores,
    repeats_itself,
)


class BestOfN:
    """Samples up to `max_samples` independent branches, `first` in the first round and `step` in each later one.

    A branch that has no answer yet goes on: a program that printed no answer is read, a page that was opened is
    answered from, a program that failed is revised, but for tasks without tests only while no branch has an answer:
    a small core repairs for twice the price of a fresh sample, and worse (arXiv 2604.21950). A branch that repeats
    itself is given up, and so is one after `max_depth` steps. Pages that the task names are opened once, before the
    branches part.

    What kind of step a branch begins with is the core's choice in the first round. As long as the answers of one kind
    all differ, the next round takes another kind of `kinds`; where there is only one, the core is not asked.
    """

    name = "best-of-n"

    def __init__(
        self,
        max_samples: int = 6,
        *,
        first: int = 3,
        step: int = 2,
        max_depth: int = 4,
        kinds: Sequence[StepKind] = ("code", "reason", "answer"),
    ) -> None:
        self.max_samples = max_samples
        self._kinds = tuple(kinds)
        self._first, self._step, self._max_depth = min(first, max_samples), step, max_depth

    def ask(self, tree: TreeView) -> Sequence[Expansion]:
        """See `Strategy.ask`."""
        base = base_of(tree)
        if isinstance(base, Expansion):
            return [base]
        if base is None:
            return []
        heads = tree.children(base)
        open_ends = [end for end in (end_of(tree, head) for head in heads) if self._goes_on(tree, end, base)]
        if any(node.answer for node in tree.nodes.values()) and not has_tests(tree.task):
            open_ends = [end for end in open_ends if not _failed_program(end)]
        if open_ends:
            return [Expansion(parent=end.id, kind=next_kind(end)) for end in open_ends]
        if any(end_of(tree, head).status in ON_ITS_WAY for head in heads):
            return []
        wanted = self._step if heads else self._first
        width = min(wanted, self.max_samples - len(heads))
        kind = first_kind(tree, base)
        kind = self._kind(tree, heads) if kind == "free" else kind
        return [Expansion(parent=base, kind=kind)] * width

    def tell(self, tree: TreeView, judged: Sequence[int]) -> Mapping[int, float]:
        """Branches are independent: a node's value is its own score."""
        return own_scores(tree, judged)

    def _kind(self, tree: TreeView, heads: Sequence[Node]) -> StepKind:
        """Return how the next branches begin: as the last ones did, unless these could not agree on anything."""
        ends = [end_of(tree, head) for head in heads]
        begun = [kind for end in ends if (kind := began_with(tree, end)) is not None]
        if not begun:
            return "free" if len(self._kinds) > 1 else self._kinds[0]
        last = begun[-1]
        answers = [end.answer for end in ends if end.answer and began_with(tree, end) == last]
        others = [kind for kind in self._kinds if kind != last]
        return others[0] if others and none_agree(answers) else last

    def _goes_on(self, tree: TreeView, end: Node, base: int) -> bool:
        depth = end.depth - tree.nodes[base].depth
        finished = (end.answer and not fails_checks(end)) or repeats_itself(tree, end)
        return end.status == "judged" and not finished and depth < self._max_depth


def _failed_program(end: Node) -> bool:
    return isinstance(end.action, RunCode) and end.observation is not None and not end.observation.ok
