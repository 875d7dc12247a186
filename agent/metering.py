"""Cumulative CPU meters as one run sees them: what calls were charged, what is in flight, and what is nobody's.

A meter (the engine's, the browser's, the sandbox's, this process's own) only grows. What it shows beyond the charges
is divided in two, so that nothing is counted twice and nothing is lost: while calls of its tool are running, what was
added since the first of them began is in flight; the rest is nobody's, and goes to the row that the meter names.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ponder.records import CpuReading, Usage

OVERHEAD, IDLE, DAEMON, FETCH = "overhead", "idle", "daemon", "fetch"
"""Rows that are no tool's: our own work and the core's loading; services between calls; a Docker daemon; weights."""

NO_CPU = CpuReading(method="rusage")


class Cpu(NamedTuple):
    """CPU seconds."""

    user_s: float
    system_s: float

    @property
    def total_s(self) -> float:
        """User and system together."""
        return self.user_s + self.system_s

    def plus(self, other: Cpu) -> Cpu:
        """Return the sum."""
        return Cpu(self.user_s + other.user_s, self.system_s + other.system_s)

    def less(self, other: Cpu) -> Cpu:
        """Return what is left; never negative: rounding of a live meter may put it a hair below what was charged."""
        return Cpu(max(0.0, self.user_s - other.user_s), max(0.0, self.system_s - other.system_s))

    def at_most(self, other: Cpu) -> Cpu:
        """Return the smaller of each."""
        return Cpu(min(self.user_s, other.user_s), min(self.system_s, other.system_s))


NONE = Cpu(0.0, 0.0)


class Closing(NamedTuple):
    """What ending a service takes, in seconds."""

    cpu_s: float
    wall_s: float


NO_CLOSING = Closing(0.0, 0.0)


@dataclass(frozen=True)
class Meter:
    """A cumulative meter of something that serves calls of `tool`.

    Args:
        read: the CPU so far.
        rest: the row of what no call used.
        live: the tokens of calls in flight, as they will be charged when they end.
        closing: what ending it takes, as measured; a budget that includes the end keeps that back.
    """

    tool: str
    read: Callable[[], CpuReading]
    rest: str = IDLE
    live: Callable[[], Usage] | None = None
    closing: Closing = NO_CLOSING


class Division(NamedTuple):
    """What a meter shows beyond the charges, now."""

    reading: CpuReading
    used: bool
    in_flight: Cpu
    rest: Cpu


class Account:
    """One run's view of a meter.

    Args:
        from_zero: all that the meter shows is this run's, not only what comes from now on.
    """

    def __init__(self, meter: Meter, *, from_zero: bool = False) -> None:
        self.meter = meter
        start = NO_CPU if from_zero else meter.read()
        self._start = Cpu(start.user_s, start.system_s)
        self._charged = NONE
        self._calls = 0
        self._rest = NONE  # when the first of the running calls began

    def enter(self) -> None:
        """Note that a call begins."""
        if not self._calls:
            self._rest = self._beyond(self.meter.read())
        self._calls += 1

    def leave(self) -> None:
        """Note that a call has ended and is charged."""
        self._calls -= 1

    def charge(self, usage: Usage) -> None:
        """Note that this much of the meter is on the bill."""
        self._charged = self._charged.plus(Cpu(usage.cpu_user_s, usage.cpu_system_s))

    def divide(self) -> Division:
        """Read the meter. Costs microseconds."""
        reading = self.meter.read()
        beyond = self._beyond(reading)
        rest = beyond.at_most(self._rest) if self._calls else beyond
        used = reading.user_s + reading.system_s > self._start.total_s
        return Division(reading, used, beyond.less(rest), rest)

    def _beyond(self, reading: CpuReading) -> Cpu:
        return Cpu(reading.user_s, reading.system_s).less(self._start).less(self._charged)


def own_reading(agents: int = 1) -> CpuReading:
    """Return this process's own CPU since it started (children are metered by their groups).

    Args:
        agents: at work in it; the figure is the part of one of them.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    return CpuReading(
        user_s=usage.ru_utime / agents,
        system_s=usage.ru_stime / agents,
        peak_rss_bytes=usage.ru_maxrss * unit,
        method="rusage",
    )


class Fetch:
    """What fetching and verifying weights took so far: this process's CPU meanwhile, and that of programs it ran."""

    def __init__(self) -> None:
        self._began: tuple[Cpu, Cpu, float] | None = None
        self._own, self._children, self._wall_s = NONE, NONE, 0.0

    def begin(self) -> None:
        """Begin to count."""
        self._began = (*_own_and_children(), time.monotonic())

    def end(self) -> None:
        """Stop counting."""
        self._own, self._children, self._wall_s, self._began = self.own, self.children, self.wall_s, None

    @property
    def own(self) -> Cpu:
        """CPU of this process: the ledger takes it from the overhead."""
        return self._own if self._began is None else self._own.plus(_own_and_children()[0].less(self._began[0]))

    @property
    def children(self) -> Cpu:
        """CPU of programs that ran and ended meanwhile (pip)."""
        if self._began is None:
            return self._children
        return self._children.plus(_own_and_children()[1].less(self._began[1]))

    @property
    def wall_s(self) -> float:
        """Seconds."""
        return self._wall_s if self._began is None else self._wall_s + time.monotonic() - self._began[2]


def _own_and_children() -> tuple[Cpu, Cpu]:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cpu(own.ru_utime, own.ru_stime), Cpu(children.ru_utime, children.ru_stime)


def process_start() -> float:
    """Return this process's start on the monotonic clock, in seconds; to a hundredth where there is /proc."""
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        import psutil  # knows the start of the machine to a second only

        age_s = time.time() - psutil.Process(os.getpid()).create_time()
    return time.monotonic() - max(0.0, age_s)
