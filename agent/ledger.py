"""The ledger: who used what, per tool and tree node, and how it was measured.

Charges are the calls' own figures. What no call can be blamed for (our own Python, imports, loading the model,
launching and idling of the browser) is `overhead`, taken from cumulative meters, so that `by_tool` sums to what the
operating system counts. One price turns usage into cost; by default one CPU second costs one.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ponder.records import Bill, Charge, CpuReading, Record, ToolBill, Usage

OVERHEAD = "overhead"
_SUMMED = ("cpu_user_s", "cpu_system_s", "wall_s", "tokens_in", "tokens_out", "tokens_cached", "bytes")


class Prices(Record):
    """What usage costs. The default makes cost equal to CPU seconds."""

    cpu_second: float = 1.0
    token_in: float = 0.0
    token_out: float = 0.0
    byte: float = 0.0

    def cost(self, usage: Usage) -> float:
        """Return the price of one usage; cached prompt tokens are free, as they cost no computing."""
        return (
            usage.cpu_s * self.cpu_second
            + (usage.tokens_in - usage.tokens_cached) * self.token_in
            + usage.tokens_out * self.token_out
            + usage.bytes * self.byte
        )


@dataclass(frozen=True)
class Meter:
    """A cumulative CPU meter of something that serves many calls of `tool`."""

    tool: str
    read: Callable[[], CpuReading]


def own_reading() -> CpuReading:
    """Return this process's own CPU since it started (children are metered by their groups)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    return CpuReading(
        user_s=usage.ru_utime, system_s=usage.ru_stime, peak_rss_bytes=usage.ru_maxrss * unit, method="rusage"
    )


_ZERO = CpuReading(user_s=0.0, system_s=0.0, peak_rss_bytes=0, method="rusage")


class Ledger:
    """The running bill of one run.

    Args:
        meters: cumulative meters of shared things (engine, browser). What they show beyond the calls' charges is
            overhead.
        prices: what usage costs.
        whole_process: count this process's CPU from its start (the command line), not from now (a library call).
    """

    def __init__(
        self, meters: Sequence[Meter] = (), prices: Prices | None = None, *, whole_process: bool = False
    ) -> None:
        self.prices = prices or Prices()
        self._meters = {meter.tool: meter.read for meter in meters}
        self._start = {tool: _ZERO if whole_process else read() for tool, read in self._meters.items()}
        self._own_start = _ZERO if whole_process else own_reading()
        self._began = _process_start() if whole_process else time.monotonic()
        self._rows: dict[str, ToolBill] = {}
        self._by_node: dict[int, float] = {}
        self._earlier = 0.0

    def charge(self, tool: str, node: int | None, usage: Usage) -> Charge:
        """Add one call's usage to the bill and return the line to be recorded."""
        charge = Charge(tool=tool, node=node, usage=usage, cost=self.prices.cost(usage))
        self.add(charge)
        return charge

    def add(self, charge: Charge) -> None:
        """Add a line that was priced before (a resumed run's)."""
        row = self._rows.get(charge.tool, ToolBill())
        usage = charge.usage
        self._rows[charge.tool] = row.model_copy(
            update={
                **{key: getattr(row, key) + getattr(usage, key) for key in _SUMMED},
                "calls": row.calls + 1,
                "cost": row.cost + charge.cost,
                "peak_rss_bytes": max(row.peak_rss_bytes, usage.peak_rss_bytes),
                "method": _all_methods([row.method, usage.method]),
                "shared": row.shared or usage.shared,
            }
        )
        if charge.node is not None:
            self._by_node[charge.node] = self._by_node.get(charge.node, 0.0) + usage.cpu_s

    def node_cpu_s(self, node: int) -> float:
        """Return the CPU seconds charged to one tree node."""
        return self._by_node.get(node, 0.0)

    @property
    def tokens(self) -> int:
        """Tokens computed so far: prompt tokens that were not cached, and tokens written."""
        return sum(row.tokens_in - row.tokens_cached + row.tokens_out for row in self._rows.values())

    @property
    def wall_s(self) -> float:
        """Wall seconds since the run (or the process) began."""
        return time.monotonic() - self._began

    def cpu_s(self) -> float:
        """Return the CPU seconds used so far, work in flight on shared meters included."""
        return self.bill().total.cpu_s

    def cost(self) -> float:
        """Return the cost so far."""
        return self.bill().total.cost

    def bill(self) -> Bill:
        """Return the bill as of now; `by_tool` sums to `total`. `wall_s` adds up the calls', which may overlap."""
        rows = {**self._rows, OVERHEAD: self._overhead()}
        sums = {key: sum(getattr(row, key) for row in rows.values()) for key in (*_SUMMED, "calls", "cost")}
        total = ToolBill().model_copy(
            update={
                **sums,
                "peak_rss_bytes": max(row.peak_rss_bytes for row in rows.values()),
                "method": _all_methods(row.method for row in rows.values()),
                "shared": any(row.shared for row in rows.values()),
            }
        )
        return Bill(total=total, by_tool=rows)

    def _overhead(self) -> ToolBill:
        own = own_reading()
        user, system = own.user_s - self._own_start.user_s, own.system_s - self._own_start.system_s
        peak, methods = own.peak_rss_bytes, {str(own.method)}
        for tool, read in self._meters.items():
            now, start, charged = read(), self._start[tool], self._rows.get(tool, ToolBill())
            # A share is never negative; rounding of a live meter may put it a hair below what was charged.
            user += max(0.0, now.user_s - start.user_s - charged.cpu_user_s)
            system += max(0.0, now.system_s - start.system_s - charged.cpu_system_s)
            if now.cpu_s > start.cpu_s:
                methods.add(now.method)
                peak = max(peak, now.peak_rss_bytes)
        cpu = user + system
        return ToolBill(
            calls=0,
            cpu_user_s=user,
            cpu_system_s=system,
            peak_rss_bytes=peak,
            cost=cpu * self.prices.cpu_second,
            method=_all_methods(methods),
        )


def _all_methods(methods: Iterable[str]) -> str:
    return "+".join(sorted({part for method in methods for part in method.split("+") if part}))


def _process_start() -> float:
    """Return this process's start on the monotonic clock, in seconds."""
    import psutil

    return time.monotonic() - (time.time() - psutil.Process(os.getpid()).create_time())
