"""One call: a job goes into a ready sandbox, is watched, is stopped at the first limit it reaches, and is billed."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from ponder.protocols import OnUsage, Talk
from ponder.records import CpuReading, ExecResult, Layers, Limits, Outcome, Usage
from ponder.sandboxes import wire
from ponder.sandboxes.inside import LEFT_OUT_NAMES
from ponder.sandboxes.wire import RETURN_FILES, Broken, Job, read_frame

T = TypeVar("T")

TICK_S = 0.02
TREE_TICK_S = 0.1
"""Between looks at the meter; a process tree costs milliseconds to look at."""

DRAIN_S = 1.0


class Cell(Protocol):
    """A sandbox whose process 1 waits for one job."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def memory_is_limited(self) -> bool:
        """Whether the kernel holds the whole cell to its memory: else the sum has to be watched."""

    def begin(self, limits: Limits) -> None:
        """Set the limits of memory and processes, and begin a new peak. Raises OSError."""

    def read(self) -> CpuReading:
        """Return what the cell used since its sandbox was started; what starting took is part of the call's bill."""

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for want of memory since `begin`."""

    async def kill(self) -> None:
        """SIGKILL everything inside; returns when nothing is left, or after a second."""

    def dismiss(self) -> None:
        """Let process 1 end, now or later: its last word was heard."""


@dataclass
class Ended:
    """How the program ended. `exit_code` is negative for a signal, None where process 1 could not tell."""

    outcome: Outcome = "killed"
    exit_code: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False
    usage: Usage = field(default_factory=Usage)
    files: dict[str, bytes | None] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    clean: bool = False
    """Process 1 had its last word: nothing of the program is left, and the cell did its work."""

    def result(self, backend: str, layers: Layers) -> ExecResult:
        """Return the record of it."""
        return ExecResult(
            outcome=self.outcome,
            exit_code=self.exit_code,
            stdout=self.stdout.decode("utf-8", "replace"),
            stderr=self.stderr.decode("utf-8", "replace"),
            truncated=self.truncated,
            usage=self.usage,
            backend=backend,
            layers=layers,
            files=self.files,
            left_out=self.left_out,
        )


@contextmanager
def billed_once(on_usage: OnUsage | None) -> Iterator[OnUsage]:
    """Yield what takes a call's usage, and tell it when the block ends: once, and zero where there was none."""
    bills: list[Usage] = []
    try:
        yield bills.append
    finally:
        if on_usage is not None:
            on_usage(bills[0] if bills else Usage())


def unbilled(_: Usage) -> None:
    """Let a usage go: a trial belongs to no call."""


async def run_call(cell: Cell, job: Job, talk: Talk | None, on_usage: OnUsage) -> Ended:
    """Run a job in a cell; whatever happens, nothing of it runs on, and its usage is told once.

    When this is cancelled, the program is killed and billed before CancelledError goes on.
    """
    call = _Call(cell, job, talk)
    stopped: Outcome | None = "killed"
    try:
        stopped = await call.follow()
    finally:
        clearing = asyncio.ensure_future(call.clear(stopped))
        try:
            await through(clearing)
        finally:  # also when this was cancelled a second time
            on_usage(clearing.result().usage)
    return clearing.result()


class _Call:
    """The state of one call."""

    def __init__(self, cell: Cell, job: Job, talk: Talk | None) -> None:
        self.cell, self.job, self.talk = cell, job, talk
        self.began = time.monotonic()
        self.output = {b"o": bytearray(), b"e": bytearray()}
        self.files: dict[str, bytes | None] = {}
        self.returned = 0
        self.left_out: list[str] = []
        self.last: dict[str, int] | None = None
        self.over = False
        self.frames: asyncio.Task[None] | None = None

    async def follow(self) -> Outcome | None:
        """Return the limit that the program reached, or None when it ended by itself."""
        limits = self.job.limits
        try:
            self.cell.begin(limits)
        except OSError as error:
            if error.errno == errno.EBUSY:  # the interpreter takes more than that before the program starts
                return "memory"
            raise
        start = self.cell.read()
        self.cell.writer.write(self.job.frame())
        if self.talk is not None:
            self.talk.opened(self._send)
        metered = start.method == "cgroup"
        watched = not self.cell.memory_is_limited
        deadline = self.began + limits.wall_s
        self.frames = asyncio.create_task(self._take_frames())
        while True:
            left = max(0.0, deadline - time.monotonic())
            done, _ = await asyncio.wait({self.frames}, timeout=min(TICK_S if metered else TREE_TICK_S, left))
            if done:
                self.frames.result()
                return None
            if time.monotonic() >= deadline:
                return "wall"
            reading = self.cell.read()
            if reading.cpu_s - start.cpu_s >= limits.cpu_s:
                return "cpu"
            if watched and reading.peak_rss_bytes > limits.memory_bytes:
                return "memory"

    async def clear(self, stopped: Outcome | None) -> Ended:
        """Kill what is left, take what was still said, read the meter, and say how it ended."""
        clean = stopped is None and self.last is not None
        if not clean:
            self.cell.read()  # a process tree must be seen before it is gone
            await self.cell.kill()
        if self.frames is not None:
            await asyncio.wait({self.frames}, timeout=DRAIN_S)
            if not self.frames.cancel() and not self.frames.cancelled():
                self.frames.exception()
        self.over = True
        if self.talk is not None:
            self.talk.ended()
        if clean:
            self.cell.dismiss()
        reading, ooms = self.cell.read(), self.cell.oom_kills()
        usage = self._usage(reading)
        code = None if self.last is None or self.last["status"] < 0 else os.waitstatus_to_exitcode(self.last["status"])
        flooded = self.last is not None and bool(self.last["flooded"])
        if stopped is None and flooded:
            stopped = "output"
        return Ended(
            outcome=stopped or _outcome(code, usage, ooms, self.job.limits, bytes(self.output[b"e"])),
            exit_code=code,
            stdout=bytes(self.output[b"o"]),
            stderr=bytes(self.output[b"e"]),
            truncated=flooded,
            usage=usage,
            files=self.files if clean else {},
            left_out=tuple(self.left_out),
            clean=clean,
        )

    async def _take_frames(self) -> None:
        """Take what comes until the last word; the end of the stream is no error here: `last` tells."""
        try:
            while self.last is None:
                self._take(*await read_frame(self.cell.reader))
        except Broken:
            return

    def _take(self, kind: bytes, payload: bytes) -> None:
        """Take one frame. Raises Broken for one that process 1 never writes, or more of them than it may."""
        if kind in self.output:
            self.output[kind] += payload
            self._hold(sum(map(len, self.output.values())) <= self.job.limits.output_bytes + wire.COMPLAINT_BYTES)
        elif kind == b"m" and self.talk is not None:
            self.talk.heard(payload)
        elif kind == b"f":
            path, data = wire.named_file(payload)
            self.files[path] = data
            self.returned += len(data)
            self._hold(len(self.files) <= RETURN_FILES and self.returned <= self.job.return_bytes)
        elif kind == b"d":
            path = wire.safe_path(payload)
            self._hold(path in self.job.files)
            self.files[path] = None
        elif kind == b"l":
            self.left_out.append(payload.decode("utf-8", "replace"))
            self._hold(len(self.left_out) <= LEFT_OUT_NAMES + 1)
        elif kind == b"X":
            self.last = wire.summary(payload)

    def _hold(self, kept: bool) -> None:
        if not kept:
            raise Broken("more than process 1 ever sends")

    def _send(self, data: bytes) -> None:
        message = wire.message(data)
        if not self.over and not self.cell.writer.is_closing():
            self.cell.writer.write(message)

    def _usage(self, reading: CpuReading) -> Usage:
        """Return the bill: the cgroup's figures, else the larger of two lower bounds."""
        user_s, system_s, peak, method = reading.user_s, reading.system_s, reading.peak_rss_bytes, reading.method
        if self.last is not None:
            waited = self.last["user_us"] / 1e6, self.last["system_us"] / 1e6
            peak = peak or self.last["rss"]
            if method != "cgroup" and sum(waited) >= reading.cpu_s:
                (user_s, system_s), method = waited, "rusage"
        return Usage(
            cpu_user_s=user_s,
            cpu_system_s=system_s,
            wall_s=time.monotonic() - self.began,
            peak_rss_bytes=peak,
            bytes=sum(map(len, self.output.values())),
            method=method,
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


async def through(work: Awaitable[T]) -> T:
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
