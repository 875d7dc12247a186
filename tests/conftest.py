"""Shared by all tests: nothing is written into the user's own record of runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[1] / "scripts/docker-engine.sh"


LONG_FIRST = ("whole", "agent/core", "sandboxes", "tools")
"""What takes longest begins first, so that all workers end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the folders with long tests first."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(here).parent.as_posix()
        return next((at for at, name in enumerate(LONG_FIRST) if folder.startswith(name)), len(LONG_FIRST))

    items.sort(key=place)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes and sets by their argument: the two processes that share the tests out must find the same names."""
    return argname if isinstance(val, bytes | bytearray | set | frozenset) else None


@pytest.fixture(autouse=True, scope="session")
def _own_record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("PONDER_HOME", str(tmp_path_factory.mktemp("ponder-home")))
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_works() -> None:
    """Let the programs that tests start be interrupted, also where the session itself runs with SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[str]:
    """DOCKER_HOST of a real engine: the one that runs here, else a private one. Without either, tests fail."""
    if engine_answers():
        yield os.environ.get("DOCKER_HOST", "")
        return
    folder = tempfile.mkdtemp(prefix="ponder-engine-")
    patch = pytest.MonkeyPatch()
    try:
        done = subprocess.run(["sh", str(ENGINE), "up", folder], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.fail(f"no Docker engine answers, and none can be started: {done.stderr.strip()}")
        name, _, host = done.stdout.strip().partition("=")
        patch.setenv(name, host)
        yield host
    finally:
        patch.undo()
        subprocess.run(["sh", str(ENGINE), "down", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def engine_answers() -> bool:
    import docker
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        client = docker.from_env(timeout=5)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except (DockerException, RequestException):
        return False


@pytest.fixture
def readme() -> str:
    return (Path(__file__).parents[1] / "README.md").read_text("utf-8")
