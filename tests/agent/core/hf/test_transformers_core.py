"""The transformers core as a child process, on a tiny model: the core's contract, and how it breaks."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from ponder.core.hf.transformers_core import TransformersCore, TransformersSettings
from ponder.errors import CoreError, ModelError
from ponder.records import Completion, Message, Prompt, SamplingParams
from ponder.sandboxes.groups import group_factory

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]  # each engine imports torch: seconds

PROMPT = Prompt(messages=(Message(role="user", content="Tell me of the sea."),))
LONG = Prompt(messages=(Message(role="user", content="the sea " * 120),))


def make(folder: Path, **settings: Any) -> TransformersCore:
    return TransformersCore(TransformersSettings(model=folder, threads=1, **settings), group_factory())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def core(tiny_model: Path) -> AsyncIterator[TransformersCore]:
    core = make(tiny_model)
    await core.start()
    yield core
    await core.close()


async def until(core: TransformersCore, tokens: int) -> None:
    """Wait until so many tokens are written."""
    while core.live().tokens_out < tokens:  # noqa: ASYNC110 - the core reports counts, no events
        await asyncio.sleep(0.02)


Engines = Callable[[], list[psutil.Process]]


@pytest.fixture
def engines(running: Callable[[str], list[psutil.Process]]) -> Engines:
    return lambda: running("transformers_child")


async def test_samples_with_counts_logprobs_and_a_bill_that_adds_up(core: TransformersCore) -> None:
    before = core.read().cpu_s
    done: list[tuple[int, int]] = []
    params = SamplingParams(max_tokens=24, alternatives=2)
    both = await core.sample([PROMPT, LONG], 3, params, lambda p, s, _: done.append((p, s)))
    assert sorted(done) == [(p, s) for p in range(2) for s in range(3)]
    for samples in both:
        for sample in samples:
            assert sample.finish_reason in ("length", "stop")
            assert 0 < sample.usage.tokens_out == len(sample.logprobs) == len(sample.alternatives) <= 24
            assert all(value <= 0 for value in sample.logprobs)
            assert sample.usage.shared
        assert len({sample.text for sample in samples}) == 3
        assert sum(s.usage.tokens_in - s.usage.tokens_cached for s in samples) <= samples[0].usage.tokens_in
    used = core.read().cpu_s - before
    assert sum(s.usage.cpu_s for samples in both for s in samples) == pytest.approx(used, rel=0.15, abs=0.05)
    assert core.live().tokens_out == 0


async def test_the_prompt_comes_from_the_cache_the_second_time(core: TransformersCore) -> None:
    await core.sample([LONG], 1, SamplingParams(max_tokens=4))
    ((again,),) = await core.sample([LONG], 1, SamplingParams(max_tokens=4))
    assert again.usage.tokens_cached == again.usage.tokens_in - 1


async def test_grammar_prefill_stop_and_seed(core: TransformersCore) -> None:
    grammar = SamplingParams(max_tokens=30, grammar='root ::= " one" | " two"')
    (chosen,) = await core.sample([PROMPT.model_copy(update={"prefill": "The way is"})], 4, grammar)
    assert {sample.text for sample in chosen} <= {" one", " two"}
    seeded = SamplingParams(max_tokens=12, seed=4)
    first, again = await core.sample([PROMPT], 2, seeded), await core.sample([PROMPT], 2, seeded)
    assert [s.text for s in first[0]] == [s.text for s in again[0]]


async def test_what_is_refused_is_an_answer_and_not_a_crash(core: TransformersCore) -> None:
    huge = Prompt(messages=(Message(role="user", content="x " * 2000),))
    (refused,), (fine,) = await core.sample([huge, PROMPT], 1, SamplingParams(max_tokens=4))
    assert refused.finish_reason == "error"
    assert "context holds 1024" in (refused.error or "")
    assert fine.error is None
    ((broken,),) = await core.sample([PROMPT], 1, SamplingParams(grammar="root ::= ("))
    assert "grammar" in (broken.error or "")


async def test_cancelling_ends_the_samples_and_charges_what_was_used(core: TransformersCore, engines: Engines) -> None:
    ends: list[Completion] = []
    params = SamplingParams(max_tokens=700)
    call = asyncio.create_task(core.sample([LONG], 16, params, lambda *end: ends.append(end[2])))
    await until(core, 40)
    live = core.live()
    assert live.tokens_in > 16 * 200
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert len(ends) == 16
    cancelled = [end for end in ends if end.finish_reason == "cancelled"]
    assert len(cancelled) > 8
    assert all(end.usage.cpu_s > 0 and end.usage.tokens_out > 0 for end in ends)
    settled = core.read().cpu_s
    await asyncio.sleep(0.5)
    assert core.read().cpu_s - settled < 0.1, "the engine goes on after the branch was cancelled"
    await core.halt()
    assert len(engines()) == 1, "an idle process is left alone"


async def test_calls_side_by_side(core: TransformersCore) -> None:
    params = [SamplingParams(max_tokens=4 + i, seed=i) for i in range(5)]
    all_ = await asyncio.gather(*(core.sample([PROMPT, LONG], 2, one) for one in params))
    for one, both in zip(params, all_, strict=True):
        assert all(s.usage.tokens_out <= one.max_tokens for samples in both for s in samples)


async def test_the_manifest_says_what_ran(core: TransformersCore) -> None:
    manifest = core.manifest()
    assert manifest["dtype"] in ("float32", "bfloat16", "float16")
    assert {"core", "model", "sha256", "device", "torch", "engine", "n_ctx"} <= manifest.keys()
    assert manifest["n_ctx"] == 1024


async def test_a_process_that_is_killed_is_a_core_error_and_starts_again(
    core: TransformersCore, engines: Engines
) -> None:
    ends: list[Completion] = []
    params = SamplingParams(max_tokens=700)
    call = asyncio.create_task(core.sample([LONG], 8, params, lambda *end: ends.append(end[2])))
    await until(core, 16)
    spent = core.read().cpu_s
    for engine in engines():
        os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(CoreError, match="died in mid-answer"):
        await call
    assert len(ends) == 8
    ((again,),) = await core.sample([PROMPT], 1, SamplingParams(max_tokens=4))
    assert again.usage.tokens_out > 0
    assert core.read().cpu_s >= spent, "a restart does not forget what was used"


async def test_a_model_without_chat_template_and_one_that_lacks_weights(
    tiny_model: Path, tmp_path: Path, engines: Engines
) -> None:
    from safetensors.torch import load_file, save_file

    bare = Path(shutil.copytree(tiny_model, tmp_path / "bare"))
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        await make(bare).start()
    tensors = load_file(bare / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, bare / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(tiny_model / "chat_template.jinja", bare)
    with pytest.raises(ModelError, match="lacks 1 of its weights"):
        await make(bare).start()
    assert len(engines()) <= 1


async def test_closing_leaves_nothing(tiny_model: Path, engines: Engines) -> None:
    before = len(engines())
    core = make(tiny_model)
    await core.start()
    assert len(engines()) == before + 1
    await core.close()
    await core.close()
    assert len(engines()) == before
