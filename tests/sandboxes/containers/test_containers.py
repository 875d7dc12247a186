"""What is special to Docker's sandbox; what it shares with the others is in the suites that every backend passes."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import socket
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from ponder.errors import NoSandbox, UnknownName
from ponder.records import CpuReading, Limits, Usage
from ponder.sandboxes import nearest, open_sandbox
from ponder.sandboxes.containers import engines
from ponder.sandboxes.containers.cells import Container, Demux
from ponder.sandboxes.containers.engines import HOST_LABEL, LABEL, Engine, check_engine, own_labels, why_no_engine
from ponder.sandboxes.containers.images import REPOSITORY, ensure_image
from ponder.sandboxes.containers.profiles import all_but, docker_profile
from ponder.sandboxes.containers.sandbox import DockerSandbox
from ponder.sandboxes.filters import DENIED, PROCESS_OPTIONS, TERMINAL_REQUESTS
from ponder.sandboxes.groups.places import Places
from ponder.sandboxes.wire import frame

MIB = 2**20
RUNAWAYS = "import os\nos.fork()\nwhile True: pass"
GOOD: dict[str, Any] = {"OSType": "linux", "Architecture": platform.machine(), "Runtimes": {"runc": {}}}


def unseen(_: int, __: str) -> Places:
    """Find no cgroups, as with an engine on another machine."""
    return Places()


@pytest.fixture
def engine(docker_engine: str) -> Iterator[Engine]:
    """A connection of our own to the engine."""
    found = Engine()
    assert found.host in (docker_engine, engines.DEFAULT_HOST)
    yield found
    found.close()


@pytest.fixture
async def docker(engine: Engine) -> AsyncIterator[DockerSandbox]:
    """A sandbox that was tried."""
    sandbox = DockerSandbox()
    await sandbox.probe()
    yield sandbox
    await sandbox.close()
    assert ours(engine) == []


def ours(engine: Engine, label: str | None = None, **wanted: str) -> list[str]:
    """Return the ids of this process's containers, or of those with this label."""
    wanted["label"] = f"{LABEL}={label or own_labels()[LABEL]}"
    return [found["Id"] for found in engine.api.containers(all=True, filters=wanted)]


async def until(what: Any, seconds: float = 20) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(what):
        assert time.monotonic() < deadline, "that did not come about"
        await asyncio.sleep(0.05)


# --- the filter of system calls -------------------------------------------------------------------------------


def rules_for(name: str) -> list[dict[str, Any]]:
    return [rule for rule in json.loads(docker_profile())["syscalls"] if name in rule["names"]]


def test_profile_allows_nothing_that_is_denied() -> None:
    profile = json.loads(docker_profile())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    allowed = {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    assert not allowed & set(DENIED)
    assert {"read", "write", "execve", "futex", "wait4", "mmap"} <= allowed
    assert len(allowed) > 200


def test_profile_asks_for_arguments() -> None:
    (clone,) = rules_for("clone")
    assert clone["args"][0]["value"] == 0x7E020000
    assert clone["args"][0]["valueTwo"] == 0
    (socket,) = rules_for("socket")
    assert (socket["args"][0]["value"], socket["args"][0]["valueTwo"]) == (0xFFFFFFFF, 1)
    (clone3,) = rules_for("clone3")
    assert (clone3["action"], clone3["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)


@pytest.mark.parametrize("values", [TERMINAL_REQUESTS, PROCESS_OPTIONS, (0,), (0, 2**32 - 1)])
def test_all_words_but_some(values: tuple[int, ...]) -> None:
    pairs = list(all_but(values))
    draw = random.Random(1)
    near = [value ^ (1 << bit) for value in values for bit in range(32)]
    for word in [*values, *near, *(draw.getrandbits(32) for _ in range(2000))]:
        assert any(word & mask == value for mask, value in pairs) == (word not in values)


# --- the stream ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 8, 9, 100])
async def test_streams_are_taken_apart_wherever_they_are_cut(size: int) -> None:
    reader = asyncio.StreamReader()
    demux = Demux(reader, asyncio.get_running_loop())
    pieces = [(1, b"abc"), (2, b"oh"), (1, b""), (1, b"de"), (2, b" no")]
    data = b"".join(bytes([kind, 0, 0, 0]) + len(text).to_bytes(4, "big") + text for kind, text in pieces)
    for start in range(0, len(data), size):
        demux.data_received(data[start : start + size])
    reader.feed_eof()
    assert await reader.read() == b"abcde"
    assert demux.complaint == b"oh no"


async def test_what_a_program_never_took_does_not_keep_a_stream_open() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ready = frame(b"R", b"")
        theirs.sendall(bytes([1, 0, 0, 0]) + len(ready).to_bytes(4, "big") + ready)
        container = Container(cast("Engine", None), "one", Limits())
        await container.connect(ours)
        container.writer.write(bytes(8 * MIB))
        container.hang_up()
        await asyncio.sleep(0)  # the transport ends in the next turn of the loop
        assert ours.fileno() == -1


# --- refusals --------------------------------------------------------------------------------------------------


async def test_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = f"unix://{tmp_path}/none.sock"
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(NoSandbox, match="no such socket") as caught:
        await open_sandbox("docker")
    assert caught.value.fix == f"start the engine at {host}, or unset DOCKER_HOST"


def test_what_helps_where_no_engine_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    gone = why_no_engine(engines.DEFAULT_HOST, OSError("FileNotFoundError(2, 'No such file or directory')"))
    assert gone.fix == "apt-get install docker.io"
    (tmp_path / "dockerd").write_text("")
    (tmp_path / "dockerd").chmod(0o755)
    assert "docker" in str(why_no_engine(engines.DEFAULT_HOST, OSError("Connection refused")).fix)
    closed = why_no_engine(engines.DEFAULT_HOST, OSError("PermissionError(13, 'Permission denied')"))
    assert "usermod -aG docker" in str(closed.fix)
    assert "/var/run/docker.sock" in str(closed)


@pytest.mark.parametrize(
    ("told", "version", "runtime", "words"),
    [
        ({"OSType": "windows"}, "1.41", None, "windows containers.*Linux containers"),
        ({}, "1.40", None, "too old.*20.10"),
        ({"Architecture": "riscv64"}, "1.41", None, "riscv64"),
        ({}, "1.41", "runsc", "no runtime 'runsc'.*runc"),
    ],
)
def test_engines_of_no_use(told: dict[str, Any], version: str, runtime: str | None, words: str) -> None:
    with pytest.raises(NoSandbox, match=words):
        check_engine(GOOD | told, version, runtime)


def test_engines_of_use() -> None:
    check_engine(GOOD, "1.41", None)
    check_engine(GOOD, "1.100", "runc")


def test_the_nearest_fix_is_named() -> None:
    missing = NoSandbox("a", fix="apt-get install bubblewrap")
    closed = NoSandbox("b", fix="systemctl start docker")
    other = NoSandbox("c", fix="apt-get install docker.io")
    nothing = NoSandbox("d")
    assert nearest([missing, closed]) is closed
    assert nearest([missing, other]) is missing
    assert nearest([nothing, other]) is other


async def test_an_unknown_runtime_name_is_no_backend() -> None:
    with pytest.raises(UnknownName):
        await open_sandbox("podman")


# --- a real engine ---------------------------------------------------------------------------------------------


@pytest.mark.real
async def test_bubblewrap_needs_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PONDER_SANDBOX", raising=False)
    made: list[str] = []
    monkeypatch.setattr(engines, "connect", made.append)
    sandbox = await open_sandbox()
    await sandbox.close()
    assert (sandbox.name, made) == ("bubblewrap", [])


@pytest.mark.real
async def test_the_image_is_made_once(engine: Engine) -> None:
    first, second = await asyncio.gather(*(asyncio.to_thread(ensure_image, engine.api) for _ in range(2)))
    assert first == second
    begun = time.monotonic()
    assert ensure_image(engine.api) == first
    assert time.monotonic() - begun < 1
    assert engine.api.images(REPOSITORY, filters={"dangling": True}) == []


@pytest.mark.real
async def test_calls_do_not_mind_an_environment_that_changes(engine: Engine) -> None:
    """Calls run in threads of their own: one that reads the environment meets a name that is just being removed."""
    ended = threading.Event()

    def change() -> None:
        while not ended.is_set():
            os.environ["PONDER_TEST_CHANGES"] = "now"
            del os.environ["PONDER_TEST_CHANGES"]

    before, changing = sys.getswitchinterval(), threading.Thread(target=change)
    sys.setswitchinterval(1e-6)
    changing.start()
    try:
        assert all(engine.api.ping() for _ in range(100))
    finally:
        ended.set()
        changing.join()
        sys.setswitchinterval(before)


@pytest.mark.real
async def test_an_image_that_cannot_be_made_refuses(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ponder.sandboxes.containers.images.REPOSITORY", "Not A Name")
    with pytest.raises(NoSandbox, match="does not take the sandbox's image"):
        ensure_image(engine.api)


@pytest.mark.real
async def test_two_containers_wait_and_are_replaced(docker: DockerSandbox, engine: Engine) -> None:
    await until(lambda: len(ours(engine)) == 2)
    before = set(ours(engine))
    for _ in range(3):
        assert (await docker.exec("print(1)")).stdout == "1\n"
    await until(lambda: len(ours(engine)) == 2 and not before & set(ours(engine)))


@pytest.mark.real
async def test_another_disk_is_another_container(docker: DockerSandbox) -> None:
    code = "import os\ns = os.statvfs('/work')\nprint(s.f_blocks * s.f_frsize)"
    for size in (16 * MIB, 64 * MIB, 16 * MIB):
        result = await docker.exec(code, limits=Limits(disk_bytes=size))
        assert int(result.stdout) == size // 8 * 6


@pytest.mark.real
@pytest.mark.usefixtures("docker_engine")
@pytest.mark.parametrize("writable", [True, False])
async def test_each_call_has_its_own_limits(monkeypatch: pytest.MonkeyPatch, writable: bool) -> None:
    """By the cgroup's files where they can be written, else by the engine."""
    if not writable:
        monkeypatch.setattr("ponder.sandboxes.containers.cells.os.access", lambda *_: False)
    sandbox = DockerSandbox()
    code = "import os, time\nfor _ in range(3): os.fork()\nx = b'x' * (40 * 10**6)\ntime.sleep(1)\nexit(1)"
    try:
        small = await sandbox.exec(code, limits=Limits(memory_bytes=128 * MIB, pids=20))
        assert small.outcome == "memory", small
        forks = "import os, time\nfor n in range(9):\n    if os.fork() == 0: time.sleep(9)"
        few = await sandbox.exec(forks, limits=Limits(pids=5))
        assert "Resource temporarily unavailable" in few.stderr
        killed = await sandbox.exec(RUNAWAYS, limits=Limits(cpu_s=0.5))
        assert (killed.outcome, killed.usage.method) == ("cpu", "cgroup")
        assert 0.45 <= killed.usage.cpu_s <= 0.9
    finally:
        await sandbox.close()


@pytest.mark.real
async def test_the_users_proxies_and_names_do_not_come_in(docker: DockerSandbox) -> None:
    code = "import os, socket; print(dict(os.environ), socket.gethostname(), open('/etc/resolv.conf').read())"
    said = (await docker.exec(code)).stdout
    assert "HOSTNAME" not in said
    assert "proxy" not in said.lower()
    assert "nameserver" not in said


@pytest.mark.real
async def test_the_daemons_cpu_is_apart(docker: DockerSandbox) -> None:
    before, calls = docker.daemon(), docker.read()
    assert before is not None
    for _ in range(3):
        await docker.exec("pass")
    after = docker.daemon()
    assert after is not None
    assert after.method == "process-tree"
    assert after.cpu_s > before.cpu_s
    assert docker.read().cpu_s > calls.cpu_s


@pytest.mark.real
@pytest.mark.usefixtures("docker_engine")
async def test_an_engine_out_of_sight() -> None:
    """Without a look at its cgroups, limits still hold, later, and bills say that they are lower bounds."""
    sandbox = DockerSandbox(places=unseen)
    bills: list[Usage] = []
    try:
        burnt = await sandbox.exec("import time\nwhile time.process_time() < 0.3: pass")
        assert (burnt.outcome, burnt.usage.method) == ("ok", "rusage")
        assert burnt.usage.cpu_s >= 0.3
        assert "lower bound" in sandbox.layers().missing["cpu-cgroup"]
        runaway = await sandbox.exec(RUNAWAYS, limits=Limits(cpu_s=1, wall_s=15), on_usage=bills.append)
        assert (runaway.outcome, runaway.usage.method) == ("cpu", "rusage")
        assert len(bills) == 1
        assert bills[0].cpu_s >= 1
    finally:
        await sandbox.close()


async def test_what_an_engine_told_is_not_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a container that has ended an engine tells zeros."""
    monkeypatch.setattr("ponder.sandboxes.containers.cells.ASK_S", 0.0)
    told = [CpuReading(user_s=1.0, method="rusage"), CpuReading(method="rusage"), None]

    all_told = threading.Event()

    class Teller:
        def used(self, _: str) -> CpuReading | None:
            if not told:
                all_told.set()
            return told.pop(0) if told else None

    container = Container(cast("Engine", Teller()), "name", Limits())
    container.begin(Limits())
    assert await asyncio.to_thread(all_told.wait, 10)
    assert container.read().cpu_s == 1.0
    container.hang_up()


@pytest.mark.real
async def test_close_leaves_nothing(engine: Engine) -> None:
    sandbox = DockerSandbox()
    await sandbox.exec("pass")
    running = asyncio.ensure_future(sandbox.exec("import time; time.sleep(60)"))
    await asyncio.sleep(0.3)
    await sandbox.close()
    assert (await running).outcome == "killed"
    assert ours(engine) == []
    await sandbox.close()


@pytest.mark.real
async def test_containers_of_the_dead_are_removed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await child.wait()
    namespace = own_labels()[LABEL].split("-")[0]
    stale = {LABEL: f"{namespace}-{child.pid}-12345", HOST_LABEL: own_labels()[HOST_LABEL]}
    image = ensure_image(engine.api)
    with monkeypatch.context() as patch:
        patch.setattr(engines, "own_labels", lambda: stale)
        engine.create(image, Limits())
    with monkeypatch.context() as patch:  # another machine's ponder may have the same pid
        patch.setattr(engines, "own_labels", lambda: stale | {HOST_LABEL: "elsewhere"})
        foreign = engine.create(image, Limits())
    assert len(ours(engine, stale[LABEL])) == 2
    sandbox = DockerSandbox()
    await sandbox.probe()
    await sandbox.close()
    assert ours(engine, stale[LABEL]) == [foreign]
    engine.remove(foreign)


@pytest.mark.real
async def test_containers_end_when_ponder_is_killed(engine: Engine) -> None:
    code = """
        import asyncio, sys
        from ponder.sandboxes.containers.sandbox import DockerSandbox
        from ponder.sandboxes.containers.engines import LABEL, own_labels
        async def main():
            sandbox = DockerSandbox()
            await sandbox.probe()
            print(own_labels()[LABEL], flush=True)
            await sandbox.exec("while True: pass")
        asyncio.run(main())
    """
    ponder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(code), stdout=asyncio.subprocess.PIPE
    )
    assert ponder.stdout is not None
    label = (await ponder.stdout.readline()).decode().strip()
    await until(lambda: len(ours(engine, label, status="running")) == 3)
    ponder.kill()
    await ponder.wait()
    await until(lambda: ours(engine, label) == [])
