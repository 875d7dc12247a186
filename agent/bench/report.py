"""How a run of a suite looks: progress and tables, on standard error only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ponder.bench.results import Comparison, ResultRow
from ponder.bench.runner import Summary, Watcher
from ponder.stats import Interval

LINE_EVERY_S = 30.0
PATIENCE_S = 3.0
"""What takes longer is named. A first import of a large package can take a minute: nothing of it is compiled yet."""

_USUAL = ("right", "wrong", "no answer")
"""How grading ends where no limit was met."""


@contextmanager
def waiting(console: Console, what: str, *, quiet: bool = False, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Say in a line what is waited for, if the block takes longer than `patience_s`."""
    line = threading.Timer(patience_s, console.print, [f"ponder: {what} ..."], {"markup": False, "highlight": False})
    line.daemon = True
    if not quiet:
        line.start()
    try:
        yield
    finally:
        line.cancel()


@contextmanager
def progress(console: Console, *, quiet: bool) -> Iterator[Watcher | None]:
    """Yield what shows a run: a bar on a terminal, a line every half minute elsewhere."""
    if quiet:
        yield None
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[told]}"),
        )  # fmt: skip
        with Progress(*columns, console=console) as bars:
            yield Bar(bars, console)
    else:
        yield Lines(console)


class Bar:
    """A progress bar with the accuracy so far."""

    def __init__(self, bars: Progress, console: Console) -> None:
        self._bars, self._console = bars, console
        self._task = bars.add_task("tasks", total=None, told="")

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """See `Watcher.waiting`."""
        return waiting(self._console, what)

    def update(self, rows: Sequence[ResultRow], total: int) -> None:
        """See `Watcher.update`."""
        self._bars.update(self._task, completed=len(rows), total=total, told=told(rows))


class Lines:
    """A line at the beginning, every `LINE_EVERY_S` seconds, and at the end."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._due = 0.0

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """See `Watcher.waiting`."""
        return waiting(self._console, what)

    def update(self, rows: Sequence[ResultRow], total: int) -> None:
        """See `Watcher.update`."""
        now = self._clock()
        if now >= self._due or len(rows) == total:
            self._due = now + LINE_EVERY_S
            self._console.print(f"ponder: {len(rows)} of {total} tasks {told(rows)}".rstrip(), markup=False)


def told(rows: Sequence[ResultRow]) -> str:
    """Return the accuracy and the cost so far, in words."""
    if not rows:
        return ""
    right, cpu_s = sum(row.right for row in rows), sum(row.cpu_s for row in rows)
    score = f", mean score {sum(row.score for row in rows) / len(rows):.2f}" if are_partial(rows) else ""
    return f"{right} right ({right / len(rows):.1%}){score}, {cpu_s / len(rows):.1f} CPU-s a task"


def are_partial(rows: Sequence[ResultRow]) -> bool:
    """Return whether any score lies between wrong and right, so that the mean score says more than the accuracy."""
    return any(row.score != float(row.right) for row in rows)


def tables(summary: Summary, rows: Sequence[ResultRow]) -> list[Table]:
    """Return the summary's tables: as a whole, and by what ended the search."""
    partial = are_partial(rows)
    columns = ["suite", "core", "strategy", "tasks", "right", "accuracy (95%)"] + ["mean score (95%)"] * partial
    whole = _table(*columns, "CPU s a task (95%)")
    whole.add_row(
        summary.suite, summary.core, summary.strategy, str(summary.tasks), str(summary.right),
        _percent(summary.accuracy), *[_figure(summary.score, 2)] * partial, _figure(summary.cpu_s_per_task),
    )  # fmt: skip
    parts = _table("stop reason", "tasks", "right", "no answer", "CPU s a task", "tokens out a task")
    for reason in sorted(summary.by_stop_reason, key=lambda reason: -summary.by_stop_reason[reason]):
        own = [row for row in rows if row.stop_reason == reason]
        cpu_s, tokens = sum(row.cpu_s for row in own) / len(own), sum(row.tokens_out for row in own) / len(own)
        parts.add_row(
            reason, str(len(own)), str(sum(row.right for row in own)),
            str(sum(row.graded == "no answer" for row in own)), f"{cpu_s:.1f}", f"{tokens:.0f}",
        )  # fmt: skip
    return [whole, parts] if rows else [whole]


def remarks(rows: Sequence[ResultRow], most: int = 5) -> list[str]:
    """Return what the user should hear of single tasks: what was warned of, and hidden tests that limits stopped."""
    stopped = "the answer's hidden tests met a limit ({}), and count as failed"
    found = [f"{row.task}: {warning}" for row in rows for warning in row.warnings]
    found += [f"{row.task}: {stopped.format(row.graded)}" for row in rows if row.graded not in _USUAL]
    more = len(found) - most
    return found if more <= 0 else [*found[:most], f"{more} more: `warnings` and `graded` in the results file"]


def comparison_table(names: tuple[str, str], found: Comparison) -> Table:
    """Return a comparison as a table."""
    table = _table("", "right", "of")
    for name, right in zip(names, found.right, strict=True):
        table.add_row(name, str(right), str(found.tasks))
    points = f"{100 * found.accuracy.value:+.1f} ({100 * found.accuracy.low:+.1f} to {100 * found.accuracy.high:+.1f})"
    table.add_row("difference, points (95%, paired)", points, "")
    for name, figure in (("mean score", found.score), ("CPU s a task", found.cpu_s)):
        told = f"{figure.value:+.2f} ({figure.low:+.2f} to {figure.high:+.2f})"
        table.add_row(f"difference, {name}", told, "")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place == 0 else "right")
    return table


def _percent(interval: Interval) -> str:
    return f"{interval.value:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def _figure(interval: Interval, digits: int = 1) -> str:
    return f"{interval.value:.{digits}f} ({interval.low:.{digits}f} to {interval.high:.{digits}f})"
