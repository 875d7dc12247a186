"""The agent: where all parts meet (the composition root), and the library's front.

    from ponder import Agent, Budget
    with Agent() as agent:
        result = agent.run("What is the 2000th prime number?", budget=Budget(cpu_seconds=90))
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from pydantic import ValidationError

from ponder.background import BackgroundLoop
from ponder.control import Control
from ponder.errors import UsageError
from ponder.judges.calibration import load
from ponder.judges.checks import validate
from ponder.judges.evidence import EvidenceJudge
from ponder.ledger import Prices
from ponder.models import Progress
from ponder.parts import (
    DEFAULT_CORE,
    TOOLS,
    check_core,
    check_prices,
    check_tools,
    default_home,
    make_policy,
    make_strategy,
    model_of,
)
from ponder.plan import Plan
from ponder.policies.hosts import HostRules
from ponder.protocols import Core, Judge, StopPolicy, Strategy
from ponder.records import Bill, Budget, Limits, Result, Task
from ponder.tree import Event
from ponder.works import BY_USER, OnEvent, Works

_T = TypeVar("_T")


class _Submitted(NamedTuple):
    """A run on its way, and its own off switch: it may wait for its turn while another one is current."""

    future: Future[Result]
    control: Control


class Agent:
    """A reasoning core inside a search that knows its own price.

    Parts are opened on first use and kept warm (engine, browser) until `close()`. Runs of one agent take turns.

    Args:
        core: a registered model's name, the path of a `.gguf` file, or a `Core`.
        tools: the tools that the core may use, of `python` and `browser`.
        strategy, judge, policy: how to search, score and stop; defaults: `auto`, evidence, what was learned for the
            core (where nothing was: checks and votes).
        value: of the default policy: what a right answer is worth, in the units of `prices`.
        risk: of the default policy: of the tasks that a full search gets right, the share that it may lose.
        budget: for tasks that bring none of their own.
        limits: of one tool call.
        prices: what usage costs.
        hosts: which pages may be visited; by default public http(s) addresses only.
        home: folder of the recorded runs; default PONDER_HOME or the user's data folder.
        progress: hears of a model's download.
        record: a new file for all that the core is asked and answers; `core="cassette:FILE"` replays it without one.
        whole_process: bill this process's CPU from its start, imports included (the command line does).

    Raises:
        UnknownName: of `core`, of a tool, or of what has a price.
        ModelError: `core` is a file that is no model.
        UsageError: `value` or `risk` is not possible, or nothing was learned for the core; both with a `policy`.
    """

    def __init__(
        self,
        core: str | Core = DEFAULT_CORE,
        *,
        tools: Sequence[str] = TOOLS,
        strategy: Strategy | None = None,
        judge: Judge | None = None,
        policy: StopPolicy | None = None,
        value: float | None = None,
        risk: float | None = None,
        budget: Budget | None = None,
        limits: Limits | None = None,
        prices: Prices | None = None,
        hosts: HostRules | None = None,
        home: Path | str | None = None,
        progress: Progress | None = None,
        record: Path | str | None = None,
        whole_process: bool = False,
    ) -> None:
        if policy is not None and (value is not None or risk is not None):
            raise UsageError("`value` and `risk` belong to the default policy: a policy of your own has its own")
        self._budget = budget or Budget()
        self._background = BackgroundLoop("ponder")
        checked = check_core(core) if isinstance(core, str) else core
        model, folder = model_of(checked), Path(home) if home else default_home()
        usable = check_tools(tools)
        searches = strategy or make_strategy(usable)
        plan = Plan(
            core=checked,
            tools=usable,
            strategy=searches,
            judge=judge or EvidenceJudge(load().of(model)),
            policy=policy or make_policy(model, folder, searches, usable, value=value, risk=risk),
            limits=limits or Limits(),
            prices=check_prices(prices or Prices()),
            hosts=hosts or HostRules(),
            value=value,
            risk=risk,
            home=folder,
            progress=progress,
            record=Path(record) if record else None,
            whole_process=whole_process,
        )
        self._works = Works(plan)
        # Engine and browser must not outlive a program that forgot close().
        self._finalizer = weakref.finalize(self, _shut, self._background, self._works)

    def run(self, task: str | Task, *, budget: Budget | None = None, on_event: OnEvent | None = None) -> Result:
        """Search until the policy stops, and return the best answer with its bill.

        Ctrl-C (KeyboardInterrupt) ends the search and returns the best answer so far with reason `interrupted`; while
        parts are still opened, or the run waits for its turn, there is none yet.

        Args:
            on_event: called on a background thread with every event as it is recorded; should it raise, the error is
                logged, and it is not called again.

        Raises:
            UsageError: the task is wrong, or has pages and the agent no browser.
            MachineError: something that the search needs is missing (sandbox, weights).
        """
        return self._wait(*self._submit(task, budget, on_event))

    def start(self) -> Bill:
        """Open the parts now (load the core, open the sandbox); the first run then pays for none of it.

        Returns the bill of that. Raises MachineError: something that a search needs is missing.
        """
        return self._wait(self._background.submit(self._works.start()))

    async def arun(self, task: str | Task, *, budget: Budget | None = None, on_event: OnEvent | None = None) -> Result:
        """Like `run`, for async code; cancelling it ends the search as `interrupted`."""
        future, control = self._submit(task, budget, on_event)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            self._end(control)
            raise

    async def stream(self, task: str | Task, *, budget: Budget | None = None) -> AsyncIterator[Event | Result]:
        """Yield every event as it is recorded, and the `Result` last."""
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[Event | None] = asyncio.Queue()

        def hear(event: Event | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody listens any more
                loop.call_soon_threadsafe(heard.put_nowait, event)

        future, control = self._submit(task, budget, hear)
        future.add_done_callback(lambda _: hear(None))
        try:
            while (event := await heard.get()) is not None:
                yield event
            yield future.result()
        finally:
            if not future.done():
                self._end(control)

    def resume(self, run_id: str, *, budget: Budget | None = None, on_event: OnEvent | None = None) -> Result:
        """Go on with a run that was cut off, from its last event; finished tool calls are not run again.

        Args:
            budget: by default the one that the run was begun with; what it has used counts.

        Raises:
            RunNotFound: no such run.
            UsageError: the run has ended, or another process is still searching it.
        """
        control = Control()
        return self._wait(self._background.submit(self._works.resume(run_id, budget, on_event, control)), control)

    def interrupt(self) -> None:
        """End the current run soon; it returns its best answer so far with reason `interrupted`."""
        self._background.call(self._works.interrupt)

    def bill(self) -> Bill | None:
        """Return the bill of the latest run so far, work in flight included; None while none has begun.

        After `close()` it also holds what ending the engine and the browser took.
        """
        return self._works.bill()

    def close(self) -> None:
        """Stop the engine and the browser, and wait for them; runs that go on or wait end as `interrupted`.

        Safe to call twice. A further run opens them again.
        """
        _shut(self._background, self._works)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, task: str | Task, budget: Budget | None, on_event: OnEvent | None) -> _Submitted:
        whole = self._works.openable(_as_task(task))
        budget = self._works.checked(budget or whole.budget or self._budget)
        control = Control()
        return _Submitted(self._background.submit(self._works.run(whole, budget, on_event, control)), control)

    def _end(self, control: Control) -> None:
        self._background.call(control.stop, "interrupted", BY_USER)

    def _wait(self, future: Future[_T], control: Control | None = None) -> _T:
        try:
            return future.result()
        except KeyboardInterrupt:
            if control is None:  # no run: there is nothing to give back
                future.cancel()
                raise
            self._end(control)
            result = future.result()  # a second Ctrl-C gets through
            if isinstance(result, Result):  # it may have ended by itself a moment before: who called must hear of it
                result = result.model_copy(update={"stop_reason": "interrupted"})
            return result


def _shut(background: BackgroundLoop, works: Works) -> None:
    if background.running:
        background.submit(works.close()).result(timeout=30)
        background.close()
        works.renew()


def _as_task(task: str | Task) -> Task:
    try:
        whole = task if isinstance(task, Task) else Task(prompt=task)
    except ValidationError as error:
        raise UsageError(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from error
    if whole.success is not None:
        validate(whole.success)
    return whole
