"""What this machine has for us: CPUs, cores, memory, and what its CPU can do."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

from ponder.records import Record

SYSTEM = Path("/")
"""Root of the files that the kernel tells these things in; tests have another."""


class Cpu(Record):
    """The processor: `features` are the kernel's words for what it can do (`avx2`, `asimddp`)."""

    machine: str
    model: str
    features: tuple[str, ...] = ()

    def runs(self, built_on: Cpu) -> bool:
        """Return whether a program that uses all that `built_on` can do runs here too."""
        if self.machine != built_on.machine:
            return False
        if not built_on.features:  # the system does not tell: then only the very same model is safe
            return self.model == built_on.model
        return set(built_on.features) <= set(self.features)


def available_cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compute_threads(system: Path = SYSTEM) -> int:
    """Return how many threads of arithmetic this process can use at full speed.

    One for each physical core among its CPUs (two hyperthreads share one arithmetic unit), and no more than its
    cgroup's quota of CPU time: threads beyond that wait for each other while they are throttled.
    """
    cores = available_cpus()
    if hasattr(os, "sched_getaffinity"):
        cores = len({_siblings(cpu, system) for cpu in os.sched_getaffinity(0)})
    quota = cpu_quota(system)
    return max(1, cores if quota is None else min(cores, round(quota)))


def cpu_quota(system: Path = SYSTEM) -> float | None:
    """Return the CPUs' worth of time that the cgroups above this process allow it; None: no limit."""
    limits = []
    for folder in _cgroups("cpu", system):
        if (told := _words(folder / "cpu.max")) and told[0] != "max":  # v2: "QUOTA PERIOD"
            limits.append(int(told[0]) / int(told[1]))
        quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
        if quota and period and int(quota[0]) > 0:
            limits.append(int(quota[0]) / int(period[0]))
    return min(limits, default=None)


def available_memory(system: Path = SYSTEM) -> int:
    """Return how many bytes this process can still take without swapping, its cgroups' limits included."""
    import psutil

    free = [int(psutil.virtual_memory().available)]
    for folder in _cgroups("memory", system):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            bound, now = _words(folder / limit), _words(folder / used)
            if bound and now and bound[0] != "max":
                free.append(max(0, int(bound[0]) - int(now[0]) + _cached(folder)))
    return min(free)


def _cached(folder: Path) -> int:
    """Return the bytes of files that a cgroup holds in memory: the kernel gives them up when memory is wanted."""
    try:
        told = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        v1 = "total_" if "total_active_file" in told else ""
        return int(told[f"{v1}active_file"]) + int(told[f"{v1}inactive_file"])
    except (OSError, ValueError, KeyError):
        return 0


def this_cpu(system: Path = SYSTEM) -> Cpu:
    """Return the processor of this machine."""
    told = _cpuinfo(system)
    model = told.get("model name") or told.get("CPU part") or platform.processor()
    if platform.system() == "Darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False, timeout=10
        )
        model = asked.stdout.strip() or model
    features = (told.get("flags") or told.get("Features") or "").split()
    return Cpu(machine=platform.machine(), model=model, features=tuple(sorted(features)))


def _cpuinfo(system: Path) -> dict[str, str]:
    """Return what the kernel says of the first CPU."""
    try:
        first = (system / "proc/cpuinfo").read_text(errors="replace").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _siblings(cpu: int, system: Path) -> str:
    """Return a name of the core that a CPU belongs to."""
    told = _words(system / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return told[0] if told else f"cpu {cpu}"


def _cgroups(controller: str, system: Path) -> Iterable[Path]:
    """Yield the folders of this process's cgroups for a controller, of both versions, from its own up to the root."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            roots = [system / "sys/fs/cgroup"]
        elif controller in controllers.split(","):
            roots = [system / "sys/fs/cgroup" / controller, system / "sys/fs/cgroup" / controllers]
        else:
            continue
        for root in roots:
            folder = root / path.lstrip("/")
            while folder.is_relative_to(root):
                yield folder  # in a container this path may not exist, and its root is the container's own group
                folder = folder.parent


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
