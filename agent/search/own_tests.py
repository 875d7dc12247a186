"""Any strategy, and before its first steps tests that the core writes for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ponder.program_tests import has_tests, name_under_test
from ponder.protocols import Strategy, TreeView
from ponder.records import Expansion, Node, Task

MARK = "+tests"
"""At the end of a strategy's name: with tests of the core's own."""


class OwnTests:
    """Another strategy, for which the core writes tests first where the task's answer is a program.

    One step for all candidates: what they do with these tests tells them apart (CodeT: Chen et al. 2022, arXiv
    2207.10397). The other strategy does not see that step.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.name = f"{strategy.name}{MARK}"
        self.max_samples = strategy.max_samples
        self._strategy = strategy

    def ask(self, tree: TreeView) -> Sequence[Expansion]:
        """See `Strategy.ask`."""
        wishes = self._strategy.ask(_WithoutTests(tree))
        wanted = has_tests(tree.task) and name_under_test(tree.task) is not None
        if wishes and wanted and not any(node.kind == "check" for node in tree.nodes.values()):
            return [Expansion(parent=0, kind="check"), *wishes]
        return wishes

    def tell(self, tree: TreeView, judged: Sequence[int]) -> Mapping[int, float]:
        """See `Strategy.tell`."""
        shown = _WithoutTests(tree)
        return self._strategy.tell(shown, [node for node in judged if node in shown.nodes])


class _WithoutTests:
    """A tree without the steps that wrote tests: these have no children."""

    def __init__(self, tree: TreeView) -> None:
        self._tree = tree
        self.nodes: Mapping[int, Node] = {i: node for i, node in tree.nodes.items() if node.kind != "check"}

    @property
    def task(self) -> Task:
        return self._tree.task

    @property
    def rounds(self) -> int:
        return self._tree.rounds

    def children(self, node: int) -> Sequence[Node]:
        return [child for child in self._tree.children(node) if child.kind != "check"]

    def path(self, node: int) -> Sequence[Node]:
        return self._tree.path(node)
