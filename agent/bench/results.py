"""A results file: JSON lines, the first the manifest, then one row a task. A run that was stopped goes on from it."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ponder.bench.problems import GradeOutcome
from ponder.errors import StoreError, UsageError
from ponder.records import Record, StopReason
from ponder.stats import Interval, paired_bootstrap

FORMAT = 1
_LENGTH = 60


class ResultRow(Record):
    """What came of one task. Nothing of its hidden part stands here."""

    task: str
    right: bool
    score: float
    graded: GradeOutcome
    answer: str | None
    confidence: float
    stop_reason: StopReason
    nodes: int
    run_id: str | None = None
    visible: int = 0
    """Visible checks that the task had."""
    cpu_s: float
    wall_s: float
    cpu_by_tool: Mapping[str, float] = {}
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    warnings: tuple[str, ...] = ()
    load_cpu_s: float | None = None
    """CPU seconds of loading the core, on the first task after it: on no task's bill. None: it was loaded before."""


class Results(Record):
    """A results file that was read."""

    manifest: dict[str, Any]
    rows: dict[str, ResultRow]
    """By task; of a task that was tried again, the last row."""


class ResultsFile:
    """A results file being written; one process at a time, whose threads may all add to it.

    Args:
        settings: what was asked for; a file of other settings is refused.
        option: what a user names another file with.

    Raises (from the constructor):
        UsageError: the file is no results file, was made with other settings, or another process writes it.
        StoreError: it cannot be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, option: str = "--out") -> None:
        self._path, self._settings, self._option = path, dict(settings), option
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
        self._locked = False
        try:
            self._lock()
            self.before = self._read()
        except BaseException:
            self.close()
            raise
        self.manifest: dict[str, Any] = dict(self.before.manifest) if self.before is not None else {}
        """What the file's first line holds; nothing, while there is none."""
        self._begun = False
        self._added: dict[str, ResultRow] = {}
        self._writing = threading.Lock()

    @property
    def rows(self) -> dict[str, ResultRow]:
        """The rows that are on disk by now, by task; of those that were there before, `done`."""
        return self.done | self._added

    @property
    def done(self) -> dict[str, ResultRow]:
        """The rows that were there before, by task, without those of searches that broke: these are tried again."""
        rows = self.before.rows.values() if self.before is not None else ()
        return {row.task: row for row in rows if row.stop_reason != "error"}

    def begin(self, circumstances: Mapping[str, Any]) -> None:
        """Write the manifest, or compare it with the file's, before the first row.

        Raises:
            UsageError: what is there was made under other circumstances.
            StoreError: it cannot be written.
        """
        with self._writing:
            if self._begun:
                return
            if self.before is None:
                self.manifest = {"format": FORMAT, **self._settings, "run": dict(circumstances)}
                self._write(json.dumps({"manifest": self.manifest}, ensure_ascii=False))
            else:
                self._refuse_others("run", self.manifest.get("run", {}), circumstances)
            self._begun = True

    def add(self, row: ResultRow) -> None:
        """Append a row; it is on disk before this returns. Raises StoreError."""
        line = row.model_dump_json()
        with self._writing:
            self._added[row.task] = row  # first: Ctrl-C may come while it is written, and `close` writes the rest
            self._write(line)

    def close(self) -> None:
        """Close the file; one that holds nothing is removed. Safe to call twice."""
        if not self._file.closed:
            if self._locked and self._file.seek(0, os.SEEK_END) == 0:
                self._path.unlink(missing_ok=True)
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"another run writes {self._path}", fix=f"name another {self._option}") from error
        self._locked = True

    def _read(self) -> Results | None:
        """Return what the file holds; a last line that was cut off is taken away. None: it is new."""
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole:
            if content and not b'{"manifest"'.startswith(content[:11]):
                raise UsageError(f"{self._path} is no results file")
            self._file.truncate(0)
            return None
        found = read_lines(whole, self._path)
        settings = {key: value for key, value in found.manifest.items() if key not in ("format", "run")}
        self._refuse_others("", settings, self._settings)
        self._file.truncate(len(whole))
        return found

    def _refuse_others(self, where: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
        there, here = json.loads(json.dumps(there)), json.loads(json.dumps(here))
        keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
        if keys:
            key = keys[0]
            name = f"{where}.{key}" if where else key
            more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
            what = f"{name} is {_short(there.get(key))} there and {_short(here.get(key))} here{more}"
            raise UsageError(f"{self._path} holds another run: {what}", fix=f"name another {self._option}")

    def _write(self, line: str) -> None:
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror or error}") from error


def read_results(path: Path) -> Results:
    """Return a results file; a last line that was cut off is left out. Raises UsageError: it is none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    return read_lines(content[: content.rfind(b"\n") + 1], path)


def read_lines(content: bytes, path: Path) -> Results:
    """Return the results in a file's whole lines. Raises UsageError, which names the broken line."""
    first, *rest = [line for line in content.split(b"\n") if line.strip()] or [b""]
    try:
        manifest = json.loads(first)["manifest"]
        if manifest["format"] != FORMAT:
            raise UsageError(f"{path} is of format {manifest['format']}, and this ponder reads format {FORMAT}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path} is no results file: its first line holds no manifest") from error
    rows = {}
    for number, line in enumerate(rest, 2):
        try:
            row = ResultRow.model_validate_json(line)
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: no row of results") from error
        rows[row.task] = row
    return Results(manifest=manifest, rows=rows)


_SAME_TASKS = ("suite", "data_sha256", "reasoning_gym")
"""What two manifests agree on if tasks of one name are the same task."""


class Comparison(Record):
    """Two results on the tasks that both have; differences are the first less the second."""

    tasks: int
    only_first: int
    only_second: int
    right: tuple[int, int]
    accuracy: Interval
    score: Interval
    """Of the mean scores."""
    cpu_s: Interval
    """Of a task."""


def compare(first: Results, second: Results) -> Comparison:
    """Return the paired differences, with 95% bootstrap intervals.

    Raises:
        UsageError: no task is in both, or what is named alike is not the same task there.
    """
    both = sorted(first.rows.keys() & second.rows.keys())
    if not both:
        raise UsageError("the two results have no task in common")
    for key in _SAME_TASKS:
        one, other = first.manifest.get(key), second.manifest.get(key)
        if one != other:
            found = f"{key} is {_short(one)} in the first, {_short(other)} in the second"
            raise UsageError(f"these are other tasks of the same names: {found}")
    pairs = [(first.rows[task], second.rows[task]) for task in both]
    return Comparison(
        tasks=len(both),
        only_first=len(first.rows) - len(both),
        only_second=len(second.rows) - len(both),
        right=(sum(one.right for one, _ in pairs), sum(other.right for _, other in pairs)),
        accuracy=paired_bootstrap([int(one.right) - int(other.right) for one, other in pairs]),
        score=paired_bootstrap([one.score - other.score for one, other in pairs]),
        cpu_s=paired_bootstrap([one.cpu_s - other.cpu_s for one, other in pairs]),
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LENGTH else text[:_LENGTH] + "..."
