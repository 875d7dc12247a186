"""A process group where no cgroup can be made: the process tree, watched through its pids."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil

from ponder.records import CpuReading

KILL_S = 1.0


class TreeGroup:
    """The descendants of one process, as far as they can be seen.

    Covered: CPU of all descendants seen at some reading, also after they exit or are adopted by another process;
    killing them. Figures never decrease.

    Not covered: a process that starts and leaves the tree between two readings is neither billed nor killed (a
    double fork); there is no memory or pids limit. All figures are lower bounds.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._known: dict[tuple[int, float], psutil.Process] = {}
        self._spent: dict[tuple[int, float], tuple[float, float]] = {}
        self._last = CpuReading(method="process-tree")

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the argv as it is: the tree begins with the pid that `attach` is told."""
        return list(argv)

    def attach(self, pid: int) -> None:
        """Begin to follow the tree under `pid`."""
        try:
            self._remember(psutil.Process(pid))
        except psutil.Error:
            return

    def limit(self, *, memory_bytes: int | None = None, pids: int | None = None) -> None:
        """Do nothing: a tree has no limits."""

    def oom_kills(self) -> int:
        """Return 0: without a cgroup the kernel counts no memory kills for a tree."""
        return 0

    def read(self) -> CpuReading:
        """Return a lower bound of the CPU used so far. Costs milliseconds: every process of the machine is looked at.

        A child that its parent waited for is in the parent's figure; one that was adopted elsewhere is only in ours.
        Each sum alone is a lower bound, and so is their maximum.
        """
        self._discover()
        waited_user = waited_system = 0.0
        rss = 0
        for key, process in list(self._known.items()):
            try:
                times = process.cpu_times()
                rss += process.memory_info().rss
            except psutil.Error:
                continue
            user, system = self._spent.get(key, (0.0, 0.0))
            self._spent[key] = (max(user, times.user), max(system, times.system))
            waited_user += times.user + times.children_user
            waited_system += times.system + times.children_system
        seen_user = sum(user for user, _ in self._spent.values())
        seen_system = sum(system for _, system in self._spent.values())
        self._last = CpuReading(
            user_s=max(self._last.user_s, seen_user, waited_user),
            system_s=max(self._last.system_s, seen_system, waited_system),
            peak_rss_bytes=max(self._last.peak_rss_bytes, rss),
            method="process-tree",
        )
        return self._last

    def kill(self) -> None:
        """SIGKILL every process of the tree; returns when none is left, or after a second."""
        deadline = time.monotonic() + KILL_S
        while True:
            self._discover()
            alive = [process for process in self._known.values() if _alive(process)]
            if not alive or time.monotonic() > deadline:
                return
            for process in alive:
                try:
                    process.kill()
                except psutil.Error:
                    continue
            time.sleep(0.002)

    def close(self) -> None:
        """Kill what is left."""
        self.kill()

    def _discover(self) -> None:
        for process in list(self._known.values()):
            try:
                for child in process.children(recursive=True):
                    self._remember(child)
            except psutil.Error:
                continue

    def _remember(self, process: psutil.Process) -> None:
        self._known.setdefault((process.pid, process.create_time()), process)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
