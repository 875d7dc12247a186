"""The working directory's files: laid before the program runs, looked through when it has ended."""

from __future__ import annotations

import itertools
import os
import stat
import time

from ponder.sandboxes.inside.frames import PIECE, emit, write_all

TYPE_CHECKING = False  # `typing` takes 10 ms to import
if TYPE_CHECKING:
    from collections.abc import Iterator

WORK = "/work"
WRITABLE = (WORK, "/tmp", "/dev/shm")
MAIN = "main.py"

PATH_BYTES = 4000
"""Files with longer paths are left out; a little less than the kernel takes."""

MAX_ENTRIES = 20_000
"""More files and folders in the working directory are not looked at, but for as many as the job had."""

LEFT_OUT_NAMES = 100
MORE = "..."
"""Stands for the files left out that are not named one by one."""


def _marks(entry: os.stat_result) -> tuple[int, int, int, int]:
    return entry.st_ino, entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns


def lay(files: list[tuple[str, bytes]]) -> dict[bytes, tuple[int, int, int, int]]:
    """Write the job's files below the working directory; return how to recognise each. Raises OSError."""
    os.umask(0o022)
    os.chdir(WORK)
    seen = {}
    past = time.time_ns() - 10**9  # a program may change a file before the kernel's clock has ticked
    for path, data in files:
        folder = os.path.dirname(path)
        if folder:
            os.makedirs(folder, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        write_all(fd, data)
        os.utime(fd, ns=(past, past))
        seen[path.encode()] = _marks(os.fstat(fd))
        os.close(fd)
    return seen


def clear() -> None:
    """Remove what the program left, so that giving it back to the kernel is on its own bill, not on the next one's."""
    for place in WRITABLE:
        folders = [place]
        for folder in folders:  # grows while it is gone through: what is deepest comes last
            try:
                os.chmod(folder, 0o700)
                for entry in list(os.scandir(folder)):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        os.unlink(entry.path)
            except OSError:
                continue


def give_back(seen: dict[bytes, tuple[int, int, int, int]], max_bytes: int, max_files: int) -> None:
    """Emit the regular files that are new or changed (`f`), the paths that are gone (`d`) or left out (`l`).

    Links are never followed and nothing but regular files is opened; by now nobody is left to exchange them.
    """
    main = MAIN.encode()
    found = set()
    names, whole = 0, True
    for path, entry in _entries(MAX_ENTRIES + len(seen)):
        whole = whole and path != b""
        if entry is not None:
            found.add(path)
            if path == main or seen.get(path) == _marks(entry):
                continue
            fits = max_files > 0 and entry.st_size <= max_bytes and len(path) <= PATH_BYTES
            if fits and _is_text(path) and not path.startswith(main + b"/") and _give_file(path, entry.st_size):
                max_bytes -= entry.st_size
                max_files -= 1
                continue
        names += 1
        if names <= LEFT_OUT_NAMES:
            emit(b"l", path or MORE.encode())
    if names > LEFT_OUT_NAMES:
        emit(b"l", MORE.encode())
    for path in seen:
        if whole and path not in found and path != main:
            emit(b"d", path)


def _entries(most: int) -> Iterator[tuple[bytes, os.stat_result | None]]:
    """Yield what is below the working directory, but for folders: path and status of regular files, else path and None.

    Cut off after so many files and folders, with an empty path: a program can make a million.
    """
    folders = [b""]
    while folders:
        folder = folders.pop()
        full = WORK.encode() + b"/" + folder
        try:
            os.chmod(full, 0o700)
            with os.scandir(full) as scan:
                entries = sorted(itertools.islice(scan, most + 1), key=lambda entry: entry.name)
        except OSError:
            yield folder, None
            continue
        for entry in entries:
            most -= 1
            if most < 0:
                yield b"", None
                return
            path = folder + entry.name
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                yield path, None
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append(path + b"/")
            else:
                yield path, status if stat.S_ISREG(status.st_mode) else None


def _give_file(path: bytes, size: int) -> bool:
    """Emit a regular file, a piece at a time, for memory may be short; return whether it could be opened."""
    try:
        os.chmod(path, 0o600)
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    head = len(path).to_bytes(2, "big") + path
    write_all(1, b"f" + (len(head) + size).to_bytes(4, "big") + head)
    while size > 0:
        piece = os.read(fd, min(size, 1 << 20)) or bytes(min(size, PIECE))  # a frame keeps its length
        write_all(1, piece)
        size -= len(piece)
    os.close(fd)
    return True


def _is_text(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True
