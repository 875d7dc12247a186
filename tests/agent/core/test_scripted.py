"""The scripted core keeps the core's contract."""

from __future__ import annotations

import asyncio

import pytest

from ponder.core.scripted import ScriptedCore
from ponder.errors import CoreError
from ponder.records import Completion, Message, Prompt, SamplingParams

PROMPT = Prompt(messages=(Message(role="user", content="q"),))


async def test_lines_in_order_and_stops() -> None:
    core = ScriptedCore(["one\ntwo", "three"])
    (samples,) = await core.sample([PROMPT], 2, SamplingParams(stop=("\n",)))
    assert [sample.text for sample in samples] == ["one", "three"]
    with pytest.raises(CoreError, match="no more lines"):
        await core.sample([PROMPT], 1, SamplingParams())


async def test_cancelled_samples_are_reported_once() -> None:
    core = ScriptedCore(lambda _prompt, _sample: "x", delay_s=0.05)
    ends: list[tuple[int, str]] = []

    def on_done(_prompt: int, sample: int, completion: Completion) -> None:
        ends.append((sample, completion.finish_reason))

    call = asyncio.create_task(core.sample([PROMPT], 4, SamplingParams(), on_done))
    await asyncio.sleep(0.08)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ends == [(0, "stop"), (1, "cancelled"), (2, "cancelled"), (3, "cancelled")]
