"""The cassette core: what is recorded comes back to the letter, and what is not is an error that says what differs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from ponder.agent import Agent
from ponder.core.cassette import CassetteCore, ReplayingCore
from ponder.core.engine import EngineSettings
from ponder.core.llama_cpp import LlamaCppCore
from ponder.core.scripted import ScriptedCore
from ponder.errors import CoreError, UsageError
from ponder.protocols import Core
from ponder.records import Completion, Message, Prompt, Result, SamplingParams
from ponder.sandboxes.groups import group_factory
from ponder.store import open_store

PARAMS = SamplingParams(temperature=0.5)


def ask(text: str, prefill: str = "") -> Prompt:
    messages = (Message(role="system", content="Be short."), Message(role="user", content=text))
    return Prompt(messages=messages, prefill=prefill)


@pytest.fixture
async def tape(tmp_path: Path) -> Path:
    """A recording of three requests, the first of them asked twice."""
    core = CassetteCore.record(ScriptedCore(["one", "two", "three", "four\u2028", "five"]), tmp_path / "tape.jsonl")
    await core.start()
    await core.sample([ask("a"), ask("b")], 1, PARAMS)
    await core.sample([ask("a")], 2, PARAMS)
    await core.sample([ask("a")], 1, PARAMS)
    await core.close()
    return tmp_path / "tape.jsonl"


async def texts(core: ReplayingCore, prompts: list[Prompt], n: int = 1, params: SamplingParams = PARAMS) -> list[str]:
    return [done.text for row in await core.sample(prompts, n, params) for done in row]


async def test_equal_requests_get_their_answers_in_turn(tape: Path) -> None:
    core = CassetteCore.replay(tape)
    assert await texts(core, [ask("a"), ask("b")]) == ["one", "two"]
    assert await texts(core, [ask("a")], 2) == ["three", "four\u2028"]
    assert await texts(core, [ask("a")]) == ["five"]
    with pytest.raises(CoreError, match="asked 2 times in the recording, and now once more"):
        await texts(core, [ask("a")])


async def test_another_order_of_requests_is_fine(tape: Path) -> None:
    core = CassetteCore.replay(tape)
    assert await texts(core, [ask("a")], 2) == ["three", "four\u2028"]
    assert await texts(core, [ask("b")]) == ["two"]
    assert await texts(core, [ask("a")]) == ["one"]


@pytest.mark.parametrize(
    ("prompt", "n", "params", "words"),
    [
        (ask("c"), 1, PARAMS, r"message 2 \(user\) from character 0 on \(recorded '\w', asked 'c'\)"),
        (ask("b", "So"), 1, PARAMS, "the prefill .recorded '', asked 'So'."),
        (ask("b"), 3, PARAMS, r"n \(recorded 1, asked 3\)"),
        (ask("b"), 1, SamplingParams(temperature=0.7), r"temperature \(recorded 0.5, asked 0.7\)"),
        (ask("b"), 1, PARAMS.model_copy(update={"grammar": "root ::= x"}), "grammar .recorded None"),
        (Prompt(messages=ask("b").messages[1:]), 1, PARAMS, r"the number of messages \(recorded 2, asked 1\)"),
    ],
)
async def test_a_mismatch_says_what_differs(
    tape: Path, prompt: Prompt, n: int, params: SamplingParams, words: str
) -> None:
    with pytest.raises(CoreError, match=words):
        await CassetteCore.replay(tape).sample([prompt], n, params)


def test_files_that_are_no_cassette(tape: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        CassetteCore.record(ScriptedCore([]), tape)
    (tmp_path / "other").write_text('{"a": 1}\n')
    for path, words in ((tmp_path / "other", "is no cassette"), (tmp_path / "none", "No such file")):
        with pytest.raises(UsageError, match=words):
            CassetteCore.replay(path)
    lines = tape.read_text("utf-8").split("\n")
    tape.write_text("\n".join([*lines[:2], "{", *lines[2:]]))
    with pytest.raises(UsageError, match="line 3 is damaged"):
        CassetteCore.replay(tape)


@pytest.fixture
def cut_tape(tape: Path) -> Path:
    tape.write_text(tape.read_text("utf-8")[:-40])
    return tape


async def test_a_recording_that_was_cut_off_replays_as_far_as_it_goes(cut_tape: Path) -> None:
    core = CassetteCore.replay(cut_tape, patience_s=0.1)
    assert await texts(core, [ask("a"), ask("b")]) == ["one", "two"]
    assert await texts(core, [ask("a")], 2) == ["three", "four\u2028"]
    with pytest.raises(CoreError, match="has no end of this sample"):
        await texts(core, [ask("a")])


async def test_cancelled_samples_wait_for_their_cancellation(tmp_path: Path) -> None:
    recorder = CassetteCore.record(ScriptedCore(lambda _p, i: f"some words {i}", delay_s=0.1), tmp_path / "c.jsonl")
    recorded = await begin_and_cancel(recorder)
    assert [end.finish_reason for end in recorded] == ["stop", "cancelled", "cancelled"]
    assert await begin_and_cancel(CassetteCore.replay(tmp_path / "c.jsonl")) == recorded


async def begin_and_cancel(core: Core) -> list[Completion]:
    """Ask for three samples, and cancel after the first; return how they ended."""
    ends: list[Completion] = []
    first = asyncio.Event()

    def done(_prompt: int, _sample: int, end: Completion) -> None:
        ends.append(end)
        first.set()

    await core.start()
    call = asyncio.create_task(core.sample([ask("a")], 3, PARAMS, done))
    await first.wait()
    await asyncio.sleep(0.02)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await core.close()
    return ends


async def test_an_engine_that_broke_breaks_again(tmp_path: Path) -> None:
    async def break_it(core: Core) -> None:
        await core.start()
        with pytest.raises(CoreError, match="no more lines"):
            await core.sample([ask("a")], 2, PARAMS)
        await core.close()

    await break_it(CassetteCore.record(ScriptedCore(["one"]), tmp_path / "c.jsonl"))
    await break_it(CassetteCore.replay(tmp_path / "c.jsonl"))


def test_only_its_owner_reads_a_recording_and_its_first_line_says_what_it_is_of(tape: Path) -> None:
    assert tape.stat().st_mode & 0o077 == 0
    assert json.loads(tape.read_text("utf-8").split("\n")[0]) == {"cassette": 1, "manifest": {"core": "scripted"}}
    assert CassetteCore.replay(tape).manifest() == {"core": "cassette", "recorded_core": "scripted"}


# --- whole searches ----------------------------------------------------------------------------------------


def told(home: Path, result: Result) -> list[tuple[Any, ...]]:
    """Return what a run decided: its tree and decisions, without times and charges."""
    events = open_store(home / "runs.sqlite").events(result.run_id)
    kept = [event for event in events if event.kind in ("asked", "thought", "judged", "cancelled", "failed", "decided")]
    plain = []
    for event in kept:
        data = dict(event.data)
        if event.kind == "decided":
            spent = ("cpu_spent_s", "wall_spent_s", "round_cost_s")
            data["features"] = {name: value for name, value in data["features"].items() if name not in spent}
        plain.append((event.kind, event.node, data))
    return plain


def same(one: Result, other: Result) -> bool:
    kept = ("answer", "confidence", "stop_reason", "nodes")
    return all(getattr(one, name) == getattr(other, name) for name in kept)


QUESTIONS = ["What is 2 + 2?", "Which colour is the sky?", "Name a fish."]


def test_a_search_replays_with_the_same_tree_and_decisions(tmp_path: Path) -> None:
    answers = ["ANSWER: 4", "ANSWER: 5", "ANSWER: 4", "ANSWER: 7", "ANSWER: 4", "ANSWER: 4"] * 3
    core = ScriptedCore(answers, delay_s=0.01)
    with Agent(core, tools=(), home=tmp_path / "a", record=tmp_path / "c.jsonl") as agent:
        recorded = [agent.run(question) for question in QUESTIONS]
    with Agent(f"cassette:{tmp_path / 'c.jsonl'}", tools=(), home=tmp_path / "b") as agent:
        replayed = [agent.run(question) for question in QUESTIONS]
    for one, other in zip(recorded, replayed, strict=True):
        assert same(one, other)
        assert told(tmp_path / "a", one) == told(tmp_path / "b", other)


@pytest.mark.real
def test_searches_of_a_real_core_replay_without_it(weights: Path, tmp_path: Path) -> None:
    """Without tools: a program that draws random numbers says something else when it runs again."""
    core = LlamaCppCore(EngineSettings(model=weights, n_ctx=4096), group_factory(), {"model": "smollm2-135m"})
    questions = [f"{question} In one word." for question in QUESTIONS]
    with Agent(core, tools=(), home=tmp_path / "a", record=tmp_path / "c.jsonl") as agent:
        recorded = [agent.run(question) for question in questions]
    with Agent(f"cassette:{tmp_path / 'c.jsonl'}", tools=(), home=tmp_path / "b") as agent:
        replayed = [agent.run(question) for question in questions]
    for one, other in zip(recorded, replayed, strict=True):
        assert other.warnings == one.warnings
        assert same(one, other)
        assert told(tmp_path / "a", one) == told(tmp_path / "b", other)
        bills = [result.ledger.by_tool["core"] for result in (one, other)]
        assert bills[0].tokens_out == bills[1].tokens_out
        assert bills[0].cpu_s == pytest.approx(bills[1].cpu_s)


@pytest.mark.real
def test_a_search_with_programs_replays(tmp_path: Path) -> None:
    core = ScriptedCore(["print('ANSWER:', 2 + 2)\n", "print(1 / 0)\n", "print('ANSWER:', 5)\n"] * 9, delay_s=0.02)
    with Agent(core, tools=("python",), home=tmp_path / "a", record=tmp_path / "c.jsonl") as agent:
        one = agent.run(QUESTIONS[0])
    with Agent(f"cassette:{tmp_path / 'c.jsonl'}", tools=("python",), home=tmp_path / "b") as agent:
        other = agent.run(QUESTIONS[0])
    assert other.warnings == one.warnings
    assert same(one, other)
    assert told(tmp_path / "a", one) == told(tmp_path / "b", other)
