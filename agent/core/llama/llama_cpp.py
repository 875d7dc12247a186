"""The default core: llama.cpp on CPU, as a child engine that ponder starts, meters and stops.

What prompts have in common is computed once (`prefixes`); identical ones travel as one request with `n` and also share
their prompt's memory. The engine's CPU is one meter for all branches; each branch pays its share of it by the tokens it
computed while the meter ran (`shared`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx

from ponder.core.llama.engine import Engine, EngineSettings
from ponder.core.llama.llama_http import LlamaServer
from ponder.core.llama.prefixes import Prefixes
from ponder.core.llama.sizes import read_facts
from ponder.core.llama.slots import Slots
from ponder.core.servers.chat import (
    OnDone,
    Refused,
    Rubbish,
    Sample,
    all_or_none,
    completion,
    ignore,
    refusal,
    take,
)
from ponder.core.stragglers import hopeless
from ponder.errors import CoreError
from ponder.protocols import GroupFactory
from ponder.records import Completion, CpuReading, Prompt, SamplingParams, Usage

_PROMPT_TOKEN_WORK = 0.4
"""CPU of one prompt token relative to one decoded token (0.5B and 1.5B Q4_K_M, two cores)."""

_PATIENCE_S = 0.2
"""How long a halted engine may compute on: two decode steps, about."""
_DIED = "the engine died"


@dataclass(eq=False)  # two samples may say the same
class _Metered(Sample):
    """A sample that pays its share of the engine's meter."""

    settled: float = 0.0
    """Work that the meter was divided by already."""
    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0

    def read(self, tokens: int, held: int, fresh: float) -> None:
        """Note a piece of its prompt: what the engine held when it began, and what it computed."""
        if not self.tokens_in:
            self.tokens_in, self.tokens_cached = tokens, held
        self.computed += fresh

    @property
    def work(self) -> float:
        """What it made the engine compute, in decoded tokens."""
        return self.tokens_out + self.computed * _PROMPT_TOKEN_WORK


class _Desk:
    """What stands between the core and one engine that runs: its server, its slots, and what it has computed."""

    def __init__(self, engine: Engine) -> None:
        self.lost = False  # a request found the engine dead, maybe before its exit status was seen
        settings = engine.settings
        assert settings.n_ctx, "an engine's settings are complete"
        assert settings.n_batch, "an engine's settings are complete"
        self.cells = settings.n_ctx
        self.server = LlamaServer(engine.socket)
        self.slots = Slots(settings.n_parallel, self.cells, self.server.empty)
        self.prefixes = Prefixes(
            self.server,
            engine.states,
            limit_bytes=(settings.cache_mib or 0) * 2**20,
            token_bytes=read_facts(settings.model).cache_bytes,
            piece=max(1, settings.n_batch // 2),
        )

    async def close(self) -> None:
        """Let go of the engine."""
        await self.slots.close()
        await self.server.close()


class LlamaCppCore:
    """A GGUF model in llama.cpp.

    Args:
        settings: the model file and how the engine is set up.
        group_factory: makes the process group that meters and ends the engine.
        identity: what the registry knows of the model (name, digest), for the manifest.
    """

    name = "llama_cpp"

    def __init__(
        self, settings: EngineSettings, group_factory: GroupFactory, identity: Mapping[str, str] | None = None
    ) -> None:
        self._engine = Engine(settings, group_factory)
        self._identity = dict(identity or {})
        self._desk: _Desk | None = None
        self._starting = asyncio.Lock()
        self._live: list[_Metered] = []
        self._in_prompt = False  # what was cancelled last had not begun to write
        self._settled = CpuReading(method="rusage")

    async def start(self) -> None:
        """Start the engine, or start it again after it died. Raises ModelError, CoreError."""
        async with self._starting:  # all whose engine died come at once
            if self._engine.running and self._desk is not None and not self._desk.lost:
                return
            await self.close()
            await self._engine.start()
            self._in_prompt = False
            self._settled = self._engine.read()  # loading is nobody's: it shows up as overhead
            self._desk = _Desk(self._engine)

    async def sample(
        self, prompts: Sequence[Prompt], n: int, params: SamplingParams, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """See `Core.sample`."""
        await self.start()
        return await all_or_none(
            self._samples(index, prompt, n, params, on_done or ignore) for index, prompt in enumerate(prompts)
        )

    async def _samples(
        self, index: int, prompt: Prompt, n: int, params: SamplingParams, on_done: OnDone
    ) -> list[Completion]:
        """Sample one prompt, at most as many at once as the engine has branches, and room for if all grow long."""
        most = await self.at_once(prompt, params)
        parts = [range(first, min(n, first + most)) for first in range(0, n, most)]
        ended = await all_or_none(self._request(index, part, prompt, params, on_done) for part in parts)
        return [completion for part in ended for completion in part]

    async def at_once(self, prompt: Prompt, params: SamplingParams) -> int:
        """Return how many samples of a prompt run at once: no more than the context has room for, were all long."""
        most, desk = self._engine.settings.n_parallel, self._desk
        if desk is None or refusal(prompt) is not None:
            return most
        try:
            room = desk.cells - len(await desk.server.tokens(prompt))
        except (Refused, Rubbish, httpx.HTTPError):
            return most  # the request will say so
        return max(1, min(most, room // max(1, params.max_tokens)))

    async def _request(
        self, index: int, numbers: range, prompt: Prompt, params: SamplingParams, on_done: OnDone
    ) -> list[Completion]:
        began, desk = time.monotonic(), self._desk
        if desk is None:
            raise CoreError("the core was closed")
        samples = [_Metered() for _ in numbers]
        self._settle()
        self._live.extend(samples)
        results: dict[int, Completion] = {}

        def end(i: int, finish: str, error: str | None = None) -> None:
            if i not in results:
                results[i] = self._end(samples[i], finish, began, error)
                on_done(index, numbers[i], results[i])

        try:
            if (why := refusal(prompt)) is not None:
                raise Refused(why)
            if params.seed is not None:  # the engine counts on from it for each sample
                params = params.model_copy(update={"seed": params.seed + numbers[0]})
            async with aclosing(self._ends(desk, prompt, samples, params)) as ends:
                async for i, finish in ends:
                    end(i, finish)
        except Refused as refused:
            for i in range(len(samples)):
                end(i, "error", str(refused))
        except (httpx.HTTPError, Rubbish) as error:
            desk.lost = True
            for i in range(len(samples)):
                end(i, "error", _DIED)
            raise CoreError(f"{_DIED} in mid-answer: {error or type(error).__name__}") from error
        finally:
            for i in range(len(samples)):
                end(i, *(("error", _DIED) if desk.lost else ("cancelled",)))
            self._live = [sample for sample in self._live if sample not in samples]
        return [results[i] for i in range(len(samples))]

    async def _ends(
        self, desk: _Desk, prompt: Prompt, samples: Sequence[_Metered], params: SamplingParams
    ) -> AsyncGenerator[tuple[int, str]]:
        """Yield each sample's place as it ends, and why it ended."""
        ended: set[int] = set()
        async with aclosing(self._write(desk, prompt, samples, params)) as stream:
            async for chunk in stream:
                for sample in take(chunk, samples, usage_each=True):
                    ended.add(samples.index(sample))
                    yield samples.index(sample), sample.finish or "stop"
                tokens = [sample.tokens_out for sample in samples]
                if over := hopeless(tokens, lambda i: "".join(samples[i].text), ended, params):
                    for i in over:
                        yield i, "length"
                    return

    async def _write(
        self, desk: _Desk, prompt: Prompt, samples: Sequence[_Metered], params: SamplingParams
    ) -> AsyncGenerator[dict[str, Any]]:
        """Wait for a slot, fill it with the prompt, and yield the chunks of the stream that goes on from there."""
        tokens = await desk.server.tokens(prompt)
        if len(tokens) >= desk.cells:
            raise Refused(f"the prompt has {len(tokens)} tokens, and the core's context has room for {desk.cells}")

        def computed(held: int, fresh: int) -> None:
            for i, sample in enumerate(samples):
                sample.read(len(tokens), len(tokens) if i else held, fresh / len(samples))

        async with desk.slots.taken(len(samples), len(tokens) + len(samples) * params.max_tokens) as slot:
            await desk.prefixes.fill(slot, tokens, computed)
            before = 0
            async with aclosing(desk.server.write(slot, tokens, len(samples), params)) as stream:
                async for chunk in stream:
                    if progress := chunk.pop("prompt_progress", None):
                        fresh = progress["processed"] - progress["cache"]
                        computed(progress["cache"], fresh - before)
                        before = fresh
                    yield chunk

    def live_computed(self) -> float:
        """Return the prompt tokens that were computed for all samples in flight. Cheap."""
        return sum(sample.computed for sample in self._live)

    @property
    def computing(self) -> int:
        """Branches that have a place in the engine: those too that were cancelled, until it has left them."""
        return self._desk.slots.busy if self._desk is not None else 0

    async def tokens(self, prompt: Prompt) -> list[int]:
        """Return the tokens that the engine makes of a prompt. Raises CoreError."""
        await self.start()
        assert self._desk is not None
        try:
            return await self._desk.server.tokens(prompt)
        except (Refused, Rubbish, httpx.HTTPError) as error:
            raise CoreError(f"the engine made no tokens of the prompt: {error}") from error

    def _end(self, sample: _Metered, finish: str, began: float, error: str | None) -> Completion:
        self._settle()
        self._live.remove(sample)
        # An engine that writes hears of it after the token it is at; one that reads a prompt, after a part of that.
        self._in_prompt = finish == "cancelled" and (self._in_prompt or not sample.tokens_out)
        usage = Usage(
            cpu_user_s=sample.cpu_user_s,
            cpu_system_s=sample.cpu_system_s,
            wall_s=time.monotonic() - began,
            peak_rss_bytes=self._settled.peak_rss_bytes,
            tokens_in=sample.tokens_in,
            tokens_out=sample.tokens_out,
            tokens_cached=sample.tokens_cached,
            method=self._settled.method,
            shared=True,
        )
        return completion(sample, "".join(sample.text), usage, finish=finish, error=error)

    def _settle(self) -> None:
        """Divide what the engine used since the last time among the samples that made it work."""
        now = self._engine.read()
        user, system = now.user_s - self._settled.user_s, now.system_s - self._settled.system_s
        fresh = {id(sample): max(0.0, sample.work - sample.settled) for sample in self._live}
        if self._live:
            work = sum(fresh.values())
            for sample in self._live:
                # Nothing is told of a prompt before its first part is computed: then all who wait share alike.
                share = fresh[id(sample)] / work if work else 1 / len(self._live)
                sample.cpu_user_s += max(0.0, user) * share
                sample.cpu_system_s += max(0.0, system) * share
                sample.settled = sample.work
        self._settled = now

    def read(self) -> CpuReading:
        """See `Core.read`."""
        return self._engine.read()

    def live(self) -> Usage:
        """See `Core.live`."""
        return Usage(
            tokens_in=sum(sample.tokens_in for sample in self._live),
            tokens_cached=sum(sample.tokens_cached for sample in self._live),
            tokens_out=sum(sample.tokens_out for sample in self._live),
            method=self._settled.method,
            shared=True,
        )

    async def halt(self) -> None:
        """See `Core.halt`. An engine that computes on (a piece of a prompt) is ended; the next use starts it."""
        if self._in_prompt and self._desk is not None and not await self._desk.slots.idle(_PATIENCE_S):
            await self.close()

    def manifest(self) -> Mapping[str, str | int | float | bool]:
        """See `Core.manifest`."""
        return {
            "core": self.name,
            "file": self._engine.settings.model.name,
            **self._engine.facts(),
            **self._identity,
        }

    async def close(self) -> None:
        """Stop the engine. Safe to call twice."""
        desk, self._desk = self._desk, None
        if desk is not None:
            await desk.close()
        await self._engine.close()
