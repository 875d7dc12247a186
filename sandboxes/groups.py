"""Process groups: one meter and one off switch for a program and all that it starts.

`find_groups()` looks, once, at what this machine offers; `Groups.make` then makes a group per program: a
`CgroupGroup` where a cgroup can be made, else a `TreeGroup`, whose figures are lower bounds and say so.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ponder.protocols import GroupFactory
from ponder.records import CpuReading
from ponder.sandboxes.places import Places, enable_controllers, find_places, is_v2
from ponder.sandboxes.trees import TreeGroup

JOIN_FAILED = 125
KILL_S = 1.0
TRAMPOLINE = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 > "$1" || exit 125; shift; n=$((n-1)); done; exec "$@"'
"""Puts itself into each cgroup, then becomes the program: nothing of it ever runs outside."""

MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")
SWAP_LIMITS = (("memory.swap.max", "0"), ("memory.memsw.limit_in_bytes", None))
PEAKS = ("memory.peak", "memory.max_usage_in_bytes")
OOM_COUNTERS = ("memory.events", "memory.oom_control")


class CgroupGroup:
    """A fresh cgroup in each hierarchy that is needed; nothing can leave it or hide in it.

    Covered: CPU of everything that was ever inside (orphans and double forks included), the peak of memory
    (page cache and tmpfs included), limits of memory and of processes, killing all at once.

    Not covered: work that the kernel does on behalf of the group outside of it (interrupts, writing back of pages).
    """

    def __init__(
        self, name: str, places: Places, *, memory_bytes: int | None = None, pids: int | None = None
    ) -> None:
        """Make the directories and set the limits. Raises OSError where that is not allowed."""
        self.name = name
        self._cpu_fd = -1
        label = _label(name)
        self._dirs = [parent / label for parent in places.directories()]
        self._cpu, self._memory, self._pids, self._kill = (
            parent / label if parent else None for parent in (places.cpu, places.memory, places.pids, places.kill)
        )
        self._last = CpuReading(user_s=0.0, system_s=0.0, peak_rss_bytes=0, method="cgroup")
        self._ooms = 0
        try:
            for directory in self._dirs:
                directory.mkdir()
            self._limit(memory_bytes, pids)
            self._cpu_fd = os.open(_cpu_file(self._cpu), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.close()
            raise

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return an argv whose first act is to enter the group; it exits with 125 where it cannot."""
        doors = [str(directory / "cgroup.procs") for directory in self._dirs]
        return ["/bin/sh", "-c", TRAMPOLINE, "sh", str(len(doors)), *doors, *argv]

    def attach(self, pid: int) -> None:
        """Do nothing: the program went in by itself."""

    def oom_kills(self) -> int:
        """Return how many processes of the group the kernel killed for want of memory."""
        if self._memory is not None and self._dirs:
            self._ooms = max([self._ooms, *(_counter(self._memory / name, "oom_kill") for name in OOM_COUNTERS)])
        return self._ooms

    def read(self) -> CpuReading:
        """Return the CPU used so far; the last figures once the group is closed."""
        if self._cpu_fd >= 0:
            user_s, system_s = self._cpu_times()
            peak = max([0, *(_number(self._memory / name) for name in PEAKS)]) if self._memory else 0
            self._last = CpuReading(user_s=user_s, system_s=system_s, peak_rss_bytes=peak, method="cgroup")
        return self._last

    def kill(self) -> None:
        """SIGKILL everything inside; returns when nothing is left, or after a second."""
        kill_all(self._dirs, self._kill)

    def close(self) -> None:
        """Kill what is left, keep the last figures, remove the directories (within a second)."""
        if not self._dirs:
            return
        self.kill()
        if self._cpu_fd >= 0:
            self.read()
            self.oom_kills()
            os.close(self._cpu_fd)
            self._cpu_fd = -1
        remove_all(self._dirs, self._kill)  # what resists is removed by the next ponder, as stale
        self._dirs = []

    def _limit(self, memory_bytes: int | None, pids: int | None) -> None:
        if memory_bytes is not None and self._memory:
            _write_one(self._memory, MEMORY_LIMITS, str(memory_bytes))
            for name, value in SWAP_LIMITS:  # absent without swap accounting
                if (self._memory / name).exists():
                    _write(self._memory / name, value or str(memory_bytes))
        if pids is not None and self._pids:
            (self._pids / "pids.max").write_text(str(pids))

    def _cpu_times(self) -> tuple[float, float]:
        """Return user and system seconds; version 2 counts microseconds in one file, version 1 nanoseconds in two."""
        text = os.pread(self._cpu_fd, 4096, 0).decode()
        if "user_usec" not in text:
            assert self._cpu is not None
            return int(text) / 1e9, _number(self._cpu / "cpuacct.usage_sys") / 1e9
        figures = dict(line.split() for line in text.splitlines())
        return int(figures["user_usec"]) / 1e6, int(figures["system_usec"]) / 1e6


@dataclass(frozen=True)
class Groups:
    """What this machine offers to make process groups of; `missing` says why a role is not there."""

    places: Places | None
    missing: dict[str, str] = field(default_factory=dict)

    def make(
        self, name: str, *, memory_bytes: int | None = None, pids: int | None = None
    ) -> CgroupGroup | TreeGroup:
        """Make a group: a cgroup where one can be made, else a followed process tree.

        Args:
            memory_bytes, pids: limits of the whole group, set where the machine can (else see `missing`).
        """
        if self.places is None:
            return TreeGroup(name)
        try:
            return CgroupGroup(name, self.places, memory_bytes=memory_bytes, pids=pids)
        except OSError:
            return TreeGroup(name)  # the machine changed under us; the method of the figures says so


def group_factory(root: Path = Path("/")) -> GroupFactory:
    """Return a maker of process groups, the best kind that works here. Costs some milliseconds, once."""
    return find_groups(root).make


def find_groups(root: Path = Path("/")) -> Groups:
    """Find out by trying what kind of groups can be made, and clean up what dead ponder processes left.

    Args:
        root: where `proc` and `sys` are (another root is a recorded tree, for tests).
    """
    found = find_places(root)
    if found.cpu is None:
        return Groups(None, dict.fromkeys(("cpu", "memory", "pids"), "no cgroup hierarchy with a CPU meter is mounted"))
    missing: dict[str, str] = {}
    for parent in found.directories():
        remove_stale(parent, root)
        given = enable_controllers(parent) if is_v2(parent) else None
        why = _try(parent)
        for role in ("cpu", "memory", "pids", "kill"):
            if getattr(found, role) != parent:
                continue
            if why is None and given is not None and role in ("memory", "pids") and role not in given:
                missing[role] = f"{parent} does not give its {role} controller to groups below it"
            elif why is not None:
                missing[role] = why
    for role in ("memory", "pids"):
        if getattr(found, role) is None:
            missing[role] = f"no cgroup hierarchy with the {role} controller"
    if "cpu" in missing:
        return Groups(None, dict.fromkeys(("cpu", "memory", "pids"), missing["cpu"]))
    return Groups(replace(found, **dict.fromkeys(missing)), missing)


def remove_stale(parent: Path, root: Path = Path("/")) -> None:
    """Kill and remove groups of ponder processes that no longer run (of our pid namespace: others cannot be seen)."""
    namespace, _, _ = _identity(os.getpid(), root)
    for directory in parent.glob("ponder-*"):
        marks = re.match(r"ponder-(\d+)-(\d+)-(\d+)-", directory.name)
        if not marks or marks[1] != namespace or _identity(int(marks[2]), root)[2] == marks[3]:
            continue
        remove_all([directory], directory)


def kill_all(directories: Sequence[Path], kill: Path | None) -> None:
    """SIGKILL every process in these cgroups; returns when none is left, or after a second.

    Args:
        kill: the one of them that can stop all at once, if there is one; without it a fork bomb is a race, which
            a limit of processes wins.
    """
    deadline = time.monotonic() + KILL_S
    while pids := _members(directories):
        if kill and (kill / "cgroup.kill").exists():
            _write(kill / "cgroup.kill", "1")
        else:
            _freeze(kill, True)
            for pid in pids | _members(directories):
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    continue
            _freeze(kill, False)
        if time.monotonic() > deadline:
            return
        time.sleep(0.001)


def remove_all(directories: Sequence[Path], kill: Path | None) -> None:
    """Remove these cgroups, killing what is in them; gives up after a second."""
    deadline = time.monotonic() + KILL_S
    while left := [directory for directory in directories if not _remove(directory)]:
        if time.monotonic() > deadline:
            return
        kill_all(left, kill)
        time.sleep(0.002)


def _members(directories: Sequence[Path]) -> set[int]:
    members: set[int] = set()
    for directory in directories:
        try:
            members.update(int(pid) for pid in (directory / "cgroup.procs").read_text().split())
        except OSError:
            continue
    return members


def _freeze(directory: Path | None, on: bool) -> None:
    """Hold everything in a cgroup still, or let it go on, by the freezer of either version, if there is one."""
    if directory is None:
        return
    if (directory / "freezer.state").exists():
        _write(directory / "freezer.state", "FROZEN" if on else "THAWED")
    elif (directory / "cgroup.freeze").exists():
        _write(directory / "cgroup.freeze", "1" if on else "0")


def _try(parent: Path) -> str | None:
    """Make a group below `parent`, send a process through it, remove it; return why that failed, if it did."""
    trial = parent / _label("trial")
    try:
        trial.mkdir()
    except OSError as error:
        return f"no cgroup can be made under {parent}: {error.strerror}"
    door = trial / "cgroup.procs"
    try:
        if not door.exists():
            return f"{parent} is not a cgroup"
        command = ["/bin/sh", "-c", TRAMPOLINE, "sh", "1", str(door), "/bin/sh", "-c", ":"]
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError as error:
        return f"no process could enter {trial}: {error.strerror}"
    finally:
        _remove(trial)
    return None if done.returncode == 0 else f"no process could enter {trial}: {done.stderr.decode().strip()}"


def _label(name: str) -> str:
    """Return a directory name that says whose group it is, so that the next ponder can tell a stale one."""
    namespace, pid, started = _identity(os.getpid())
    return f"ponder-{namespace}-{pid}-{started}-{re.sub('[^a-z0-9]', '', name.lower())}-{secrets.token_hex(4)}"


def _identity(pid: int, root: Path = Path("/")) -> tuple[str, int, str]:
    """Return (pid namespace, pid, start time in clock ticks); the start time is empty when no such process runs."""
    namespace = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    try:
        stat = (root / f"proc/{pid}/stat").read_text()
    except OSError:
        return namespace, pid, ""
    return namespace, pid, stat.rpartition(")")[2].split()[19]


def _cpu_file(directory: Path | None) -> Path:
    if directory is None:
        raise FileNotFoundError("no CPU meter")
    v1 = directory / "cpuacct.usage_user"
    return v1 if v1.exists() else directory / "cpu.stat"


def _write_one(directory: Path, names: Sequence[str], value: str) -> None:
    """Write to the first of these files that exists."""
    for name in names:
        if (directory / name).exists():
            (directory / name).write_text(value)
            return


def _write(file: Path, value: str) -> None:
    try:
        file.write_text(value)
    except OSError:
        return


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def _counter(file: Path, name: str) -> int:
    try:
        found = re.search(rf"^{name} (\d+)$", file.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _remove(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
