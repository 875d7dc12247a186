"""The managed child engine: start it, wait until it is ready, meter it, stop it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Literal

from ponder.core.child import Child
from ponder.core.llama.native import BUILD, Native, choice, choose
from ponder.core.llama.sizes import context_tokens, memory_folder, read_facts, state_mib
from ponder.errors import CoreError, ModelError
from ponder.locked_folder import LockedFolder
from ponder.machine import available_memory, compute_threads
from ponder.protocols import GroupFactory
from ponder.records import CpuReading, Record

_START_TIMEOUT_S = 180.0
_MOST_THREADS = 16
_BATCH_PER_THREAD, _LEAST_BATCH, _MOST_BATCH = 32, 64, 512
"""A batch takes about as long on any machine, so that a prompt that is cancelled is left as soon."""
_SLOTS_PER_BRANCH = 2


class EngineSettings(Record):
    """How the engine is set up. What is None is chosen from the machine and the model file (`sized`)."""

    model: Path
    engine: Literal["auto", "native", "wheel"] = "auto"
    """`auto`: what PONDER_ENGINE says, else the native one if there is one for this CPU, else the wheel's."""
    threads: int | None = None
    """Compute threads; None: the physical cores this process may use, sixteen at most."""
    n_ctx: int | None = None
    """Tokens of context, shared by all branches (one unified KV cache)."""
    n_parallel: int = 16
    """Branches decoded together."""
    n_batch: int | None = None
    """Prompt tokens computed at once; few enough that a cancelled prefill ends soon."""
    cache_mib: int | None = None
    """Memory for the states of prompts that may come back, MiB (`prefixes`)."""
    repack: bool = True
    """Lay the weights out anew for this CPU when they are loaded: most of a CPU-second, a sixth off each token."""

    def sized(self) -> EngineSettings:
        """Return these settings with nothing left open. Reads the head of the model file."""
        threads = self.threads or min(_MOST_THREADS, compute_threads())
        batch = self.n_batch or min(_MOST_BATCH, max(_LEAST_BATCH, _BATCH_PER_THREAD * threads))
        n_batch = max(batch, _SLOTS_PER_BRANCH * self.n_parallel)  # the engine ends where a batch lacks room for all
        n_ctx = self.n_ctx or context_tokens(read_facts(self.model), available_memory())
        cache_mib = state_mib(available_memory()) if self.cache_mib is None else self.cache_mib
        chosen = {"threads": threads, "n_batch": n_batch, "n_ctx": n_ctx, "cache_mib": cache_mib}
        return self.model_copy(update=chosen)


class Engine:
    """One llama.cpp server in a child process, reachable over a unix socket in a 0700 directory.

    Raises (from `start`):
        ModelError: the weights cannot be loaded.
        CoreError: the process died or did not get ready in time.
    """

    def __init__(self, settings: EngineSettings, group_factory: GroupFactory) -> None:
        self.settings = settings.sized()
        self.version = "unknown"
        self.note = ""
        """Why it is not the engine that was to be expected; empty: it is."""
        self._child = Child("ponder.core.llama.engine_child", group_factory, on_message=_ignore, on_end=_ignore)
        self._folder: Path | None = None
        self._states: LockedFolder | None = None

    @property
    def states(self) -> Path:
        """Folder in memory where it saves the states of its slots."""
        assert self._states is not None, "start() comes first"
        return self._states.path

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
        native = self._native()
        if native is None:
            return await self._start(None)
        try:
            await self._start(native)
        except CoreError as error:
            if self._wanted() == "native":
                raise
            await self._start(None)
            self.note = f"the native engine did not start ({error}): the wheel's serves; {BUILD} builds it anew"
        return None

    def _wanted(self) -> str:
        return choice() if self.settings.engine == "auto" else self.settings.engine

    def _native(self) -> Native | None:
        """Return the native engine, or None for the wheel's. Raises NoNative where no other will do, UsageError."""
        self.note = ""
        chosen = choose(self._wanted())
        self.note = chosen.note
        return chosen.native

    async def _start(self, native: Native | None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ponder-core-"))  # mkdtemp makes it 0700
        self._states = LockedFolder("ponder-states-", Path(memory_folder() or tempfile.gettempdir()))
        # Half of its slots are for the requests that name theirs: the others of an `n` take the lowest free ones.
        slots = _SLOTS_PER_BRANCH * self.settings.n_parallel
        own = {"socket": self.socket, "slot_save_path": f"{self.states}/", "n_parallel": slots}
        settings = self.settings.model_dump(mode="json") | own
        if native is not None:
            settings |= {"native": str(native.path), "version": native.version}
        try:
            ready = await self._child.start(settings, timeout_s=_START_TIMEOUT_S)
        except CoreError as error:
            await self.close()
            raise self._explained(error) from error
        except BaseException:
            await self.close()
            raise
        self.version = ready["engine"]

    def facts(self) -> dict[str, str | int | bool]:
        """Return what the manifest says of it."""
        sizes = self.settings.model_dump(include={"threads", "n_ctx", "n_parallel", "n_batch", "cache_mib", "repack"})
        return {"engine": self.version} | sizes | ({"engine_note": self.note} if self.note else {})

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
        if self._states is not None:
            self._states.remove()


def _ignore(_: object) -> None:
    """The engine answers over its socket; that it ended is seen there."""
