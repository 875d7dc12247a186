"""One core for several agents, each on a loop of its own: their branches are computed together, and fill its batches.

A token of thirty-two branches at once costs three quarters of what one of sixteen does (1.5B, one thread), and sixteen
are seldom still there when the last ones write: the engine of one search alone is half empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from ponder.background import BackgroundLoop
from ponder.protocols import Core
from ponder.records import Completion, CpuReading, Prompt, SamplingParams, Usage

OnDone = Callable[[int, int, Completion], None]


class SharedCore:
    """A core on a loop of its own, until it is closed.

    Args:
        make: makes the core; it is started with the first share.
        name: what the shares are called.
    """

    def __init__(self, make: Callable[[], Coroutine[Any, Any, Core]], name: str) -> None:
        self.name = name
        self.agents = 0
        self._make = make
        self._loop = BackgroundLoop("ponder-core")
        self._core: Core | None = None
        self._starting = asyncio.Lock()

    def share(self) -> Share:
        """Return a part of it, for one agent."""
        self.agents += 1
        return Share(self)

    def call(self, function: Callable[[], None]) -> None:
        """Call a function on the core's loop, after those that were called before."""
        self._loop.call(function)

    @property
    def core(self) -> Core:
        """The core, once a share of it has started."""
        assert self._core is not None, "start() comes first"
        return self._core

    async def start(self) -> None:
        """Make the core, if there is none yet, and start it. Raises CoreError, ModelError."""
        await asyncio.wrap_future(self._loop.submit(self._start()))

    async def _start(self) -> None:
        async with self._starting:
            if self._core is None:
                self._core = await self._make()
            await self._core.start()

    def close(self) -> None:
        """Stop the core. Safe to call twice."""
        core, self._core = self._core, None
        if core is not None:
            self._loop.submit(core.close()).result(timeout=30)
        self._loop.close()


class Share:
    """A part of a shared core: a `Core` for one agent.

    Its meter is what its own samples used, and knows of them when they end: a budget of CPU or tokens sees nothing of
    samples in flight. `halt` ends nothing, since others compute in the same engine.
    """

    def __init__(self, whole: SharedCore) -> None:
        self.name = whole.name
        self._whole = whole
        self._used = CpuReading(method="estimate")

    @property
    def agents(self) -> int:
        """See `Shared.agents`."""
        return self._whole.agents

    async def start(self) -> None:
        """See `Core.start`."""
        await self._whole.start()

    async def sample(
        self, prompts: Sequence[Prompt], n: int, params: SamplingParams, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """See `Core.sample`. The core works on its own loop; what ends there is told here."""
        await self.start()
        here = asyncio.get_running_loop()
        came: asyncio.Future[list[list[Completion]]] = here.create_future()
        work: list[asyncio.Task[list[list[Completion]]]] = []

        def tell(prompt: int, sample: int, done: Completion) -> None:
            here.call_soon_threadsafe(self._ended, prompt, sample, done, on_done)

        def begin() -> None:
            work.append(asyncio.ensure_future(self._whole.core.sample(prompts, n, params, tell)))
            work[0].add_done_callback(lambda task: here.call_soon_threadsafe(_pass_on, task, came))

        def end() -> None:
            work[0].cancel()

        self._whole.call(begin)
        try:
            return await asyncio.shield(came)
        except asyncio.CancelledError:
            self._whole.call(end)
            await asyncio.wait({came})  # by then every sample has been told of
            if not came.cancelled():
                came.exception()  # nobody else asks for it
            raise

    def _ended(self, prompt: int, sample: int, done: Completion, on_done: OnDone | None) -> None:
        usage = done.usage
        own = CpuReading(
            user_s=usage.cpu_user_s,
            system_s=usage.cpu_system_s,
            peak_rss_bytes=usage.peak_rss_bytes,
            method=usage.method,
        )
        self._used = self._used.plus(own)
        if on_done is not None:
            on_done(prompt, sample, done)

    def read(self) -> CpuReading:
        """See `Core.read`: what the samples that ended here used."""
        return self._used

    def live(self) -> Usage:
        """See `Core.live`: nothing is known of samples in flight."""
        return Usage()

    async def halt(self) -> None:
        """See `Core.halt`."""

    def manifest(self) -> Mapping[str, str | int | float | bool]:
        """See `Core.manifest`; `agents` says how many share it."""
        return {**self._whole.core.manifest(), "agents": self.agents}

    async def close(self) -> None:
        """See `Core.close`: the others go on."""


def _pass_on(task: asyncio.Task[list[list[Completion]]], came: asyncio.Future[list[list[Completion]]]) -> None:
    """Give a future what became of a task."""
    if came.done():
        return
    if task.cancelled():
        came.cancel()
    elif (error := task.exception()) is not None:
        came.set_exception(error)
    else:
        came.set_result(task.result())
