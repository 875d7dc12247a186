"""The child engine's process: llama.cpp's server on a private unix socket, until its parent goes away.

Started by `ponder.core.llama.engine`; reads one JSON line of settings from stdin. Kept apart from the application so
that a crash, its threads and its CPU are its own. The server is the wheel's, in this process; or the program that
`make engine-native` built, in a process below this one, which ends with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

WAITS = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "300"}
"""Spin barriers cost 25 times the CPU as soon as anything else runs on the machine; a short spin before the sleep takes
less than waking up again (docs/engine.md)."""
_POLL_S = 0.02
_PR_SET_PDEATHSIG = 1
_leaving = threading.Event()
"""The server is ended from here: its end is no news then."""


def main() -> None:
    """Serve until stdin closes: that happens when the parent ends, however it ends."""
    settings = json.loads(sys.stdin.readline())
    for name, value in WAITS.items():  # before the import
        os.environ.setdefault(name, value)
    server = serve_native(settings) if settings.get("native") else serve_wheel(settings)
    sys.stdin.read()
    _leaving.set()
    if isinstance(server, subprocess.Popen):
        server.kill()
        server.wait()
    for folder in (os.path.dirname(settings["socket"]), settings["slot_save_path"]):
        shutil.rmtree(folder, ignore_errors=True)  # a parent that was killed did not
    # The server's own shutdown would wait for open streams; the parent is gone or wants us gone, so nothing is lost.
    os._exit(0)


def say(**message: Any) -> None:
    """Tell the parent."""
    print(json.dumps(message), flush=True)


# --- the wheel's -------------------------------------------------------------------------------------------


def serve_wheel(settings: Mapping[str, Any]) -> object:
    """Start the server of the wheel in this process; it serves as long as what is returned is held."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.hostnames = [settings["socket"]]
    params.n_ctx = settings["n_ctx"]
    params.n_parallel = settings["n_parallel"]
    params.kv_unified = True
    params.n_batch = params.n_ubatch = settings["n_batch"]
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.cache_ram_mib = 0  # the parent keeps the states of prompts itself
    params.no_extra_bufts = not settings["repack"]
    params.fit_params = False  # trying out what fits into a GPU's memory costs a CPU second, and there is none
    params.warmup = False
    params.ui = False
    params.verbosity = 1
    params.slot_save_path = settings["slot_save_path"]
    server = xllamacpp.Server(params)
    say(ready=True, engine=f"xllamacpp {xllamacpp.__version__}")
    return server


# --- the native one ----------------------------------------------------------------------------------------


def arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return the command line of the native server: the same settings as the wheel's."""
    command = [
        settings["native"], *sizes(settings), "--host", settings["socket"],
        "--cache-ram", "0",  # the parent keeps the states of prompts itself
        "--slot-save-path", settings["slot_save_path"],
    ]  # fmt: skip
    if not settings["repack"]:
        command += ["--no-repack"]
    return command


def sizes(settings: Mapping[str, Any]) -> list[str]:
    """Return the part of it that does not depend on who asks: the model, its sizes, and how threads wait."""
    return [
        "--model", str(settings["model"]),
        "--ctx-size", str(settings["n_ctx"]), "--parallel", str(settings["n_parallel"]), "--kv-unified",
        "--batch-size", str(settings["n_batch"]), "--ubatch-size", str(settings["n_batch"]),
        "--threads", str(settings["threads"]), "--threads-batch", str(settings["threads"]),
        "--poll", "0", "--poll-batch", "0",  # as WAITS
        "--no-warmup", "--no-ui", "--offline", "--log-verbosity", "1",
    ]  # fmt: skip


def serve_native(settings: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """Start the native server below this process, and return when it has loaded the weights."""
    # The server takes options from the environment too: what others were set up with is not for this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LLAMA_", "AIP_", "HF_"))}
    parent = os.getpid()
    # Output goes to stderr: stdout is the line to the parent.
    server = subprocess.Popen(
        arguments(settings), stdin=subprocess.DEVNULL, stdout=sys.stderr, env=environment,
        preexec_fn=lambda: end_with(parent),  # noqa: PLW1509 - there is one thread yet
    )  # fmt: skip
    while not healthy(_UnixConnection(settings["socket"], timeout=5.0)):
        if server.poll() is not None:
            follow(server)
        time.sleep(_POLL_S)
    threading.Thread(target=follow, args=(server,), daemon=True).start()
    say(ready=True, engine=settings["version"])
    return server


def end_with(parent: int) -> None:
    """Make the kernel end this process with the thread that started it: kill -9 too, where there is such a call."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before
            os._exit(1)


def follow(server: subprocess.Popen[bytes]) -> None:
    """Wait for the end of the server, and end in the same way."""
    status = server.wait()
    if _leaving.is_set():
        return
    if status == -signal.SIGKILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if status < 0:
        print(f"the engine ended by {signal.Signals(-status).name}", file=sys.stderr, flush=True)
    os._exit(status if status > 0 else 1)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def healthy(connection: http.client.HTTPConnection) -> bool:
    """Return whether the server there has loaded the weights and answers; the connection is closed."""
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health", headers={"Host": "engine"})
        return connection.getresponse().status == http.client.OK
    return False


if __name__ == "__main__":
    main()
