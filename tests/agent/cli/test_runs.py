"""`ponder runs`: what is said of runs that have not ended, and how one goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ponder.cli.app import run
from ponder.cli.runs import _as_begun, _origin
from ponder.core.scripted import ScriptedCore
from ponder.policies.hosts import HostRules
from ponder.records import Prompt
from ponder.store import Store, held, open_store

ASK = [
    "ask", "Capital of France?", "--tools", "", "--strategy", "best-of-n", "-n", "3", "--value", "500", "--price",
    "core=2", "--allow-private", "--allow-host", "[::1]:8000", "--budget-tokens", "100000", "--quiet", "--json",
]  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PONDER_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> ScriptedCore:
    """The core that every name opens."""

    def say(prompt: Prompt, _sample: int) -> str:
        return " Paris" if prompt.prefill else "text"

    scripted = ScriptedCore(say)

    async def open_core(*_: object) -> ScriptedCore:
        return scripted

    monkeypatch.setattr("ponder.works.open_core", open_core)
    return scripted


@pytest.fixture
def cut_off(home: Path, core: ScriptedCore, capsys: pytest.CaptureFixture[str]) -> Store:
    """The store, with a run `cut-off` that was killed before its first decision."""
    assert run(ASK) == 0
    store = open_store(home / "runs.sqlite")
    events = store.events(json.loads(capsys.readouterr().out)["run_id"])
    store.create("cut-off", "Capital of France?")
    for seq, event in enumerate(events[: next(i for i, event in enumerate(events) if event.kind == "decided")]):
        store.append("cut-off", seq, event)
    core.prompts.clear()
    return store


@pytest.mark.usefixtures("cut_off")
def test_a_run_that_goes_on_is_not_said_to_be_cut_off(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said() -> str:
        assert run(["runs", "list"]) == 0
        assert run(["runs", "show", "cut-off"]) == 0
        out, err = capsys.readouterr()
        return "\n".join(line for line in (out + err).splitlines() if "cut" in line or "runs resume" in line)

    def flags() -> dict[str, bool]:
        assert run(["runs", "list", "--json"]) == 0
        return {one["id"]: one["running"] for one in json.loads(capsys.readouterr().out)["runs"]}

    assert "cut off" in said()
    assert "runs resume" in said()
    assert not any(flags().values())
    with held(home, "cut-off"):
        assert "running" in said()
        assert "runs resume" not in said()
        assert "cut off" not in said()
        assert flags()["cut-off"]
        assert run(["runs", "resume", "cut-off", "--quiet"]) == 2
        assert "still being searched" in capsys.readouterr().err


def test_a_run_goes_on_as_it_was_begun(cut_off: Store, capsys: pytest.CaptureFixture[str]) -> None:
    options = _as_begun(cut_off.events("cut-off")[0].data)
    assert (options["strategy"].name, options["strategy"].max_samples) == ("best-of-n", 3)
    assert (options["value"], options["risk"], options["prices"].of("core").cpu_second) == (500, None, 2)
    assert options["hosts"] == HostRules(allow_private=True, permitted=frozenset({"[::1]:8000"}))
    assert run(["runs", "resume", "cut-off"]) == 0
    out, err = capsys.readouterr()
    assert out == "Paris\n"
    assert "step 1" in err or "stop, " in err
    ended = cut_off.events("cut-off")[-1].data
    assert ended["nodes"] <= 3


def begun(**manifest: Any) -> dict[str, Any]:
    return {"task": {"prompt": "q", "urls": ["http://[::1]:8000/a", "http://b/"]}, "manifest": manifest}


def test_an_older_record_says_less() -> None:
    options = _as_begun(begun(core="scripted", tools="browser"))
    assert (options["strategy"].name, options["value"]) == ("auto", None)
    assert options["hosts"] == HostRules(permitted=frozenset({"[::1]:8000", "b"}))
    assert _as_begun(begun(strategy="my own", samples="2"))["strategy"].name == "auto"
    assert _as_begun(begun(strategy="auto+tests", samples="2"))["strategy"].max_samples == 2
    assert _origin("http://a:1/x") == "a:1"
