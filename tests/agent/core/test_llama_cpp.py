"""The managed child engine with a real model (SmolLM2-135M): the core's contract, and every way it can break."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from ponder.core.engine import EngineSettings
from ponder.core.llama_cpp import LlamaCppCore
from ponder.errors import CoreError, ModelError
from ponder.models import ensure
from ponder.records import Completion, Message, Prompt, SamplingParams
from ponder.sandboxes.groups import group_factory

pytestmark = pytest.mark.real

PROMPT = Prompt(messages=(Message(role="user", content="Tell me a story about a lighthouse and a fish."),))


@pytest.fixture(scope="session")
def weights() -> Path:
    return ensure("smollm2-135m")


@pytest.fixture
def cut(weights: Path, tmp_path: Path) -> Path:
    path = tmp_path / "cut.gguf"
    path.write_bytes(weights.read_bytes()[:5_000_000])
    return path


@pytest.fixture
async def core(weights: Path) -> AsyncIterator[LlamaCppCore]:
    core = LlamaCppCore(EngineSettings(model=weights, n_ctx=2048), group_factory(), {"model": "smollm2-135m"})
    await core.start()
    yield core
    await core.close()


def engines() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if "engine_child" in " ".join(child.cmdline())]


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
    await core.sample([PROMPT], 1, SamplingParams(max_tokens=4))
    ((again,),) = await core.sample([PROMPT], 1, SamplingParams(max_tokens=4))
    assert again.usage.tokens_cached >= again.usage.tokens_in - 2


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
    await asyncio.sleep(0.3)
    settled = core.read().cpu_s
    await asyncio.sleep(0.5)
    assert core.read().cpu_s - settled < 0.1, "the engine goes on after the branch was cancelled"


async def test_what_the_engine_refuses_is_an_answer_and_not_a_crash(core: LlamaCppCore) -> None:
    long = Prompt(messages=(Message(role="user", content="x " * 5000),))
    ((refused,),) = await core.sample([long], 1, SamplingParams())
    assert refused.finish_reason == "error"
    assert "context" in (refused.error or "")
    ((broken,),) = await core.sample([PROMPT], 1, SamplingParams(grammar="root ::= ("))
    assert "grammar" in (broken.error or "")
    ((fine,),) = await core.sample([PROMPT], 1, SamplingParams(max_tokens=4))
    assert fine.finish_reason == "length"


async def test_an_engine_that_is_killed_is_a_core_error_and_starts_again(core: LlamaCppCore) -> None:
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


async def test_closing_leaves_nothing(weights: Path) -> None:
    core = LlamaCppCore(EngineSettings(model=weights, n_ctx=512), group_factory())
    await core.start()
    (engine,) = engines()
    command = " ".join(engine.cmdline())
    assert "engine_child" in command
    assert not [c for c in engine.net_connections() if c.family.name == "AF_INET"], "no port is opened"
    await core.close()
    await core.close()
    assert engines() == []


async def test_weights_that_are_cut_short(cut: Path) -> None:
    core = LlamaCppCore(EngineSettings(model=cut), group_factory())
    with pytest.raises(ModelError, match=r"cut\.gguf"):
        await core.start()
    assert engines() == []
