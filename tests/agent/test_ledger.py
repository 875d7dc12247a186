"""The bill adds up at every moment, nothing is billed twice, and each call is one line of its own node."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

import pytest

from ponder.ledger import DAEMON, FETCH, IDLE, OVERHEAD, Ledger, Meter, Prices, nested
from ponder.records import Charge, CpuReading, Usage


class FakeMeter:
    """A meter that a test turns by hand."""

    def __init__(self) -> None:
        self.user_s = 5.0  # used before the run: not its bill

    def read(self) -> CpuReading:
        return CpuReading(user_s=self.user_s, system_s=0.0, peak_rss_bytes=100, method="cgroup")


def charge(ledger: Ledger, tool: str, node: int, usage: Usage) -> None:
    with ledger.scope(tool, node) as call:
        call.report(usage)


def cpu(ledger: Ledger, row: str) -> float:
    by_tool = ledger.bill().by_tool
    return by_tool[row].cpu_s if row in by_tool else 0.0


def test_charges_add_up_per_tool_and_node() -> None:
    ledger = Ledger()
    charge(ledger, "python", 1, Usage(cpu_user_s=1.0, cpu_system_s=0.5, peak_rss_bytes=10, method="cgroup"))
    charge(ledger, "python", 2, Usage(cpu_user_s=2.0, peak_rss_bytes=30, method="cgroup"))
    charge(ledger, "core", 1, Usage(cpu_user_s=4.0, tokens_in=10, tokens_cached=8, tokens_out=3, method="rusage"))
    bill = ledger.bill()
    assert bill.by_tool["python"].calls == 2
    assert bill.by_tool["python"].cpu_s == pytest.approx(3.5)
    assert bill.by_tool["python"].peak_rss_bytes == 30
    assert ledger.node_cpu_s(1) == pytest.approx(5.5)
    assert ledger.tokens == 5
    assert set(bill.by_tool) == {"python", "core", OVERHEAD}, "rows of nothing are not shown"


def test_by_tool_sums_to_total_at_every_moment() -> None:
    meter, daemon = FakeMeter(), FakeMeter()
    live = [Usage()]
    ledger = Ledger(
        [Meter("core", meter.read, rest=OVERHEAD, live=lambda: live[0]), Meter(DAEMON, daemon.read, rest=DAEMON)]
    )

    def check() -> None:
        bill = ledger.bill()
        for key in ("calls", "cpu_user_s", "cpu_system_s", "wall_s", "tokens_in", "tokens_out", "cost"):
            assert sum(getattr(row, key) for row in bill.by_tool.values()) == pytest.approx(getattr(bill.total, key))
        now = ledger.snapshot()
        assert now.total.cpu_s == pytest.approx(bill.total.cpu_s, abs=0.05)
        assert now.total.tokens == bill.total.tokens_in - bill.total.tokens_cached + bill.total.tokens_out

    check()
    meter.user_s += 3.0
    check()
    with ledger.scope("core", 1) as call:
        meter.user_s += 2.0
        daemon.user_s += 0.5
        live[0] = Usage(tokens_in=10, tokens_out=4)
        check()
        live[0] = Usage()
        call.report(Usage(cpu_user_s=2.0, tokens_in=10, tokens_out=4, method="cgroup", shared=True))
    check()
    assert ledger.bill().by_tool[DAEMON].shared


def test_work_in_flight_is_its_tools_and_the_rest_is_idle() -> None:
    meter = FakeMeter()
    ledger = Ledger([Meter("python", meter.read)])
    meter.user_s += 0.5  # a sandbox that was started ahead
    assert (cpu(ledger, "python"), cpu(ledger, IDLE)) == (0.0, pytest.approx(0.5))
    with ledger.scope("python", 1) as call:
        meter.user_s += 2.0
        assert (cpu(ledger, "python"), cpu(ledger, IDLE)) == (pytest.approx(2.0), pytest.approx(0.5))
        assert ledger.bill().by_tool["python"].calls == 0
        assert ledger.snapshot().by_tool["python"].cpu_s == pytest.approx(2.0)
        with ledger.scope("python", 2) as other:
            meter.user_s += 1.0
            other.report(Usage(cpu_user_s=1.0, method="cgroup"))
        assert (cpu(ledger, "python"), cpu(ledger, IDLE)) == (pytest.approx(3.0), pytest.approx(0.5))
        call.report(Usage(cpu_user_s=2.3, method="cgroup"))  # its own start, made ahead of it, is its bill
    assert (cpu(ledger, "python"), cpu(ledger, IDLE)) == (pytest.approx(3.3), pytest.approx(0.2))


def test_what_no_sample_is_to_blame_for_is_overhead() -> None:
    meter = FakeMeter()
    ledger = Ledger([Meter("core", meter.read, rest=OVERHEAD)])
    own = cpu(ledger, OVERHEAD)
    meter.user_s += 3.0
    charge(ledger, "core", 1, Usage(cpu_user_s=2.0, method="cgroup"))
    assert cpu(ledger, OVERHEAD) - own == pytest.approx(1.0, abs=0.2)


def test_a_meter_from_its_beginning() -> None:
    meter = FakeMeter()
    ledger = Ledger()
    ledger.attach(Meter("browser", meter.read), from_zero=True)
    assert cpu(ledger, IDLE) == pytest.approx(5.0)


def test_an_earlier_sessions_lines_hide_nothing_of_this_one() -> None:
    meter = FakeMeter()
    ledger = Ledger([Meter("python", meter.read)])
    ledger.add(Charge(tool="python", node=1, usage=Usage(cpu_user_s=9.0, method="cgroup"), cost=9.0))
    meter.user_s += 1.0
    rows = ledger.bill().by_tool
    assert rows["python"].cpu_s + rows[IDLE].cpu_s == pytest.approx(10.0)


def test_a_call_that_reports_nothing_is_one_line_all_the_same() -> None:
    lines: list[Charge] = []
    ledger = Ledger()
    ledger.listen(lines.append)
    with contextlib.suppress(ZeroDivisionError), ledger.scope("python", 3):
        raise ZeroDivisionError
    with ledger.scope("python", 4) as call:
        call.report(Usage(cpu_user_s=1.0, method="cgroup"))
        call.report(Usage(cpu_user_s=1.0, method="cgroup"))
    call.close()
    assert [(line.node, line.usage.cpu_s, line.usage.method) for line in lines] == [
        (3, 0.0, "estimate"),
        (4, 1.0, "cgroup"),
    ]


def test_what_a_tool_calls_is_its_nodes() -> None:
    ledger = Ledger()
    with nested("core") as nobody:
        assert nobody is None
    with ledger.scope("mcp", 7), nested("core") as call:
        assert call is not None
        call.report(Usage(cpu_user_s=1.0))
    assert ledger.node_cpu_s(7) == pytest.approx(1.0)
    assert {tool: row.calls for tool, row in ledger.bill().by_tool.items()} == {"mcp": 1, "core": 1, OVERHEAD: 0}


async def test_many_calls_at_once_with_failures_and_cancellations() -> None:
    """300 tool calls of 40 nodes, each calling the core inside; every line is its own node's, none is missing."""
    random.seed(3)
    lines: list[Charge] = []
    meter = FakeMeter()
    ledger = Ledger([Meter("core", meter.read)])
    ledger.listen(lines.append)
    begun: Counter[tuple[str, int]] = Counter()
    owed: Counter[int] = Counter()

    async def core(node: int) -> None:
        with nested("core") as call:
            assert call is not None
            begun["core", node] += 1
            try:
                await asyncio.sleep(random.random() / 50)
                if random.random() < 0.2:
                    raise ValueError
            finally:
                if random.random() < 0.8:
                    meter.user_s += node / 1000
                    owed[node] += node
                    call.report(Usage(cpu_user_s=node / 1000, method="cgroup"))

    async def tool(node: int) -> None:
        with ledger.scope("mcp", node) as call:
            begun["mcp", node] += 1
            inner = [asyncio.create_task(core(node)) for _ in range(random.randint(0, 2))]
            try:
                await asyncio.gather(*inner)
            finally:
                for one in inner:
                    one.cancel()
                await asyncio.gather(*inner, return_exceptions=True)
                call.report(Usage(bytes=node))

    calls = [asyncio.create_task(tool(i % 40 + 1)) for i in range(300)]
    for _ in range(60):
        await asyncio.sleep(0.0005)
        random.choice(calls).cancel()
        bill = ledger.bill()
        assert sum(row.cpu_user_s for row in bill.by_tool.values()) == pytest.approx(bill.total.cpu_user_s)
    await asyncio.gather(*calls, return_exceptions=True)
    assert Counter((line.tool, line.node) for line in lines) == begun
    for node in range(1, 41):
        assert ledger.node_cpu_s(node) * 1000 == pytest.approx(owed[node])
        moved = {line.usage.bytes for line in lines if (line.tool, line.node) == ("mcp", node)}
        assert moved <= {0, node}, "a call that was cancelled twice had no time to report"
    assert cpu(ledger, IDLE) == pytest.approx(0.0, abs=1e-6)


def test_fetching_is_on_the_bill_and_no_part_of_the_task() -> None:
    ledger = Ledger()
    with ledger.fetching():
        before = ledger.bill().by_tool[OVERHEAD].cpu_s
        sum(i * i for i in range(1_000_000))
        fetched = ledger.bill().by_tool[FETCH]
        assert ledger.bill().by_tool[OVERHEAD].cpu_s == pytest.approx(before, abs=0.01)
    assert fetched.cpu_s > 0.02
    after = ledger.bill()
    assert after.by_tool[FETCH].cpu_s >= fetched.cpu_s
    assert ledger.cpu_s() == pytest.approx(after.total.cpu_s - after.by_tool[FETCH].cpu_s, abs=0.02)
    assert ledger.wall_s < ledger.elapsed_s - 0.02


def test_prices() -> None:
    dear = Prices(cpu_second=10.0)
    prices = Prices(cpu_second=0.5, token_out=2.0, token_in=1.0, byte=0.01, per_tool={"python": dear})
    ledger = Ledger(prices=prices)
    charge(ledger, "core", 1, Usage(cpu_user_s=9.0, tokens_in=10, tokens_cached=7, tokens_out=5, bytes=100))
    charge(ledger, "python", 1, Usage(cpu_user_s=2.0, bytes=1000))
    rows = ledger.bill().by_tool
    assert rows["core"].cost == pytest.approx(4.5 + 3.0 + 10.0 + 1.0)
    assert rows["python"].cost == pytest.approx(20.0)
    assert Prices().cost(Usage(cpu_user_s=9.0, tokens_out=9)) == pytest.approx(9.0)


def test_work_in_flight_costs_its_tools_price() -> None:
    meter = FakeMeter()
    ledger = Ledger([Meter("python", meter.read)], Prices(per_tool={"python": Prices(cpu_second=10.0)}))
    with ledger.scope("python", 1):
        meter.user_s += 1.0
        assert ledger.snapshot().by_tool["python"].cost == pytest.approx(10.0)
