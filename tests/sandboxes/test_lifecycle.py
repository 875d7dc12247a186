"""Cancelling calls, closing sandboxes, the death of ponder: each ends all that runs, and each call is billed once."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable

import psutil
import pytest

from ponder.errors import NoSandbox
from ponder.protocols import Sandbox
from ponder.records import ExecResult, Usage
from ponder.sandboxes.groups import find_groups

Run = Callable[..., Awaitable[ExecResult]]
pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

SLEEP = "import time; time.sleep(9)"
BUSY = "import os\nos.fork()\nwhile True: pass"
GIVES_BACK = "for n in range(250): open(str(n), 'wb').write(bytes(20_000))"
"""Ends at once; returning its files takes a while."""


async def test_cancellation_bills_once_and_leaves_nothing(run: Run) -> None:
    bills: list[Usage] = []
    await run("pass")
    task = asyncio.ensure_future(run(BUSY, cpu_s=9, on_usage=bills.append))
    await asyncio.sleep(2)  # on a busy machine a container takes a second to be there
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()  # the second Ctrl-C must not hurt the clearing up
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(bills) == 1
    assert bills[0].cpu_s > 0.05


@pytest.mark.parametrize("delay_s", [0.0, 0.001, 0.004, 0.008, 0.015, 0.03, 0.1])
@pytest.mark.parametrize("code", [SLEEP, GIVES_BACK])
async def test_cancellation_at_any_moment(run: Run, code: str, delay_s: float) -> None:
    bills: list[Usage] = []
    task = asyncio.ensure_future(run(code, on_usage=bills.append))
    await asyncio.sleep(delay_s)
    ended = task.done()
    task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    assert ended or isinstance(result, asyncio.CancelledError)
    assert len(bills) == 1
    assert (await run("print(1)")).stdout == "1\n"


async def test_cancellation_among_others(run: Run) -> None:
    """Some of many are cancelled, at random moments; the others do not notice."""
    chance = random.Random(3)
    bills: list[Usage] = []
    tasks = [asyncio.ensure_future(run(f"print({n})", on_usage=bills.append)) for n in range(24)]
    for task in chance.sample(tasks, 12):
        await asyncio.sleep(chance.random() * 0.05)
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for n, result in enumerate(results):
        assert isinstance(result, asyncio.CancelledError) or result.stdout == f"{n}\n"  # type: ignore[union-attr]
    assert len(bills) == 24


async def test_close_kills_what_runs(own_sandbox: Sandbox, run_own: Run) -> None:
    bills: list[Usage] = []
    tasks = [asyncio.ensure_future(run_own(SLEEP, on_usage=bills.append)) for _ in range(2)]
    await asyncio.sleep(0.5)
    await own_sandbox.close()
    assert [(await task).outcome for task in tasks] == ["killed", "killed"]
    assert len(bills) == 2
    await own_sandbox.close()
    with pytest.raises(NoSandbox, match="closed"):
        await run_own("pass", on_usage=bills.append)
    assert len(bills) == 3


async def test_close_among_calls(own_sandbox: Sandbox, run_own: Run) -> None:
    """More calls than places: those that wait end too, by a result or by a refusal."""
    bills: list[Usage] = []
    tasks = [asyncio.ensure_future(run_own(SLEEP, on_usage=bills.append)) for _ in range(12)]
    await asyncio.sleep(0.4)
    begun = time.monotonic()
    await own_sandbox.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert time.monotonic() - begun < 5
    for result in results:
        assert isinstance(result, NoSandbox) or result.outcome == "killed"  # type: ignore[union-attr]
    assert len(bills) == 12


async def test_close_at_the_first_moment(own_sandbox: Sandbox, run_own: Run) -> None:
    task = asyncio.ensure_future(run_own(SLEEP))
    await asyncio.sleep(0)
    await own_sandbox.close()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(result, NoSandbox) or result.outcome == "killed"  # type: ignore[union-attr]


async def test_the_meter_is_there_after_close(own_sandbox: Sandbox, run_own: Run) -> None:
    result = await run_own("import time\nwhile time.process_time() < 0.2: pass")
    await own_sandbox.close()
    assert own_sandbox.read().cpu_s >= result.usage.cpu_s


async def test_death_of_ponder_ends_its_programs() -> None:
    code = f"""
        import asyncio, sys
        from ponder.sandboxes import open_sandbox
        async def main():
            sandbox = await open_sandbox("bubblewrap")
            print("ready", flush=True)
            await sandbox.exec("import time\\nwhile True: time.sleep(0.01)  # {os.getpid()}")
        asyncio.run(main())
    """
    ponder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(code), stdout=asyncio.subprocess.PIPE
    )
    assert ponder.stdout is not None
    assert await ponder.stdout.readline() == b"ready\n"
    await asyncio.sleep(0.5)
    inside = psutil.Process(ponder.pid).children(recursive=True)
    assert len(inside) >= 2  # bubblewrap and the program
    ponder.kill()
    await ponder.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, inside, timeout=5)
    assert not alive
    find_groups()  # the next ponder removes its cgroups
    places = find_groups().places
    assert not [d for p in (places.directories() if places else ()) for d in p.glob(f"ponder-*-{ponder.pid}-*")]


async def test_the_event_loop_is_not_held_up(run: Run) -> None:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - before - 0.005)

    watcher = asyncio.create_task(watch())
    for _ in range(5):
        await run("x = bytearray(10**7)")
    watcher.cancel()
    assert longest < 0.3  # milliseconds when nothing else runs here


async def test_limits_are_given_to_each_call(run: Run) -> None:
    assert (await run("x = bytearray(100 * 2**20)", memory_bytes=64 * 2**20)).outcome == "memory"
    assert (await run("x = bytearray(100 * 2**20)", memory_bytes=256 * 2**20)).outcome == "ok"
    assert (await run("x = bytearray(100 * 2**20)", memory_bytes=64 * 2**20)).outcome == "memory"
