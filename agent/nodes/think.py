"""think: submit what is pending to the core, harvest what is done."""

from __future__ import annotations

from typing import Any

from ponder.control import Stopped
from ponder.errors import CoreError
from ponder.flight import Harvest
from ponder.nodes import Deps, Failure, State, Thought
from ponder.prompting import StepRequest
from ponder.records import Node, StepKind


async def think(state: State, deps: Deps) -> dict[str, Any]:
    """Sample the next action of every pending node, batched; return with the oldest ones that are done.

    A core that dies is started again once and its lost samples are asked again; when it dies a second time the run
    ends with what it has.
    """
    # No core is needed where the action was given, nor where a resumed run had come further already.
    given = [node.id for node in deps.nodes(state["pending"]) if node.status in ("thought", "observed")]
    try:
        harvested = [] if given else await deps.control.race(_harvest_with_one_restart(state["pending"], deps))
    except Stopped:
        harvested = []
    except CoreError as error:
        deps.control.stop("error", str(error))
        harvested = []
    for one in harvested:
        _record(one, deps)
    ready = [*given, *(one.node for one in harvested)]
    return {"ready": ready, "pending": [i for i in state["pending"] if i not in ready]}


async def _harvest_with_one_restart(pending: list[int], deps: Deps) -> list[Harvest]:
    try:
        return await _harvest(pending, deps)
    except CoreError:
        await deps.flight.cancel()
        await deps.core.start()
        return await _harvest(pending, deps)


async def _harvest(pending: list[int], deps: Deps) -> list[Harvest]:
    new = [node for node in deps.nodes(pending) if node.status == "asked" and node.id not in deps.flight]
    chosen: dict[int, StepKind] = {}
    wanted: list[tuple[int, StepRequest]] = []
    for node in new:
        parent = node.parent or 0
        kind = node.kind
        if kind == "free":
            if parent not in chosen:
                chosen[parent] = await _choose(node, deps)
            kind = chosen[parent]
        wanted.append((node.id, deps.prompting.step(deps.tree, parent, kind)))
    deps.flight.submit(wanted)
    return await deps.flight.harvest()


async def _choose(node: Node, deps: Deps) -> StepKind:
    """Ask the core, for one token, which kind of step suits here. Siblings share the choice and its prefix."""
    parent = node.parent or 0
    kinds = deps.prompting.kinds(deps.tree)
    if len(kinds) == 1:
        return kinds[0]
    request = deps.prompting.choose(deps.tree, parent, kinds)
    with deps.ledger.scope("core", node.id) as call:
        completions = await deps.core.sample(
            [request.prompt], 1, request.params, lambda _p, _s, done: call.report(done.usage)
        )
    return deps.prompting.chosen(completions[0][0], kinds)


def _record(one: Harvest, deps: Deps) -> None:
    completion = one.completion
    if completion.finish_reason == "error":
        deps.write("failed", one.node, Failure(text=completion.error or "the core gave no reason"))
        return
    logprobs = completion.logprobs
    deps.write(
        "thought",
        one.node,
        Thought(
            text=one.request.prompt.prefill + completion.text,
            action=deps.prompting.read(deps.tree, one.request, completion.text),
            mean_logprob=sum(logprobs) / len(logprobs) if logprobs else None,
        ),
    )
