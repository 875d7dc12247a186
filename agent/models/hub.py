"""Weights from the Hugging Face hub, through its own client, which resumes and checks by itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ponder.errors import ModelError
from ponder.models.digests import sha256_of
from ponder.models.fetch import Network, describe, http_client
from ponder.models.packages import Fetched
from ponder.models.progress import Progress
from ponder.models.registry import HubSource, Model

if TYPE_CHECKING:
    import httpx

ANSWER_S = 5.0
"""How long the hub may take to answer the first question before the next source is tried."""


def fetch(
    source: HubSource, model: Model, work: Path, progress: Progress, *, endpoint: str | None = None
) -> Fetched:
    """Fetch the file into a folder of its own under `work`; a partial download there is resumed.

    Args:
        endpoint: address of the hub; None is the client's own (or what HF_ENDPOINT says).

    Raises:
        ModelError: the hub is switched off (HF_HUB_OFFLINE), cannot be reached, or has no such bytes.
    """
    if any(os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"} for name in _OFFLINE):
        raise ModelError("the hub is switched off by the environment (HF_HUB_OFFLINE)")
    from huggingface_hub import hf_hub_download, hf_hub_url

    _ask_first(hf_hub_url(source.hub, source.file, endpoint=endpoint), model)
    progress.note(f"Fetching {model.name} from the hub repository {source.hub}")
    stopped: list[BaseException] = []
    try:
        path = Path(
            hf_hub_download(
                source.hub, source.file, local_dir=work / "hub", endpoint=endpoint, etag_timeout=ANSWER_S,
                tqdm_class=cast(Any, _meter(f"Fetching {model.name}", model.bytes, progress, stopped)),
            )
        )  # fmt: skip
    except Exception as error:  # the client's errors have no common base; an OSError may also be the network's
        if stopped:
            raise stopped[0] from None
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ModelError(describe(error)) from error
    digest = sha256_of(path, lambda done: progress.update(f"Checking {model.name}", done, model.bytes))
    return Fetched(path=path, sha256=digest)


_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def _ask_first(url: str, model: Model) -> None:
    """Ask for the file's headers, once and with a short time-out: the hub's client retries for half a minute."""
    import httpx
    from huggingface_hub import get_token

    token = get_token()
    try:
        with http_client(Network()) as client:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            answer = client.head(url, headers=headers, timeout=ANSWER_S, follow_redirects=False)
    except httpx.HTTPError as error:
        raise ModelError(f"the hub does not answer: {describe(error)}") from error
    if answer.status_code >= 400:
        raise ModelError(f"the hub answered {answer.status_code} {answer.reason_phrase}")
    stated = _stated_digest(answer)
    if stated is not None and stated != model.sha256:
        raise ModelError("the hub has other bytes under that name now")


def _stated_digest(answer: httpx.Response) -> str | None:
    """Return the SHA-256 that the hub states for a large file, if it does."""
    tag = answer.headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"')
    return tag if len(tag) == 64 else None


def _meter(step: str, total_bytes: int, progress: Progress, stopped: list[BaseException]) -> type:
    """Return a class that the hub's client uses in place of its own bar, and that tells `progress`.

    What `progress` raises is noted in `stopped` too: it is a wish to stop, not a failure of the hub.
    """

    class Meter:
        def __init__(self, *_: Any, initial: int = 0, **__: Any) -> None:
            self.n = initial
            self.total = total_bytes

        def update(self, n: float | None = 1) -> None:
            self.n += int(n or 0)
            try:
                progress.update(step, self.n, total_bytes)
            except BaseException as error:
                stopped.append(error)
                raise

        def update_transfer(self, n: float | None = 1) -> None:
            """Bytes on the wire, which the client counts apart from bytes written; one bar is enough."""

        def __enter__(self) -> Meter:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def __getattr__(self, _: str) -> Callable[..., None]:
            return lambda *_, **__: None  # descriptions and postfixes, which differ between versions

    return Meter
