"""The directory of one browser launch: made, handed to another user in part, and removed, also after a kill -9.

`driver/` and the scripts are ours; `profile/` is Chromium's. A lock on the directory tells the living from the dead:
the kernel lets go of it when the process that holds it ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

PREFIX = "ponder-browser-"
_YOUNG_S = 60.0
"""A directory younger than this may be between being made and being locked."""


class LaunchFolder:
    """A fresh directory, locked for as long as we live. Raises OSError when none can be made.

    Args:
        uid: the user id that `profile/` is given to; None keeps it ours.
    """

    def __init__(self, uid: int | None) -> None:
        base = Path(tempfile.gettempdir())
        if uid is not None and not open_to_all(base):
            base = Path("/tmp")
        remove_stale(base)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        self._lock = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        for name in ("driver", "profile"):
            (self.path / name).mkdir(mode=0o700)
        if uid is not None:
            # Passed through on the way to the profile, but not listed.
            self.path.chmod(0o711)
            os.chown(self.path / "profile", uid, uid)

    def remove(self) -> None:
        """Remove the directory and all in it. Safe to call twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def remove_stale(base: Path) -> None:
    """Remove the directories below `base` that launches of ours left when they were killed."""
    for folder in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if status.st_uid != os.geteuid() or time.time() - status.st_mtime < _YOUNG_S:
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def open_to_all(path: Path) -> bool:
    """Say whether every user may get to this path."""
    real = path.resolve()
    return all(step.stat().st_mode & 0o001 for step in (real, *real.parents))


def write_script(path: Path, text: str) -> Path:
    """Write a shell script that only we can run, and return its path."""
    path.write_text(text)
    path.chmod(0o700)
    return path
