"""One core for several agents, each on its own loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from ponder.core.scripted import ScriptedCore
from ponder.core.shared import SharedCore
from ponder.errors import CoreError
from ponder.protocols import Core
from ponder.records import Completion, Message, Prompt, SamplingParams, Usage

ASKED = Prompt(messages=(Message(role="user", content="q"),))


class Working(ScriptedCore):
    """A scripted core whose samples cost CPU; it says on which threads it was asked."""

    def __init__(self, *script: Any, **options: Any) -> None:
        super().__init__(*script, **options)
        self.threads: set[int] = set()
        self.closed = 0

    async def sample(self, prompts: Any, n: int, params: Any, on_done: Any = None) -> list[list[Completion]]:
        self.threads.add(threading.get_ident())

        def tell(prompt: int, sample: int, done: Completion) -> None:
            used = done.usage.model_copy(update={"cpu_user_s": 0.5, "method": "cgroup"})
            on_done(prompt, sample, done.model_copy(update={"usage": used}))

        return await super().sample(prompts, n, params, tell)

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def working() -> Working:
    return Working(lambda _, sample: f"word {sample}")


@pytest.fixture
def whole(working: Working) -> Iterator[SharedCore]:
    async def make() -> Core:
        return working

    with closing(SharedCore(make, "shared")) as made:
        yield made


def test_each_share_is_told_and_billed_for_its_own_samples_on_its_own_loop(whole: SharedCore, working: Working) -> None:
    shares = [whole.share() for _ in range(3)]
    heard: list[list[tuple[int, str]]] = [[] for _ in shares]

    async def ask(number: int) -> None:
        share = shares[number]

        asked_on = threading.get_ident()

        def tell(_: int, sample: int, done: Completion) -> None:
            assert threading.get_ident() == asked_on
            heard[number].append((sample, done.text))

        (done,) = await share.sample([ASKED], number + 1, SamplingParams(), tell)
        assert [one.text for one in done] == [f"word {i}" for i in range(number + 1)]

    threads = [threading.Thread(target=lambda i=i: asyncio.run(ask(i))) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[sample for sample, _ in one] for one in heard] == [[0], [0, 1], [0, 1, 2]]
    assert len(working.threads) == 1
    assert [share.read().cpu_s for share in shares] == [0.5, 1.0, 1.5]
    assert shares[0].manifest() == {"core": "scripted", "agents": 3}
    assert shares[0].live() == Usage()


def test_a_cancelled_call_is_ended_there_and_told_of_before_it_ends_here(whole: SharedCore, working: Working) -> None:
    working._delay_s = 5.0
    heard: list[str] = []

    async def ask() -> None:
        call = asyncio.ensure_future(
            whole.share().sample([ASKED], 2, SamplingParams(), lambda _p, _s, done: heard.append(done.finish_reason))
        )
        await asyncio.sleep(0.2)
        began = time.monotonic()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert time.monotonic() - began < 1

    asyncio.run(ask())
    assert heard == ["cancelled", "cancelled"]
    assert working._live == {}


def test_a_core_that_breaks_is_an_error_for_who_asked(whole: SharedCore, working: Working) -> None:
    working._function = None
    with pytest.raises(CoreError, match="no more lines"):
        asyncio.run(whole.share().sample([ASKED], 1, SamplingParams()))


def test_a_share_that_is_closed_leaves_the_others_their_core(whole: SharedCore, working: Working) -> None:
    first, second = whole.share(), whole.share()
    asyncio.run(first.sample([ASKED], 1, SamplingParams()))
    asyncio.run(first.close())
    asyncio.run(second.sample([ASKED], 1, SamplingParams()))
    assert working.closed == 0
    whole.close()
    whole.close()
    assert working.closed == 1
