"""`ponder doctor`: what is told of each part, and that no part can hold it up."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ponder.cli.app import run
from ponder.cli.checks import Report, check_core, check_docker, check_engine, check_image, check_meters
from ponder.cli.doctor import choose, gather, start
from ponder.core.llama.native import PROGRAM, RECORD, Build
from ponder.errors import NoSandbox, UnknownName
from ponder.machine import this_cpu
from ponder.sandboxes import open_sandbox

GOOD: Report = {"ok": True, "why": "", "fix": ""}
BAD: Report = {"ok": False, "why": "no bwrap", "fix": "apt-get install bubblewrap"}


def test_a_check_that_hangs_is_told_and_left_alone() -> None:
    release = threading.Event()

    def hang() -> Report:
        release.wait(60)
        return GOOD

    async def answer() -> Report:
        return GOOD

    async def fail() -> Report:
        raise RuntimeError("broken pipe")

    begun = {"hung": start(hang), "good": start(answer), "bad": start(fail)}
    try:
        done = gather(begun, 0.3)
    finally:
        release.set()
    assert done["good"] == GOOD
    assert done["hung"] == {"ok": False, "why": "no answer within 0.3 s"}
    assert done["bad"] == {"ok": False, "why": "RuntimeError: broken pipe"}


def test_patience_is_for_all_together() -> None:
    never: Future[Report] = Future()
    assert set(gather(dict.fromkeys("abcdefgh", never), 0.1)) == set("abcdefgh")


@pytest.mark.parametrize(
    ("wanted", "sandboxes", "name"),
    [
        (None, {"a": GOOD, "b": GOOD}, "a"),
        (None, {"a": BAD, "b": GOOD}, "b"),
        ("b", {"a": GOOD, "b": GOOD}, "b"),
        ("b", {"a": GOOD, "b": BAD}, None),
        ("none", {"a": GOOD}, None),
        (None, {"a": BAD}, None),
        (None, {}, None),
    ],
)
def test_the_choice(
    monkeypatch: pytest.MonkeyPatch, wanted: str | None, sandboxes: dict[str, Report], name: str | None
) -> None:
    monkeypatch.setenv("PONDER_SANDBOX", wanted or "")
    report = choose(sandboxes)
    assert report.get("name") == name
    assert report["ok"] is (name is not None)
    if name is None and sandboxes:
        assert report["fix"]


def test_no_docker_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    report = check_docker()
    assert report["ok"] is False
    assert report["fix"]
    assert "\n" not in report["why"]


def test_image_that_was_not_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PONDER_SANDBOX_ROOT", str(tmp_path))
    report = check_image()
    assert report["ok"] is True
    assert report["built"] is False
    assert "not built yet" in report["why"]
    assert os.listdir(tmp_path) == []


def test_meters_say_which_version_does_what() -> None:
    ((method, report),) = check_meters().items()
    assert method in ("cgroup", "process-tree")
    if method == "cgroup":
        assert report["cgroup_versions"]
        assert "CPU metered by cgroup v" in report["why"]
    else:
        assert "lower bounds" in report["why"]
    assert not set(report["roles"]) & set(report["missing"])


@pytest.mark.real
def test_everything_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PONDER_SANDBOX", raising=False)
    code = run(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == (0 if found["choice"]["ok"] and found["browser"]["ok"] else 5)
    named = [found["sandboxes"], found["cores"], found["meters"]]
    for report in [found[part] for part in ("browser", "docker", "image", "choice")] + [
        report for part in named for report in part.values()
    ]:
        assert isinstance(report["ok"], bool)
        assert isinstance(report["why"], str)
    bubblewrap = found["sandboxes"]["bubblewrap"]
    assert bubblewrap["ok"] is True, bubblewrap["why"]
    assert "seccomp" in bubblewrap["active"]
    assert found["choice"]["name"] == "bubblewrap"
    assert found["image"]["built"] is True
    assert found["image"]["bytes"] > 10**7


@pytest.mark.real
def test_what_is_missing_is_told_with_its_fix(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    monkeypatch.setenv("PATH", str(tmp_path))  # no bubblewrap, no browser
    assert run(["doctor"]) == 5
    out = capsys.readouterr().out
    assert "no  sandbox bubblewrap  bubblewrap is not installed\n     fix: apt-get install bubblewrap\n" in out
    assert "no  choice  no sandbox works here: code is refused\n" in out
    assert "Traceback" not in out


async def test_another_runtime_is_a_name_of_the_docker_backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(NoSandbox, match="no Docker engine"):
        await open_sandbox("docker:runsc")
    for name in ("docker:", "bubblewrap:runsc"):
        with pytest.raises(UnknownName, match="docker:RUNTIME"):
            await open_sandbox(name)


def test_the_engine_that_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PONDER_ENGINE_DIR", str(tmp_path))
    monkeypatch.delenv("PONDER_ENGINE", raising=False)
    none = check_engine()
    assert none["ok"]
    assert "xllamacpp" in none["why"]
    assert none["fix"] == "make engine-native"
    monkeypatch.setenv("PONDER_ENGINE", "native")
    assert not check_engine()["ok"]
    monkeypatch.setenv("PONDER_ENGINE", "nativ")
    assert "nativ" in check_engine()["why"]


@pytest.mark.parametrize(("script", "ok"), [("#!/bin/sh\n", True), ("#!/bin/sh\nkill -ILL $$\n", False)])
def test_a_native_engine_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, ok: bool) -> None:
    monkeypatch.setenv("PONDER_ENGINE_DIR", str(tmp_path))
    monkeypatch.delenv("PONDER_ENGINE", raising=False)
    program = tmp_path / PROGRAM
    program.write_text(script)
    program.chmod(0o755)
    build = Build(version="b7", source="x==1", sha256="0" * 64, flags=(), cpu=this_cpu(), bytes=len(script))
    (tmp_path / RECORD).write_text(build.model_dump_json())
    told = check_engine()
    assert (told["ok"], told["native"]) == (ok, ok)
    assert ("b7" in told["why"]) == ok


async def test_a_server_is_asked_what_it_can() -> None:
    pages = {
        "/v1/models": {"data": [{"id": "small", "owned_by": "llamacpp", "meta": {"n_ctx": 2048}}]},
        "/props": {"build_info": "b7000"},
    }

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path in pages
            body = json.dumps(pages.get(self.path, {})).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        report = await check_core(f"openai:@{url}")
        server.shutdown()
    assert report["ok"] is True
    assert report["why"].startswith(f"llama.cpp b7000 at {url}, model small: goes on with the core's turn; ")
    assert report["why"].endswith("grammars in the field grammar")
    down = await check_core(f"openai:small@{url}")
    assert (down["ok"], bool(down["why"])) == (False, True)


@pytest.mark.parametrize("name", ["openai:small@ftp://x", "no-such-model", "transformers:no/such/folder/here"])
async def test_a_core_that_cannot_be(name: str) -> None:
    report = await check_core(name)
    assert report["ok"] is False
    assert report["why"]


async def test_weights_that_are_not_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PONDER_MODELS_DIR", str(tmp_path))
    report = await check_core("smollm2-135m")
    assert report["ok"] is False
    assert "ponder models pull smollm2-135m" in report["why"]
