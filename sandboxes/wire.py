"""The host's end of a sandbox's conversation: jobs go in, frames come out (`ponder.sandboxes.inside` is the other end).

A frame is one letter, a length of four bytes, big-endian, and that many bytes. What arrives was written by process 1
of the sandbox, which is ours; it is still checked like anything from outside.
"""

from __future__ import annotations

import asyncio
import marshal
import math
import platform
import posixpath
import re
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ponder.errors import UsageError
from ponder.records import Limits
from ponder.sandboxes.inside import MAIN, MESSAGE_BYTES, PATH_BYTES

RETURN_BYTES = 256 << 20
"""A program's files that come back have at most so many bytes together, whatever its disk holds."""

FRAME_BYTES = RETURN_BYTES + 2 * PATH_BYTES
"""No frame of ours is longer: a returned file is the largest."""

RETURN_FILES = 256
COMPLAINT_BYTES = 200
"""What process 1 may add to a program's output."""

NAME_BYTES = 255
MAX_OPEN_FILES = 256
PAGE = 4096


class Broken(Exception):
    """The stream ended or holds what process 1 never writes."""


@dataclass(frozen=True)
class Job:
    """What to run, and within which bounds; `files` does not hold `main.py`."""

    code: bytes
    files: Mapping[str, bytes]
    stdin: bytes
    limits: Limits
    talks: bool = False
    counts_processes: bool = True
    """Whether the sandbox has users of its own; else the kernel would count all processes of ours against it."""

    @property
    def return_bytes(self) -> int:
        """Return how many bytes of files may come back."""
        return min(self.limits.disk_bytes, RETURN_BYTES)

    def frame(self) -> bytes:
        """Return the job as process 1 reads it."""
        job = {
            "files": [(MAIN, self.code), *self.files.items()],
            "stdin": self.stdin,
            "talks": self.talks,
            "rlimits": rlimits(self.limits, counts_processes=self.counts_processes),
            "output_bytes": self.limits.output_bytes,
            "return_bytes": self.return_bytes,
            "return_files": RETURN_FILES,
        }
        return frame(b"J", marshal.dumps(job, 4))


def frame(kind: bytes, payload: bytes) -> bytes:
    """Return one frame."""
    return kind + len(payload).to_bytes(4, "big") + payload


async def read_frame(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the next frame's letter and payload. Raises Broken at the end of the stream."""
    try:
        head = await reader.readexactly(5)
        size = int.from_bytes(head[1:], "big")
        if size > FRAME_BYTES:
            raise Broken(f"a frame of {size} bytes")
        return head[:1], await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Broken("the sandbox is gone") from error


LEAVE = frame(b"Q", b"")
"""Lets process 1 go when its last word was heard."""


def message(data: bytes) -> bytes:
    """Return a message to the program as a frame. Raises UsageError for one that is too long."""
    if len(data) > MESSAGE_BYTES:
        raise UsageError(f"a message to a program may have {MESSAGE_BYTES} bytes, not {len(data)}")
    return frame(b"m", data)


def named_file(payload: bytes) -> tuple[str, bytes]:
    """Return path and content of a returned file. Raises Broken for a path that no file of the program has."""
    size = int.from_bytes(payload[:2], "big")
    return safe_path(payload[2 : 2 + size]), payload[2 + size :]


def safe_path(word: bytes) -> str:
    """Return a path below the working directory. Raises Broken for any other."""
    try:
        path = word.decode()
        (only,) = checked({path: b""})
    except (UnicodeDecodeError, UsageError) as error:
        raise Broken(f"a file named {word!r}") from error
    if only != path:
        raise Broken(f"a file named {word!r}")
    return path


def summary(payload: bytes) -> dict[str, int]:
    """Return the figures of the last frame. Raises Broken when it is none."""
    try:
        figures = {name: int(value) for name, value in (word.split("=") for word in payload.decode().split())}
        return {name: figures[name] for name in ("status", "flooded", "user_us", "system_us", "rss", "output")}
    except (ValueError, KeyError) as error:
        raise Broken(f"a last word of {payload[:100]!r}") from error


def checked(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files under normal relative paths. Raises UsageError for a path that leads outwards or is taken."""
    result: dict[str, bytes] = {}
    for name, data in files.items():
        path = posixpath.normpath(name)
        if posixpath.isabs(path) or path in (".", "..", MAIN) or path.startswith("../") or "\0" in path:
            raise UsageError(f"{name!r} is not a path below the working directory, or is {MAIN}")
        if not _can_be_written(path):
            raise UsageError(f"{name[:100]!r} is too long or no text")
        result[path] = data
    for path in result:
        if any(parent in result or parent == MAIN for parent in _parents(path)):
            raise UsageError(f"{path!r} lies below a file")
    return result


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def _can_be_written(path: str) -> bool:
    try:
        word = path.encode()
    except UnicodeEncodeError:
        return False
    return len(word) <= PATH_BYTES and max(map(len, word.split(b"/"))) <= NAME_BYTES


def rlimits(limits: Limits, *, counts_processes: bool = True) -> Sequence[tuple[int, int]]:
    """Return the kernel's limits of each process of the program, as pairs for `resource.setrlimit`."""
    bounds = [
        (resource.RLIMIT_CPU, math.ceil(limits.cpu_s) + 1),
        (resource.RLIMIT_DATA, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.disk_bytes),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 16 * PAGE),
    ]
    if hasattr(resource, "RLIMIT_MSGQUEUE"):
        bounds.append((resource.RLIMIT_MSGQUEUE, 0))
    if counts_processes and counts_processes_by_namespace(platform.release()):
        bounds.append((resource.RLIMIT_NPROC, limits.pids + 1))  # process 1 counts too
    return bounds


def counts_processes_by_namespace(release: str) -> bool:
    """Return whether RLIMIT_NPROC counts within the user namespace (Linux 5.14), not all processes of the user."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= (5, 14)
