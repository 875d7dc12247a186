"""The frames between process 1 of a sandbox and the host: one letter, four bytes of length, the payload.

Process 1 reads them from its standard input and writes them to its standard output.
"""

from __future__ import annotations

import os

GONE = 7
"""Exit status when the host closed the stream: not 0, so that a launcher does not start another sandbox."""

PIECE = 65536


def _read_exactly(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = os.read(fd, min(size - len(data), 1 << 20))
        if not piece:
            os._exit(GONE)
        data += piece
    return bytes(data)


def read_frame(fd: int) -> tuple[bytes, bytes]:
    """Return the next frame's letter and payload."""
    head = _read_exactly(fd, 5)
    return head[:1], _read_exactly(fd, int.from_bytes(head[1:], "big"))


def frame_end(data: bytearray) -> int | None:
    """Return where the first frame ends, or None while it is not whole."""
    end = 5 + int.from_bytes(data[1:5], "big")
    return end if 5 <= len(data) >= end else None


def emit(kind: bytes, payload: bytes = b"") -> None:
    """Send a frame to the host."""
    write_all(1, kind + len(payload).to_bytes(4, "big") + payload)


def write_all(fd: int, data: bytes) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def hear() -> bytes:
    """Return what the host sent; one that is gone ends everything here."""
    data = os.read(0, PIECE)
    if not data:
        os._exit(GONE)
    return data
