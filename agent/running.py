"""One run: the parts put together for one task, the search, and the result, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ponder.budgets import BudgetWatch
from ponder.control import Control
from ponder.errors import PonderError
from ponder.flight import Flight
from ponder.instructions.reading import unfollowed
from ponder.ledger import Call, Ledger
from ponder.nodes import Deps, State
from ponder.nodes.branch import branch
from ponder.nodes.stop import Decided
from ponder.program_tests import stopped_by
from ponder.prompting import Prompting
from ponder.prompts import prompts_for
from ponder.protocols import Checker, Core, Judge, StopPolicy, Strategy, Tool
from ponder.records import Completion, Features, Limits, Result
from ponder.store import Log
from ponder.tree import Event, Tree

if TYPE_CHECKING:
    from ponder.graph import Compiled

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Search:
    """How to search: what every run of an agent has in common."""

    core: Core
    tools: Mapping[str, Tool]
    checker: Checker | None
    strategy: Strategy
    judge: Judge
    policy: StopPolicy
    features: Callable[..., Features]
    limits: Limits
    graph: Compiled
    packages: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


async def run_search(
    search: Search, tree: Tree, log: Log, ledger: Ledger, budgets: BudgetWatch, control: Control
) -> Result:
    """Search until the policy stops or the control says so; always return what was found.

    The tree may hold a part of a run already (a resumed one): what was asked and not finished goes on first.
    Someone else watches the budgets: it began before there was anything to search with.
    """
    from ponder.graph import run_graph  # with LangGraph

    deps = _deps(search, tree, log, ledger, budgets, control)
    ledger.listen(lambda charge: deps.write("charged", charge.node, charge))
    pending = [n.id for n in tree.nodes.values() if n.status in ("asked", "thought", "observed")]
    state = State(run_id=log.run_id, round=tree.rounds, pending=pending, ready=[], stopped=False)
    decided: list[Decided] = []
    log.listen(lambda event: decided.append(Decided.model_validate(event.data)) if event.kind == "decided" else None)
    problem: str | None = None
    cut_off: list[int] = []
    ending = asyncio.create_task(_end_when_told(deps, cut_off))
    try:
        if not pending:
            state["pending"] = (await branch(state, deps))["pending"]
        await run_graph(search.graph, state, deps)
    except PonderError as error:
        problem = str(error)
    except Exception as error:  # a bug of ours or of a part that was plugged in: what was found is not lost to it
        _LOG.debug("the search broke", exc_info=True)
        problem = f"the search broke: {type(error).__name__}: {error}"
    finally:
        if control.reason is None:
            ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        for node in [*cut_off, *await deps.flight.cancel()]:
            deps.write("cancelled", node)
    return _result(search, deps, decided[-1] if decided else None, problem)


async def _end_when_told(deps: Deps, cut_off: list[int]) -> None:
    """Stop the core the moment the run is told to end, not after the graph's last states; note what was cut off."""
    await deps.control.told()
    cut_off += await deps.flight.cancel()
    if deps.control.reason == "budget":
        await deps.core.halt()


def _deps(
    search: Search, tree: Tree, log: Log, ledger: Ledger, budgets: BudgetWatch, control: Control
) -> Deps:
    calls: dict[int, Call] = {}

    def open_call(node: int) -> None:
        calls[node] = ledger.open("core", node)

    def close_call(node: int, completion: Completion) -> None:
        call = calls.pop(node)
        call.report(completion.usage)
        call.close()

    criterion = tree.task.success
    # Of a program that no visible test checks, a check could only say that none passed.
    checker = search.checker if criterion is not None and criterion.kind == "tests" and criterion.visible else None
    return Deps(
        tree=tree,
        log=log,
        ledger=ledger,
        core=search.core,
        flight=Flight(search.core, close_call, open_call),
        prompting=Prompting(
            list(search.tools), packages=search.packages, prompts=prompts_for(search.core.manifest())
        ),
        strategy=search.strategy,
        judge=search.judge,
        policy=search.policy,
        control=control,
        budgets=budgets,
        features=search.features,
        tools=search.tools,
        checker=checker,
        limits=search.limits,
    )


def _result(search: Search, deps: Deps, last: Decided | None, problem: str | None) -> Result:
    try:
        best = deps.judge.best(deps.tree)
    except Exception as error:  # what broke the search may break this, too: the bill and the warnings are still told
        best, problem = None, problem or f"the judge broke: {type(error).__name__}: {error}"
    warnings = list(search.warnings)
    warnings += getattr(deps.tools.get("browser"), "warnings", ())
    if problem is not None:
        warnings.append(problem)
    elif deps.control.reason == "error":
        warnings.append(deps.control.why)
    elif best is None:  # nothing came of it: say what the core said of the steps that it refused (a prompt too long)
        failed = [node.text for node in deps.tree.nodes.values() if node.status == "failed" and node.text]
        warnings += dict.fromkeys(failed)
    if best is not None:
        short = unfollowed(deps.tree.task, best.answer)
        warnings += [f"the best answer falls short: {one.wrong(best.answer)}" for one in short]
    if endless := endless_tests(deps.tree):
        warnings.append(endless)
    reason = "error" if problem is not None or last is None else last.decision.reason or "error"
    return Result(
        answer=best.answer if best else None,
        confidence=best.confidence if best else 0.0,
        stop_reason=reason,
        run_id=deps.log.run_id,
        nodes=len(deps.tree.nodes) - 1,
        ledger=deps.ledger.bill(),
        elapsed_s=deps.ledger.elapsed_s,
        warnings=tuple(warnings),
    )


def endless_tests(tree: Tree) -> str | None:
    """Return a warning where no program came to the end of the visible tests: one of these may never end.

    Each such check costs its limit of CPU, and no program can pass it: who wrote the tests must hear of it.
    """
    checked = [seen for node in tree.nodes.values() if (seen := node.observation) is not None and seen.total]
    if len(checked) < 2 or not all(stopped_by(seen.text) for seen in checked):
        return None
    return f"the visible tests of none of {len(checked)} programs ended within their limits: does each end by itself?"


def write_end(log: Log, result: Result) -> None:
    """Record the result; a store that broke meanwhile must not take the answer with it."""
    with contextlib.suppress(PonderError):
        log.write(Event(kind="ended", data=result.model_dump(mode="json")))


def nothing_found(log: Log, ledger: Ledger, control: Control) -> Result:
    """Return the result of a run that was told to end before there was anything to search with."""
    return Result(
        answer=None,
        confidence=0.0,
        stop_reason=control.reason or "error",
        run_id=log.run_id,
        nodes=0,
        ledger=ledger.bill(),
        elapsed_s=ledger.elapsed_s,
        warnings=(f"stopped before the search began: {control.why}",),
    )
