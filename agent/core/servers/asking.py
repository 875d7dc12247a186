"""One sample asked of a chat server: what is asked, what counts of what came, and how long it may take."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from ponder.core.servers.chat import Sample
from ponder.core.servers.wire import OpenAISettings
from ponder.errors import CoreError
from ponder.records import Message, Prompt, SamplingParams, Usage

_PREAMBLE = 200
"""Characters that a model may say before it begins its turn as it was told to."""
_FENCE = re.compile(r"^[ \t]*```[\w+-]*[ \t]*\n", re.MULTILINE)
_TURN_TOKENS = 4
"""Tokens of a chat template around one message, about."""
_TOLD = "\n\nBegin your answer with exactly this text, and go on from there:\n"


@dataclass(eq=False)
class Asked(Sample):
    """One continuation on its way from a server."""

    prompt: Prompt = field(kw_only=True)
    params: SamplingParams = field(kw_only=True)
    told: bool = False
    """The server cannot begin the core's turn, so the user's turn asks for the prefill."""
    rides: bool = False
    """Its prompt is computed for another one of the same request, which pays for it."""
    lost: Usage = field(default_factory=Usage)
    """Tokens of attempts that broke: they were computed, so they are charged."""

    @property
    def as_sent(self) -> Prompt:
        """The prompt as this server gets it."""
        if not self.told or not self.prompt.prefill.strip() or not self.prompt.messages:
            return self.prompt
        *before, last = self.prompt.messages
        if last.role != "user":
            before, last = [*before, last], Message(role="user", content="")
        asked = Message(role="user", content=(last.content + _TOLD + self.prompt.prefill.strip()).lstrip())
        return Prompt(messages=(*before, asked))

    @property
    def characters(self) -> int:
        """Length of the prompt."""
        return sum(len(message.content) for message in self.as_sent.messages) + len(self.as_sent.prefill)

    def visible(self) -> str:
        """Return the text up to a stop string, without the beginning that was asked for."""
        return self._cut()[0]

    @property
    def overran(self) -> bool:
        """Whether the text goes on after a stop string: a server that knows none, or was not sent any."""
        text, stopped = self._cut()
        patience = 0 if self.told and self.prompt.prefill else 40  # characters that a server may be late
        return stopped and len("".join(self.text)) > len(text) + patience

    def _cut(self) -> tuple[str, bool]:
        text = "".join(self.text)
        mark = self.prompt.prefill.strip() if self.told else ""
        if mark:
            at = text.find(mark)
            if at >= 0:
                text = text[at + len(mark) :].removeprefix(self.prompt.prefill[len(self.prompt.prefill.rstrip()) :])
            elif mark.startswith("```"):  # its end is a fence as well: nothing ends it before it has begun
                fence = _FENCE.search(text)
                if fence is None or (not self.finish and len(text) - fence.end() < len(mark) + _PREAMBLE):
                    return text, False
                text = text[fence.end() :]
            elif len(text) < _PREAMBLE and not self.finish:
                return text, False
        ends = [place for stop in self.params.stop if (place := text.find(stop)) >= 0]
        return (text[: min(ends)], True) if ends else (text, False)

    def restart(self, *, told: bool, rides: bool) -> None:
        """Begin a new attempt. What came of the one before is gone, but stays on the bill."""
        self.lost = Usage(
            tokens_in=self.lost.tokens_in + self.tokens_in,
            tokens_cached=self.lost.tokens_cached + (self.tokens_in if self.rides else self.tokens_cached),
            tokens_out=self.lost.tokens_out + self.tokens_out,
        )
        self.text, self.logprobs, self.alternatives = [], [], []
        self.tokens_in = self.tokens_cached = self.tokens_out = 0
        self.computed, self.finish = 0.0, None
        self.told, self.rides = told, rides

    def usage(self, wall_s: float, tokens_per_char: float) -> Usage:
        """Return what it used: the server's figures, or an estimate of the prompt where it gave none."""
        tokens_in = self.tokens_in
        if not tokens_in and self.tokens_out:
            tokens_in = round(self.characters * tokens_per_char) + _TURN_TOKENS * len(self.prompt.messages)
        return Usage(
            wall_s=wall_s,
            tokens_in=tokens_in + self.lost.tokens_in,
            tokens_cached=(tokens_in if self.rides else self.tokens_cached) + self.lost.tokens_cached,
            tokens_out=self.tokens_out + self.lost.tokens_out,
            method="estimate",
        )


class Clock:
    """Ends a stream from which nothing comes. Raises CoreError on leaving the block.

    While the server speaks to another stream of the same core, this one may be waiting for its turn: a server that
    does one request at a time is alive.

    Args:
        beside: the clocks that run; this one is among them while it does.
    """

    def __init__(self, settings: OpenAISettings, beside: set[Clock]) -> None:
        self._settings, self._began_to_speak, self._beside = settings, False, beside
        self._timeout = asyncio.timeout(settings.first_token_s)

    def tick(self, chunk: dict[str, Any], spoken: bool) -> None:
        """Note a sign of life: a token, or progress with the prompt."""
        self._began_to_speak = spoken
        wait = self._settings.between_tokens_s if spoken else self._settings.first_token_s
        if spoken or chunk.get("prompt_progress"):
            self._wait(wait)
            for other in self._beside - {self}:
                if not other._began_to_speak:
                    other._wait(self._settings.first_token_s)

    def _wait(self, seconds: float) -> None:
        if not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time() + seconds)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._beside.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._beside.discard(self)
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            where, settings = self._settings.url, self._settings
            if self._began_to_speak:
                what = f"{where} stopped in mid-answer for {settings.between_tokens_s:g} s"
            else:
                what = f"{where} gave no token in {settings.first_token_s:g} s"
            raise CoreError(what) from error


