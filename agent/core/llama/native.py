"""The native engine: llama.cpp's own server, compiled on this machine for its CPU by `make engine-native`.

In the engine folder: `llama-server`, and `llama-server.json`, which says of what, how and for which CPU it was built.
A record is written only after the program answered; a program whose record names a CPU that can do more than this
one is never started (it would end at an illegal instruction).
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from ponder.errors import CoreError, UsageError
from ponder.machine import Cpu, this_cpu
from ponder.records import Record

BUILD = "make engine-native"
PROGRAM, RECORD = "llama-server", "llama-server.json"
_WITH_AVX2 = "one built here has matrix products of its own, 1.2 to 1.9 times as fast with several branches"
CHOICES = ("auto", "native", "wheel")


class Build(Record):
    """What a native engine was made of."""

    version: str
    """llama.cpp's own: `b11434`."""
    source: str
    """The source package, `NAME==VERSION`."""
    sha256: str
    """Of the source package."""
    flags: tuple[str, ...]
    cpu: Cpu
    bytes: int
    """Size of the program."""


class Native(Record):
    """A native engine that this machine can run."""

    path: Path
    build: Build

    @property
    def version(self) -> str:
        """What the manifest calls it."""
        return f"llama-server {self.build.version} native"


class Chosen(Record):
    """Which engine is to serve."""

    native: Native | None
    """None: the wheel's."""
    note: str = ""
    """Why it is not the native one that there is; empty: there is none, or it is."""


class NoNative(CoreError):
    """There is no native engine to start. `built` tells whether there is one that does not fit."""

    def __init__(self, why: str, *, built: bool = True) -> None:
        super().__init__(why, fix=BUILD)
        self.built = built


def engine_dir() -> Path:
    """Return where the native engine is kept: PONDER_ENGINE_DIR, or `engine` in the user's data folder."""
    if named := os.environ.get("PONDER_ENGINE_DIR"):
        return Path(named).expanduser()
    from platformdirs import user_data_dir

    return Path(user_data_dir("ponder")) / "engine"


def find_native(cpu: Cpu | None = None) -> Native:
    """Return the native engine. Raises NoNative: none was built, or not for this CPU, or it is not whole."""
    program, record = engine_dir() / PROGRAM, engine_dir() / RECORD
    if not program.exists() and not record.exists():
        raise NoNative("none was built for this machine", built=False)
    try:
        build = Build.model_validate_json(record.read_bytes())
        size = program.stat().st_size
    except (OSError, ValidationError) as error:
        raise NoNative(f"the native engine in {engine_dir()} is not whole ({type(error).__name__})") from error
    if size != build.bytes or not os.access(program, os.X_OK):
        raise NoNative(f"{program} is not the program that was built")
    cpu = cpu or this_cpu()
    if not cpu.runs(build.cpu):
        lacks = " ".join(sorted(set(build.cpu.features) - set(cpu.features))) or "other model"
        raise NoNative(f"the native engine was built for another CPU ({build.cpu.model}; here: {cpu.model}, {lacks})")
    return Native(path=program, build=build)


def choice() -> str:
    """Return which engine PONDER_ENGINE asks for: `native`, `wheel`, or `auto`. Raises UsageError."""
    named = os.environ.get("PONDER_ENGINE") or "auto"
    if named not in CHOICES:
        raise UsageError(f"PONDER_ENGINE={named}: there is no such engine", fix=f"one of {', '.join(CHOICES)}")
    return named


def choose(wanted: str) -> Chosen:
    """Return the engine for `native`, `wheel` or `auto`. Raises NoNative: no other will do, and it cannot run."""
    if wanted == "wheel":
        return Chosen(native=None)
    try:
        return Chosen(native=find_native())
    except NoNative as missing:
        if wanted == "native":
            raise
        return Chosen(native=None, note=str(missing) if missing.built else "")


def expected_gain(cpu: Cpu | None = None) -> str:
    """Say what a native engine would bring on this CPU, from what was measured (docs/engine.md)."""
    features = (cpu or this_cpu()).features
    if {"avx512f", "avx512_vnni"} <= set(features):
        return "one built here writes with several branches more than twice as fast"
    if "avx2" in features:
        return _WITH_AVX2
    return "one built here may be faster: not measured on such a CPU"
