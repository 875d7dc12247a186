"""What a bill is made of: prices, rows that grow, and the few figures that budgets are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import Field

from ponder.metering import Closing, Cpu
from ponder.records import CpuReading, Record, ToolBill, Usage


class Prices(Record):
    """What usage costs. The default makes cost equal to CPU seconds."""

    cpu_second: float = Field(default=1.0, ge=0)
    token_in: float = Field(default=0.0, ge=0)
    token_out: float = Field(default=0.0, ge=0)
    byte: float = Field(default=0.0, ge=0)
    per_tool: dict[str, Prices] = Field(default_factory=dict)
    """Prices of their own for some tools, instead of all of these: `{"python": Prices(cpu_second=10)}`."""

    def of(self, tool: str) -> Prices:
        """Return the prices that hold for a tool."""
        return self.per_tool.get(tool, self)

    def cost(self, usage: Usage, tool: str = "") -> float:
        """Return the price of one usage; cached prompt tokens are free, as they cost no computing."""
        own = self.of(tool)
        return (
            usage.cpu_s * own.cpu_second
            + (usage.tokens_in - usage.tokens_cached) * own.token_in
            + usage.tokens_out * own.token_out
            + usage.bytes * own.byte
        )


class Spent(NamedTuple):
    """What budgets are compared with. `wall_s` of a tool adds up its calls; of the run it is the clock."""

    cpu_s: float
    wall_s: float
    tokens: int
    cost: float


class Snapshot(NamedTuple):
    """What is spent so far, work in flight included; fetching weights is not the task's and left out.

    `closing` is what ending the services that were used will take, one after the other, as far as known.
    """

    total: Spent
    by_tool: Mapping[str, Spent]
    closing: Closing


@dataclass
class Row:
    """One line of the bill while it grows; see `ToolBill` for its figures."""

    calls: int = 0
    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0
    wall_s: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    bytes: int = 0
    cost: float = 0.0
    peak_rss_bytes: int = 0
    methods: frozenset[str] = field(default_factory=frozenset)
    shared: bool = False

    def add(self, usage: Usage, cost: float, calls: int = 1) -> None:
        """Add a call's usage, or what a call in flight has used so far (`calls=0`)."""
        self.calls += calls
        self.cpu_user_s += usage.cpu_user_s
        self.cpu_system_s += usage.cpu_system_s
        self.wall_s += usage.wall_s
        self.tokens_in += usage.tokens_in
        self.tokens_out += usage.tokens_out
        self.tokens_cached += usage.tokens_cached
        self.bytes += usage.bytes
        self.cost += cost
        self.peak_rss_bytes = max(self.peak_rss_bytes, usage.peak_rss_bytes)
        self.methods |= {usage.method}
        self.shared = self.shared or usage.shared

    def use(self, cpu: Cpu, price: float, reading: CpuReading | None = None) -> None:
        """Add CPU that a meter shows and no call was charged."""
        self.cpu_user_s += cpu.user_s
        self.cpu_system_s += cpu.system_s
        self.cost += cpu.total_s * price
        if reading is not None:
            self.peak_rss_bytes = max(self.peak_rss_bytes, reading.peak_rss_bytes)
            self.methods |= {reading.method}

    def copy(self) -> Row:
        """Return a row of its own with the same figures."""
        new = Row.__new__(Row)  # a snapshot is taken fifty times a second
        new.__dict__.update(self.__dict__)
        return new

    def spent(self) -> Spent:
        """Return what budgets look at."""
        tokens = self.tokens_in - self.tokens_cached + self.tokens_out
        return Spent(self.cpu_user_s + self.cpu_system_s, self.wall_s, tokens, self.cost)

    def bill(self) -> ToolBill:
        """Return the record of it."""
        values = {name: value for name, value in vars(self).items() if name != "methods"}
        return ToolBill(**values, method="+".join(sorted(self.methods)))
