"""The managed child engine: start it, wait until it is ready, meter it, stop it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ponder.core.child import Child
from ponder.errors import CoreError, ModelError
from ponder.machine import available_cpus
from ponder.protocols import GroupFactory
from ponder.records import CpuReading, Record

_START_TIMEOUT_S = 180.0


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
        self._child = Child("ponder.core.engine_child", group_factory, on_message=_ignore, on_end=_ignore)
        self._folder: Path | None = None

    @property
    def socket(self) -> str:
        """Path of the unix socket."""
        assert self._folder is not None, "start() comes first"
        return str(self._folder / "e.sock")

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._child.running

    async def start(self) -> None:
        """Start the process and wait until the weights are loaded."""
        self._folder = Path(tempfile.mkdtemp(prefix="ponder-core-"))  # mkdtemp makes it 0700
        settings = self.settings.model_dump(mode="json") | {
            "socket": self.socket,
            "threads": self.settings.threads or min(16, available_cpus()),
        }
        try:
            ready = await self._child.start(settings, timeout_s=_START_TIMEOUT_S)
        except CoreError as error:
            await self.close()
            raise self._explained(error) from error
        except BaseException:
            await self.close()
            raise
        self.version = ready["engine"]

    def _explained(self, error: CoreError) -> CoreError | ModelError:
        """Return what an engine that did not start says of its weights."""
        words, name = self._child.words, self.settings.model.name
        if any(sign in "\n".join(words).lower() for sign in ("load model", "loading model", "gguf", "magic")):
            why = f"the engine cannot load {name}: {words[-1]}"
            return ModelError(why, fix="try `ponder models pull NAME --force`")
        return CoreError(f"{name}: {error}")

    def read(self) -> CpuReading:
        """Return the engine's CPU so far: loading included, and what a process that died had used."""
        return self._child.read()

    async def close(self) -> None:
        """Stop the process and remove its socket. Safe to call twice."""
        await self._child.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _ignore(_: object) -> None:
    """The engine answers over its socket; that it ended is seen there."""
