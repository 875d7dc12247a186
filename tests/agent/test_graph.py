"""The architecture, drawn. A change of the graph shows in this file's diff."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from ponder.errors import StoreError
from ponder.graph import build_graph

DRAWING = """\
graph TD;
	__start__ --> think;
	branch --> think;
	browser --> judge;
	judge --> stop;
	stop -.-> __end__;
	stop -.-> branch;
	think -.-> browser;
	think -.-> judge;
	think -.-> verify;
	verify --> judge;"""


def test_the_six_states() -> None:
    drawing = build_graph().get_graph().draw_mermaid(with_styles=False)
    lines = [line for line in drawing.splitlines() if "-->" in line or "-.->" in line or line.startswith("graph")]
    assert "\n".join(lines) == DRAWING


def test_checkpoints_that_cannot_be_written_in_the_end_are_a_warning(
    make_agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def aput(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(AsyncSqliteSaver, "aput", aput)
    result = make_agent(lambda _p, _s: " Paris").run("q")
    assert (result.answer, result.stop_reason) == ("Paris", "confident")
    (warning,) = result.warnings
    assert "disk is full (checkpoints.sqlite" in warning
    assert "can be removed" in warning


def test_checkpoints_that_are_rubbish_are_named(make_agent: Any, tmp_path: Path) -> None:
    (tmp_path / "checkpoints.sqlite").write_bytes(b"no database" * 100)
    result = make_agent(lambda _p, _s: " Paris").run("q")
    assert result.stop_reason == "error"
    assert "checkpoints.sqlite" in result.warnings[0]


def test_checkpoints_that_cannot_be_opened_are_named(make_agent: Any, tmp_path: Path) -> None:
    (tmp_path / "checkpoints.sqlite").mkdir()
    with pytest.raises(StoreError, match=r"checkpoints\.sqlite.*can be removed"):
        make_agent(lambda _p, _s: " Paris").run("q")
