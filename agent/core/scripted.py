"""The scripted core: a deterministic test double that answers from a list or a function.

For unit tests, ponder's and yours. It burns no CPU and loads nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from ponder.errors import CoreError
from ponder.records import Completion, CpuReading, Prompt, SamplingParams, Usage

Script = Callable[[Prompt, int], str]
"""Given the prompt and the sample's index, return the text."""


class ScriptedCore:
    """Answers each sample with the next line of a script, or with what a function says.

    Args:
        script: texts in the order in which they are asked for, or a function of (prompt, sample index).
        delay_s: seconds each sample takes, one after the other (for tests of cancelling).

    Raises (from `sample`):
        CoreError: the list is used up.
    """

    name = "scripted"

    def __init__(self, script: Iterable[str] | Script, *, delay_s: float = 0.0) -> None:
        self._function = script if callable(script) else None
        self._lines = iter(()) if callable(script) else iter(script)
        self._delay_s = delay_s
        self.prompts: list[Prompt] = []
        """Every prompt sampled so far, for tests to look at."""

    async def start(self) -> None:
        """Nothing to do."""

    async def sample(
        self,
        prompts: Sequence[Prompt],
        n: int,
        params: SamplingParams,
        on_done: Callable[[int, int, Completion], None] | None = None,
    ) -> list[list[Completion]]:
        """See `Core.sample`."""
        results: list[list[Completion]] = [[] for _ in prompts]
        todo = [(p, i) for p in range(len(prompts)) for i in range(n)]
        self.prompts.extend(prompts)
        try:
            for p, i in list(todo):
                await asyncio.sleep(self._delay_s)
                done = self._complete(prompts[p], i, params)
                results[p].append(done)
                todo.remove((p, i))
                if on_done:
                    on_done(p, i, done)
        except asyncio.CancelledError:
            for p, i in todo:
                if on_done:
                    on_done(p, i, Completion(text="", finish_reason="cancelled"))
            raise
        return results

    def _complete(self, prompt: Prompt, index: int, params: SamplingParams) -> Completion:
        if self._function is not None:
            text = self._function(prompt, index)
        else:
            line = next(self._lines, None)
            if line is None:
                raise CoreError("the scripted core has no more lines", fix="add lines to its script")
            text = line
        for mark in params.stop:
            text = text.partition(mark)[0]
        words_in = sum(len(m.content.split()) for m in prompt.messages)
        words = len(text.split())
        usage = Usage(tokens_in=words_in, tokens_out=words, method="estimate")
        return Completion(text=text, finish_reason="stop", logprobs=(-0.1,) * words, usage=usage)

    def read(self) -> CpuReading:
        """The scripted core runs in this process: nothing of its own."""
        return CpuReading(user_s=0.0, system_s=0.0, peak_rss_bytes=0, method="estimate")

    def manifest(self) -> Mapping[str, str | int | float | bool]:
        """See `Core.manifest`."""
        return {"core": "scripted"}

    async def close(self) -> None:
        """Nothing to do."""
