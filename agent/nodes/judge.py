"""judge: score the new nodes from evidence."""

from __future__ import annotations

import contextlib
from typing import Any

from ponder.control import Stopped
from ponder.errors import CoreError
from ponder.nodes import Deps, Rated, State


async def judge(state: State, deps: Deps) -> dict[str, Any]:
    """Give every harvested node its verdict. A tool call that was cut off leaves its node without one."""
    unharmed = [i for i in state["ready"] if deps.tree.nodes[i].status in ("thought", "observed")]
    cut_off = [i for i in unharmed if deps.control.reason is not None and _waits_for_tool(deps, i)]
    for i in cut_off:
        deps.write("cancelled", i)
    new = [i for i in unharmed if i not in cut_off]
    await _rate(new, deps)
    verdicts = deps.judge.judge(deps.tree, new)
    for i in new:
        deps.write("judged", i, verdicts[i])
    deps.strategy.tell(deps.tree, new)
    return {"ready": []}


async def _rate(new: list[int], deps: Deps) -> None:
    """Ask the core for its opinion of new answers, one token each, where the judge wants to know it."""
    wanted = [i for i in deps.judge.unclear(deps.tree, new) if deps.tree.nodes[i].rubric is None]
    if not wanted:
        return
    requests = [deps.prompting.rate(deps.tree, i) for i in wanted]
    with contextlib.ExitStack() as bills:
        calls = [bills.enter_context(deps.ledger.scope("core", i)) for i in wanted]
        prompts, params = [request.prompt for request in requests], requests[0].params
        asked = deps.core.sample(prompts, 1, params, lambda i, _, done: calls[i].report(done.usage))
        try:
            came = await deps.control.race(asked)
        except (Stopped, CoreError):  # answers go without: they are judged by what else is known
            return
    for i, (completion,) in zip(wanted, came, strict=True):
        if (chance := deps.prompting.rated(completion)) is not None:
            deps.write("rated", i, Rated(rubric=chance))


def _waits_for_tool(deps: Deps, i: int) -> bool:
    node = deps.tree.nodes[i]
    return node.status == "thought" and node.action is not None and node.action.type not in ("answer", "reason")
