"""A command that is told to end, or whose output nobody reads any more."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ponder.cli import app, main
from ponder.cli.view import search_and_print
from ponder.core.scripted import ScriptedCore
from ponder.records import Bill, Result, ToolBill


@pytest.fixture
def _handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_handlers")
def test_sigterm_ends_a_command_as_ctrl_c_does(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []

    def work(_: Sequence[str]) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt:  # what a search ends on, with its best answer so far
            return 130
        return 0

    monkeypatch.setattr(app, "run", work)
    monkeypatch.setattr(os, "_exit", codes.append)
    main()
    assert codes == [130]


RESULT = Result(
    answer="7", confidence=0.9, stop_reason="confident", run_id="r", nodes=1,
    ledger=Bill(total=ToolBill(), by_tool={}),
)  # fmt: skip


class Closing:
    """An agent whose closing is broken off."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def bill(self) -> None:
        return None

    def __enter__(self) -> Closing:
        return self

    def __exit__(self, *_: object) -> None:
        raise self._error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TimeoutError("too slow")])
def test_what_comes_while_closing_keeps_no_result_from_being_printed(
    capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    made: Any = lambda **_: Closing(error)  # noqa: E731
    assert search_and_print(made, lambda _agent, _hear: RESULT, as_json=True, quiet=True) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == "7"

    def interrupted(_agent: object, _hear: object) -> Result:
        raise KeyboardInterrupt

    with pytest.raises(type(error)):
        search_and_print(made, interrupted, as_json=True, quiet=True)


def test_ctrl_c_while_the_core_loads_gives_the_json_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def never(*_: object) -> ScriptedCore:
        await asyncio.sleep(0.2)  # until the command waits for the result
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setenv("PONDER_HOME", str(tmp_path))
    monkeypatch.setattr("ponder.works.open_core", never)
    assert app.run(["ask", "q", "--tools", "", "--json", "--quiet"]) == 130
    told = json.loads(capsys.readouterr().out)
    assert (told["answer"], told["stop_reason"], told["nodes"]) == (None, "interrupted", 0)


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "ponder", "runs", "list"]
    for words in ([], ["--json"]):
        done = subprocess.run(
            [*argv, *words], stdout=write, stderr=subprocess.PIPE, text=True, check=False,
            env={**os.environ, "PONDER_HOME": str(tmp_path)},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
    os.close(write)
