"""How a download shows itself: a bar on a terminal, a line every few seconds elsewhere. Standard error only."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

MB = 1_000_000


class Progress(Protocol):
    """Told how a download goes.

    Both methods are called in the thread that asked for the download, several times a second, and may raise: that
    stops the download, and what has been fetched is kept for the next one.
    """

    def update(self, step: str, done_bytes: int, total_bytes: int) -> None:
        """Take note that `step` has got so far. The total may be an estimate."""

    def note(self, text: str) -> None:
        """Take note of something that a person wants to know (a source that did not answer)."""


class Stopped(Exception):
    """The download was asked to stop. What it has is kept."""


class Stoppable:
    """Passes everything on to another progress until `stop` is called, from any thread; then it ends the download.

    For a download in a worker thread, where Ctrl-C and cancellation do not arrive:

        progress = Stoppable(inner)
        try:
            await asyncio.to_thread(ensure, name, progress=progress)
        finally:
            progress.stop()
    """

    def __init__(self, inner: Progress | None = None) -> None:
        self._inner = inner if inner is not None else Silent()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the download within a fraction of a second: its thread gets Stopped."""
        self._stopped.set()

    def update(self, step: str, done_bytes: int, total_bytes: int) -> None:
        """Pass it on. Raises Stopped."""
        if self._stopped.is_set():
            raise Stopped
        self._inner.update(step, done_bytes, total_bytes)

    def note(self, text: str) -> None:
        """Pass it on. Raises Stopped."""
        if self._stopped.is_set():
            raise Stopped
        self._inner.note(text)


class Silent:
    """Shows nothing."""

    def update(self, step: str, done_bytes: int, total_bytes: int) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


class Lines:
    """One line when a step begins, every `every_s` seconds after that, and when it ends. For logs and pipes."""

    def __init__(
        self, stream: TextIO | None = None, *, every_s: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._every_s = every_s
        self._clock = clock
        self._step = ""
        self._due = 0.0
        self._finished = False

    def update(self, step: str, done_bytes: int, total_bytes: int) -> None:
        """Print a line if one is due."""
        now = self._clock()
        finished = done_bytes >= total_bytes
        if step == self._step and (self._finished or (now < self._due and not finished)):
            return
        self._step, self._due, self._finished = step, now + self._every_s, finished
        share = min(100, 100 * done_bytes // max(1, total_bytes))
        self.note(f"{step}: {done_bytes / MB:.0f} of {total_bytes / MB:.0f} MB ({share}%)")

    def note(self, text: str) -> None:
        """Print the text on a line of its own; that nobody reads it ends nothing."""
        with suppress(BrokenPipeError):
            print(text, file=self._stream, flush=True)


class Bar:
    """A bar per step, drawn by rich."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._step = ""
        self._task = bars.add_task("", total=None, visible=False)

    def update(self, step: str, done_bytes: int, total_bytes: int) -> None:
        """Move the bar of this step; a new step gets a new bar."""
        if step != self._step:
            if not self._step:
                self._bars.remove_task(self._task)
            self._step, self._task = step, self._bars.add_task(step, total=total_bytes)
        self._bars.update(self._task, completed=min(done_bytes, total_bytes), total=total_bytes)

    def note(self, text: str) -> None:
        """Print the text above the bar."""
        self._bars.console.print(text, highlight=False, markup=False)


@contextmanager
def showing(stream: TextIO | None = None) -> Iterator[Progress]:
    """Show a download on `stream` (standard error by default) for as long as the block runs.

        with showing() as progress:
            ensure("qwen2.5-coder-0.5b", progress=progress)
    """
    stream = stream if stream is not None else sys.stderr
    if not stream.isatty():
        yield Lines(stream)
        return
    from rich.console import Console  # on first use: nothing is drawn on most starts
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=Console(file=stream)) as bars:
        yield Bar(bars)
