"""Shared makers: suites in files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

WriteRows = Callable[..., Path]



@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Return a writer of JSON-lines files; a row may be broken text."""

    def write(rows: Sequence[dict[str, Any] | str], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
        return path

    return write


@pytest.fixture
def gsm8k_file(write_rows: WriteRows) -> Path:
    """Return five word problems, the answer to number i being i."""
    return write_rows([{"question": f"What is {i} + 0?", "answer": f"#### {i}"} for i in range(5)], "gsm8k.jsonl")
