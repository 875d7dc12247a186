"""Shared by all tests: nothing is written into the user's own record of runs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


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


@pytest.fixture
def readme() -> str:
    return (Path(__file__).parents[1] / "README.md").read_text("utf-8")
