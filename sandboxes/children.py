"""One program under watch: spawned into its group, its output collected, stopped at the first limit it reaches."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ponder.protocols import OnUsage
from ponder.records import CpuReading, Limits, Outcome, Usage
from ponder.sandboxes.cgroups import CgroupGroup
from ponder.sandboxes.trees import TreeGroup

T = TypeVar("T")

TICK_S = 0.02
TREE_TICK_S = 0.1
"""Between looks at the meter; a process tree costs milliseconds to look at."""

REAP_S = 2.0
DRAIN_S = 1.0


@dataclass(frozen=True)
class Spawn:
    """What to start: the command, its whole environment, and the file descriptors it gets."""

    argv: Sequence[str]
    env: Mapping[str, str]
    stdin: int
    pass_fds: Sequence[int] = ()


@dataclass(frozen=True)
class Ended:
    """How the program ended. `exit_code` is negative for a signal."""

    outcome: Outcome
    exit_code: int | None
    stdout: bytes
    stderr: bytes
    truncated: bool
    usage: Usage


@dataclass(frozen=True)
class _Exit:
    """What the kernel says of an ended process; `None` when somebody else asked it first."""

    code: int | None
    rusage: resource.struct_rusage | None


class _Output:
    """Both streams of a program, up to a number of bytes in all."""

    def __init__(self, cap: int) -> None:
        loop = asyncio.get_running_loop()
        self.cap = cap
        self.seen = 0
        self.flooded = loop.create_future()
        self.streams: dict[Literal["stdout", "stderr"], bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._kept = 0

    def add(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        """Keep what still fits."""
        self.seen += len(data)
        kept = data[: self.cap - self._kept]
        self._kept += len(kept)
        self.streams[stream] += kept
        if self.seen > self.cap and not self.flooded.done():
            self.flooded.set_result(None)


class _Reader(asyncio.Protocol):
    """Moves one pipe into the output."""

    def __init__(self, output: _Output, stream: Literal["stdout", "stderr"]) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._output, self._stream = output, stream

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._output.add(self._stream, data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Note the end of the stream."""
        if not self.closed.done():
            self.closed.set_result(None)


class Child:
    """A running program and everything that must be undone after it."""

    def __init__(self, spawn: Spawn, group: CgroupGroup | TreeGroup, limits: Limits) -> None:
        """Start the program. Raises OSError when that is impossible; the group is then still the caller's."""
        self.group = group
        self.limits = limits
        self._output = _Output(limits.output_bytes)
        self._transports: list[asyncio.BaseTransport] = []
        self._readers: list[_Reader] = []
        self._started = time.monotonic()
        # In the event loop's own thread: the kernel kills a `--die-with-parent` child with the thread that made it.
        self._process = subprocess.Popen(
            group.command(spawn.argv),
            env=dict(spawn.env),
            stdin=spawn.stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=tuple(spawn.pass_fds),
            start_new_session=True,
        )
        self._exit = _reaped(self._process)
        group.attach(self._process.pid)

    async def finish(self, on_usage: OnUsage) -> Ended:
        """Wait for the end, or bring it about at the first limit; leave nothing behind; report the usage once.

        When this is cancelled, the program is killed, cleared away and billed before CancelledError goes on.
        """
        stopped: Outcome | None = "killed"
        try:
            await self._connect()
            stopped = await self._watch()
        finally:
            ended = await through(self._clear(stopped, on_usage))
        return ended

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        streams: tuple[Literal["stdout", "stderr"], ...] = ("stdout", "stderr")
        for stream in streams:
            reader = _Reader(self._output, stream)
            transport, _ = await loop.connect_read_pipe(lambda r=reader: r, getattr(self._process, stream))  # type: ignore[misc]
            self._transports.append(transport)
            self._readers.append(reader)

    async def _watch(self) -> Outcome | None:
        """Return the limit that the program reached, or None when it ended by itself."""
        limits, metered = self.limits, isinstance(self.group, CgroupGroup)
        tick = TICK_S if metered else TREE_TICK_S
        deadline = self._started + limits.wall_s
        while True:
            left = max(0.0, deadline - time.monotonic())
            ended = {self._exit, self._output.flooded}
            await asyncio.wait(ended, timeout=min(tick, left), return_when=asyncio.FIRST_COMPLETED)
            if self._output.flooded.done():
                return "output"
            if self._exit.done():
                return None
            if time.monotonic() >= deadline:
                return "wall"
            reading = self.group.read()
            if reading.cpu_s >= limits.cpu_s:
                return "cpu"
            if not metered and reading.peak_rss_bytes > limits.memory_bytes:
                return "memory"

    async def _clear(self, stopped: Outcome | None, on_usage: OnUsage) -> Ended:
        """Kill what is left, collect the rest of the output, read the meter of the empty group, remove it, bill."""
        if not self._exit.done():
            self.group.read()  # a process tree must be seen before it is gone
            await asyncio.to_thread(self.group.kill)
            if not self._exit.done():
                os.kill(self._process.pid, signal.SIGKILL)  # it may not have been in its group yet
        await asyncio.wait({self._exit}, timeout=REAP_S)
        await asyncio.to_thread(self.group.kill)
        if self._readers:
            await asyncio.wait([reader.closed for reader in self._readers], timeout=DRAIN_S)
        for transport in self._transports:
            transport.close()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        reading = self.group.read()
        ooms = self.group.oom_kills()
        await asyncio.to_thread(self.group.close)
        wall_s = time.monotonic() - self._started
        end = self._exit.result() if self._exit.done() else _Exit(None, None)
        usage = _usage(reading, end.rusage, wall_s, self._output.seen)
        on_usage(usage)
        if stopped is None and self._output.flooded.done():
            stopped = "output"
        outcome = stopped or _outcome(end.code, usage, ooms, self.limits, bytes(self._output.streams["stderr"]))
        streams = self._output.streams
        truncated = self._output.seen > self._output.cap
        return Ended(outcome, end.code, bytes(streams["stdout"]), bytes(streams["stderr"]), truncated, usage)


async def through(work: Coroutine[Any, Any, T]) -> T:
    """Await something to its end even when cancelled meanwhile; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()


def _reaped(process: subprocess.Popen[bytes]) -> asyncio.Future[_Exit]:
    """Return a future of the process's end. A thread waits, for `wait4` alone tells what one child used."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Exit] = loop.create_future()

    def tell(end: _Exit) -> None:
        process.returncode = -1 if end.code is None else end.code  # else Popen would wait for it again
        if not future.done():
            future.set_result(end)

    def wait() -> None:
        try:
            _, status, rusage = os.wait4(process.pid, 0)
            end = _Exit(_exit_code(os.waitstatus_to_exitcode(status)), rusage)
        except ChildProcessError:
            end = _Exit(None, None)
        try:
            loop.call_soon_threadsafe(tell, end)
        except RuntimeError:
            return  # the loop closed before its children ended

    threading.Thread(target=wait, name=f"wait-{process.pid}", daemon=True).start()
    return future


def _exit_code(code: int) -> int:
    """Undo the custom of launchers to pass on "killed by signal N" as status 128 + N."""
    return 128 - code if 128 < code <= 128 + signal.NSIG else code


def _usage(reading: CpuReading, rusage: resource.struct_rusage | None, wall_s: float, output_bytes: int) -> Usage:
    """Return the bill: the cgroup's figures, else the larger of two lower bounds."""
    user_s, system_s, peak, method = reading.user_s, reading.system_s, reading.peak_rss_bytes, reading.method
    if rusage is not None:
        peak = peak or rusage.ru_maxrss * 1024
        if method != "cgroup" and rusage.ru_utime + rusage.ru_stime >= reading.cpu_s:
            user_s, system_s, method = rusage.ru_utime, rusage.ru_stime, "rusage"
    return Usage(
        cpu_user_s=user_s, cpu_system_s=system_s, wall_s=wall_s, peak_rss_bytes=peak, bytes=output_bytes, method=method
    )


def _outcome(code: int | None, usage: Usage, ooms: int, limits: Limits, stderr: bytes) -> Outcome:
    """Name the end of a program that we did not stop: its own doing, or the kernel's at one of its limits."""
    if code == 0:
        return "ok"
    if ooms or stderr.rstrip().rpartition(b"\n")[2].startswith(b"MemoryError"):
        return "memory"
    if code in (-signal.SIGKILL, -signal.SIGXCPU) and usage.cpu_s >= 0.95 * limits.cpu_s:
        return "cpu"
    return "killed" if code in (None, -signal.SIGKILL) else "error"
