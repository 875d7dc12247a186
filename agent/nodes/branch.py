"""branch: ask the strategy which steps to take next."""

from __future__ import annotations

from typing import Any

from ponder.nodes import Deps, State, opened_for_all
from ponder.records import Expansion, Node


async def branch(state: State, deps: Deps) -> dict[str, Any]:
    """Put the strategy's wishes into the tree, in the order in which it asked."""
    asked = [_ask(expansion, deps) for expansion in deps.strategy.ask(deps.tree)]
    return {"pending": [*state["pending"], *asked]}


def _ask(expansion: Expansion, deps: Deps) -> int:
    new, parent = deps.tree.next_id, deps.tree.nodes[expansion.parent]
    # A branch begins where lines part: below the root, and below a page that was opened for all of them.
    begins = parent.id == 0 or (expansion.action is None and opened_for_all(parent))
    node = Node(
        id=new,
        parent=parent.id,
        branch=new if begins else parent.branch,
        depth=parent.depth + 1,
        kind=expansion.kind,
        status="asked" if expansion.action is None else "thought",
        action=expansion.action,
    )
    deps.write("asked", new, node)
    return new
