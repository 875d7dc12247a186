"""The writing end of a cassette: one file, written line by line as things happen."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from ponder.control import Control
from ponder.core.cassettes.tape import Header, Line, RunBegan, RunEnded, Told, Wrote
from ponder.core.cassettes.timeline import UNRECORDED
from ponder.errors import UsageError
from ponder.records import Budget, Result, StopReason, Task
from ponder.tree import Event


class Recorder:
    """Writes what a core, its tools and the runs over them do.

    When it cannot write any more (a full disk), the recording ends there, and the result of the run says so.

    Args:
        path: a file that does not exist yet; it is made by `open`.
        tools: names of the tools that are recorded with the core.
        packages: what programs may import.

    Raises:
        UsageError: the file exists or cannot be written.
    """

    def __init__(self, path: Path, tools: Sequence[str] = (), packages: Sequence[str] = ()) -> None:
        if path.exists():
            raise UsageError(f"{path} exists already", fix="name another file, or remove it: nothing is recorded over")
        self._path, self._tools, self._packages = path, tuple(tools), tuple(packages)
        self._file: TextIO | None = None
        self._last_id = 0
        self._broke: OSError | None = None

    @property
    def opened(self) -> bool:
        """Whether the file was made."""
        return self._file is not None

    def open(self, manifest: Mapping[str, str | int | float | bool]) -> None:
        """Make the file, unless it was. Raises UsageError."""
        if self._file is not None:
            return
        try:  # readable by its owner only: it holds the task, and what pages and programs said
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")
        self.write(Header(manifest=dict(manifest), tools=self._tools, packages=self._packages))
        if self._broke is not None:
            raise self._unwritable(self._broke)

    def next_id(self) -> int:
        """Return a number that no request or call has yet."""
        self._last_id += 1
        return self._last_id

    def write(self, line: Header | Line) -> None:
        """Write a line, unless the file is closed: after a line that could not be written, too."""
        assert self._file is not None, "the core starts first"
        if self._file.closed:  # a straggler after close(): nobody hears of it either
            return
        try:
            self._file.write(line.model_dump_json() + "\n")
            self._file.flush()
        except OSError as error:
            self._broke = error
            self.close()

    def begin_run(self, control: Control, task: Task, budget: Budget, settings: Mapping[str, str]) -> None:
        """Note that a run begins; from now on, what it is told is recorded."""
        self.write(RunBegan(task=task, budget=budget, settings=dict(settings)))
        control.listen(self._heard)

    def wrote(self, event: Event) -> None:
        """Note an event that the run wrote."""
        if event.kind not in UNRECORDED:
            self.write(Wrote(kind=event.kind, node=event.node, data=event.data))

    def end_run(self, result: Result) -> list[str]:
        """Note that the run ended; return what to warn of: that not all of it could be written."""
        self.write(
            RunEnded(
                stop_reason=result.stop_reason, answer=result.answer, confidence=result.confidence, nodes=result.nodes
            )
        )
        return [str(self._unwritable(self._broke))] if self._broke is not None else []

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what could not be written before cannot be now
                self._file.close()

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(f"cannot write the cassette {self._path}: {error.strerror}")

    def _heard(self, tool: str | None, reason: StopReason | None, why: str) -> None:
        self.write(Told(tool=tool, reason=reason, why=why))
