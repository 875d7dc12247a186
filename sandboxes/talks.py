"""A conversation with a running program as a queue: what it says is taken one message at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

WAITING_BYTES = 16 << 20
"""What may wait to be taken: a program that says more without being heard is cut off."""


class QueueTalk:
    """The host's end of a conversation (`ponder.protocols.Talk`), for one task that takes what is said.

    Args:
        waiting_bytes: how much may wait; a program that says more has ended its side of the conversation (`flooded`).
    """

    def __init__(self, waiting_bytes: int = WAITING_BYTES) -> None:
        self.flooded = False
        self.open = asyncio.Event()
        """Set when the program is about to run, and when it never will."""
        self._room = waiting_bytes
        self._heard: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._over = False
        self._send: Callable[[bytes], None] | None = None

    def opened(self, send: Callable[[bytes], None]) -> None:
        """See `Talk.opened`."""
        self._send = send
        self.open.set()

    def heard(self, message: bytes) -> None:
        """See `Talk.heard`. What comes after the end, or after too much, is dropped."""
        if self._over:
            return
        self._room -= len(message) + 1
        if self._room < 0:
            self.flooded = True
            self._heard.clear()
            self._end()
            return
        self._heard.append(message)
        self._news.set()

    def ended(self) -> None:
        """See `Talk.ended`. Messages that wait can still be taken."""
        self._end()

    def _end(self) -> None:
        self._over = True
        self._send = None
        self._news.set()
        self.open.set()

    async def hear(self) -> bytes | None:
        """Return the program's next message; None when it has ended and nothing waits."""
        while not self._heard:
            if self._over:
                return None
            self._news.clear()
            await self._news.wait()
        message = self._heard.popleft()
        self._room += len(message) + 1
        return message

    def say(self, message: bytes) -> bool:
        """Send a message; return whether there is somebody to read it.

        Raises:
            UsageError: the message is longer than a sandbox takes.
        """
        if self._send is None:
            return False
        self._send(message)
        return True
