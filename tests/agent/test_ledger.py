"""The bill adds up, and nothing is billed twice."""

from __future__ import annotations

import pytest

from ponder.ledger import OVERHEAD, Ledger, Meter, Prices
from ponder.records import CpuReading, Usage


class FakeMeter:
    """A meter that a test turns by hand."""

    def __init__(self) -> None:
        self.user_s = 5.0  # used before the run: not its bill

    def read(self) -> CpuReading:
        return CpuReading(user_s=self.user_s, system_s=0.0, peak_rss_bytes=100, method="cgroup")


def test_charges_add_up_per_tool_and_node() -> None:
    ledger = Ledger()
    ledger.charge("python", 1, Usage(cpu_user_s=1.0, cpu_system_s=0.5, peak_rss_bytes=10, method="cgroup"))
    ledger.charge("python", 2, Usage(cpu_user_s=2.0, peak_rss_bytes=30, method="cgroup"))
    ledger.charge("core", 1, Usage(cpu_user_s=4.0, tokens_in=10, tokens_cached=8, tokens_out=3, method="rusage"))
    bill = ledger.bill()
    assert bill.by_tool["python"].calls == 2
    assert bill.by_tool["python"].cpu_s == pytest.approx(3.5)
    assert bill.by_tool["python"].peak_rss_bytes == 30
    assert ledger.node_cpu_s(1) == pytest.approx(5.5)
    assert ledger.tokens == 5


def test_by_tool_sums_to_total() -> None:
    meter = FakeMeter()
    ledger = Ledger([Meter("core", meter.read)])
    meter.user_s += 3.0
    ledger.charge("core", 1, Usage(cpu_user_s=2.0, tokens_out=3, method="cgroup", shared=True))
    bill = ledger.bill()
    for key in ("calls", "cpu_user_s", "cpu_system_s", "wall_s", "tokens_out", "cost"):
        assert sum(getattr(row, key) for row in bill.by_tool.values()) == pytest.approx(getattr(bill.total, key))


def test_what_no_call_is_to_blame_for_is_overhead() -> None:
    meter = FakeMeter()
    ledger = Ledger([Meter("core", meter.read)])
    own = ledger.bill().by_tool[OVERHEAD].cpu_s
    meter.user_s += 3.0
    ledger.charge("core", 1, Usage(cpu_user_s=2.0, method="cgroup"))
    assert ledger.bill().by_tool[OVERHEAD].cpu_s - own == pytest.approx(1.0, abs=0.2)


def test_prices() -> None:
    ledger = Ledger(prices=Prices(cpu_second=0.0, token_out=2.0, token_in=1.0))
    charge = ledger.charge("core", 1, Usage(cpu_user_s=9.0, tokens_in=10, tokens_cached=7, tokens_out=5))
    assert charge.cost == pytest.approx(13.0)
    assert Ledger().charge("core", 1, Usage(cpu_user_s=9.0)).cost == pytest.approx(9.0)
