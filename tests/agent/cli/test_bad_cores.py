"""Cores that cannot work, or die at work: a clear line and the design's exit code; what was found is kept.

Beside this: weights cut short and killed engines by core in `core/test_llama_cpp.py` and `core/test_conformance.py`;
servers that are slow, or answer rubbish, in `core/test_openai_api.py`; files that are no model in `test_bad_input.py`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ponder.agent import Agent
from ponder.cli.app import run
from ponder.models import ensure
from ponder.store import open_store
from ponder.tree import Event

pytestmark = pytest.mark.real

SMALLEST = "smollm2-135m"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PONDER_HOME", str(tmp_path / "home"))


def complaint(capsys: pytest.CaptureFixture[str], core: str, code: int = 5) -> str:
    assert run(["ask", "What is a fish?", "--core", core, "--tools", "", "--quiet"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ponder: ")
    assert "Traceback" not in err
    return err


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """Weights that end in the middle."""
    file = tmp_path / "cut.gguf"
    with ensure(SMALLEST).open("rb") as whole:
        file.write_bytes(whole.read(8_000_000))
    return file


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A whole GGUF file of an architecture that nobody knows."""
    gguf = pytest.importorskip("gguf")
    file = tmp_path / "strange.gguf"
    writer = gguf.GGUFWriter(file, "squid")
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_head_count(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return file


def test_weights_that_are_cut_short(capsys: pytest.CaptureFixture[str], cut: Path) -> None:
    assert "cut.gguf" in complaint(capsys, str(cut))


def test_an_architecture_that_the_engine_does_not_know(capsys: pytest.CaptureFixture[str], strange: Path) -> None:
    assert "strange.gguf" in complaint(capsys, str(strange))


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "127.0.0.1:9" in complaint(capsys, "openai:any@http://127.0.0.1:9/v1")


def test_a_question_that_is_longer_than_the_context(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", "word " * 60_000, "--core", SMALLEST, "--tools", "", "--quiet"]) == 4
    err = capsys.readouterr().err
    assert "context" in err.splitlines()[0]
    assert "Traceback" not in err


def test_an_engine_that_is_killed_in_mid_run_is_started_again_and_nothing_is_lost(
    tmp_path: Path, running: Callable[[str], list[psutil.Process]]
) -> None:
    killed: list[int] = []

    def kill(event: Event) -> None:
        if event.kind == "judged" and not killed:
            killed.extend(one.pid for one in running("engine_child"))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    with Agent(SMALLEST, tools=(), home=tmp_path) as agent:
        result = agent.run("Name a fish, in one word.", on_event=kill)
    assert killed
    assert result.answer
    assert result.stop_reason in ("confident", "not_worth_it", "exhausted")
    events = open_store(tmp_path / "runs.sqlite").events(result.run_id)
    asked = {event.node for event in events if event.kind == "asked"}
    assert asked == {event.node for event in events if event.kind in ("judged", "failed", "cancelled")}
    assert len({event.node for event in events if event.kind == "judged"}) > 1, "it went on after the kill"
