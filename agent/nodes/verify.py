"""verify: run the pending programs in the sandbox, and the visible tests of proposed programs."""

from __future__ import annotations

import asyncio
from typing import Any

from ponder.control import Stopped
from ponder.nodes import Deps, State, needs_verify, unknown_tool
from ponder.records import Answer, CallTool, Node, Observation


async def verify(state: State, deps: Deps) -> dict[str, Any]:
    """Run what waits, a few at a time; every outcome is an observation, every call is charged, even a cancelled one."""
    waiting = [node for node in deps.nodes(state["ready"]) if needs_verify(node, deps.checker is not None)]
    turn = asyncio.Semaphore(deps.parallel)

    async def one(node: Node) -> None:
        async with turn:
            deps.write("observed", node.id, await _run(node, deps))

    try:
        await deps.control.race(asyncio.gather(*(one(node) for node in waiting)))
    except Stopped:
        pass
    return {}


async def _run(node: Node, deps: Deps) -> Observation:
    action = node.action
    if isinstance(action, Answer) and deps.checker is not None:
        criterion = deps.tree.task.success
        tests = criterion.visible if criterion else ()
        return await deps.checker.check(
            action.text, tests, limits=deps.limits, on_usage=lambda usage: deps.charge("python", node.id, usage)
        )
    name = action.tool if isinstance(action, CallTool) else "python"
    tool = deps.tools.get(name)
    if tool is None or action is None:
        return unknown_tool(name, deps.tools)
    return await tool.run(
        action,
        session=str(node.branch),
        limits=deps.limits,
        on_usage=lambda usage: deps.charge(name, node.id, usage),
    )
