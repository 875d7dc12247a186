"""browser: run the pending browser calls."""

from __future__ import annotations

from typing import Any

from ponder.control import Stopped
from ponder.nodes import Deps, State, needs_browser, opened_for_all, unknown_tool
from ponder.nodes.calls import metered
from ponder.protocols import Tool
from ponder.records import Browse, Node, Observation, StopReason


async def browser(state: State, deps: Deps) -> dict[str, Any]:
    """Run what waits, one after the other: pages share one browser and its meter."""
    try:
        for node in deps.nodes(state["ready"]):
            if needs_browser(node):
                seen = await _run(node, deps)
                deps.write("observed", node.id, seen)
                if not seen.ok and opened_for_all(node) and isinstance(node.action, Browse):
                    # The task names this page: guessing without it would answer another question.
                    reason: StopReason = "error" if deps.budgets.tool_spent("browser") is None else "budget"
                    deps.control.stop(reason, f"cannot open {node.action.url}: {seen.text}")
    except Stopped:
        pass
    return {}


async def _run(node: Node, deps: Deps) -> Observation:
    tool = deps.tools.get("browser")
    if tool is None or not isinstance(node.action, Browse):
        return unknown_tool("browser", deps.tools)
    if node.action.op != "goto":
        await _replay(node, tool, deps)
    return await _call(node.action, node, tool, deps)


async def _replay(node: Node, tool: Tool, deps: Deps) -> None:
    """Bring the branch's own page to where its parent's was: branches part, pages cannot be copied."""
    line = deps.tree.path(node.id)[:-1]
    inherited = [step.action for step in line if step.branch != node.branch and isinstance(step.action, Browse)]
    if any(isinstance(step.action, Browse) for step in line if step.branch == node.branch):
        return
    for action in inherited:
        await _call(action, node, tool, deps)


async def _call(action: Browse, node: Node, tool: Tool, deps: Deps) -> Observation:
    session = f"{deps.log.run_id}-{node.branch}"
    return await metered(
        "browser",
        node,
        deps,
        lambda limits, report: tool.run(action, session=session, limits=limits, on_usage=report),
    )
