"""What is read of a machine: from recorded trees of /proc and /sys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ponder.machine import Cpu, available_cpus, available_memory, compute_threads, cpu_quota, this_cpu


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, None),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "100000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
            },
            1.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_quota_of_both_versions(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(lay(tmp_path, files)) == quota


def test_hyperthreads_are_one_core(tmp_path: Path) -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("no affinity here")
    mine = sorted(os.sched_getaffinity(0))
    folder = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    one_core = lay(tmp_path, {folder.format(cpu): "0,64\n" for cpu in mine})
    assert compute_threads(one_core) == 1
    own = lay(tmp_path, {folder.format(cpu): f"{cpu}\n" for cpu in mine})
    assert compute_threads(own) == available_cpus()


def test_a_quota_bounds_the_threads(tmp_path: Path) -> None:
    assert compute_threads(lay(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000"})) == 1


def test_memory_is_what_the_group_has_left(tmp_path: Path) -> None:
    group = {"sys/fs/cgroup/memory.max": "5000\n", "sys/fs/cgroup/memory.current": "2000\n"}
    files = {"proc/self/cgroup": "0::/\n"} | group
    assert available_memory(lay(tmp_path, files)) == 3000
    files["sys/fs/cgroup/memory.stat"] = "anon 500\nactive_file 700\ninactive_file 300\n"
    assert available_memory(lay(tmp_path, files)) == 4000, "files that it holds are given up when memory is wanted"
    assert available_memory(tmp_path / "nothing") > 2**20


def test_the_processor(tmp_path: Path) -> None:
    told = "processor\t: 0\nmodel name\t: Fast 9\nflags\t\t: sse avx2\n\nprocessor\t: 1\nmodel name\t: Slow\n"
    cpu = this_cpu(lay(tmp_path, {"proc/cpuinfo": told}))
    assert cpu.features == ("avx2", "sse")
    assert this_cpu(lay(tmp_path, {"proc/cpuinfo": "processor: 0\nFeatures: fp asimd\n"})).features == ("asimd", "fp")


def test_what_runs_where() -> None:
    small = Cpu(machine="x86_64", model="A", features=("avx2", "sse"))
    large = Cpu(machine="x86_64", model="B", features=("avx2", "avx512f", "sse"))
    assert small.runs(small)
    assert large.runs(small)
    assert not small.runs(large)
    assert not large.runs(Cpu(machine="aarch64", model="B", features=("avx2",)))
    unknown = Cpu(machine="arm64", model="M1")
    assert unknown.runs(unknown)
    assert not unknown.runs(Cpu(machine="arm64", model="M4"))
