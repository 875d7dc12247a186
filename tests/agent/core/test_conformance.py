"""What every core keeps to: one list of checks, and one list of backends that pass it.

A backend with a real model is asked for more than the scripted core: `can` says what. The cassette passes the checks
twice, in its own way: once while it records another core, and once more replaying what it recorded.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
import pytest_asyncio
from pydantic import SecretStr

from ponder.core.cassettes.cassette import CassetteCore
from ponder.core.llama.engine import EngineSettings
from ponder.core.llama.llama_cpp import LlamaCppCore
from ponder.core.scripted import ScriptedCore
from ponder.core.servers.openai_api import OpenAICore
from ponder.core.servers.wire import OpenAISettings
from ponder.errors import CoreError
from ponder.protocols import Core
from ponder.records import Completion, Message, Prompt, SamplingParams
from ponder.sandboxes.groups import group_factory

from .idle import idle_within

STORY = "Tell me a story about a lighthouse and a fish."
SOON_S = 2.0
"""A cancelled call is over by then, also on a machine that does other work; `benchmarks/` has the figures."""

MODEL = frozenset({"model", "logprobs", "alternatives", "context", "cache", "grammar", "prefill", "stops computing"})


@dataclass
class Backend:
    """A core to check, and what it can.

    `can`: `model` (it is one: samples differ, words mean something), `logprobs`, `alternatives`, `context` (it has a
    bound), `cache`, `grammar`, `prefill`, `stops computing` (`cpu_s` is a real meter), `again` (it starts after close).
    """

    name: str
    core: Core
    can: frozenset[str]
    cpu_s: Callable[[], float] = lambda: 0.0


def ask(text: str = STORY, prefill: str = "") -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),), prefill=prefill)


async def one(core: Core, prompt: Prompt | None = None, **params: Any) -> Completion:
    """Sample once, and check what holds for every completion."""
    ((done,),) = await core.sample([prompt or ask()], 1, SamplingParams(**({"max_tokens": 8} | params)))
    usage = done.usage
    assert 0 <= usage.tokens_cached <= usage.tokens_in
    assert (done.error is not None) == (done.finish_reason == "error")
    assert len(done.logprobs) <= usage.tokens_out
    return done


class Ends:
    """Collects what `on_done` says."""

    def __init__(self) -> None:
        self.all: dict[tuple[int, int], Completion] = {}

    def __call__(self, prompt: int, sample: int, done: Completion) -> None:
        assert (prompt, sample) not in self.all, "on_done comes once"
        self.all[prompt, sample] = done


# --- the checks --------------------------------------------------------------------------------------------


async def results_come_in_order(backend: Backend) -> None:
    prompts, ends = [ask(), ask("Name three colours."), ask("What is 2 + 2?")], Ends()
    done = await backend.core.sample(prompts, 2, SamplingParams(max_tokens=6), ends)
    assert [len(row) for row in done] == [2, 2, 2]
    assert ends.all == {(p, s): done[p][s] for p in range(3) for s in range(2)}


async def samples_of_a_model_differ(backend: Backend) -> None:
    (done,) = await backend.core.sample([ask()], 4, SamplingParams(max_tokens=8, temperature=1.0))
    if "model" in backend.can:
        assert len({sample.text for sample in done}) > 1
    computed = [sample.usage.tokens_in - sample.usage.tokens_cached for sample in done]
    if "cache" in backend.can:
        assert sum(computed) <= done[0].usage.tokens_in + 8, "siblings have one prefill"


async def finish_reasons_fit_the_counts(backend: Backend) -> None:
    cut = await one(backend.core, max_tokens=5)
    assert cut.finish_reason == "length"
    assert cut.usage.tokens_out == 5
    assert cut.usage.tokens_in >= len(STORY.split())
    assert cut.usage.wall_s >= 0
    single = await one(backend.core, max_tokens=1)
    assert single.usage.tokens_out == 1


async def stop_strings_end_the_text(backend: Backend) -> None:
    for stop in ((" ",), ("a", "e", "i", "o", "u"), (" the", " a")):
        done = await one(backend.core, stop=stop, max_tokens=60)
        assert done.finish_reason == "stop"
        assert not any(mark in done.text for mark in stop)


async def logprobs_are_those_of_the_tokens(backend: Backend) -> None:
    done = await one(backend.core, max_tokens=10, alternatives=3)
    if "logprobs" in backend.can:
        assert done.usage.tokens_out - 1 <= len(done.logprobs) <= done.usage.tokens_out
        assert all(value <= 0 and math.isfinite(value) for value in done.logprobs)
    if "alternatives" in backend.can:
        assert len(done.alternatives) == len(done.logprobs)
        for value, others in zip(done.logprobs, done.alternatives, strict=True):
            assert 1 <= len(others) <= 3
            assert max(others.values()) >= value - 0.01, "the likeliest are among them"


async def a_prefill_is_gone_on_from(backend: Backend) -> None:
    done = await one(backend.core, ask("Count from 1 to 9.", "1, 2, 3, 4,"), temperature=0.0, max_tokens=6)
    assert not done.text.startswith("1, 2")
    if "prefill" in backend.can:
        assert done.text.startswith(" 5"), done.text


async def temperature_zero_repeats(backend: Backend) -> None:
    first, second = [await one(backend.core, temperature=0.0, max_tokens=8) for _ in range(2)]
    assert first.text == second.text
    if "cache" in backend.can:
        assert second.usage.tokens_cached >= second.usage.tokens_in - 2


async def a_grammar_holds(backend: Backend) -> None:
    done = await one(backend.core, ask(prefill="The answer is"), grammar='root ::= " 1" | " 2"')
    if "grammar" in backend.can:
        assert done.text in (" 1", " 2")
        broken = await one(backend.core, grammar="root ::= (")
        assert broken.finish_reason == "error"
        assert "grammar" in (broken.error or "")


async def a_straggler_is_ended(backend: Backend) -> None:
    if "grammar" not in backend.can:
        return
    rambling = 'root ::= " " [1-8] | " 9" [0-9]{90}'
    params = SamplingParams(temperature=1.5, top_p=1.0, max_tokens=100, grammar=rambling, stretch=5.0)
    for _ in range(64):  # short batches: chance says how many samples of one ramble
        (came,) = await backend.core.sample([ask("Say a number.", "My number is")], 8, params)
        ended = [c.usage.tokens_out for c in came if c.finish_reason == "stop"]
        rest = [c.usage.tokens_out for c in came if c.finish_reason == "length"]
        assert len(ended) + len(rest) == 8
        if rest and len(ended) >= 6:
            assert max(rest) <= 5 * max(ended) + 2, came
            return
        assert not rest or min(rest) > 40, came
    pytest.fail("no three quarters of the samples ended early in 64 tries")


async def what_repeats_itself_is_ended(backend: Backend) -> None:
    if "grammar" not in backend.can:
        return
    counting = " ".join(map(str, range(20)))
    for grammar, loops in (('root ::= " so we went" " on and on"{200}', True), (f'root ::= "{counting}"', False)):
        params = SamplingParams(temperature=1.5, top_p=1.0, max_tokens=300, grammar=grammar, repeats=24)
        (came,) = await backend.core.sample([ask("Go on.")], 2, params)
        assert {done.finish_reason for done in came} == {"length" if loops else "stop"}, came
        assert not loops or max(done.usage.tokens_out for done in came) < 50, came


async def text_of_the_world(backend: Backend) -> None:
    words = "Łódź 灯塔 🐟 \u2028 é"
    done = await one(backend.core, ask(f"Say {words}"), grammar=f'root ::= "{words}"', max_tokens=60)
    assert "\ufffd" not in done.text
    if "grammar" in backend.can:
        assert done.text == words


async def what_is_too_long_is_an_answer(backend: Backend) -> None:
    if "context" in backend.can:
        done = await one(backend.core, ask("x " * 9000))
        assert done.finish_reason == "error"
        assert "context" in (done.error or "").lower()
    nothing = await one(backend.core, Prompt(messages=()))
    assert nothing.finish_reason == "error"
    assert "message" in (nothing.error or "")
    assert (await one(backend.core)).finish_reason != "error"


async def cancelling_while_it_writes(backend: Backend) -> None:
    await cancelled(backend, ask(), 4, lambda: backend.core.live().tokens_out >= 4)


async def cancelling_while_it_reads(backend: Backend) -> None:
    long = ask("A lighthouse and a fish. " * 250 + str(backend.name))
    began = time.monotonic()
    await cancelled(backend, long, 2, lambda: time.monotonic() - began > 0.3)


async def cancelled(backend: Backend, prompt: Prompt, n: int, when: Callable[[], bool]) -> None:
    ends, params = Ends(), SamplingParams(max_tokens=1000)
    call = asyncio.create_task(backend.core.sample([prompt], n, params, ends))
    until = time.monotonic() + 20
    while not when() and not call.done() and time.monotonic() < until:  # noqa: ASYNC110 - cores have no events
        await asyncio.sleep(0.01)
    began = time.monotonic()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert time.monotonic() - began < SOON_S
    assert sorted(ends.all) == [(0, i) for i in range(n)]
    assert {done.finish_reason for done in ends.all.values()} <= {"cancelled", "stop"}
    assert "cancelled" in {done.finish_reason for done in ends.all.values()}
    assert all(done.usage.tokens_out >= len(done.logprobs) for done in ends.all.values())
    assert backend.core.live().tokens_out == 0
    if "stops computing" in backend.can:
        assert await idle_within(backend.cpu_s), "it goes on after it was cancelled"
    assert (await one(backend.core)).finish_reason != "cancelled"


async def calls_side_by_side(backend: Backend) -> None:
    texts = [f"Say the number {i}." for i in range(4)]
    done = await asyncio.gather(*(one(backend.core, ask(text), max_tokens=5) for text in texts))
    assert all(sample.usage.tokens_out > 0 for sample in done)


async def the_meter_never_goes_back(backend: Backend) -> None:
    before = backend.core.read()
    await one(backend.core)
    after = backend.core.read()
    assert after.cpu_s >= before.cpu_s
    assert after.method in ("cgroup", "rusage", "process-tree", "estimate")
    assert (backend.core.live().tokens_in, backend.core.live().tokens_out) == (0, 0)


async def it_says_what_it_is(backend: Backend) -> None:
    manifest = backend.core.manifest()
    assert manifest["core"]
    if "model" in backend.can:
        assert manifest["model"]
        assert manifest["engine"]
    assert all(isinstance(value, str | int | float | bool) for value in manifest.values())


async def closing_twice(backend: Backend) -> None:
    await backend.core.close()
    await backend.core.close()
    if "again" in backend.can:
        assert (await one(backend.core)).finish_reason != "error"


CHECKS: list[Callable[[Backend], Awaitable[None]]] = [
    results_come_in_order,
    samples_of_a_model_differ,
    finish_reasons_fit_the_counts,
    stop_strings_end_the_text,
    logprobs_are_those_of_the_tokens,
    a_prefill_is_gone_on_from,
    temperature_zero_repeats,
    a_grammar_holds,
    a_straggler_is_ended,
    what_repeats_itself_is_ended,
    text_of_the_world,
    what_is_too_long_is_an_answer,
    cancelling_while_it_writes,
    cancelling_while_it_reads,
    calls_side_by_side,
    the_meter_never_goes_back,
    it_says_what_it_is,
    closing_twice,
]


# --- the backends ------------------------------------------------------------------------------------------


def scripted() -> Backend:
    def say(prompt: Prompt, sample: int) -> str:
        return f"{sample} there once was a fish in the sea and it said {prompt.messages[-1].content}"

    return Backend("scripted", ScriptedCore(say, delay_s=0.05), frozenset({"logprobs", "again"}))


def llama_cpp(weights: Path, engine: Literal["native", "wheel"] = "wheel") -> Backend:
    settings = EngineSettings(model=weights, engine=engine, n_ctx=2048, n_parallel=8, n_batch=64)
    core = LlamaCppCore(settings, group_factory(), {"model": "smollm2-135m"})
    return Backend("llama_cpp", core, MODEL | {"again"}, lambda: core.read().cpu_s)


def openai(server: Any) -> Backend:
    process = psutil.Process(server.pid)

    def cpu_s() -> float:
        times = process.cpu_times()
        return times.user + times.system

    core = OpenAICore(OpenAISettings(url=server.url, key=SecretStr(server.key)))
    return Backend("openai", core, MODEL | {"again"}, cpu_s)


def transformers(folder: Path) -> Backend:
    from ponder.core.hf.transformers_core import TransformersCore, TransformersSettings

    settings = TransformersSettings(model=folder, n_ctx=2048, n_parallel=8, n_batch=64)
    core = TransformersCore(settings, group_factory(), {"model": "smollm2-135m"})
    return Backend("transformers", core, MODEL | {"again"}, lambda: core.read().cpu_s)


BACKENDS: dict[str, Callable[[pytest.FixtureRequest], Backend]] = {
    "scripted": lambda _: scripted(),
    "llama_cpp": lambda request: llama_cpp(request.getfixturevalue("weights")),
    "llama_cpp_native": lambda request: llama_cpp(request.getfixturevalue("native_weights"), "native"),
    "openai": lambda request: openai(request.getfixturevalue("llama_server")),
    "transformers": lambda request: transformers(request.getfixturevalue("small_safetensors")),
}
"""A new core: one line here."""
UNREAL = {"scripted"}


def named(names: list[str]) -> list[Any]:
    return [pytest.param(name, marks=[] if name in UNREAL else [pytest.mark.real], id=name) for name in names]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=named(list(BACKENDS)))
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    backend = BACKENDS[request.param](request)
    await backend.core.start()
    yield backend
    await backend.core.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(backend: Backend, check: Callable[[Backend], Awaitable[None]]) -> None:
    await check(backend)


@pytest.mark.parametrize("name", named(["scripted", "llama_cpp"]))
async def test_a_cassette_conforms_when_it_records_and_when_it_replays(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    real = BACKENDS[name](request)
    recorder = CassetteCore.record(real.core, tmp_path / "c.jsonl")
    recording = Backend("cassette", recorder, real.can - {"again"}, real.cpu_s)
    await recording.core.start()
    try:
        for check in CHECKS:
            await check(recording)
    finally:
        await recorder.close()
    replaying = Backend("cassette", CassetteCore.replay(tmp_path / "c.jsonl", patience_s=5), recording.can)
    await replaying.core.start()
    began = time.monotonic()
    for check in CHECKS:
        await check(replaying)
    assert time.monotonic() - began < 10, "no model computes"


@pytest.mark.real
@pytest.mark.parametrize("name", ["llama_cpp", "openai"])
async def test_an_engine_that_is_killed_is_a_core_error_and_nothing_is_lost(
    name: str, request: pytest.FixtureRequest
) -> None:
    """kill -9 in mid-answer: an error that says so, every sample ends once, and the next call works."""
    kill, revive, core = request.getfixturevalue(f"mortal_{name}")
    await core.start()
    ends = Ends()
    call = asyncio.create_task(core.sample([ask()], 2, SamplingParams(max_tokens=1500), ends))
    while core.live().tokens_out < 2 and not call.done():  # noqa: ASYNC110 - cores have no events
        await asyncio.sleep(0.01)
    kill()
    with pytest.raises(CoreError):
        await call
    assert {done.finish_reason for done in ends.all.values()} == {"error"}
    assert sum(done.usage.tokens_out for done in ends.all.values()) >= 2, "what was computed is charged"
    revive()
    assert (await one(core)).usage.tokens_out > 0
    await core.close()


Mortal = tuple[Callable[[], None], Callable[[], None], Core]


@pytest.fixture
def mortal_llama_cpp(weights: Path, running: Callable[[str], list[psutil.Process]]) -> Mortal:
    core = LlamaCppCore(EngineSettings(model=weights, n_ctx=2048), group_factory())

    def kill() -> None:
        for engine in running("engine_child"):
            engine.kill()

    return kill, lambda: None, core


@pytest.fixture
def mortal_openai(serve_llama: Callable[..., Any]) -> Iterator[Mortal]:
    server = serve_llama()
    core = OpenAICore(OpenAISettings(url=server.url, key=SecretStr(server.key), attempts=2, back_off_s=0.05))
    yield server.kill, server.start, core
    server.kill()
