"""An OpenAI-compatible server on the weights of one of ponder's own models, for as long as a benchmark needs it.

The engine that ponder would use itself (PONDER_ENGINE says which), with the same sizes, on a loopback port and with a
key: the difference to the `llama_cpp` core is the wire and what only a private engine allows, not the engine.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import psutil

from ponder.core.llama.engine import EngineSettings
from ponder.core.llama.engine_child import WAITS, end_with, healthy, sizes
from ponder.core.llama.native import Native, choice, choose
from ponder.errors import MachineError
from ponder.models import ensure

PROGRAM = """
import json, os, sys
import xllamacpp
settings = json.loads(sys.stdin.readline())
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = settings["model"], ["127.0.0.1"], settings["port"]
params.api_keys = [settings["key"]]
params.n_ctx, params.n_parallel, params.kv_unified = settings["n_ctx"], settings["n_parallel"], True
params.n_batch = params.n_ubatch = settings["n_batch"]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
params.n_predict = settings["max_tokens"]
params.n_gpu_layers, params.warmup, params.fit_params, params.ui, params.verbosity = 0, False, False, False, 1
server = xllamacpp.Server(params)
sys.stdin.read()
os._exit(0)
"""
START_S = 180
MAX_TOKENS = 1024
"""Of a reply whose asker sets no bound: as many as of ponder's plain greedy baseline. Small models ramble on."""


@dataclass(frozen=True)
class OpenAIServer:
    """A server that runs."""

    url: str
    key: str
    pid: int
    engine: str

    def is_alive(self) -> bool:
        """Return whether it runs still."""
        try:
            return bool(psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    def cpu_s(self) -> float:
        """Return the CPU seconds that its process has used, loading included, as the system counts them."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


@contextmanager
def serve(model: str) -> Iterator[OpenAIServer]:
    """Serve a registered model (or a .gguf file) on a loopback port. Raises MachineError: it does not get ready."""
    settings = EngineSettings(model=ensure(model)).sized()
    port, key = _free_port(), f"sk-{secrets.token_hex(16)}"
    native = choose(choice()).native
    process = _start_native(native, settings, port, key) if native else _start_wheel(settings, port, key)
    try:
        deadline = time.monotonic() + START_S
        while not healthy(http.client.HTTPConnection("127.0.0.1", port, timeout=5)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise MachineError(f"the server on {model} did not get ready (exit status {process.poll()})")
            time.sleep(0.05)
        engine = native.version if native else f"xllamacpp {version('xllamacpp')}"
        yield OpenAIServer(url=f"http://127.0.0.1:{port}/v1", key=key, pid=process.pid, engine=engine)
    finally:
        process.kill()
        process.wait()


def _start_native(native: Native, settings: EngineSettings, port: int, key: str) -> subprocess.Popen[str]:
    command = [
        str(native.path), *sizes(settings.model_dump()), "--predict", str(MAX_TOKENS), "--host", "127.0.0.1",
        "--port", str(port),
    ]  # fmt: skip
    parent = os.getpid()
    return subprocess.Popen(
        command, env=os.environ | WAITS | {"LLAMA_API_KEY": key},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: end_with(parent),  # noqa: PLW1509 - nothing else is forked here
    )  # fmt: skip


def _start_wheel(settings: EngineSettings, port: int, key: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=os.environ | WAITS,
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    kept = settings.model_dump(mode="json", include={"model", "n_ctx", "n_parallel", "n_batch", "threads"})
    process.stdin.write(json.dumps({**kept, "port": port, "key": key, "max_tokens": MAX_TOKENS}) + "\n")
    process.stdin.flush()
    return process


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
