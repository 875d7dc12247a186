"""A recording that cannot be written to its end."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import pytest

from ponder.agent import Agent
from ponder.core.cassettes import recorder
from ponder.core.cassettes.recorder import Recorder
from ponder.core.scripted import ScriptedCore
from ponder.errors import UsageError
from ponder.search.best_of_n import BestOfN
from ponder.tree import Event


class Full(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_ends_the_recording_and_not_the_search(tmp_path: Path) -> None:
    tape = tmp_path / "c.jsonl"
    core = ScriptedCore(lambda _p, _s: "ANSWER: 4")

    def fill(event: Event) -> None:
        if event.kind == "thought":
            agent._works._recorder._file = Full()  # type: ignore[union-attr]

    with Agent(core, tools=(), strategy=BestOfN(kinds=("answer",)), home=tmp_path, record=tape) as agent:
        result = agent.run("q", on_event=fill)
        again = agent.run("q")
    assert result.answer is not None
    assert result.stop_reason != "error"
    assert result.warnings == again.warnings == (f"cannot write the cassette {tape}: No space left on device",)


def test_a_recording_that_cannot_even_begin_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder.os, "fdopen", lambda *_, **__: Full())
    with pytest.raises(UsageError, match="No space left"):
        Recorder(tmp_path / "c.jsonl").open({})
