"""The ledger: who used what, per tool and tree node, and how it was measured.

Charges are the calls' own figures, one line a call. What cumulative meters show beyond the charges is on the bill too,
at every moment: as the tool's while its calls are in flight, else in a row of its own (`ponder.metering`). So `by_tool`
sums to what the operating system counts. Prices turn usage into cost; by default one CPU second costs one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from typing import NamedTuple

from ponder.billing import Prices, Row, Snapshot, Spent
from ponder.metering import (
    DAEMON,
    FETCH,
    IDLE,
    OVERHEAD,
    Account,
    Closing,
    Cpu,
    Fetch,
    Meter,
    own_reading,
    process_start,
)
from ponder.records import Bill, Charge, Usage

__all__ = [
    "DAEMON", "FETCH", "IDLE", "OVERHEAD", "Call", "Ledger", "Meter", "Prices", "Snapshot", "Spent", "nested",
    "own_reading",
]  # fmt: skip

_SUMMED = ("calls", "cpu_user_s", "cpu_system_s", "wall_s", "tokens_in", "tokens_out", "tokens_cached", "bytes", "cost")
_NOTHING_S = 1e-6
"""Rows of a microsecond or less are rounding."""
_LOOKING_S = 0.02
"""Looking whether the weights are here takes less: nothing was fetched."""


class _Now(NamedTuple):
    rows: dict[str, Row]
    closing: Closing


class Call:
    """One call while it runs. It becomes exactly one line of the bill, when it is closed.

    `report` is the `OnUsage` that the tool is given. A call that reported nothing is charged its time on the clock and
    `estimate`; what it used all the same shows on the meters.
    """

    def __init__(self, ledger: Ledger, tool: str, node: int | None) -> None:
        self.tool, self.node = tool, node
        self.began = time.monotonic()
        self._ledger = ledger
        self._usage: Usage | None = None
        self._closed = False

    def report(self, usage: Usage) -> None:
        """Note what the call used. Only the first report counts, as tools report once."""
        if self._usage is None:
            self._usage = usage

    def close(self) -> None:
        """End the call and charge it. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._ledger.settle(self, self._usage or Usage(wall_s=time.monotonic() - self.began))

    def scope(self, tool: str) -> contextlib.AbstractContextManager[Call]:
        """Open a call of another tool that this one makes, for the same tree node."""
        return self._ledger.scope(tool, self.node)


_CURRENT: ContextVar[Call | None] = ContextVar("ponder_call", default=None)


@contextlib.contextmanager
def nested(tool: str) -> Iterator[Call | None]:
    """Meter a call of another tool from inside a tool (an MCP tool that asks the core, say).

    It is charged to the tree node of the call that this code runs in, whatever else runs at the same time; yields None
    where it runs in none.
    """
    outer = _CURRENT.get()
    if outer is None:
        yield None
        return
    with outer.scope(tool) as call:
        yield call


class Ledger:
    """The running bill of one run.

    Args:
        meters: cumulative meters of things that serve calls; more can be attached.
        prices: what usage costs.
        whole_process: count this process's CPU and time from its start (the command line), not from now (a library
            call).
        agents: at work in this process at once: its own CPU is divided among them.
    """

    def __init__(
        self, meters: Sequence[Meter] = (), prices: Prices | None = None, *, whole_process: bool = False,
        agents: int = 1,
    ) -> None:
        self.prices = prices or Prices()
        own = Meter(OVERHEAD, partial(own_reading, agents), rest=OVERHEAD)
        self._own = Account(own, from_zero=whole_process)
        self._accounts: dict[str, Account] = {}
        self._began = process_start() if whole_process else time.monotonic()
        self._rows: dict[str, Row] = {}
        self._by_node: dict[int, float] = {}
        self._running: dict[Call, None] = {}
        self._listeners: list[Callable[[Charge], None]] = []
        self._fetch = Fetch()
        for meter in meters:
            self.attach(meter)

    # --- what goes on the bill ------------------------------------------------------------------------------

    def attach(self, meter: Meter, *, from_zero: bool = False) -> None:
        """Watch a meter from now on, or from its own beginning."""
        self._accounts[meter.tool] = Account(meter, from_zero=from_zero)

    def listen(self, listener: Callable[[Charge], None]) -> None:
        """Call `listener(charge)` for every new line."""
        self._listeners.append(listener)

    def open(self, tool: str, node: int | None) -> Call:
        """Begin a call; whoever opens it closes it. Prefer `scope`."""
        call = Call(self, tool, node)
        if (account := self._accounts.get(tool)) is not None:
            account.enter()
        self._running[call] = None
        return call

    @contextlib.contextmanager
    def scope(self, tool: str, node: int | None) -> Iterator[Call]:
        """Meter a call for a tree node: one line of the bill, however the block ends.

        Tasks that are started in the block inherit it (`nested`).
        """
        call = self.open(tool, node)
        token = _CURRENT.set(call)
        try:
            yield call
        finally:
            _CURRENT.reset(token)
            call.close()

    def settle(self, call: Call, usage: Usage) -> None:
        """Put an ended call on the bill; `Call.close` does."""
        del self._running[call]
        charge = Charge(
            tool=call.tool, node=call.node, usage=usage, cost=self.prices.cost(usage, call.tool)
        )
        if (account := self._accounts.get(call.tool)) is not None:
            account.charge(usage)
            account.leave()
        self.add(charge)
        for listener in self._listeners:
            listener(charge)

    def add(self, charge: Charge) -> None:
        """Add a line of an earlier session (a resumed run's), which today's meters know nothing of."""
        self._rows.setdefault(charge.tool, Row()).add(charge.usage, charge.cost)
        if charge.node is not None:
            self._by_node[charge.node] = self._by_node.get(charge.node, 0.0) + charge.usage.cpu_s

    @contextlib.contextmanager
    def fetching(self) -> Iterator[None]:
        """Count what this process does in the block as fetching weights: on the bill, and no part of the task."""
        self._fetch.begin()
        try:
            yield
        finally:
            self._fetch.end()

    # --- what is on it --------------------------------------------------------------------------------------

    def node_cpu_s(self, node: int) -> float:
        """Return the CPU seconds charged to one tree node."""
        return self._by_node.get(node, 0.0)

    @property
    def elapsed_s(self) -> float:
        """Wall seconds since the run (or the process) began."""
        return time.monotonic() - self._began

    @property
    def wall_s(self) -> float:
        """Wall seconds of the task: fetching weights is not counted."""
        return self.elapsed_s - self._fetch.wall_s

    @property
    def tokens(self) -> int:
        """Tokens computed so far, in flight too: prompt tokens that were not cached, and tokens written."""
        return self.snapshot().total.tokens

    def cpu_s(self) -> float:
        """Return the CPU seconds of the task so far, work in flight included."""
        return self.snapshot().total.cpu_s

    def cost(self) -> float:
        """Return the cost of the task so far, work in flight included."""
        return self.snapshot().total.cost

    def snapshot(self) -> Snapshot:
        """Return what is spent, for budgets: the light way, some tenths of a millisecond (reading the meters)."""
        now = self._now()
        by_tool = {tool: row.spent() for tool, row in now.rows.items()}
        cpu_s = sum(one.cpu_s for tool, one in by_tool.items() if tool != FETCH)
        cost = sum(one.cost for tool, one in by_tool.items() if tool != FETCH)
        tokens = sum(one.tokens for one in by_tool.values())
        return Snapshot(Spent(cpu_s, self.wall_s, tokens, cost), by_tool, now.closing)

    def bill(self) -> Bill:
        """Return the bill as of now; `by_tool` sums to `total`. `wall_s` adds up the calls', which may overlap."""
        rows = self._now().rows
        total = Row(**{key: sum(getattr(row, key) for row in rows.values()) for key in _SUMMED})
        total.peak_rss_bytes = max(row.peak_rss_bytes for row in rows.values())
        total.methods = frozenset().union(*(row.methods for row in rows.values()))
        total.shared = any(row.shared for row in rows.values())
        return Bill(total=total.bill(), by_tool={tool: row.bill() for tool, row in rows.items()})

    def _now(self) -> _Now:
        """Return every row as of now: charges, work in flight, and what is nobody's."""
        # Copies of the keys at once: a view on another thread may ask while a call ends.
        rows = {tool: row.copy() for tool, row in list(self._rows.items())}
        now = time.monotonic()
        for call in list(self._running):
            rows.setdefault(call.tool, Row()).wall_s += now - call.began
        self._add_own(rows)
        closing = Closing(0.0, 0.0)
        for tool, account in list(self._accounts.items()):
            division, rest = account.divide(), account.meter.rest
            if division.used:
                more = account.meter.closing
                closing = Closing(closing.cpu_s + more.cpu_s, closing.wall_s + more.wall_s)
            if division.in_flight.total_s > _NOTHING_S:
                row = rows.setdefault(tool, Row())
                row.use(division.in_flight, self.prices.of(tool).cpu_second, division.reading)
            if division.used and division.rest.total_s > _NOTHING_S:
                row = rows.setdefault(rest, Row())
                row.use(division.rest, self.prices.of(rest).cpu_second, division.reading)
                row.shared = row.shared or rest == DAEMON
            if account.meter.live is not None and (live := account.meter.live()).tokens_in + live.tokens_out:
                rows.setdefault(tool, Row()).add(live, self.prices.cost(live, tool), calls=0)
        return _Now(rows, closing)

    def _add_own(self, rows: dict[str, Row]) -> None:
        own, fetched = self._own.divide(), self._fetch.own
        fetch = fetched.plus(self._fetch.children)
        if fetch.total_s < _LOOKING_S:
            fetched = fetch = Cpu(0.0, 0.0)
        price = self.prices.of(OVERHEAD).cpu_second
        rows.setdefault(OVERHEAD, Row()).use(own.rest.less(fetched), price, own.reading)
        if fetch.total_s:
            row = rows.setdefault(FETCH, Row())
            row.use(fetch, self.prices.of(FETCH).cpu_second, own.reading)
            row.wall_s += self._fetch.wall_s
