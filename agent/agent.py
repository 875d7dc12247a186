"""The agent: where all parts meet (the composition root), and the library's front.

    from ponder import Agent, Budget
    with Agent() as agent:
        result = agent.run("What is the 2000th prime number?", budget=Budget(cpu_seconds=90))
"""

from __future__ import annotations

import asyncio
import secrets
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from ponder.background import BackgroundLoop
from ponder.budgets import BudgetWatch
from ponder.control import Control, Stopped
from ponder.errors import UnknownName, UsageError
from ponder.graph import open_graph
from ponder.judges.checks import validate
from ponder.judges.evidence import EvidenceJudge
from ponder.ledger import Ledger, Meter, Prices
from ponder.models import Progress
from ponder.parts import (
    DEFAULT_CORE,
    TOOLS,
    check_core,
    check_tools,
    core_meter,
    default_home,
    make_strategy,
    open_core,
    open_tools,
    recorded,
)
from ponder.policies.adaptive import AdaptiveConsistency
from ponder.policies.features import extract
from ponder.policies.hosts import HostRules
from ponder.prompts import CURRENT
from ponder.protocols import Core, Judge, StopPolicy, Strategy
from ponder.records import Bill, Budget, Charge, Limits, Result, Task
from ponder.running import Search, nothing_found, run_search, write_end
from ponder.sandboxes.groups import group_factory
from ponder.store import Log, Store, open_store
from ponder.tree import Event, Tree

OnEvent = Callable[[Event], None]


class Agent:
    """A reasoning core inside a search that knows its own price.

    Parts are opened on first use and kept warm (engine, browser) until `close()`. Runs of one agent take turns.

    Args:
        core: a registered model's name, the path of a `.gguf` file, or a `Core`.
        tools: the tools that the core may use, of `python` and `browser`.
        strategy, judge, policy: how to search, score and stop; defaults: best-of-N, evidence, Adaptive-Consistency.
        budget: for tasks that bring none of their own.
        limits: of one tool call.
        prices: what usage costs.
        hosts: which pages may be visited; by default public http(s) addresses only.
        home: folder of the recorded runs; default PONDER_HOME or the user's data folder.
        progress: hears of a model's download.
        record: a new file for all that the core is asked and answers; `core="cassette:FILE"` replays it without one.
        whole_process: bill this process's CPU from its start, imports included (the command line does).

    Raises:
        UnknownName: of `core` or of a tool.
        ModelError: `core` is a file that is no model.
    """

    def __init__(
        self,
        core: str | Core = DEFAULT_CORE,
        *,
        tools: Sequence[str] = TOOLS,
        strategy: Strategy | None = None,
        judge: Judge | None = None,
        policy: StopPolicy | None = None,
        budget: Budget | None = None,
        limits: Limits | None = None,
        prices: Prices | None = None,
        hosts: HostRules | None = None,
        home: Path | str | None = None,
        progress: Progress | None = None,
        record: Path | str | None = None,
        whole_process: bool = False,
    ) -> None:
        self._budget = budget or Budget()
        self._background = BackgroundLoop("ponder")
        plan = _Plan(
            core=check_core(core) if isinstance(core, str) else core,
            tools=check_tools(tools),
            strategy=strategy or make_strategy(tools),
            judge=judge or EvidenceJudge(),
            policy=policy or AdaptiveConsistency(),
            limits=limits or Limits(),
            prices=prices or Prices(),
            hosts=hosts or HostRules(),
            home=Path(home) if home else default_home(),
            progress=progress,
            record=Path(record) if record else None,
            whole_process=whole_process,
        )
        self._works = _Works(plan)
        # Engine and browser must not outlive a program that forgot close().
        self._finalizer = weakref.finalize(self, _shut, self._background, self._works)

    def run(self, task: str | Task, *, budget: Budget | None = None, on_event: OnEvent | None = None) -> Result:
        """Search until the policy stops, and return the best answer with its bill.

        Ctrl-C (KeyboardInterrupt) ends the search and returns the best answer so far with reason `interrupted`.

        Args:
            on_event: called on a background thread with every event as it is recorded.

        Raises:
            UsageError: the task is wrong.
            MachineError: something that the search needs is missing (sandbox, weights).
        """
        return self._wait(self._submit(task, budget, on_event))

    async def arun(self, task: str | Task, *, budget: Budget | None = None, on_event: OnEvent | None = None) -> Result:
        """Like `run`, for async code; cancelling it ends the search as `interrupted`."""
        future = asyncio.wrap_future(self._submit(task, budget, on_event))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self.interrupt()
            raise

    async def stream(self, task: str | Task, *, budget: Budget | None = None) -> AsyncIterator[Event | Result]:
        """Yield every event as it is recorded, and the `Result` last."""
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[Event | None] = asyncio.Queue()

        def hear(event: Event | None) -> None:
            loop.call_soon_threadsafe(heard.put_nowait, event)

        future = self._submit(task, budget, hear)
        future.add_done_callback(lambda _: hear(None))
        try:
            while (event := await heard.get()) is not None:
                yield event
            yield future.result()
        finally:
            if not future.done():
                self.interrupt()

    def resume(self, run_id: str, *, budget: Budget | None = None, on_event: OnEvent | None = None) -> Result:
        """Go on with a run that was cut off, from its last event; finished tool calls are not run again.

        Raises:
            RunNotFound: no such run.
            UsageError: the run has ended.
        """
        return self._wait(self._background.submit(self._works.resume(run_id, budget or self._budget, on_event)))

    def interrupt(self) -> None:
        """End the current run soon; it returns its best answer so far with reason `interrupted`."""
        self._background.call(self._works.interrupt)

    def bill(self) -> Bill | None:
        """Return the bill of the latest run so far, work in flight included; None while none has begun.

        After `close()` it also holds what ending the engine and the browser took.
        """
        return self._works.bill()

    def close(self) -> None:
        """Stop the engine and the browser, and wait for them. Safe to call twice."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, task: str | Task, budget: Budget | None, on_event: OnEvent | None) -> Future[Result]:
        whole = _as_task(task)
        budget = self._works.checked(budget or whole.budget or self._budget)
        return self._background.submit(self._works.run(whole, budget, on_event))

    def _wait(self, future: Future[Result]) -> Result:
        try:
            return future.result()
        except KeyboardInterrupt:
            if not self._works.searching:
                future.cancel()
                raise
            self.interrupt()
            return future.result()  # a second Ctrl-C gets through


@dataclass(frozen=True)
class _Plan:
    """What an agent was told to be; see `Agent`."""

    core: str | Core
    tools: tuple[str, ...]
    strategy: Strategy
    judge: Judge
    policy: StopPolicy
    limits: Limits
    prices: Prices
    hosts: HostRules
    home: Path
    progress: Progress | None
    record: Path | None
    whole_process: bool


@dataclass(frozen=True)
class _Open:
    """The parts that are open, until `stack` is closed."""

    search: Search
    meters: tuple[Meter, ...]
    stack: AsyncExitStack


class _Works:
    """What lives on the background loop: the open parts, and the run that has its turn."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._turn = asyncio.Lock()
        self._store: Store | None = None
        self._opened: _Open | None = None
        self._control: Control | None = None
        self._ledger: Ledger | None = None

    @property
    def searching(self) -> bool:
        """Whether a run has begun that can be interrupted."""
        return self._control is not None and self._opened is not None

    def checked(self, budget: Budget) -> Budget:
        """Return the budget. Raises UnknownName when it limits a tool that this agent does not have."""
        known = ["core", *self._plan.tools]
        for tool in budget.per_tool:
            if tool not in known:
                raise UnknownName("tool in a budget", tool, known)
        return budget

    async def run(self, task: Task, budget: Budget, on_event: OnEvent | None) -> Result:
        async with self._turn:
            run_id = f"{time.strftime('%y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
            store = self._open_store()
            log, tree = Log(store, run_id), Tree(task)

            def begin() -> None:
                store.create(run_id, task.prompt)
                _hear(log, tree, on_event)
                data = {"task": task.model_dump(mode="json"), "budget": budget.model_dump(mode="json")}
                log.write(Event(kind="started", data=data | {"manifest": self._manifest()}))

            return await self._finish(tree, log, begin, budget)

    async def resume(self, prefix: str, budget: Budget, on_event: OnEvent | None) -> Result:
        async with self._turn:
            store = self._open_store()
            run_id = store.find(prefix)
            events = store.events(run_id)
            if events[-1].kind == "ended":
                raise UsageError(f"run {run_id} has ended", fix=f"see `ponder runs show {run_id}`")
            tree, log = Tree.from_events(events), Log(store, run_id, seq=len(events))
            earlier = [Charge.model_validate(event.data) for event in events if event.kind == "charged"]
            return await self._finish(tree, log, lambda: _hear(log, tree, on_event), self.checked(budget), earlier)

    def interrupt(self) -> None:
        if self._control is not None:
            self._control.stop("interrupted", "interrupted by the user")

    def bill(self) -> Bill | None:
        return self._ledger.bill() if self._ledger is not None else None

    async def _finish(
        self, tree: Tree, log: Log, begin: Callable[[], None], budget: Budget, earlier: Sequence[Charge] = ()
    ) -> Result:
        """Open what is not open yet, search, and write the end; the budget is watched from the first moment on."""
        ledger, control = Ledger(prices=self._plan.prices, whole_process=self._whole_process), Control()
        for charge in earlier:
            ledger.add(charge)
        self._control, self._ledger = control, ledger
        budgets = BudgetWatch(budget, ledger, control, closing=self._plan.whole_process)
        try:
            async with budgets.watching():
                try:
                    opened = await control.race(self._open(ledger))
                except Stopped:
                    begin()
                    result = nothing_found(log, ledger, control)
                else:
                    begin()
                    result = await run_search(opened.search, tree, log, ledger, budgets, control)
            write_end(log, result)
            return result
        finally:
            self._control = None

    @property
    def _whole_process(self) -> bool:
        return self._plan.whole_process and self._ledger is None  # a second run does not pay for the first

    def _manifest(self) -> dict[str, str | int | float | bool]:
        plan, opened = self._plan, self._opened
        names = {"strategy": plan.strategy.name, "policy": plan.policy.name, "tools": ",".join(plan.tools)}
        if opened is not None:
            names["packages"] = ",".join(opened.search.packages)
            return {**opened.search.core.manifest(), **names, "prompts": CURRENT}
        core = {"model": plan.core} if isinstance(plan.core, str) else plan.core.manifest()
        return {**core, **names, "prompts": CURRENT}

    def _open_store(self) -> Store:
        if self._store is None:
            self._store = open_store(self._plan.home / "runs.sqlite")
        return self._store

    async def _open(self, ledger: Ledger) -> _Open:
        """Return the open parts; the ledger watches their meters from before they do anything."""
        if self._opened is not None:
            for meter in self._opened.meters:
                ledger.attach(meter)
            await self._opened.search.core.start()  # an engine that was halted loads again
            return self._opened
        plan = self._plan
        async with AsyncExitStack() as stack:
            groups = group_factory()
            box = await open_tools(plan.tools, groups, plan.hosts)
            stack.push_async_callback(box.close)
            meters = box.meters()
            for meter in meters:
                ledger.attach(meter, from_zero=True)
            if (daemon := box.daemon()) is not None:
                meters.append(daemon)
                ledger.attach(daemon)
            name = plan.core
            core = name if not isinstance(name, str) else await open_core(name, groups, plan.progress, ledger)
            if plan.record is not None:
                core = recorded(core, plan.record)
            stack.push_async_callback(core.close)
            meters.append(core_meter(core))
            ledger.attach(meters[-1], from_zero=isinstance(name, str))
            await core.start()
            graph = await stack.enter_async_context(open_graph(plan.home / "checkpoints.sqlite"))
            search = Search(
                core=core,
                tools=box.tools,
                checker=box.checker,
                strategy=plan.strategy,
                judge=plan.judge,
                policy=plan.policy,
                features=extract,
                limits=plan.limits,
                graph=graph,
                packages=box.packages,
                warnings=tuple(box.warnings),
            )
            self._opened = _Open(search=search, meters=tuple(meters), stack=stack.pop_all())
        return self._opened

    async def close(self) -> None:
        self.interrupt()
        async with self._turn:  # a run that is still going ends first, with what it has
            if self._opened is not None:
                opened, self._opened = self._opened, None
                await opened.stack.aclose()
            if self._store is not None:
                store, self._store = self._store, None
                store.close()


def _hear(log: Log, tree: Tree, on_event: OnEvent | None) -> None:
    log.listen(tree.apply)
    if on_event is not None:
        log.listen(on_event)


def _shut(background: BackgroundLoop, works: _Works) -> None:
    if background.running:
        background.submit(works.close()).result(timeout=30)
        background.close()


def _as_task(task: str | Task) -> Task:
    try:
        whole = task if isinstance(task, Task) else Task(prompt=task)
    except ValidationError as error:
        raise UsageError(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from error
    if whole.success is not None:
        validate(whole.success)
    return whole
