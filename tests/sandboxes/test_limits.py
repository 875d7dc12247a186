"""The limits of a call: each ends the program that reaches it, and names itself."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pytest

from ponder.records import ExecResult

Run = Callable[..., Awaitable[ExecResult]]
pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

MIB = 2**20


async def test_wall_limit_ends_sleepers_that_ignore_signals(run: Run) -> None:
    code = """
        import os, signal, time
        for number in set(range(1, 64)) - {9, 19, 32, 33}:
            signal.signal(number, signal.SIG_IGN)
        os.fork()
        print("sleeping")
        time.sleep(60)
    """
    begun = time.monotonic()
    result = await run(code, wall_s=0.6)
    assert (result.outcome, result.exit_code) == ("wall", None)
    assert "sleeping" in result.stdout
    assert time.monotonic() - begun < 3


async def test_a_stopped_process_reaches_the_wall(run: Run) -> None:
    assert (await run("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", wall_s=0.5)).outcome == "wall"


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import os\nos.fork()\nwhile True: pass",
        "import threading\nfor _ in range(4): threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()",
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "import os\nwhile True:\n    if os.fork() == 0: os._exit(0)\n    os.wait()",
        "while True: open('/dev/zero', 'rb').read(2**20)",
        "import re\nre.match('(a+)+$', 'a' * 40 + 'b')",
    ],
)
async def test_cpu_limit(run: Run, code: str) -> None:
    result = await run(code, cpu_s=0.4)
    assert result.outcome == "cpu", result
    assert 0.38 <= result.usage.cpu_s <= 0.8


@pytest.mark.parametrize(
    "code",
    [
        "x = bytearray(10**9)",
        "x = []\nwhile True: x.append(bytearray(10**6))",
        "import os, time\nfor _ in range(3): os.fork()\nx = b'x' * (40 * 10**6)\ntime.sleep(1)\nexit(1)",  # 8 processes
        "x = 'x'\nwhile True: x += x",
    ],
)
async def test_memory_limit(run: Run, metered: bool, code: str) -> None:
    result = await run(code)
    assert result.outcome == "memory", result
    if metered:  # else memory is looked at now and then
        assert result.usage.peak_rss_bytes <= 129 * MIB


async def test_less_memory_than_an_interpreter_takes(run: Run) -> None:
    assert (await run("print(1)", memory_bytes=2 * MIB)).outcome in ("memory", "killed")
    assert (await run("print(1)")).outcome == "ok"


async def test_peak_memory_is_the_calls_own(run: Run, metered: bool) -> None:
    large = await run("x = b'x' * (60 * 2**20)")
    small = await run("pass")
    assert large.usage.peak_rss_bytes >= 60 * MIB
    if metered:
        assert small.usage.peak_rss_bytes < 40 * MIB


async def test_fork_limit(run: Run) -> None:
    code = """
        import os, time
        made = 0
        while True:
            try:
                if os.fork() == 0:
                    time.sleep(30)
                made += 1
            except OSError:
                print(made)
                break
    """
    result = await run(code)
    assert 1 <= int(result.stdout) <= 16, result.stderr


async def test_threads_count_as_processes(run: Run) -> None:
    code = "import threading as t, time\nfor _ in range(50): t.Thread(target=time.sleep, args=(9,)).start()"
    assert "can't start new thread" in (await run(code, wall_s=1)).stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_output_limit(run: Run, stream: str) -> None:
    result = await run(f"import sys\nwhile True: print('x' * 1000, file=sys.{stream})")
    assert (result.outcome, result.truncated, result.exit_code) == ("output", True, None)
    assert len(result.stdout) + len(result.stderr) == 4096
    assert getattr(result, stream).startswith("xxx")


async def test_output_within_the_limit(run: Run) -> None:
    result = await run("print('x' * 4095)")
    assert (result.outcome, result.truncated, len(result.stdout)) == ("ok", False, 4096)
    assert (await run("print('x' * 4096)")).outcome == "output"


async def test_disk_limit(run: Run) -> None:
    code = """
        total = 0
        for name in ("/work/x", "/tmp/x", "/dev/shm/x"):
            try:
                with open(name, "wb", buffering=0) as file:
                    while True:
                        total += file.write(bytes(65536))
            except OSError as error:
                assert error.errno == 28, error
        print(total)
    """
    result = await run(code)
    assert 8 * MIB * 0.9 <= int(result.stdout) <= 8 * MIB, result.stderr


async def test_limits_cannot_be_raised(run: Run) -> None:
    code = """
        import resource as r
        for which in (r.RLIMIT_CPU, r.RLIMIT_DATA, r.RLIMIT_NPROC, r.RLIMIT_FSIZE):
            try:
                r.setrlimit(which, (r.RLIM_INFINITY, r.RLIM_INFINITY))
            except ValueError:
                print("denied")
    """
    assert (await run(code)).stdout == "denied\n" * 4
