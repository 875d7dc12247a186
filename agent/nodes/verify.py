"""verify: run the pending programs in the sandbox, and the visible tests of proposed programs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from ponder.answers import in_words_of
from ponder.control import Stopped
from ponder.nodes import Deps, State, needs_verify, unknown_tool
from ponder.nodes.calls import metered
from ponder.records import Answer, CallTool, Node, Observation


async def verify(state: State, deps: Deps) -> dict[str, Any]:
    """Run what waits, a few at a time; every outcome is an observation, every call is charged, even a cancelled one."""
    waiting = [node for node in deps.nodes(state["ready"]) if needs_verify(node, deps.checker is not None)]
    turn = asyncio.Semaphore(deps.parallel)

    async def one(node: Node) -> None:
        async with turn:
            with contextlib.suppress(Stopped):
                deps.write("observed", node.id, await _run(node, deps))

    # All of them end before this returns, also when one of them breaks: what they used is on the bill by then.
    for ended in await asyncio.gather(*(one(node) for node in waiting), return_exceptions=True):
        if ended is not None:
            raise ended
    return {}


async def _run(node: Node, deps: Deps) -> Observation:
    action = node.action
    if isinstance(action, Answer) and deps.checker is not None:
        checker, criterion = deps.checker, deps.tree.task.success
        given = criterion.prelude if criterion else ""
        program = f"{given}\n{action.text}" if given else action.text
        tests, calls = criterion.visible if criterion else (), deps.judge.inputs(deps.tree)
        return await metered(
            "python",
            node,
            deps,
            lambda limits, report: checker.check(program, tests, calls=calls, limits=limits, on_usage=report),
        )
    name = action.tool if isinstance(action, CallTool) else "python"
    tool = deps.tools.get(name)
    if tool is None or action is None:
        return unknown_tool(name, deps.tools)
    session = f"{deps.log.run_id}-{node.branch}"
    observation = await metered(
        name,
        node,
        deps,
        lambda limits, report: tool.run(action, session=session, limits=limits, on_usage=report),
    )
    if observation.answer is None or name != "python":
        return observation
    return observation.model_copy(update={"answer": in_words_of(deps.tree.task.prompt, observation.answer)})
