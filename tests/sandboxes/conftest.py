"""What the suites of the sandboxes share: every backend opened once per module, and a look at what is left of it."""

from __future__ import annotations

import asyncio
import os
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from ponder.errors import NoSandbox
from ponder.protocols import Sandbox
from ponder.records import ExecResult, Limits
from ponder.sandboxes import SANDBOXES, open_sandbox
from ponder.sandboxes.groups import find_groups
from ponder.sandboxes.rootfs import trees_dir

Run = Callable[..., Awaitable[ExecResult]]

MIB = 2**20
SMALL = Limits(cpu_s=2, wall_s=10, memory_bytes=128 * MIB, pids=16, output_bytes=4096, disk_bytes=8 * MIB)
"""What a program of the suites may use, unless it says otherwise."""

MARK = "ponder-mark"
"""In the name of whatever an attack tries to leave somewhere."""

SHARED_PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run", "/work")


@pytest_asyncio.fixture(params=list(SANDBOXES), scope="module", loop_scope="module")
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """One sandbox for all tests of a module, so that a test also meets what those before it left."""
    before = traces()
    opened = await opened_or_failed(request)
    yield opened
    await opened.close()
    await asyncio.sleep(0)
    assert traces() == before


@pytest_asyncio.fixture(params=list(SANDBOXES), loop_scope="module")
async def own_sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """A sandbox for one test, which may close it."""
    before = traces()
    opened = await opened_or_failed(request)
    yield opened
    await opened.close()
    await asyncio.sleep(0)
    assert traces() == before


async def opened_or_failed(request: pytest.FixtureRequest) -> Sandbox:
    """Open a backend; a machine where it does not work fails the tests: untrusted code cannot run there."""
    if request.param == "docker":
        request.getfixturevalue("docker_engine")
    try:
        return await open_sandbox(request.param)
    except NoSandbox as error:
        pytest.fail(f"{request.param} does not work here: {error}")


@pytest.fixture
def run(sandbox: Sandbox) -> Run:
    """Run a program in small limits; keywords are the files, standard input, the conversation, or limits to change."""
    return runner(sandbox)


@pytest.fixture
def run_own(own_sandbox: Sandbox) -> Run:
    """Do as `run` in the test's own sandbox."""
    return runner(own_sandbox)


def runner(sandbox: Sandbox) -> Run:
    async def run(code: str, **words: object) -> ExecResult:
        handed = {name: words.pop(name) for name in ("files", "stdin", "talk", "on_usage") if name in words}
        limits = SMALL.model_copy(update=words)
        return await sandbox.exec(textwrap.dedent(code), limits=limits, **handed)  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def metered() -> bool:
    """Whether this machine lets us make cgroups; without them, figures are lower bounds."""
    return find_groups().places is not None


@pytest.fixture
def left_behind() -> Iterator[Callable[[], dict[str, object]]]:
    """What a sandbox could leave: processes, cgroups, mounts, files, open descriptors."""
    yield traces


def traces() -> dict[str, object]:
    places = find_groups().places
    parents = places.directories() if places else ()
    me = psutil.Process()
    return {
        "cgroups": sorted(str(d) for parent in parents for d in parent.glob(f"ponder-*-{me.pid}-*")),
        "processes": sorted(child.pid for child in me.children(recursive=True)),
        "mounts": len(Path("/proc/self/mounts").read_text().splitlines()),
        "descriptors": sorted(kind for kind in map(kind_of, Path("/proc/self/fd").iterdir()) if kind),
        "shared memory": sysv("shm") + sysv("sem") + sysv("msg"),
        "files": sorted(marked_files()),
        "drafts": sorted(path.name for path in trees_dir(root_user=os.geteuid() == 0).glob(".*.draft")),
    }


def kind_of(path: Path) -> str:
    """Return what an open descriptor is; those of event loops and of pytest's own files do not count."""
    try:
        kind = os.readlink(path).partition(":[")[0]
    except OSError:
        return ""
    return "" if kind.startswith("/") or "eventpoll" in kind else kind


def sysv(kind: str) -> int:
    table = Path(f"/proc/sysvipc/{kind}")
    return len(table.read_text().splitlines()) if table.exists() else 0


def marked_files() -> Iterator[str]:
    """Yield the files that carry the mark of an attack, one folder deep, in the places that all users share."""
    for place in (*SHARED_PLACES, str(Path.home()), os.getcwd()):
        for pattern in (f"*{MARK}*", f"*/*{MARK}*"):
            try:
                yield from map(str, Path(place).glob(pattern))
            except OSError:
                continue
