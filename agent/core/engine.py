"""The managed child engine: start it, wait until it is ready, meter it, stop it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
from collections import deque
from pathlib import Path

from ponder.errors import CoreError, ModelError
from ponder.machine import available_cpus
from ponder.protocols import GroupFactory, ProcessGroup
from ponder.records import CpuReading, Record

_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 2.0
_NOTHING = CpuReading(user_s=0.0, system_s=0.0, peak_rss_bytes=0, method="rusage")


class EngineSettings(Record):
    """How the engine is set up. Defaults suit a laptop: they are chosen from the machine where None."""

    model: Path
    threads: int | None = None
    """Compute threads; None: the CPUs this process may use, sixteen at most."""
    n_ctx: int = 8192
    """Tokens of context, shared by all branches (one unified KV cache)."""
    n_parallel: int = 16
    """Branches decoded together."""
    n_batch: int = 256
    """Prompt tokens computed at once; small enough that a cancelled prefill ends soon."""
    cache_mib: int = 0
    """Memory for prompts that lost their slot, MiB."""


class Engine:
    """One llama.cpp server in a child process, reachable over a unix socket in a 0700 directory.

    Raises (from `start`):
        ModelError: the weights cannot be loaded.
        CoreError: the process died or did not get ready in time.
    """

    def __init__(self, settings: EngineSettings, group_factory: GroupFactory) -> None:
        self.settings = settings
        self.version = "unknown"
        self._make_group = group_factory
        self._group: ProcessGroup | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._folder: Path | None = None
        self._words: deque[str] = deque(maxlen=40)  # the last lines that the process said
        self._drains: list[asyncio.Task[None]] = []
        self._ended = _NOTHING  # what earlier processes of this engine used: a restart does not forget

    @property
    def socket(self) -> str:
        """Path of the unix socket."""
        assert self._folder is not None, "start() comes first"
        return str(self._folder / "e.sock")

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process and wait until the weights are loaded."""
        self._folder = Path(tempfile.mkdtemp(prefix="ponder-core-"))  # mkdtemp makes it 0700
        self._group = self._make_group("core")
        argv = self._group.command([sys.executable, "-I", "-m", "ponder.core.engine_child"])
        self._process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C at the terminal is ours to handle, not the engine's
        )
        self._group.attach(self._process.pid)
        assert self._process.stderr is not None
        self._drains = [asyncio.create_task(self._drain(self._process.stderr))]
        try:
            await asyncio.wait_for(self._get_ready(), _START_TIMEOUT_S)
        except TimeoutError:
            await self.close()
            raise CoreError(f"the engine did not load {self.settings.model.name} in {_START_TIMEOUT_S:.0f} s") from None
        except BaseException:
            await self.close()
            raise

    async def _get_ready(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        settings = self.settings.model_dump(mode="json") | {
            "socket": self.socket,
            "threads": self.settings.threads or min(16, available_cpus()),
        }
        self._process.stdin.write(json.dumps(settings).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await self._process.stdin.drain()
        while line := await self._process.stdout.readline():
            with contextlib.suppress(ValueError):  # the engine may print lines of its own
                said = json.loads(line)
                if isinstance(said, dict) and said.get("ready"):
                    self.version = said["engine"]
                    self._drains.append(asyncio.create_task(self._drain(self._process.stdout)))
                    return
        raise await self._why_it_died()

    async def _drain(self, stream: asyncio.StreamReader) -> None:
        """Read to the end: a process whose pipe is full stands still."""
        while piece := await stream.read(4096):
            self._words.extend(line for line in piece.decode(errors="replace").splitlines() if line.strip())

    async def _why_it_died(self) -> CoreError | ModelError:
        assert self._process is not None
        await self._process.wait()
        await asyncio.gather(*self._drains)
        last = self._words[-1].strip() if self._words else f"exit status {self._process.returncode}"
        name = self.settings.model.name
        if any(sign in "\n".join(self._words).lower() for sign in ("load model", "loading model", "gguf", "magic")):
            return ModelError(f"the engine cannot load {name}: {last}", fix="try `ponder models pull NAME --force`")
        return CoreError(f"the engine ended while it loaded {name}: {last}", fix="see `ponder doctor`")

    def read(self) -> CpuReading:
        """Return the engine's CPU so far: loading included, and what a process that died had used."""
        return self._ended if self._group is None else self._ended.plus(self._group.read())

    async def close(self) -> None:
        """Stop the process and remove its socket. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        for drain in self._drains:
            drain.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)
        self._drains.clear()
        if self._group is not None:
            self._group.kill()
            self._ended = self.read()
            self._group.close()
            self._group = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
