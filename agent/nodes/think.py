"""think: submit what is pending to the core, harvest what is done."""

from __future__ import annotations

from typing import Any

from ponder.control import Stopped
from ponder.errors import CoreError
from ponder.flight import Harvest
from ponder.nodes import Deps, Failure, State, Thought
from ponder.prompting import StepRequest
from ponder.records import Node, Repair, StepKind


async def think(state: State, deps: Deps) -> dict[str, Any]:
    """Sample the next action of every pending node, batched; return with the oldest ones that are done.

    A core that dies is started again once and its lost samples are asked again; when it dies a second time the run
    ends with what it has. Words that are no act the step may take cost one more question, not the branch.
    """
    # No core is needed where the action was given, nor where a resumed run had come further already.
    ready = [node.id for node in deps.nodes(state["pending"]) if node.status in ("thought", "observed")]
    try:
        if not ready:
            await deps.control.race(_harvest_with_one_restart(state["pending"], ready, deps))
    except Stopped:
        pass
    except CoreError as error:
        deps.control.stop("error", str(error))
    return {"ready": ready, "pending": [i for i in state["pending"] if i not in ready]}


async def _harvest_with_one_restart(pending: list[int], ready: list[int], deps: Deps) -> None:
    try:
        await _harvest(pending, ready, deps)
    except CoreError:
        # What its siblings came to is paid for, and is kept.
        ready += [one.node for one in deps.flight.finished() if _record(one, deps)]
        await deps.flight.cancel()
        await deps.core.start()
        await _harvest([node for node in pending if node not in ready], ready, deps)


async def _harvest(pending: list[int], ready: list[int], deps: Deps) -> None:
    """Note what is done, and in `ready` whose turn it is.

    What is asked again is waited for before the round goes on: branches keep the order in which they were asked.
    """
    await _submit(deps.nodes(pending), deps)
    again: set[int] = set()
    while again or not ready:
        harvested = await deps.flight.harvest()
        if not harvested:
            return
        for one in harvested:
            again.discard(one.node)
            if _record(one, deps):
                ready.append(one.node)
            else:
                again.add(one.node)
        await _submit(deps.nodes(sorted(again)), deps)


async def _submit(nodes: list[Node], deps: Deps) -> None:
    """Start sampling for those of the nodes that wait for a core and are not on their way."""
    chosen: dict[int, StepKind] = {}
    wanted: list[tuple[int, StepRequest]] = []
    for node in nodes:
        if node.status != "asked" or node.id in deps.flight:
            continue
        parent = node.parent or 0
        if node.repair is not None:
            wanted.append((node.id, deps.prompting.repair(deps.tree, parent, node.repair)))
            continue
        kind = node.kind
        if kind == "free":
            if parent not in chosen:
                chosen[parent] = await _choose(node, deps)
            kind = chosen[parent]
        wanted.append((node.id, deps.prompting.step(deps.tree, parent, kind)))
    deps.flight.submit(wanted)


async def _choose(node: Node, deps: Deps) -> StepKind:
    """Ask the core, for one token, which kind of step suits here. Siblings share the choice and its prefix."""
    parent = node.parent or 0
    kinds = deps.prompting.kinds(deps.tree)
    if len(kinds) == 1:
        return kinds[0]
    request = deps.prompting.choose(deps.tree, parent)
    with deps.ledger.scope("core", node.id) as call:
        completions = await deps.core.sample(
            [request.prompt], 1, request.params, lambda _p, _s, done: call.report(done.usage)
        )
    return deps.prompting.chosen(completions[0][0], kinds)


def _record(one: Harvest, deps: Deps) -> bool:
    """Write down what came for a node; return whether its step is done, and need not be asked again."""
    completion, request = one.completion, one.request
    if completion.finish_reason == "error":
        deps.write("failed", one.node, Failure(text=completion.error or "the core gave no reason"))
        return True
    reading = deps.prompting.read(deps.tree, request, completion.text, cut=completion.finish_reason == "length")
    text = request.prompt.prefill + completion.text
    # What met the limit of tokens would only be as long again.
    if reading.wrong is not None and not reading.cut and deps.tree.nodes[one.node].repair is None:
        deps.write("repairing", one.node, Repair(kind=request.kind, text=text, wrong=reading.wrong))
        return False
    logprobs = completion.logprobs
    mean = sum(logprobs) / len(logprobs) if logprobs else None
    tokens = completion.usage.tokens_out
    untold = request.kind == "reason" and deps.tree.nodes[one.node].kind != "reason"
    kind = request.kind if untold else None
    thought = Thought(text=text, action=reading.action, mean_logprob=mean, tokens_out=tokens, kind=kind)
    deps.write("thought", one.node, thought)
    return True
