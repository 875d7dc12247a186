"""Watching the program from process 1: its output, its conversation, its end."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` takes 5 ms to import
import os
import select

from ponder.sandboxes.inside.frames import PIECE, emit, frame_end, hear

MESSAGE_BYTES = 4 << 20
"""A longer message of the program ends its conversation."""

UNTAKEN_BYTES = 2 * MESSAGE_BYTES
"""With this much that the program has not taken, the host's next messages wait."""


class Watch:
    """Moves output and messages while the program runs, and ends all of it with the program."""

    def __init__(self, child: int, out: int, err: int, talk: int, wake: int, cap: int) -> None:
        self.child, self.talk, self.wake, self.cap = child, talk, wake, cap
        self.kinds = {out: b"o", err: b"e"}
        self.status: int | None = None
        self.seen = 0
        self.over = False
        self.said = bytearray()  # of the conversation, what is no whole message yet
        self.told = bytearray()  # messages to the program that it has not taken yet
        self.heard = bytearray()  # what came from the host and is no whole frame yet
        for fd in (out, err, talk, wake):
            if fd >= 0:
                os.set_blocking(fd, False)

    def follow(self) -> None:
        """Return when the program has ended, everything else in the sandbox is dead, and what it said is passed on."""
        poll = select.poll()
        for fd in (0, self.wake, *self.kinds):
            poll.register(fd, select.POLLIN)
        if self.talk >= 0:
            poll.register(self.talk, select.POLLIN)
        while self.status is None and self.seen <= self.cap:
            for fd, event in poll.poll():
                if not self._serve(fd, event):
                    poll.unregister(fd)
                    self._close(fd)
            if self.talk >= 0:
                poll.modify(self.talk, select.POLLIN | (select.POLLOUT if self.told else 0))
            poll.modify(0, select.POLLIN if len(self.told) < UNTAKEN_BYTES else 0)
        self._end_all()
        self.over = True
        for fd in self.kinds:
            while self.seen <= self.cap and self._pass_on(fd):
                pass
        while self.talk >= 0 and self._listen():
            pass

    def _serve(self, fd: int, event: int) -> bool:
        """Do what a descriptor is ready for; return whether it is of further use."""
        if fd == 0:
            self._hear()
        elif fd == self.wake:
            self._reap()
        elif fd in self.kinds:
            return self._pass_on(fd)
        else:
            if event & select.POLLOUT:
                self._tell()
            return event == select.POLLOUT or self._listen()
        return True

    def _close(self, fd: int) -> None:
        """Let go of a stream that has ended; who waits at the other end of a conversation learns of it."""
        os.close(fd)
        if self.kinds.pop(fd, None) is None:
            self.talk = -1
            self.told.clear()

    def _pass_on(self, fd: int) -> bool:
        """Move what a pipe holds to the host; return whether there may be more."""
        try:
            data = os.read(fd, PIECE)
        except BlockingIOError:
            return not self.over
        if data:
            kept = data[: max(0, self.cap - self.seen)]
            self.seen += len(data)
            if kept:
                emit(self.kinds[fd], kept)
        return bool(data)

    def _listen(self) -> bool:
        """Pass the program's whole messages on; return whether the conversation goes on."""
        try:
            data = os.read(self.talk, PIECE)
        except BlockingIOError:
            return not self.over
        except OSError:
            return False
        self.said += data
        while len(self.said) >= 4:
            size = int.from_bytes(self.said[:4], "big")
            if size > MESSAGE_BYTES:
                return False
            if len(self.said) < 4 + size:
                break
            emit(b"m", bytes(self.said[4 : 4 + size]))
            del self.said[: 4 + size]
        return bool(data)

    def _tell(self) -> None:
        try:
            del self.told[: os.write(self.talk, self.told)]
        except BlockingIOError:
            return
        except OSError:
            self.told.clear()

    def _hear(self) -> None:
        """Take messages for the program from the host."""
        self.heard += hear()
        while (end := frame_end(self.heard)) is not None:
            if self.heard[:1] == b"m" and self.talk >= 0:
                self.told += (end - 5).to_bytes(4, "big") + self.heard[5:end]
            del self.heard[:end]

    def _reap(self) -> None:
        os.read(self.wake, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child:
                self.status = status

    def _end_all(self) -> None:
        """Kill everything in the sandbox but this process, and wait for it."""
        if os.getpid() != 1:
            os._exit(98)  # elsewhere "everything" would be the machine
        while True:
            try:
                os.kill(-1, _signal.SIGKILL)
            except ProcessLookupError:
                pass
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return
