"""A cgroup as a process group: how one is made, entered, read, killed and removed."""

from __future__ import annotations

import os
import re
import secrets
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from ponder.records import CpuReading
from ponder.sandboxes.groups.places import Places

KILL_S = 1.0
LOOK_S = 0.1
"""Between looks at the memory of a group's processes, where no memory cgroup counts it."""
TRAMPOLINE = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 > "$1" || exit 125; shift; n=$((n-1)); done; exec "$@"'
"""Puts itself into each cgroup, then becomes the program: nothing of it ever runs outside."""

MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")
SWAP_LIMITS = (("memory.swap.max", "0"), ("memory.memsw.limit_in_bytes", None))
PEAKS = ("memory.peak", "memory.max_usage_in_bytes")
OOM_COUNTERS = ("memory.events", "memory.oom_control")


class OpenFiles:
    """Small files that are read again and again, opened once: opening costs ten times what reading does."""

    def __init__(self) -> None:
        self._fds: dict[Path, int] = {}

    def fd(self, file: Path) -> int:
        """Return the file's descriptor, writable where that is allowed. Raises OSError."""
        if file not in self._fds:
            try:
                self._fds[file] = os.open(file, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                self._fds[file] = _opened(file)
        if self._fds[file] < 0:
            raise FileNotFoundError(file)
        return self._fds[file]

    def text(self, file: Path) -> str:
        """Return what the file says now. Raises OSError."""
        return os.pread(self.fd(file), 4096, 0).decode()

    def number(self, file: Path) -> int:
        """Return the number that the file holds; 0 where there is none."""
        try:
            return int(self.text(file))
        except (OSError, ValueError):
            return 0

    def close(self) -> None:
        """Close them all."""
        for fd in self._fds.values():
            if fd >= 0:
                os.close(fd)
        self._fds.clear()


class CgroupMeter:
    """One cgroup in each hierarchy that matters, made by somebody: read, limited, killed, and left there."""

    def __init__(self, places: Places) -> None:
        """Take these directories themselves. Raises OSError where there is no CPU meter."""
        self._dirs = list(places.directories())
        self._cpu, self._memory, self._pids, self._kill = places.cpu, places.memory, places.pids, places.kill
        self._last = CpuReading(method="cgroup")
        self._ooms = 0
        self._looked_at = 0.0
        self._cpu_file = _cpu_file(self._cpu)
        self._system_file = self._cpu_file.with_name("cpuacct.usage_sys")
        memory = [self._memory] if self._memory is not None else []
        self._peaks = [folder / name for folder in memory for name in PEAKS]
        self._oom_files = [folder / name for folder in memory for name in OOM_COUNTERS]
        self._files = OpenFiles()
        self._files.fd(self._cpu_file)
        self._open = True

    @property
    def limits_memory(self) -> bool:
        """Whether the kernel holds the group to a limit of memory, and knows its peak."""
        return self._memory is not None

    def _resident(self) -> int:
        """Return the bytes of memory that its processes hold now, shared ones counted by each; 0 between looks."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return 0
        self._looked_at = now
        try:
            pids = self._cpu_file.with_name("cgroup.procs").read_text().split()
        except OSError:
            return 0
        return sum(map(_resident_of, pids))

    def limit(self, *, memory_bytes: int | None = None, pids: int | None = None) -> None:
        """Set limits of the whole group. Raises OSError, as when more memory is in use already."""
        if memory_bytes is not None and self._memory:
            memory = self._memory
            swap = [(memory / name, value or str(memory_bytes)) for name, value in SWAP_LIMITS
                    if (memory / name).exists()]  # absent without swap accounting
            for file, _ in swap:  # memory with swap may never be less than memory: make room first
                if file.name == "memory.memsw.limit_in_bytes":
                    file.write_text("-1")
            _write_one(memory, MEMORY_LIMITS, str(memory_bytes))
            for file, value in swap:
                _write(file, value)
        if pids is not None and self._pids:
            (self._pids / "pids.max").write_text(str(pids))

    def reset_peak(self) -> bool:
        """Begin a new peak of memory; return whether that can be done (version 1; version 2 from Linux 6.12 on).

        In version 2 the new peak belongs to the open file that it was asked for through.
        """
        if self._memory is None:  # it is counted here
            self._last = self._last.model_copy(update={"peak_rss_bytes": 0})
            return True
        v1 = self._memory / "memory.max_usage_in_bytes"
        try:
            if v1.exists():
                v1.write_text("0")
                return True
            os.pwrite(self._files.fd(self._memory / "memory.peak"), b"reset\n", 0)
        except OSError:
            return False
        return True

    def oom_kills(self) -> int:
        """Return how many processes of the group the kernel killed for want of memory."""
        if self._open:
            self._ooms = max([self._ooms, *(self._counter(file, "oom_kill") for file in self._oom_files)])
        return self._ooms

    def read(self) -> CpuReading:
        """Return the CPU used so far; the last figures once the group is closed, or the cgroup was removed."""
        if self._open:
            try:
                user_s, system_s = self._cpu_times()
            except OSError:
                return self._last
            if self.limits_memory:
                peak = max([0, *map(self._files.number, self._peaks)])
            else:
                peak = max(self._last.peak_rss_bytes, self._resident())
            self._last = CpuReading(
                user_s=max(user_s, self._last.user_s),
                system_s=max(system_s, self._last.system_s),
                peak_rss_bytes=peak or self._last.peak_rss_bytes,
                method="cgroup",
            )
        return self._last

    def kill(self) -> None:
        """SIGKILL everything inside; returns when nothing is left, or after a second."""
        kill_all(self._dirs, self._kill)

    def close(self) -> None:
        """Keep the last figures and let the cgroups be."""
        self._close_files()

    def _counter(self, file: Path, name: str) -> int:
        try:
            found = re.search(rf"^{name} (\d+)$", self._files.text(file), re.MULTILINE)
        except OSError:
            return 0
        return int(found[1]) if found else 0

    def _close_files(self) -> None:
        self._open = False
        self._files.close()

    def _cpu_times(self) -> tuple[float, float]:
        """Return user and system seconds; version 2 counts microseconds in one file, version 1 nanoseconds in two."""
        text = self._files.text(self._cpu_file)
        if "user_usec" not in text:
            return int(text) / 1e9, self._files.number(self._system_file) / 1e9
        figures = dict(line.split() for line in text.splitlines())
        return int(figures["user_usec"]) / 1e6, int(figures["system_usec"]) / 1e6


def _resident_of(pid: str) -> int:
    """Return the bytes of memory that a process holds; 0 for one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


class CgroupGroup(CgroupMeter):
    """A fresh cgroup in each hierarchy that is needed; nothing can leave it or hide in it.

    Covered: CPU of everything that was ever inside (orphans and double forks included), the peak of memory
    (page cache and tmpfs included), limits of memory and of processes, killing all at once.

    Not covered: work that the kernel does on behalf of the group outside of it (interrupts, writing back of pages).
    """

    def __init__(self, name: str, places: Places) -> None:
        """Make the directories. Raises OSError where that is not allowed."""
        self.name = name
        self._open = False
        label = group_label(name)
        parents = (places.cpu, places.memory, places.pids, places.kill)
        own = Places(*(parent / label if parent else None for parent in parents))
        self._dirs = list(own.directories())
        self._kill = own.kill
        try:
            for directory in self._dirs:
                directory.mkdir()
            super().__init__(own)
        except OSError:
            self.close()
            raise

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return an argv whose first act is to enter the group; it exits with 125 where it cannot."""
        doors = [directory / "cgroup.procs" for directory in self._dirs]
        return through_doors(doors, argv)

    def attach(self, pid: int) -> None:
        """Do nothing: the program went in by itself."""

    def close(self) -> None:
        """Kill what is left, keep the last figures, remove the directories (within a second)."""
        if not self._dirs:
            return
        self.kill()
        if self._open:
            self.read()
            self.oom_kills()
            self._close_files()
        remove_all(self._dirs, self._kill)  # what resists is removed by the next ponder, as stale
        self._dirs = []


def through_doors(doors: Sequence[Path], argv: Sequence[str]) -> list[str]:
    """Return an argv that enters these cgroups (by their `cgroup.procs`), then becomes `argv`, or exits with 125."""
    return ["/bin/sh", "-c", TRAMPOLINE, "sh", str(len(doors)), *map(str, doors), *argv]


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
    while left := [directory for directory in directories if not remove(directory)]:
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


def group_label(name: str) -> str:
    """Return a directory name that says whose group it is, so that the next ponder can tell a stale one."""
    namespace, pid, started = identity(os.getpid())
    return f"ponder-{namespace}-{pid}-{started}-{re.sub('[^a-z0-9]', '', name.lower())}-{secrets.token_hex(4)}"


def identity(pid: int, root: Path = Path("/")) -> tuple[str, int, str]:
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


def _opened(file: Path) -> int:
    """Return a descriptor to read from, or -1 where there is no such file. Raises other OSErrors."""
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


def remove(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
