"""What a call is charged: all that it started, and nothing of another's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ponder.protocols import Sandbox
from ponder.records import ExecResult, Usage

Run = Callable[..., Awaitable[ExecResult]]
pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

BURN = "import time\nwhile time.process_time() < {}: pass"
START_S = 0.15
"""What starting and ending a sandbox costs at most, on a busy machine."""


async def test_cpu_of_threads_and_children_is_charged(run: Run) -> None:
    code = """
        import os, threading, time
        def burn(seconds):
            begun = time.thread_time()
            while time.thread_time() - begun < seconds:
                pass
        child = os.fork()
        if child == 0:
            burn(0.4)
            os._exit(0)
        threads = [threading.Thread(target=burn, args=(0.2,)) for _ in range(2)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        os.wait()
        print(sum(os.times()[:4]))
    """
    result = await run(code)
    assert 0.75 <= float(result.stdout) <= result.usage.cpu_s <= float(result.stdout) * 1.03 + START_S


async def test_orphan_is_killed_and_billed(run: Run, metered: bool) -> None:
    code = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for fd in (0, 1, 2):
                    os.close(fd)
                while True:
                    if time.process_time() > 0.3:
                        open("burnt", "w")
            os._exit(0)
        os.wait()
        while not os.path.exists("burnt"):
            time.sleep(0.01)
        print("parent ends")
    """
    result = await run(code)
    assert (result.outcome, result.stdout) == ("ok", "parent ends\n")
    if metered:  # else what runs when its pid namespace ends is in no figure of the kernel: a lower bound
        assert result.usage.cpu_s >= 0.3
        assert result.usage.method == "cgroup"
    else:
        assert result.usage.method in ("rusage", "process-tree")


async def test_concurrent_calls_bill_their_own(run: Run) -> None:
    amounts = [0.1, 0.5, 0.2, 0.1, 0.3, 0.0]
    results = await asyncio.gather(*(run(BURN.format(amount)) for amount in amounts))
    for amount, result in zip(amounts, results, strict=True):
        assert amount <= result.usage.cpu_s <= amount * 1.03 + START_S


async def test_what_an_ended_call_leaves_to_clear_is_not_the_next_ones(run: Run) -> None:
    """Files without number and memory are given back to the kernel on the bill of the call that took them."""
    hoard = """
        for n in range(30_000):
            open(f"/tmp/{n}", "w")
        open("x", "wb").write(bytes(6 * 2**20))
    """
    bills = []
    for _ in range(4):
        await run(hoard, cpu_s=10, wall_s=30)
        bills.append((await run("pass")).usage.cpu_s)
    plain = [(await run("pass")).usage.cpu_s for _ in range(4)]
    assert min(bills) <= max(plain) + 0.02, (bills, plain)


async def test_every_call_is_billed_once(run: Run) -> None:
    bills: list[Usage] = []
    for code in ("pass", "1 / 0", "import os; os.kill(os.getpid(), 9)", "while True: print(1)"):
        result = await run(code, on_usage=bills.append)
        assert bills.pop() == result.usage
        assert bills == []
    await run("while True: pass", cpu_s=0.2, on_usage=bills.append)
    assert bills[0].cpu_s >= 0.2


async def test_the_bills_add_up_to_the_meter(sandbox: Sandbox, run: Run, metered: bool) -> None:
    before = sandbox.read()
    results = await asyncio.gather(*(run(BURN.format(0.3)) for _ in range(4)))
    used = sandbox.read().cpu_s - before.cpu_s
    charged = sum(result.usage.cpu_s for result in results)
    assert used >= charged - 0.05 * 4  # a call's sandbox may have been started before the first look
    assert used <= charged + START_S * 4 if metered else True
