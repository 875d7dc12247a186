"""One run: the parts put together for one task, the search, and the result, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
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
from ponder.records import Best, Charge, Completion, Features, Limits, Result
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
    search: Search, tree: Tree, log: Log, ledger: Ledger, budgets: BudgetWatch, control: Control,
    stopped: Decided | None = None,
) -> Result:
    """Search until the policy stops or the control says so; always return what was found.

    The tree may hold a part of a run already (a resumed one): what was asked and not finished goes on first.
    Someone else watches the budgets: it began before there was anything to search with.

    Args:
        stopped: the decision to stop that the run had come to, if only its end was not written.
    """
    from ponder.graph import run_graph  # with LangGraph

    deps = _deps(search, tree, log, ledger, budgets, control)
    lost: list[str] = []
    ledger.listen(lambda charge: _write_charge(deps, charge, lost))
    pending = [n.id for n in tree.nodes.values() if n.status in ("asked", "thought", "observed")]
    if stopped is not None:
        return _result(search, deps, stopped, _write_cancelled(deps, pending))
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
    except Exception as error:
        problem = _words(error)
    finally:
        if control.reason is None:
            ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        late = _write_cancelled(deps, [*cut_off, *await deps.flight.cancel()])
    problem = problem or late or next(iter(lost), None)
    return _result(search, deps, decided[-1] if decided else None, problem)


def _words(error: Exception) -> str:
    """Say what broke: a part or a bug of ours, or one that was plugged in; what was found is not lost to it."""
    if isinstance(error, PonderError):
        return str(error)
    _LOG.debug("the search broke", exc_info=error)
    return f"the search broke: {type(error).__name__}: {error}"


def _write_charge(deps: Deps, charge: Charge, lost: list[str]) -> None:
    """Record a charge. It may come from a callback, where nobody hears of an error: that one ends the run instead."""
    try:
        deps.write("charged", charge.node, charge)
    except Exception as error:
        lost.append(_words(error))
        deps.control.stop("error", lost[0])


def _write_cancelled(deps: Deps, nodes: Sequence[int]) -> str | None:
    """Record what was cut off; return what broke: the store may be what ended the search."""
    try:
        for node in nodes:
            deps.write("cancelled", node)
    except Exception as error:
        return _words(error)
    return None


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
    best, broke = _best(deps.judge, deps.tree)
    # What broke when the decision had fallen took nothing from the search.
    decided = last is not None and last.decision.stop and broke is None
    problem = problem or broke
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
    reason = last.decision.reason if last is not None and (decided or problem is None) else None
    return Result(
        answer=best.answer if best else None,
        confidence=best.confidence if best else 0.0,
        stop_reason=reason or "error",
        run_id=deps.log.run_id,
        nodes=len(deps.tree.nodes) - 1,
        ledger=deps.ledger.bill(),
        elapsed_s=deps.ledger.elapsed_s,
        warnings=tuple(warnings),
    )


def _best(judge: Judge, tree: Tree) -> tuple[Best | None, str | None]:
    """Return the best answer, and what broke: the bill and the warnings are told all the same."""
    try:
        return judge.best(tree), None
    except Exception as error:
        return None, f"the judge broke: {type(error).__name__}: {error}"


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


def nothing_found(
    run_id: str, ledger: Ledger, control: Control, tree: Tree | None = None, judge: Judge | None = None
) -> Result:
    """Return the result of a run that was told to end before there was anything to search with.

    Args:
        tree: what the run, if it is a resumed one, had found before.
        judge: of that.
    """
    best, broke = _best(judge, tree) if judge is not None and tree is not None else (None, None)
    return Result(
        answer=best.answer if best else None,
        confidence=best.confidence if best else 0.0,
        stop_reason=control.reason or "error",
        run_id=run_id,
        nodes=len(tree.nodes) - 1 if tree is not None else 0,
        ledger=ledger.bill(),
        elapsed_s=ledger.elapsed_s,
        warnings=(f"stopped before the search began: {control.why}", *([broke] if broke else [])),
    )
