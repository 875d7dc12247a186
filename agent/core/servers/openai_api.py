"""Any OpenAI-compatible chat server: vLLM, llama.cpp's own, Ollama, TGI, `transformers serve`, a paid service.

The core is named `openai:MODEL@http://HOST:PORT/v1`. Without `@...` the address is in OPENAI_BASE_URL; without MODEL
the server's first model is taken. The key, where one is needed, is in OPENAI_API_KEY: it is sent to that address and
written nowhere. The CPU of a remote engine is not ours to read: zero, method `estimate`. Tokens are charged and priced.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import httpx

from ponder.core.servers.asking import Asked, Clock
from ponder.core.servers.chat import (
    OnDone,
    Refused,
    Rubbish,
    all_or_none,
    completion,
    ignore,
    refusal,
    request_body,
    take,
)
from ponder.core.servers.kinds import Server, identify
from ponder.core.servers.wire import PREFIX, Again, OpenAISettings, Wire, give_up, retrying
from ponder.core.stragglers import hopeless
from ponder.errors import CoreError
from ponder.records import Completion, CpuReading, Prompt, SamplingParams, Usage

_REMOTE = CpuReading(method="estimate")
_End = Callable[[Asked, str], None]


class OpenAICore:
    """A model behind a chat server.

    Raises (from `start` and `sample`):
        CoreError: the server cannot be reached, wants another key, is too slow, or answers rubbish.
    """

    name = "openai"

    def __init__(self, settings: OpenAISettings) -> None:
        self._settings = settings
        self._model = settings.model
        self._server = Server()
        self._wire: Wire | None = None
        self._clocks: set[Clock] = set()
        self._many = True  # whether `n` choices come for one request: found out at the first that asks
        self._tokens_per_char = 0.25
        self._live: list[Asked] = []

    async def start(self) -> None:
        """Find out which server this is. Raises CoreError."""
        if self._wire is not None:
            return
        wire = Wire(self._settings)
        try:
            listed = await self._list(wire)
            self._model = self._model or _first_model(listed, self._settings.url)
            self._server = await identify(self._model, listed, wire.look)
        except BaseException:
            await wire.close()
            raise
        self._wire = wire

    async def _list(self, wire: Wire) -> dict[str, Any]:
        """Return the models that the server lists: nothing where there is no list, or one that does not work."""
        try:
            async for attempt in retrying(self._settings):
                with attempt:
                    try:
                        return await wire.get("/models", self._model) or {}
                    except Again as error:
                        # `transformers serve` without a hub cache answers so, and samples all the same.
                        if error.status != httpx.codes.INTERNAL_SERVER_ERROR or not self._model:
                            raise
        except Again as error:
            raise give_up(error, self._settings) from error
        except Refused:
            pass
        return {}

    async def sample(
        self, prompts: Sequence[Prompt], n: int, params: SamplingParams, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """See `Core.sample`."""
        await self.start()
        return await all_or_none(
            self._request(index, prompt, n, params, on_done or ignore) for index, prompt in enumerate(prompts)
        )

    async def _request(
        self, index: int, prompt: Prompt, n: int, params: SamplingParams, on_done: OnDone
    ) -> list[Completion]:
        began = time.monotonic()
        asked = [Asked(prompt=prompt, params=params) for _ in range(n)]
        results: dict[int, Completion] = {}
        self._live.extend(asked)

        def end(one: Asked, finish: str, error: str | None = None) -> None:
            i = asked.index(one)
            if i not in results:
                one.done = True
                usage = one.usage(time.monotonic() - began, self._tokens_per_char)
                results[i] = completion(one, one.visible(), usage, finish=finish, error=error)
                on_done(index, i, results[i])

        def end_all(finish: str, error: str | None = None) -> None:
            for one in asked:
                end(one, finish, error)

        try:
            if (why := refusal(prompt)) is not None:
                raise Refused(why)
            await self._some(asked, end)
        except Refused as refused:
            end_all("error", str(refused))
        except (Rubbish, Again, CoreError) as error:
            failure = self._failure(error)
            end_all("error", str(failure))
            raise failure from error
        finally:
            end_all("cancelled")
            self._live = [one for one in self._live if one not in asked]
        return [results[i] for i in range(n)]

    def _failure(self, error: Rubbish | Again | CoreError) -> CoreError:
        if isinstance(error, CoreError):
            return error
        if isinstance(error, Again):
            return give_up(error, self._settings)
        words = self._wire.clean(str(error)) if self._wire else str(error)
        fix = "is this the address of a chat server's API, with its /v1?"
        return CoreError(f"{self._settings.url} answered rubbish: {words}", fix=fix)

    async def _some(self, asked: list[Asked], end: _End) -> None:
        """Sample these: in one request where the server does several, else in one each, side by side."""
        if len(asked) > 1 and not self._many:
            async with _first_error() as tasks:
                for one in asked:
                    tasks.create_task(self._some([one], end))
            return
        async for attempt in retrying(self._settings):
            with attempt:
                todo = [one for one in asked if not one.done]
                if len(todo) > 1 and not self._many:  # that came out in the attempt before
                    break
                for place, one in enumerate(todo):
                    one.restart(told=self._server.begins == "told", rides=place > 0)
                await self._once(todo, end)
        if rest := [one for one in asked if not one.done]:
            await self._some(rest, end)

    async def _once(self, todo: list[Asked], end: _End) -> None:
        """Send one request for these samples and take what comes. Raises Again where another attempt may help."""
        async with Clock(self._settings, self._clocks) as clock, contextlib.aclosing(self._stream(todo)) as stream:
            async for chunk in stream:
                for one in take(chunk, todo, usage_each=self._server.usage_each):
                    self._learn_rate(one)
                    end(one, one.finish or "stop")
                for one in todo:
                    if not one.done and one.overran:
                        end(one, "stop")
                ended = {i for i, one in enumerate(todo) if one.done}
                tokens = [one.tokens_out for one in todo]
                for i in hopeless(tokens, lambda i: "".join(todo[i].text), ended, todo[0].params):
                    end(todo[i], "length")
                if all(one.done for one in todo):
                    return
                clock.tick(chunk, any(one.text for one in todo))
        for one in todo:
            if one.finish and not one.done:  # a server that sends no usage: what was counted holds
                end(one, one.finish)
        rest = [one for one in todo if not one.done]
        if len(rest) == len(todo) or any(one.text for one in rest):
            raise Again("the answer ended in its middle")
        self._many = False  # it answered once, whatever `n` said: the rest is asked for one by one

    async def _stream(self, todo: list[Asked]) -> AsyncGenerator[dict[str, Any], None]:
        assert self._wire is not None
        first, server = todo[0], self._server
        body = request_body(first.as_sent, len(todo), first.params) | {"model": self._model}
        if first.told and first.prompt.prefill:
            body["stop"] = []  # they would also end what the model says before it begins as it was told to
        if not body["stop"]:
            del body["stop"]
        body = server.fit(body, first.params.grammar)

        def refused(words: str) -> bool:
            if len(todo) > 1 and re.search(r"\bn\b", words):
                self._many = False
                return True
            return server.learn(body, words)

        async with contextlib.aclosing(self._wire.ask(body, refused)) as answer:
            async for chunk in answer:
                yield chunk

    def _learn_rate(self, one: Asked) -> None:
        if one.tokens_in and (characters := one.characters):
            self._tokens_per_char = one.tokens_in / characters

    def read(self) -> CpuReading:
        """See `Core.read`: the engine runs elsewhere."""
        return _REMOTE

    def live(self) -> Usage:
        """See `Core.live`."""
        rows = [one.usage(0.0, self._tokens_per_char) for one in self._live if not one.done]
        return Usage(
            tokens_in=sum(row.tokens_in for row in rows),
            tokens_cached=sum(row.tokens_cached for row in rows),
            tokens_out=sum(row.tokens_out for row in rows),
        )

    async def halt(self) -> None:
        """See `Core.halt`: the streams are closed already, and no more can be done from here."""

    def manifest(self) -> Mapping[str, str | int | float | bool]:
        """See `Core.manifest`."""
        server = self._server
        about = {"core": self.name, "model": self._model, "engine": server.engine, "server": self._settings.url}
        return {**about, "prefill": server.begins, "grammar": server.grammar or "none", **server.facts}

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        if self._wire is not None:
            wire, self._wire = self._wire, None
            await wire.close()


@contextlib.asynccontextmanager
async def _first_error() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group that raises the first error itself instead of a group."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


def _first_model(listed: Mapping[str, Any], url: str) -> str:
    names = [str(entry["id"]) for entry in listed.get("data") or () if isinstance(entry, dict) and "id" in entry]
    if not names:
        raise CoreError(f"{url} lists no models", fix=f"name one: {PREFIX}MODEL@{url}")
    return names[0]
