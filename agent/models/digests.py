"""SHA-256 of weights, computed once: the result is remembered beside the file, with its size and time of change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from ponder.records import Record

CHUNK_BYTES = 1 << 20


class Verified(Record):
    """What was true of a file when its digest was computed."""

    size: int
    mtime_ns: int
    sha256: str


def marker_of(path: Path) -> Path:
    """Return where the digest of a downloaded file is remembered."""
    return path.with_name(path.name + ".verified.json")


def sha256_of(path: Path, on_read: Callable[[int], None] | None = None) -> str:
    """Return the hex SHA-256 of a file. `on_read` gets the bytes read so far. Raises OSError."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            if on_read is not None:
                on_read(done)
    return digest.hexdigest()


def remembered(path: Path, marker: Path) -> str | None:
    """Return the digest computed earlier, or None when there is none or the file has changed since."""
    try:
        seen = Verified.model_validate_json(marker.read_bytes())
        now = path.stat()
    except (OSError, ValidationError):
        return None
    return seen.sha256 if (seen.size, seen.mtime_ns) == (now.st_size, now.st_mtime_ns) else None


def remember(path: Path, marker: Path, sha256: str) -> None:
    """Note the digest of a file. Raises OSError."""
    now = path.stat()
    seen = Verified(size=now.st_size, mtime_ns=now.st_mtime_ns, sha256=sha256)
    # Written aside and renamed: a marker cut short by a crash would read as "hash again" for ever.
    aside = marker.with_name(f"{marker.name}.{os.getpid()}")
    aside.write_text(seen.model_dump_json(), encoding="utf-8")
    aside.replace(marker)
