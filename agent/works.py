"""What an agent runs on: parts that are opened once and stay warm, and one run at a time over them.

The other half of the composition root: `ponder.agent` is the library's front, this lives on its background loop.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from ponder.budgets import BudgetWatch
from ponder.control import Control, Stopped
from ponder.errors import UnknownName, UsageError
from ponder.ledger import Ledger, Meter
from ponder.manifest import Manifest, with_circumstances
from ponder.nodes.stop import Decided
from ponder.parts import agents_of, core_meter, open_core, open_tools, recorded, replayed, replayed_tools
from ponder.plan import Plan, Terms
from ponder.policies.features import extract
from ponder.records import Bill, Budget, Charge, Result, Task
from ponder.running import Search, nothing_found, run_search, write_end
from ponder.sandboxes.groups import group_factory
from ponder.store import Log, Store, held, open_store
from ponder.tree import Event, Tree

if TYPE_CHECKING:
    from ponder.core.cassettes.recorder import Recorder
    from ponder.core.cassettes.timeline import Timeline

OnEvent = Callable[[Event], None]
BY_USER, CLOSING = "interrupted by the user", "the agent is being closed"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Open:
    """The parts that are open, until `stack` is closed."""

    search: Search
    meters: tuple[Meter, ...]
    stack: AsyncExitStack


class Works:
    """What lives on the background loop: the open parts, and the run that has its turn."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._turn = asyncio.Lock()
        self._closing = False
        self._store: Store | None = None
        self._opened: _Open | None = None
        self._control: Control | None = None
        self._ledger: Ledger | None = None
        self._replay = replayed(plan.core)
        self._recorder: Recorder | None = None
        if self._replay is not None and plan.record is not None:
            raise UsageError("a replay is not recorded again", fix="copy the cassette")

    def checked(self, budget: Budget) -> Budget:
        """Return the budget. Raises UnknownName when it limits a tool that this agent does not have."""
        known = ["core", *self._plan.tools]
        for tool in budget.per_tool:
            if tool not in known:
                raise UnknownName("tool in a budget", tool, known)
        return budget

    def openable(self, task: Task) -> Task:
        """Return the task. Raises UsageError when it has pages and this agent no browser to open them."""
        if task.urls and "browser" not in self._plan.tools:
            raise UsageError(f"there is no tool that opens {task.urls[0]}", fix="add browser to the tools")
        return task

    async def start(self) -> Bill:
        async with self._turn:
            ledger = Ledger(prices=self._plan.prices)
            await self._open(ledger)
            return ledger.bill()

    async def run(self, task: Task, budget: Budget, on_event: OnEvent | None, control: Control) -> Result:
        return await self._in_turn("", control, lambda: self._run(task, budget, on_event, control))

    async def resume(
        self, prefix: str, budget: Budget | None, on_event: OnEvent | None, control: Control
    ) -> Result:
        return await self._in_turn(prefix, control, lambda: self._resume(prefix, budget, on_event, control))

    async def _in_turn(self, run_id: str, control: Control, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do the work of a run when its turn comes. One that is told to end before does nothing, and is no record."""
        try:
            await control.race(self._turn.acquire())
        except Stopped:
            return self._nothing(run_id, control)
        try:
            if self._closing:
                control.stop("interrupted", CLOSING)
            return await work() if control.reason is None else self._nothing(run_id, control)
        finally:
            self._turn.release()

    def _nothing(self, run_id: str, control: Control) -> Result:
        return nothing_found(run_id, Ledger(prices=self._plan.prices), control)

    async def _run(self, task: Task, budget: Budget, on_event: OnEvent | None, control: Control) -> Result:
        recorded_budget = self._agreed(task, budget)
        run_id = f"{time.strftime('%y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        store = self._open_store()
        log, tree = Log(store, run_id), Tree(task)

        def begin() -> None:
            store.create(run_id, task.prompt)
            _hear(log, tree, on_event)
            kept = recorded_budget or budget
            data = {"task": task.model_dump(mode="json"), "budget": kept.model_dump(mode="json")}
            terms = Terms.of(self._plan).model_dump(mode="json", exclude_defaults=True)
            log.write(Event(kind="started", data=data | {"manifest": self._manifest(), "search": terms}))

        # A replay is told when to stop: no meter of today decides.
        watched = budget if recorded_budget is None else Budget()
        with held(self._plan.home, run_id):
            return await self._finish(tree, log, begin, watched, control)

    async def _resume(
        self, prefix: str, budget: Budget | None, on_event: OnEvent | None, control: Control
    ) -> Result:
        if self._replay is not None or self._plan.record is not None:
            raise UsageError("a run that goes on can neither be recorded nor replayed: its beginning is elsewhere")
        store = self._open_store()
        run_id = store.find(prefix)
        with held(self._plan.home, run_id):
            events = store.events(run_id)
            if events[-1].kind == "ended":
                raise UsageError(f"run {run_id} has ended", fix=f"see `ponder runs show {run_id}`")
            budget = self.checked(budget or Budget.model_validate(events[0].data.get("budget", {})))
            tree, log = Tree.from_events(events), Log(store, run_id, seq=len(events))
            earlier = [Charge.model_validate(event.data) for event in events if event.kind == "charged"]
            last = next((Decided.model_validate(one.data) for one in reversed(events) if one.kind == "decided"), None)
            stopped = last if last is not None and last.decision.stop else None
            begin = partial(_hear, log, tree, on_event)
            return await self._finish(tree, log, begin, budget, control, earlier, stopped)

    def interrupt(self, why: str = BY_USER) -> None:
        if self._control is not None:
            self._control.stop("interrupted", why)

    def bill(self) -> Bill | None:
        return self._ledger.bill() if self._ledger is not None else None

    async def _finish(
        self, tree: Tree, log: Log, begin: Callable[[], None], budget: Budget, control: Control,
        earlier: Sequence[Charge] = (), stopped: Decided | None = None,
    ) -> Result:
        """Open what is not open yet, search, and write the end; the budget is watched from the first moment on."""
        plan = self._plan
        ledger = Ledger(prices=plan.prices, whole_process=self._whole_process, agents=agents_of(plan.core))
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
                    result = nothing_found(log.run_id, ledger, control, tree, plan.judge)
                else:
                    begin()
                    tape = self._on_tape(tree.task, budget, control, log)
                    result = await run_search(opened.search, tree, log, ledger, budgets, control, stopped)
                    if tape is not None and (differs := tape.end_run(result)):
                        result = result.model_copy(update={"warnings": (*result.warnings, *differs)})
            write_end(log, result)
            return result
        finally:
            self._control = None

    @property
    def _whole_process(self) -> bool:
        return self._plan.whole_process and self._ledger is None  # a second run does not pay for the first

    def _manifest(self) -> Manifest:
        plan, opened = self._plan, self._opened
        names = self._settings()
        if opened is not None:
            names["packages"] = ",".join(opened.search.packages)
            core = opened.search.core.manifest()
        else:
            core = {"model": plan.core} if isinstance(plan.core, str) else plan.core.manifest()
        return {**with_circumstances(core, plan.core if isinstance(plan.core, str) else plan.core.name), **names}

    def _settings(self) -> dict[str, str]:
        """Return what a search depends on besides its task, its budget and its core."""
        plan = self._plan
        return {
            "strategy": plan.strategy.name,
            "samples": str(plan.strategy.max_samples),
            "policy": plan.policy.name,
            "tools": ",".join(plan.tools),
        }

    def _agreed(self, task: Task, budget: Budget) -> Budget | None:
        """Return the recorded budget of a run that is replayed. Raises UsageError: it is another run than this one."""
        if self._replay is None or self._replay.run is None:
            return None
        return self._replay.run.agree(task, budget, self._settings())

    def _on_tape(self, task: Task, budget: Budget, control: Control, log: Log) -> Timeline | Recorder | None:
        """Begin a run on the tape that is recorded or replayed, if any."""
        if self._replay is not None and self._replay.run is not None:
            self._replay.run.begin_run(control)
            log.listen(self._replay.run.wrote)
            return self._replay.run
        if self._recorder is not None:
            self._recorder.begin_run(control, task, budget, self._settings())
            log.listen(self._recorder.wrote)
        return self._recorder

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
            replay = self._replay
            box = await open_tools(plan.tools, groups, plan.hosts) if replay is None else replayed_tools(replay)
            stack.push_async_callback(box.close)
            meters = box.meters()
            for meter in meters:
                ledger.attach(meter, from_zero=True)
            if (daemon := box.daemon()) is not None:
                meters.append(daemon)
                ledger.attach(daemon)
            name = plan.core
            core = name if not isinstance(name, str) else replay
            if core is None:
                core = await open_core(str(name), groups, plan.progress, ledger)
            if plan.record is not None:
                core, self._recorder = recorded(core, box, plan.record)
            stack.push_async_callback(core.close)
            meters.append(core_meter(core))
            ledger.attach(meters[-1], from_zero=isinstance(name, str))
            # LangGraph takes a second to import: about as long as the core takes to load.
            _, graphs = await asyncio.gather(core.start(), asyncio.to_thread(import_module, "ponder.graph"))
            graph = await stack.enter_async_context(graphs.open_graph(plan.home / "checkpoints.sqlite"))
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
        self._closing = True
        self.interrupt(CLOSING)
        async with self._turn:  # a run that is still going ends first, with what it has
            if self._opened is not None:
                opened, self._opened = self._opened, None
                await opened.stack.aclose()
            if self._store is not None:
                store, self._store = self._store, None
                store.close()

    def renew(self) -> None:
        """Be ready for another loop, when the one on which this was closed has ended."""
        self._turn, self._closing = asyncio.Lock(), False


def _hear(log: Log, tree: Tree, on_event: OnEvent | None) -> None:
    log.listen(tree.apply)
    if on_event is not None:
        log.listen(_unbreakable(on_event))


def _unbreakable(on_event: OnEvent) -> OnEvent:
    """Return a listener that takes no search with it when it breaks: that is logged, and it hears no more."""
    broken = False

    def hear(event: Event) -> None:
        nonlocal broken
        if broken:
            return
        try:
            on_event(event)
        except Exception:
            broken = True
            _LOG.exception("`on_event` broke at the event %r, and is not called again", event.kind)

    return hear
