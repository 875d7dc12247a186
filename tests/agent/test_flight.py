"""Samples in flight: harvested in the order of asking, cancelled and charged once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import pytest

from ponder.errors import CoreError
from ponder.flight import Flight
from ponder.prompting import StepRequest
from ponder.records import Completion, CpuReading, Message, Prompt, SamplingParams


def request(text: str) -> StepRequest:
    return StepRequest(prompt=Prompt(messages=(Message(role="user", content=text),)), params=SamplingParams())


class TimedCore:
    """Each prompt's text says after how many hundredths of a second its sample ends."""

    name = "timed"

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    async def start(self) -> None: ...

    async def sample(
        self,
        prompts: Sequence[Prompt],
        n: int,
        params: SamplingParams,  # noqa: ARG002
        on_done: Callable[[int, int, Completion], None] | None = None,
    ) -> list[list[Completion]]:
        text = prompts[0].messages[0].content
        self.calls.append((text, n))
        assert on_done is not None
        try:
            if text in ("dies", "refuses"):
                for i in range(n):
                    on_done(0, i, Completion(text="", finish_reason="error", error=text))
                if text == "dies":
                    raise CoreError("gone")
                return []
            await asyncio.sleep(int(text) / 100)
        except asyncio.CancelledError:
            for i in range(n):
                on_done(0, i, Completion(text="", finish_reason="cancelled"))
            raise
        for i in range(n):
            on_done(0, i, Completion(text=text, finish_reason="stop"))
        return []

    def read(self) -> CpuReading:
        raise AssertionError

    def manifest(self) -> Mapping[str, str]:
        return {}

    async def close(self) -> None: ...


async def test_the_oldest_comes_first_even_when_it_is_slow() -> None:
    done: list[int] = []
    flight = Flight(TimedCore(), lambda node, _: done.append(node))
    flight.submit([(1, request("6")), (2, request("1")), (3, request("30"))])
    assert [one.node for one in await flight.harvest()] == [1, 2]
    assert done == [2, 1]
    assert 3 in flight
    assert len(flight) == 1
    assert await flight.cancel() == [3]
    assert done == [2, 1, 3]
    assert await flight.harvest() == []


async def test_equal_requests_share_one_call() -> None:
    core = TimedCore()
    flight = Flight(core, lambda *_: None)
    flight.submit([(1, request("1")), (2, request("1")), (3, request("2"))])
    while len(flight):
        await flight.harvest()
    assert core.calls == [("1", 2), ("2", 1)]


async def test_what_siblings_of_a_lost_sample_came_to_can_be_had() -> None:
    flight = Flight(TimedCore(), lambda *_: None)
    flight.submit([(1, request("dies")), (2, request("1")), (3, request("99"))])
    with pytest.raises(CoreError, match="gone"):
        await flight.harvest()
    await asyncio.sleep(0.1)
    assert [(one.node, one.completion.text) for one in flight.finished()] == [(2, "1")]
    assert await flight.cancel() == [3]


async def test_a_core_that_dies_is_heard_of() -> None:
    flight = Flight(TimedCore(), lambda *_: None)
    flight.submit([(1, request("dies"))])
    with pytest.raises(CoreError, match="gone"):
        await flight.harvest()
    assert len(flight) == 0
    flight.submit([(2, request("refuses"))])
    (refused,) = await flight.harvest()
    assert refused.completion.error == "refuses", "the core lives, and what it says of a sample is the sample's"
