"""How a run is told to end early: by Ctrl-C, a spent budget, or a machine that broke. What was found is kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from ponder.ledger import Ledger
from ponder.records import Budget, StopReason

_T = TypeVar("_T")
_WATCH_S = 0.05


class Stopped(Exception):
    """Raised inside a node when the run has been told to end; nodes turn it into their update."""


class Control:
    """One run's off switch. The first reason given stays."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self.why = ""
        self._event = asyncio.Event()

    def stop(self, reason: StopReason, why: str) -> None:
        """Tell the run to end, for this reason."""
        if self.reason is None:
            self.reason, self.why = reason, why
            self._event.set()

    async def race(self, work: Awaitable[_T]) -> _T:
        """Await the work, unless the run is told to end first: then cancel it, wait for its clean-up, raise Stopped."""
        task = asyncio.ensure_future(work)
        told = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise Stopped(self.why)
        finally:
            for one in (task, told):
                if not one.done():
                    one.cancel()
            await asyncio.gather(task, told, return_exceptions=True)


class BudgetWatch:
    """Compares the ledger with the budget while the run goes on, work in flight included."""

    def __init__(self, budget: Budget, ledger: Ledger, control: Control) -> None:
        self._budget, self._ledger, self._control = budget, ledger, control

    def spent(self) -> str | None:
        """Return which limit is reached, as a sentence, or None."""
        budget, bill = self._budget, self._ledger.bill()
        limits: list[tuple[str, float | None, float]] = [
            ("CPU seconds", budget.cpu_seconds, bill.total.cpu_s),
            ("wall seconds", budget.wall_seconds, self._ledger.wall_s),
            ("tokens", budget.tokens, self._ledger.tokens),
            ("cost", budget.cost, bill.total.cost),
        ]
        for tool, own in budget.per_tool.items():
            if (row := bill.by_tool.get(tool)) is not None:
                limits.append((f"CPU seconds of {tool}", own.cpu_seconds, row.cpu_s))
                limits.append((f"wall seconds of {tool}", own.wall_seconds, row.wall_s))
                limits.append((f"tokens of {tool}", own.tokens, row.tokens_in - row.tokens_cached + row.tokens_out))
                limits.append((f"cost of {tool}", own.cost, row.cost))
        for what, limit, used in limits:
            if limit is not None and used >= limit:
                return f"{used:.1f} of {limit:g} {what} are spent"
        return None

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch in the background until the block ends; without limits there is nothing to watch."""
        if self._budget == Budget():
            yield
            return
        watcher = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            if (why := self.spent()) is not None:
                self._control.stop("budget", why)
                return
            await asyncio.sleep(_WATCH_S)
