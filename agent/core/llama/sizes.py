"""How large an engine is made: context, branches and batches, from the machine and from what the weights' file says.

The key-value cache is the memory that grows with the context. What a token takes there is in the file's header, which
this reads as far as it needs: the fields of the architecture stand before the vocabulary.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from ponder.records import Record

CONTEXT_TOKENS = 16384
"""Enough for sixteen branches of 900 tokens over a prefix of 1,500; more would be memory that nothing uses."""

LEAST_CONTEXT = 2048
CACHE_SHARE = 1 / 8
"""Of the memory that is free goes to the cache at most."""

STATE_SHARE, FOLDER_SHARE = 1 / 16, 3 / 4
"""Of free memory, and of what is free in the folder where states are kept: a container's `/dev/shm` is small."""
MOST_STATE_MIB = 1024
SHARED_MEMORY = "/dev/shm"

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_TEXT_BYTES = 1 << 20
_F16_BYTES = 2


class Facts(Record):
    """What the header says; zero where it says nothing."""

    context: int = 0
    """Tokens that the model was trained for."""
    cache_bytes: int = 0
    """Of the key-value cache for one token, in 16-bit floats."""


def read_facts(path: Path) -> Facts:
    """Read a GGUF file's header; a file that is broken has no facts, and the engine says what is wrong with it."""
    try:
        with path.open("rb") as file:
            return _facts(_fields(file))
    except (OSError, struct.error, ValueError, KeyError, TypeError):
        return Facts()


def context_tokens(facts: Facts, free_bytes: int, branch_tokens: int = CONTEXT_TOKENS) -> int:
    """Return the context for all branches together: what the model and the free memory allow, in steps of 1024."""
    tokens = min(branch_tokens, facts.context or branch_tokens)
    if facts.cache_bytes:
        tokens = min(tokens, int(free_bytes * CACHE_SHARE / facts.cache_bytes))
    return max(LEAST_CONTEXT, tokens // 1024 * 1024)


def state_mib(free_bytes: int) -> int:
    """Return the memory for saved states of prompts: a share of what is free, in the folder where they are kept too."""
    folder = memory_folder()
    kept_in = shutil.disk_usage(folder or tempfile.gettempdir()).free
    return min(MOST_STATE_MIB, int(min(free_bytes * STATE_SHARE, kept_in * FOLDER_SHARE)) >> 20)


def memory_folder() -> str | None:
    """Return a folder whose files are memory, or None where there is none: then they are written to disk."""
    return SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK | os.X_OK) else None


def _facts(fields: dict[str, Any]) -> Facts:
    kind = fields["general.architecture"]

    def number(name: str, default: Any = None) -> Any:
        return fields.get(f"{kind}.{name}", default)

    heads, layers = number("attention.head_count"), number("block_count")
    own = number("attention.head_count_kv", heads)  # of each layer, or of all
    of_query = max(heads) if isinstance(heads, list) else heads
    key = number("attention.key_length") or number("embedding_length") // of_query
    value = number("attention.value_length") or key
    heads_in_all = sum(own) if isinstance(own, list) else own * layers
    return Facts(context=number("context_length", 0), cache_bytes=heads_in_all * (key + value) * _F16_BYTES)


def _fields(file: BinaryIO) -> dict[str, Any]:
    """Return the fields before the vocabulary's."""
    magic, version, _, count = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version < 2:
        raise ValueError("not GGUF in its current form")
    fields: dict[str, Any] = {}
    for _ in range(count):
        name = _text(file)
        if name.startswith("tokenizer."):
            break
        fields[name] = _value(file, struct.unpack("<I", file.read(4))[0])
    return fields


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(file)
    if kind == _ARRAY:
        inner, length = struct.unpack("<IQ", file.read(12))
        if length > _TEXT_BYTES:
            raise ValueError("too long for a field of the architecture")
        return [_value(file, inner) for _ in range(length)]
    code = "<" + _SCALARS[kind]
    return struct.unpack(code, file.read(struct.calcsize(code)))[0]


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _TEXT_BYTES:
        raise ValueError("too long for a name")
    return file.read(length).decode(errors="replace")
