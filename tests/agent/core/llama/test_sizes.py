"""Sizes from a model file's header and the machine."""

from __future__ import annotations

import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

import pytest

from ponder.core.llama.engine import EngineSettings
from ponder.core.llama.sizes import LEAST_CONTEXT, Facts, context_tokens, read_facts, state_mib


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(path: Path, fields: dict[str, Any], version: int = 3) -> Path:
    body = struct.pack("<4sIQQ", b"GGUF", version, 0, len(fields))
    for name, value in fields.items():
        body += text(name)
        if isinstance(value, str):
            body += struct.pack("<I", 8) + text(value)
        elif isinstance(value, list):
            body += struct.pack("<IIQ", 9, 4, len(value)) + struct.pack(f"<{len(value)}I", *value)
        else:
            body += struct.pack("<II", 4, value)
    path.write_bytes(body)
    return path


LLAMA = {
    "general.architecture": "llama", "llama.context_length": 4096, "llama.block_count": 10,
    "llama.embedding_length": 512, "llama.attention.head_count": 8, "llama.attention.head_count_kv": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "cache_bytes"),
    [
        ({}, 10 * 2 * (64 + 64) * 2),
        ({"llama.attention.head_count_kv": [2, 4]}, 6 * (64 + 64) * 2),
        ({"llama.attention.key_length": 128, "llama.attention.value_length": 32}, 10 * 2 * (128 + 32) * 2),
    ],
)
def test_what_a_token_takes(tmp_path: Path, more: dict[str, Any], cache_bytes: int) -> None:
    path = gguf(tmp_path / "m.gguf", LLAMA | more)
    assert read_facts(path) == Facts(context=4096, cache_bytes=cache_bytes)


def test_without_shared_heads(tmp_path: Path) -> None:
    fields = {name: value for name, value in LLAMA.items() if not name.endswith("_kv")}
    assert read_facts(gguf(tmp_path / "m.gguf", fields)).cache_bytes == 10 * 8 * 128 * 2


def test_the_vocabulary_is_not_read(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf", LLAMA | {"tokenizer.ggml.tokens": [1] * 10})
    path.write_bytes(path.read_bytes()[:-30])
    assert read_facts(path).context == 4096


@pytest.mark.parametrize("head", [b"", b"GGUF", b"NOPE" + b"\0" * 60, b"GGUF" + b"\xff" * 60])
def test_a_broken_file_has_no_facts(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(head)
    assert read_facts(path) == Facts()
    assert read_facts(tmp_path / "none.gguf") == Facts()


def test_context_is_bounded_by_model_and_memory() -> None:
    free = 16 * 2**30
    assert context_tokens(Facts(context=32768, cache_bytes=12288), free) == 16384
    assert context_tokens(Facts(context=8192, cache_bytes=12288), free) == 8192
    assert context_tokens(Facts(context=32768, cache_bytes=28672), 2**30) == 4096
    assert context_tokens(Facts(context=32768, cache_bytes=28672), 2**20) == LEAST_CONTEXT
    assert context_tokens(Facts(), free) == 16384


@pytest.mark.parametrize(
    ("free_mib", "folder_mib", "kept_mib"),
    [(16 * 1024, 8 * 1024, 1024), (8 * 1024, 64, 48), (1600, 4096, 100), (16 * 1024, 0, 0)],
)
def test_states_take_a_share_of_memory_and_what_their_folder_has(
    free_mib: int, folder_mib: int, kept_mib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tempfile.gettempdir())._replace(free=folder_mib << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage)
    assert state_mib(free_mib << 20) == kept_mib


def test_nothing_is_left_open(tmp_path: Path) -> None:
    sized = EngineSettings(model=gguf(tmp_path / "m.gguf", LLAMA)).sized()
    assert sized.n_ctx == 4096
    assert sized.threads is not None
    assert sized.n_batch is not None
    named = EngineSettings(model=sized.model, threads=3, n_ctx=1024, n_batch=99).sized()
    assert (named.threads, named.n_ctx, named.n_batch) == (3, 1024, 99)
    assert named.model_copy(update={"n_parallel": 64}).sized().n_batch == 128  # room for every branch
