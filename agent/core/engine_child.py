"""The child engine's process: llama.cpp's server on a private unix socket, until its parent goes away.

Started by `ponder.core.engine`; reads one JSON line of settings from stdin. Kept apart from the application so that a
crash, its threads and its CPU are its own.
"""

from __future__ import annotations

import json
import os
import shutil
import sys


def main() -> None:
    """Serve until stdin closes: that happens when the parent ends, however it ends."""
    settings = json.loads(sys.stdin.readline())
    # Spin barriers cost 25 times the CPU as soon as anything else runs on the machine. Must be set before the import.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
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
    params.cache_ram_mib = settings["cache_mib"]
    params.fit_params = False  # trying out what fits into a GPU's memory costs a CPU second, and there is none
    params.warmup = False
    params.ui = False
    params.verbosity = 1
    server = xllamacpp.Server(params)  # noqa: F841 - it serves as long as it is held
    print(json.dumps({"ready": True, "engine": f"xllamacpp {xllamacpp.__version__}"}), flush=True)
    sys.stdin.read()
    shutil.rmtree(os.path.dirname(settings["socket"]), ignore_errors=True)  # a parent that was killed did not
    # The server's own shutdown would wait for open streams; the parent is gone or wants us gone, so nothing is lost.
    os._exit(0)


if __name__ == "__main__":
    main()
