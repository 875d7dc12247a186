"""A command that is told to end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence

import pytest

from ponder.cli import app, main


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
