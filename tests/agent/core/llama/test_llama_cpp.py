"""The managed child engine with a real model (SmolLM2-135M): the core's contract, and every way it can break."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from ponder.core.llama.engine import EngineSettings
from ponder.core.llama.llama_cpp import LlamaCppCore
from ponder.errors import CoreError, ModelError
from ponder.models import ensure
from ponder.records import Completion, Message, Prompt, SamplingParams
from ponder.sandboxes.groups import group_factory

from ..idle import idle_within

pytestmark = pytest.mark.real

PROMPT = Prompt(messages=(Message(role="user", content="Tell me a story about a lighthouse and a fish."),))
WRITES_ON = SamplingParams(max_tokens=12)


def notes(number: int, lines: int = 8, suffix: str = "") -> Prompt:
    """Return a prompt of about eleven tokens a line that begins like no other one."""
    text = " ".join(f"Note {number}-{line}: the fish swam past the stone." for line in range(lines))
    return Prompt(messages=(Message(role="user", content=f"{text} Tell me a story.{suffix}"),))


def computed(sample: Completion) -> int:
    """Return the prompt tokens that the engine computed for it."""
    return sample.usage.tokens_in - sample.usage.tokens_cached


@pytest.fixture(scope="session")
def weights() -> Path:
    return ensure("smollm2-135m")


@pytest.fixture
def cut(weights: Path, tmp_path: Path) -> Path:
    path = tmp_path / "cut.gguf"
    path.write_bytes(weights.read_bytes()[:5_000_000])
    return path


@pytest.fixture(params=["wheel", "native"])
async def core(request: pytest.FixtureRequest) -> AsyncIterator[LlamaCppCore]:
    model: Path = request.getfixturevalue("weights" if request.param == "wheel" else "native_weights")
    settings = EngineSettings(model=model, engine=request.param, n_ctx=4096, n_batch=64, cache_mib=64)
    core = LlamaCppCore(settings, group_factory(), {"model": "smollm2-135m"})
    await core.start()
    yield core
    await core.close()


Engines = Callable[[], list[psutil.Process]]


@pytest.fixture
def engines(running: Callable[[str], list[psutil.Process]]) -> Engines:
    return lambda: running("engine_child")


async def test_samples_with_counts_logprobs_and_a_bill_that_adds_up(core: LlamaCppCore) -> None:
    before = core.read().cpu_s
    done: list[tuple[int, int]] = []
    (samples,) = await core.sample([PROMPT], 3, SamplingParams(max_tokens=24), lambda p, s, _: done.append((p, s)))
    assert sorted(done) == [(0, 0), (0, 1), (0, 2)]
    for sample in samples:
        assert sample.finish_reason in ("length", "stop")
        assert 0 < sample.usage.tokens_out <= 24
        assert len(sample.logprobs) > 0
        assert all(value <= 0 for value in sample.logprobs)
        assert sample.usage.shared
    assert len({sample.text for sample in samples}) > 1
    assert sum(s.usage.tokens_in - s.usage.tokens_cached for s in samples) <= samples[0].usage.tokens_in + 8
    used = core.read().cpu_s - before
    assert sum(sample.usage.cpu_s for sample in samples) == pytest.approx(used, rel=0.1)


async def test_the_prompt_comes_from_the_cache_the_second_time(core: LlamaCppCore) -> None:
    await core.sample([notes(0)], 1, WRITES_ON)
    ((again,),) = await core.sample([notes(0)], 1, WRITES_ON)
    assert computed(again) <= 2


async def test_siblings_with_suffixes_of_their_own_share_what_they_have_in_common(core: LlamaCppCore) -> None:
    together = [notes(1, suffix=f" Call it {name}.") for name in ("Anna", "Bert", "Cora")]
    *others, first = sorted(computed(group[0]) for group in await core.sample(together, 1, WRITES_ON))
    assert first > 80
    assert max(others) < 20
    apart = [notes(2, suffix=f" Call it {name}.") for name in ("Anna", "Bert", "Cora")]
    calls = await asyncio.gather(*(core.sample([prompt], 2, WRITES_ON) for prompt in apart))
    samples = [sample for ((*samples,),) in calls for sample in samples]
    assert sum(computed(sample) for sample in samples) < 1.3 * samples[0].usage.tokens_in
    assert all(sample.finish_reason in ("stop", "length") for sample in samples)


async def test_a_node_that_is_come_back_to_after_eight_others_is_cached(core: LlamaCppCore) -> None:
    few = SamplingParams(max_tokens=2)
    for number in range(9):
        await core.sample([notes(number, lines=3)], 2, few)
    ((again,),) = await core.sample([notes(0, lines=3)], 1, few)
    assert computed(again) <= 2


async def test_what_is_kept_has_no_say_in_what_is_written(core: LlamaCppCore) -> None:
    greedy = SamplingParams(max_tokens=12, temperature=0)
    ((fresh,),) = await core.sample([notes(0)], 1, greedy)
    ((cached,),) = await core.sample([notes(0)], 1, greedy)
    assert cached.text == fresh.text


async def test_more_branches_than_the_engine_has_wait_their_turn(core: LlamaCppCore) -> None:
    calls = await asyncio.gather(core.sample([PROMPT], 18, WRITES_ON), core.sample([notes(3)], 3, WRITES_ON))
    assert [len(group) for groups in calls for group in groups] == [18, 3]
    assert {one.finish_reason for groups in calls for group in groups for one in group} <= {"stop", "length"}


async def test_as_many_branches_as_the_context_has_room_for_run_at_once(core: LlamaCppCore) -> None:
    """Sixteen long ones would fill it in mid-answer, and the engine then refuses them all."""
    room = 4096 - len(await core.tokens(PROMPT))
    assert [await core.at_once(PROMPT, SamplingParams(max_tokens=most)) for most in (12, room // 3, 9999)] == [16, 3, 1]


async def test_a_prompt_that_is_read_is_left_at_the_end_of_a_piece(core: LlamaCppCore) -> None:
    params = SamplingParams(max_tokens=4)
    call = asyncio.create_task(core.sample([notes(4, lines=40)], 1, params))
    while not core.live_computed():  # noqa: ASYNC110 - cores have no events
        await asyncio.sleep(0.005)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    while core.computing:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    settled = core.read().cpu_s
    await asyncio.sleep(0.3)
    assert core.read().cpu_s - settled < 0.05
    ((whole,),) = await core.sample([notes(4, lines=40)], 1, params)
    assert whole.finish_reason in ("stop", "length")


async def test_grammar_prefill_and_stop(core: LlamaCppCore) -> None:
    grammar = SamplingParams(max_tokens=8, grammar='root ::= " 1" | " 2"')
    ((chosen,),) = await core.sample([PROMPT.model_copy(update={"prefill": "The way is"})], 1, grammar)
    assert chosen.text in (" 1", " 2")
    ((cut,),) = await core.sample([PROMPT], 1, SamplingParams(max_tokens=64, stop=(" ",)))
    assert " " not in cut.text.strip()


async def test_cancelling_stops_the_engine_and_charges_what_was_used(core: LlamaCppCore) -> None:
    ends: list[Completion] = []
    params = SamplingParams(max_tokens=1000)
    call = asyncio.create_task(core.sample([PROMPT], 4, params, lambda _p, _s, done: ends.append(done)))
    await asyncio.sleep(1.5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert [end.finish_reason for end in ends] == ["cancelled"] * 4
    assert all(end.usage.cpu_s > 0 and end.usage.tokens_out > 0 for end in ends)
    assert await idle_within(lambda: core.read().cpu_s, 3.0), "the engine goes on after the branch was cancelled"


async def test_what_the_engine_refuses_is_an_answer_and_not_a_crash(core: LlamaCppCore) -> None:
    long = Prompt(messages=(Message(role="user", content="x " * 9000),))
    ((refused,),) = await core.sample([long], 1, SamplingParams())
    assert refused.finish_reason == "error"
    assert "context" in (refused.error or "")
    ((broken,),) = await core.sample([PROMPT], 1, SamplingParams(grammar="root ::= ("))
    assert "grammar" in (broken.error or "")
    ((fine,),) = await core.sample([PROMPT], 1, SamplingParams(max_tokens=4))
    assert fine.finish_reason == "length"


async def test_an_engine_that_is_killed_is_a_core_error_and_starts_again(core: LlamaCppCore, engines: Engines) -> None:
    call = asyncio.create_task(core.sample([PROMPT], 1, SamplingParams(max_tokens=1500)))
    await asyncio.sleep(0.7)
    spent = core.read().cpu_s
    for engine in engines():
        os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(CoreError, match="died"):
        await call
    ((again,),) = await core.sample([PROMPT], 1, SamplingParams(max_tokens=4))
    assert again.usage.tokens_out > 0
    assert core.read().cpu_s >= spent, "a restart does not forget what was used"


async def test_those_who_wait_hear_of_a_killed_engine_too(core: LlamaCppCore, engines: Engines) -> None:
    ends: list[Completion] = []
    long = SamplingParams(max_tokens=1500)
    calls = [
        asyncio.create_task(core.sample([PROMPT], 16, long, lambda _p, _s, done: ends.append(done))) for _ in range(3)
    ]
    while core.live().tokens_out < 20:  # noqa: ASYNC110 - cores have no events
        await asyncio.sleep(0.01)
    for engine in engines():
        os.kill(engine.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        died = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in died] == [CoreError] * 3
    assert [end.finish_reason for end in ends] == ["error"] * 48
    ((again,),) = await core.sample([PROMPT], 1, SamplingParams(max_tokens=4))
    assert again.usage.tokens_out > 0


async def test_closing_leaves_nothing(weights: Path, engines: Engines) -> None:
    core = LlamaCppCore(EngineSettings(model=weights, n_ctx=512), group_factory())
    await core.start()
    (engine,) = engines()
    command = " ".join(engine.cmdline())
    assert "engine_child" in command
    assert not [c for c in engine.net_connections() if c.family.name == "AF_INET"], "no port is opened"
    await core.close()
    await core.close()
    assert engines() == []


async def test_weights_that_are_cut_short(cut: Path, engines: Engines) -> None:
    core = LlamaCppCore(EngineSettings(model=cut), group_factory())
    with pytest.raises(ModelError, match=r"cut\.gguf"):
        await core.start()
    assert engines() == []
