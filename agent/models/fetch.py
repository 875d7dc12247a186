"""One file over HTTP, resumed where an earlier try stopped, checked, and moved into place when whole.

TLS and the proxy follow pip's settings as well as the system's: on a managed machine the certificates that pip was
given are often the only ones that work.
"""

from __future__ import annotations

import os
import shutil
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ponder.errors import ModelError
from ponder.models.digests import sha256_of
from ponder.models.progress import Stopped
from ponder.records import Record

if TYPE_CHECKING:
    import httpx

CONNECT_S, READ_S = 10.0, 30.0
TRIES = 4
"""Tries in a row that bring no new byte before a file is given up."""

CREDENTIALS_WANTED = (401, 403, 407)
WORTH_RETRYING = (408, 425, 429, 500, 502, 503, 504)


class Part(Record):
    """One file to fetch: `sha256` is what the index says of it, None when it says nothing."""

    name: str
    url: str
    sha256: str | None = None


class Network(Record):
    """How to reach the network: extra certificate bundles (files) and a proxy, where pip is told of one."""

    bundles: tuple[str, ...] = ()
    proxy: str | None = None


class NeedsPip(ModelError):
    """Only pip itself can fetch this: the server wants credentials or certificates that pip may have."""


def http_client(network: Network) -> httpx.Client:
    """Return a client that trusts what the system and pip trust. Raises ModelError for a bad bundle."""
    import httpx  # on first use: `import ponder` stays cheap

    return httpx.Client(
        verify=_trust(network.bundles),
        proxy=network.proxy,
        follow_redirects=True,
        timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
        headers={"Accept-Encoding": "identity"},  # ranges count the bytes of the file, not of a compressed form
    )


def fetch_file(client: httpx.Client, part: Part, target: Path, stop: Event) -> None:
    """Fetch a file to `target`; what is already in `target.partial` is not fetched again.

    Raises:
        NeedsPip: the server wants credentials, or its certificate is not trusted.
        ModelError: the server refuses, stays silent, or sends other bytes than the index promises.
        Stopped: `stop` was set; the partial file stays.
        OSError: the disk failed or is full.
    """
    if target.exists():  # it was checked before it got this name
        return
    partial = target.with_name(target.name + ".partial")
    if part.url.startswith("file:"):
        shutil.copyfile(url2pathname(urlsplit(part.url).path), partial)
    else:
        resumed = partial.exists()
        _stream(client, part, partial, stop)
        if resumed and part.sha256 and sha256_of(partial) != part.sha256:
            partial.unlink()  # what was kept belonged to other bytes: once more, from the start
            _stream(client, part, partial, stop)
    if part.sha256 and sha256_of(partial) != part.sha256:
        partial.unlink()
        raise ModelError(f"{part.name} arrived with other bytes than its index promises")
    partial.replace(target)


def in_parallel(
    jobs: Sequence[Callable[[], None]], width: int, stop: Event, tick: Callable[[], None]
) -> None:
    """Run jobs in up to `width` threads; call `tick` in this thread several times a second.

    The first job that fails, or an exception from `tick` (Ctrl-C too), sets `stop` and is raised. The threads are
    daemons, so that a stalled server cannot hold up the end of the program.
    """
    waiting: SimpleQueue[Callable[[], None]] = SimpleQueue()
    ended: SimpleQueue[Exception | None] = SimpleQueue()
    for job in jobs:
        waiting.put(job)

    def work() -> None:
        while not stop.is_set():
            try:
                waiting.get_nowait()()
            except Empty:
                return
            except Exception as error:  # carried over to the caller's thread
                ended.put(error)
            else:
                ended.put(None)

    for _ in range(min(width, len(jobs))):
        Thread(target=work, name="ponder-fetch", daemon=True).start()
    left = len(jobs)
    try:
        while left:
            try:
                error = ended.get(timeout=0.2)
            except Empty:
                pass
            else:
                left -= 1
                if error is not None:
                    raise error
            tick()
    finally:
        stop.set()


def require_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Raise ModelError when the disk of `folder` has less than `needed_bytes` (and a little room) left."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + (64 << 20):
        raise ModelError(
            f"{what} needs {needed_bytes / 1e9:.2f} GB, and the disk of {folder} has {free / 1e9:.2f} GB left",
            fix="make room, or set PONDER_MODELS_DIR to a folder on another disk",
        )


def describe(error: Exception) -> str:
    """Say in a few words what went wrong."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def _stream(client: httpx.Client, part: Part, partial: Path, stop: Event) -> None:
    """Stream until the file is whole. A try that brought new bytes starts the count of failed tries afresh."""
    import httpx
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random
    from tenacity.nap import sleep_using_event

    while True:
        had = _size(partial)
        try:
            Retrying(
                stop=stop_after_attempt(TRIES),
                wait=wait_exponential(multiplier=0.5, max=8) + wait_random(0, 0.5),
                retry=retry_if_exception(lambda error: not stop.is_set() and _worth_retrying(error)),
                sleep=sleep_using_event(stop),
                reraise=True,
            )(_stream_once, client, part.url, partial, stop)
        except httpx.TransportError as error:
            if stop.is_set():
                raise Stopped from error
            if _size(partial) > had:
                continue
            kind = NeedsPip if _untrusted(error) else ModelError
            raise kind(f"{part.name}: {describe(error)}") from error
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            kind = NeedsPip if status in CREDENTIALS_WANTED else ModelError
            raise kind(f"{part.name}: the server answered {status} {error.response.reason_phrase}") from error
        else:
            return


def _stream_once(client: httpx.Client, url: str, partial: Path, stop: Event) -> None:
    have = _size(partial)
    headers = {"Range": f"bytes={have}-"} if have else {}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:
            _settle_out_of_range(response, partial, have)
            return
        response.raise_for_status()
        goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        with partial.open("ab" if have and response.status_code == 206 and goes_on else "wb", buffering=0) as out:
            for chunk in response.iter_raw():
                if stop.is_set():
                    raise Stopped
                out.write(chunk)
            os.fsync(out.fileno())


def _settle_out_of_range(response: httpx.Response, partial: Path, have: int) -> None:
    """The server has nothing after our last byte: either we have the file whole, or what we have is not of it."""
    import httpx

    if response.headers.get("Content-Range") != f"bytes */{have}":
        partial.unlink()
        raise httpx.ReadError("the partial file did not fit", request=response.request)


def _worth_retrying(error: BaseException) -> bool:
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in WORTH_RETRYING
    return isinstance(error, httpx.TransportError) and not _untrusted(error)


def _untrusted(error: BaseException) -> bool:
    return "CERTIFICATE_VERIFY_FAILED" in str(error)  # httpx keeps the text of the TLS error, not the error


def _trust(bundles: Sequence[str]) -> ssl.SSLContext:
    """Trust the system's store, certifi's bundle (for systems without one), and what the environment and pip name."""
    import certifi
    import truststore

    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=certifi.where())
    named = [os.environ.get(name, "") for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")]
    for bundle in dict.fromkeys([*bundles, *named]):
        if not bundle:
            continue
        path = Path(bundle).expanduser()
        try:
            context.load_verify_locations(**{"capath" if path.is_dir() else "cafile": str(path)})
        except (OSError, ssl.SSLError) as error:
            raise ModelError(f"the certificate bundle {bundle} cannot be used: {error}") from error
    return context


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
