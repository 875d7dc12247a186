"""One tool call of a tree node: within what is left of the budgets, on the bill of its node, whatever happens to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ponder.control import Stopped, ToolStopped
from ponder.nodes import Deps
from ponder.protocols import OnUsage
from ponder.records import Limits, Node, Observation


async def metered(
    tool: str, node: Node, deps: Deps, work: Callable[[Limits, OnUsage], Awaitable[Observation]]
) -> Observation:
    """Return what a call gives, or why it was refused: a spent tool budget is an observation, and no call.

    Raises:
        Stopped: the run was told to end; the call is cancelled, cleaned up and charged.
    """
    if deps.control.reason is not None:
        raise Stopped(deps.control.why)
    if (why := deps.budgets.tool_spent(tool)) is not None:
        return _spent(tool, why, deps)
    limits = deps.budgets.limits(tool, deps.limits)
    try:
        with deps.ledger.scope(tool, node.id) as call:
            seen = await deps.control.race(work(limits, call.report), tool=tool)
    except ToolStopped as stopped:
        return _spent(tool, str(stopped), deps)
    if seen.outcome in ("cpu", "wall"):
        deps.budgets.after(tool, deps.limits)
    return seen


def _spent(tool: str, why: str, deps: Deps) -> Observation:
    deps.prompting.drop(tool)
    text = f"The budget of {tool} is spent: {why}. Go on without it."
    return Observation(tool=tool, ok=False, outcome="killed", text=text)
