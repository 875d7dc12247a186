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
from ponder.sandboxes import cgroups
from ponder.sandboxes.cgroups import CgroupGroup
from ponder.sandboxes.groups import find_groups, group_factory, remove_stale
from ponder.sandboxes.trees import TreeGroup

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
        pytest.skip("no cgroup can be made here: orphans can hide from a process tree")
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
        pytest.skip("no cgroup can be made here")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    namespace, _, _ = cgroups.identity(os.getpid())
    monkeypatch.setattr(cgroups, "identity", lambda *_: (namespace, dead.pid, "12345"))
    stale = CgroupGroup("stale", places)
    sleeper = start(stale, "import time; time.sleep(60)")
    time.sleep(0.1)
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
