"""One background event loop per agent: async inside, one thin synchronous front.

It works from plain scripts, from Jupyter and from inside a running loop: nothing ever runs on the caller's loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

_T = TypeVar("_T")


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say what went wrong in a callback, as asyncio does by itself; but for a race of anyio's, which harms nothing.

    It waits for a unix socket by `add_reader(socket, future.set_result, None)`: where that future has been cancelled,
    and the socket is readable before the reader is taken away, asyncio reports an InvalidStateError: after Ctrl-C, say.
    """
    invalid = isinstance(context.get("exception"), asyncio.InvalidStateError)
    if not (invalid and "set_result" in repr(context.get("handle"))):
        loop.default_exception_handler(context)


class BackgroundLoop:
    """An event loop in a daemon thread, started on first use."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run the coroutine there; the future may be awaited (wrapped) or waited for."""
        with self._lock:
            if self._loop is None:
                runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
                self._loop = runner.get_loop()
                self._loop.set_exception_handler(_tell)
                self._thread = threading.Thread(target=self._serve, args=(runner,), name=self._name, daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    @property
    def running(self) -> bool:
        """Whether the loop has been started and not closed."""
        return self._loop is not None

    @staticmethod
    def _serve(runner: asyncio.Runner) -> None:
        with runner:  # at its end, what still runs there is cancelled, and heard to its end
            asyncio.set_event_loop(runner.get_loop())
            runner.get_loop().run_forever()

    def call(self, function: Any, *args: Any) -> None:
        """Call a function on the loop's thread; nothing happens when the loop does not run."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function, *args)

    def close(self) -> None:
        """Stop the loop and its thread; what still runs there is cancelled. Safe to call twice."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=5)
