"""Process groups: the real ones of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ponder.protocols import ProcessGroup
from ponder.sandboxes.groups import cgroups, find_groups, group_factory, remove_stale
from ponder.sandboxes.groups.cgroups import CgroupGroup
from ponder.sandboxes.groups.places import Places
from ponder.sandboxes.groups.trees import TreeGroup

BURN = "import time\nwhile time.process_time() < {0}: pass\n"
ORPHAN = """
import os, time
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    while time.process_time() < 0.3: pass
    os.write(writer, b"x")
    while True: pass
os.read(reader, 1)
"""


@pytest.fixture(params=["best", "tree"])
def group(request: pytest.FixtureRequest) -> Iterator[ProcessGroup]:
    made = group_factory()("test") if request.param == "best" else TreeGroup("test")
    yield made
    made.close()
    made.close()  # safe to call twice


def start(group: ProcessGroup, program: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(group.command([sys.executable, "-I", "-S", "-c", program]))
    group.attach(process.pid)
    return process


def follow(group: ProcessGroup, process: subprocess.Popen[bytes]) -> None:
    """Wait as ponder does, reading the meter now and then."""
    while process.poll() is None:
        group.read()
        time.sleep(0.02)


def test_burn_is_metered(group: ProcessGroup) -> None:
    follow(group, start(group, BURN.format(0.3)))
    reading = group.read()
    assert 0.25 <= reading.cpu_s <= 0.45
    assert reading.peak_rss_bytes > 1e6 or reading.method == "cgroup"  # the page cache may hold all of it already


def test_figures_never_decrease(group: ProcessGroup) -> None:
    process = start(group, f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN.format(0.2)!r}])")
    last = 0.0
    while process.poll() is None:
        reading = group.read().cpu_s
        assert reading >= last
        last = reading
        time.sleep(0.02)
    group.close()
    assert group.read().cpu_s >= last


def test_kill_ends_a_tree_that_ignores_signals(group: ProcessGroup) -> None:
    program = (
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.fork()\nos.fork()\ntime.sleep(60)"
    )
    process = start(group, program)
    time.sleep(0.3)
    group.read()
    begun = time.monotonic()
    group.kill()
    assert process.wait(timeout=5) == -9
    assert time.monotonic() - begun < 1


@pytest.mark.real
def test_orphan_is_metered_and_killed() -> None:
    made = group_factory()("orphan")
    if not isinstance(made, CgroupGroup):
        pytest.skip("this kernel or user has no cgroups to make: orphans can hide from a process tree")
    try:
        start(made, ORPHAN).wait()
        assert made.read().cpu_s >= 0.3
    finally:
        made.close()
    assert not leftovers()


@pytest.mark.real
def test_stale_groups_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    places = find_groups().places
    if places is None:
        pytest.skip("this kernel or user has no cgroups to make")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    namespace, _, _ = cgroups.identity(os.getpid())
    monkeypatch.setattr(cgroups, "identity", lambda *_: (namespace, dead.pid, "12345"))
    stale = CgroupGroup("stale", places)
    sleeper = start(stale, "import time; time.sleep(60)")
    deadline = time.monotonic() + 5
    while not stale.read().cpu_s:
        assert time.monotonic() < deadline, "it never went into its group"
        time.sleep(0.01)
    monkeypatch.undo()
    for parent in places.directories():
        remove_stale(parent)
    assert sleeper.wait(timeout=5) == -9
    assert not leftovers(str(dead.pid))


def leftovers(pid: str | None = None) -> list[Path]:
    """Return this process's cgroups (or another's) that still exist."""
    places = find_groups().places
    assert places is not None
    return [found for parent in places.directories() for found in parent.glob(f"ponder-*-{pid or os.getpid()}-*")]


# --- limits and figures, on recorded cgroups of either version ------------------------------------------------

V1_FILES = {
    "cpuacct.usage_user": "2000000000\n", "cpuacct.usage_sys": "500000000\n", "memory.limit_in_bytes": "9\n",
    "memory.memsw.limit_in_bytes": "9\n", "memory.max_usage_in_bytes": "4096\n", "pids.max": "max\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
}  # fmt: skip
V2_FILES = {
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n", "memory.max": "max\n",
    "memory.swap.max": "max\n", "memory.peak": "4096\n", "pids.max": "max\n",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 3\noom_kill 3\n",
}  # fmt: skip


def recorded(folder: Path, files: dict[str, str]) -> cgroups.CgroupMeter:
    for name, text in files.items():
        (folder / name).write_text(text)
    return cgroups.CgroupMeter(Places(cpu=folder, memory=folder, pids=folder, kill=folder))


@pytest.mark.parametrize("files", [V1_FILES, V2_FILES], ids=["version 1", "version 2"])
def test_figures_of_recorded_cgroups(tmp_path: Path, files: dict[str, str]) -> None:
    meter = recorded(tmp_path, files)
    reading = meter.read()
    assert (reading.user_s, reading.system_s, reading.peak_rss_bytes, reading.method) == (2.0, 0.5, 4096, "cgroup")
    assert meter.oom_kills() == 3
    meter.close()
    assert meter.read() == reading


def test_limits_of_version_1(tmp_path: Path) -> None:
    meter = recorded(tmp_path, V1_FILES)
    meter.limit(memory_bytes=5000, pids=7)
    texts = {name: (tmp_path / name).read_text() for name in V1_FILES}
    assert texts["memory.limit_in_bytes"] == texts["memory.memsw.limit_in_bytes"] == "5000"  # no swap beside it
    assert texts["pids.max"] == "7"
    meter.limit(pids=8)
    assert (tmp_path / "memory.limit_in_bytes").read_text() == "5000"


def test_limits_of_version_2(tmp_path: Path) -> None:
    meter = recorded(tmp_path, V2_FILES)
    meter.limit(memory_bytes=5000, pids=7)
    texts = {name: (tmp_path / name).read_text() for name in V2_FILES}
    assert (texts["memory.max"], texts["memory.swap.max"], texts["pids.max"]) == ("5000", "0", "7")


def test_limits_without_swap_accounting(tmp_path: Path) -> None:
    meter = recorded(tmp_path, {name: text for name, text in V1_FILES.items() if "memsw" not in name})
    meter.limit(memory_bytes=5000)
    assert (tmp_path / "memory.limit_in_bytes").read_text() == "5000"
    assert not (tmp_path / "memory.memsw.limit_in_bytes").exists()


def test_a_new_peak(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    first = recorded(tmp_path / "1", V1_FILES)
    assert first.reset_peak()
    assert first.read().peak_rss_bytes == 0 or (tmp_path / "1/memory.max_usage_in_bytes").read_text() == "0"
    second = recorded(tmp_path / "2", V2_FILES)
    assert second.reset_peak()
    assert (tmp_path / "2/memory.peak").read_bytes() == b"reset\n"
    (tmp_path / "2/memory.peak").write_bytes(b"8192\n\n")  # what the kernel would answer through the same file
    assert second.read().peak_rss_bytes == 8192
    second.close()
    (tmp_path / "2/memory.peak").unlink()  # a kernel before 5.19
    assert not recorded(tmp_path / "2", {"cpu.stat": V2_FILES["cpu.stat"]}).reset_peak()


def test_no_memory_controller(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text(V2_FILES["cpu.stat"])
    meter = cgroups.CgroupMeter(Places(cpu=tmp_path, kill=tmp_path))
    meter.limit(memory_bytes=5000, pids=5)
    assert not meter.limits_memory
    assert (meter.reset_peak(), meter.oom_kills(), meter.read().peak_rss_bytes) == (True, 0, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["cpu.stat"]


def test_without_a_memory_controller_what_its_processes_hold_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "LOOK_S", 0.0)
    (tmp_path / "cpu.stat").write_text(V2_FILES["cpu.stat"])
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n999999999\n")
    meter = cgroups.CgroupMeter(Places(cpu=tmp_path, kill=tmp_path))
    held = meter.read().peak_rss_bytes
    assert held > 2**20
    (tmp_path / "cgroup.procs").write_text("")
    assert meter.read().peak_rss_bytes == held, "a peak"
    assert meter.reset_peak()
    assert meter.read().peak_rss_bytes == 0


@pytest.mark.real
def test_a_new_peak_of_a_real_group() -> None:
    made = group_factory()("peak")
    if not isinstance(made, CgroupGroup) or not made.reset_peak():
        made.close()
        pytest.skip("this kernel begins no new peak")
    try:
        start(made, "x = b'x' * (50 * 2**20)").wait()
        assert made.read().peak_rss_bytes > 50 * 2**20
        assert made.reset_peak()
        start(made, "x = 1").wait()
        assert made.read().peak_rss_bytes < 40 * 2**20
    finally:
        made.close()
