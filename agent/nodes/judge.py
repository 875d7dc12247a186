"""judge: score the new nodes from evidence."""

from __future__ import annotations

from typing import Any

from ponder.nodes import Deps, State


async def judge(state: State, deps: Deps) -> dict[str, Any]:
    """Give every harvested node its verdict. A tool call that was cut off leaves its node without one."""
    unharmed = [i for i in state["ready"] if deps.tree.nodes[i].status in ("thought", "observed")]
    cut_off = [i for i in unharmed if deps.control.reason is not None and _waits_for_tool(deps, i)]
    for i in cut_off:
        deps.write("cancelled", i)
    new = [i for i in unharmed if i not in cut_off]
    verdicts = deps.judge.judge(deps.tree, new)
    for i in new:
        deps.write("judged", i, verdicts[i])
    deps.strategy.tell(deps.tree, new)
    return {"ready": []}


def _waits_for_tool(deps: Deps, i: int) -> bool:
    node = deps.tree.nodes[i]
    return node.status == "thought" and node.action is not None and node.action.type not in ("answer", "reason")
