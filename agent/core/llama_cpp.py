"""The default core: llama.cpp on CPU, as a child engine that ponder starts, meters and stops.

Identical prompts travel as one request with `n`, so that the prompt is computed once. The engine's CPU is one meter for
all branches; each branch pays its share of it by the tokens it computed while the meter ran (`shared`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from ponder.core.engine import Engine, EngineSettings
from ponder.errors import CoreError
from ponder.protocols import GroupFactory
from ponder.records import Completion, CpuReading, Prompt, SamplingParams, Usage

OnDone = Callable[[int, int, Completion], None]
_PROMPT_TOKEN_WORK = 0.4
"""CPU of one prompt token relative to one decoded token (0.5B and 1.5B Q4_K_M, two cores)."""

_HALT_S = 0.03
_STILL_CPU_S = 0.01
"""An engine that was cancelled and uses more than this in `_HALT_S` is at work on a prompt."""


@dataclass
class _Sample:
    """One continuation on its way."""

    text: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[dict[str, float]] = field(default_factory=list)
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    work: float = 0.0
    """Work since the meter was last divided, in decoded tokens."""
    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0
    finish: str | None = None
    done: bool = False


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
        self._client: httpx.AsyncClient | None = None
        self._live: list[_Sample] = []
        self._lost = False  # a request found the engine dead, maybe before its exit status was seen
        self._settled = CpuReading(user_s=0.0, system_s=0.0, peak_rss_bytes=0, method="rusage")

    async def start(self) -> None:
        """Start the engine, or start it again after it died. Raises ModelError, CoreError."""
        if self._engine.running and not self._lost:
            return
        await self.close()
        await self._engine.start()
        self._lost = False
        self._settled = self._engine.read()  # loading is nobody's: it shows up as overhead
        # The server closes idle and much-used connections without a word; on a unix socket a new one costs nothing.
        transport = httpx.AsyncHTTPTransport(
            uds=self._engine.socket, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        )
        self._client = httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=None)

    async def sample(
        self, prompts: Sequence[Prompt], n: int, params: SamplingParams, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """See `Core.sample`."""
        await self.start()
        requests = [
            asyncio.ensure_future(self._request(index, prompt, n, params, on_done or _ignore))
            for index, prompt in enumerate(prompts)
        ]
        try:
            return list(await asyncio.gather(*requests))
        except BaseException:
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
            raise

    async def _request(
        self, index: int, prompt: Prompt, n: int, params: SamplingParams, on_done: OnDone
    ) -> list[Completion]:
        began = time.monotonic()
        samples = [_Sample() for _ in range(n)]
        self._live.extend(samples)
        results: dict[int, Completion] = {}

        def end(i: int, finish: str, error: str | None = None) -> None:
            if i not in results:
                results[i] = self._end(samples[i], finish, began, error)
                on_done(index, i, results[i])

        try:
            async for chunk in self._stream(_body(prompt, n, params)):
                for i in self._take(chunk, samples):
                    end(i, samples[i].finish or "stop")
        except _Refused as refusal:
            for i in range(n):
                end(i, "error", str(refusal))
        except (httpx.HTTPError, ValueError) as error:
            for i in range(n):
                end(i, "error", "the engine died")
            self._lost = True
            raise CoreError(f"the engine died in mid-answer: {error or type(error).__name__}") from error
        finally:
            for i in range(n):
                end(i, "cancelled")
            self._live = [sample for sample in self._live if sample not in samples]
        return [results[i] for i in range(n)]

    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        assert self._client is not None
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                raise _Refused(_error_text(await response.aread()))
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        raise _Refused(_error_text(line.removeprefix("data: ").encode()))
                    yield chunk
                elif line.startswith("error: "):
                    raise _Refused(_error_text(line.removeprefix("error: ").encode()))

    def _take(self, chunk: dict[str, Any], samples: list[_Sample]) -> list[int]:
        """Note what a chunk brings; return the samples that it completes (their usage has come)."""
        choices = chunk.get("choices") or []
        if progress := chunk.get("prompt_progress"):
            # Siblings share one prefill: its work is divided among them.
            fresh = (progress["processed"] - progress["cache"]) / len(samples)
            for i, sample in enumerate(samples):
                sample.tokens_in = progress["total"]
                sample.tokens_cached = progress["total"] if i else progress["cache"]
                if not sample.tokens_out:
                    sample.work = max(sample.work, fresh * _PROMPT_TOKEN_WORK)
        for choice in choices:
            sample = samples[choice["index"]]
            if piece := choice["delta"].get("content"):
                sample.text.append(piece)
                sample.tokens_out += 1
                sample.work += 1.0
            for token in (choice.get("logprobs") or {}).get("content") or ():
                sample.logprobs.append(token["logprob"])
                if others := token.get("top_logprobs"):
                    sample.alternatives.append({other["token"]: other["logprob"] for other in others})
            sample.finish = choice.get("finish_reason") or sample.finish
        if choices or "usage" not in chunk:
            return []
        return self._take_usage(chunk, samples)

    def _take_usage(self, chunk: dict[str, Any], samples: list[_Sample]) -> list[int]:
        # The final chunk of a choice names no index; choices finish one after the other, so it is the one that has
        # its finish reason and no usage yet.
        waiting = [i for i, sample in enumerate(samples) if sample.finish and not sample.done]
        if not waiting:
            return []
        sample, usage = samples[waiting[0]], chunk["usage"]
        sample.done = True
        sample.tokens_out = usage["completion_tokens"]
        return waiting[:1]

    def _end(self, sample: _Sample, finish: str, began: float, error: str | None) -> Completion:
        self._settle()
        self._live.remove(sample)
        reason = finish if finish in ("stop", "length", "cancelled", "error") else "stop"
        return Completion(
            text="".join(sample.text),
            finish_reason=reason,  # type: ignore[arg-type]
            logprobs=tuple(sample.logprobs),
            alternatives=tuple(sample.alternatives),
            usage=Usage(
                cpu_user_s=sample.cpu_user_s,
                cpu_system_s=sample.cpu_system_s,
                wall_s=time.monotonic() - began,
                peak_rss_bytes=self._settled.peak_rss_bytes,
                tokens_in=sample.tokens_in,
                tokens_out=sample.tokens_out,
                tokens_cached=sample.tokens_cached,
                method=self._settled.method,
                shared=True,
            ),
            error=error,
        )

    def _settle(self) -> None:
        """Divide what the engine used since the last time among the samples that made it work."""
        now = self._engine.read()
        user, system = now.user_s - self._settled.user_s, now.system_s - self._settled.system_s
        work = sum(sample.work for sample in self._live)
        if work > 0:
            for sample in self._live:
                share = sample.work / work
                sample.cpu_user_s += max(0.0, user) * share
                sample.cpu_system_s += max(0.0, system) * share
                sample.work = 0.0
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
        """See `Core.halt`. An engine that computes on (a prompt takes seconds) is ended; the next use starts it."""
        used = self._engine.read().cpu_s
        await asyncio.sleep(_HALT_S)
        if self._engine.read().cpu_s - used > _STILL_CPU_S:
            await self.close()

    def manifest(self) -> Mapping[str, str | int | float | bool]:
        """See `Core.manifest`."""
        settings = self._engine.settings
        return {
            "core": self.name,
            "engine": self._engine.version,
            "file": settings.model.name,
            "n_ctx": settings.n_ctx,
            "n_parallel": settings.n_parallel,
            **self._identity,
        }

    async def close(self) -> None:
        """Stop the engine. Safe to call twice."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None
        await self._engine.close()


class _Refused(Exception):
    """The engine answered with an error of its own: the request was wrong, the engine lives."""


def _ignore(_prompt: int, _sample: int, _completion: Completion) -> None:
    return None


def _body(prompt: Prompt, n: int, params: SamplingParams) -> dict[str, Any]:
    messages = [message.model_dump() for message in prompt.messages]
    if prompt.prefill:
        messages.append({"role": "assistant", "content": prompt.prefill})
    body: dict[str, Any] = {
        "messages": messages,
        "n": n,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "max_tokens": params.max_tokens,
        "stop": list(params.stop),
        "logprobs": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
    }
    if params.alternatives:
        body["top_logprobs"] = params.alternatives
    if params.grammar:
        body["grammar"] = params.grammar
    if params.seed is not None:
        body["seed"] = params.seed
    return body


def _error_text(body: bytes) -> str:
    try:
        said = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")[:300]
    error = said.get("error", said) if isinstance(said, dict) else said
    return str(error.get("message", error) if isinstance(error, dict) else error)[:300]
