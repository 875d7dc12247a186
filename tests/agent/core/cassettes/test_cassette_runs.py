"""Recorded runs: the same answer, tree, decisions and stop in a replay, or an error that says where they part."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ponder.agent import Agent
from ponder.control import Control
from ponder.core.cassettes.cassette import CassetteCore, RecordingCore
from ponder.core.cassettes.recorder import Recorder
from ponder.core.cassettes.tape import Told, Wrote, read_tape
from ponder.core.cassettes.timeline import UNRECORDED, Timeline
from ponder.core.cassettes.tools import RecordingChecker, RecordingTool, ReplayingTool
from ponder.core.scripted import ScriptedCore
from ponder.errors import BrowserError, CoreError, UsageError
from ponder.protocols import OnUsage
from ponder.records import (
    Action,
    Budget,
    CpuReading,
    Limits,
    Message,
    Observation,
    Prompt,
    Result,
    RunCode,
    SamplingParams,
    Spending,
    Task,
    Usage,
)
from ponder.search.best_of_n import BestOfN
from ponder.store import open_store
from ponder.tree import Event

ANSWERS = ["ANSWER: 4", "ANSWER: 5", "ANSWER: 4", "ANSWER: 7", "ANSWER: 4", "ANSWER: 4"]
AT_ONCE = BestOfN(kinds=("answer",))
"""Its core is not asked how to begin."""
QUESTIONS = ["What is 2 + 2?", "Which colour is the sky?", "Name a fish."]


def told(home: Path, result: Result) -> list[tuple[Any, ...]]:
    """Return what a run did: its tree and its decisions with their features, without times and charges."""
    events = open_store(home / "runs.sqlite").events(result.run_id)
    return [(event.kind, event.node, event.data) for event in events if event.kind not in UNRECORDED]


def same(one: Result, other: Result) -> bool:
    kept = ("answer", "confidence", "stop_reason", "nodes", "warnings")
    return all(getattr(one, name) == getattr(other, name) for name in kept)


def replay(tape: Path, home: Path, question: str | Task = QUESTIONS[0], **options: Any) -> Result:
    with Agent(f"cassette:{tape}", home=home, **{"tools": (), "strategy": AT_ONCE, **options}) as agent:
        return agent.run(question)


Record = Callable[..., tuple[Path, Result]]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Return what records one run of a scripted core and gives the tape and the result."""

    def make(
        script: Any = tuple(ANSWERS), *, delay_s: float = 0.01, budget: Budget | None = None, **options: Any
    ) -> tuple[Path, Result]:
        tape = tmp_path / "c.jsonl"
        core = ScriptedCore(script, delay_s=delay_s)
        with Agent(core, home=tmp_path / "a", record=tape, **{"tools": (), "strategy": AT_ONCE, **options}) as agent:
            return tape, agent.run(QUESTIONS[0], budget=budget)

    return make


def test_runs_replay_one_after_the_other_with_the_same_tree_and_decisions(tmp_path: Path) -> None:
    core = ScriptedCore(ANSWERS * 3, delay_s=0.01)
    with Agent(core, tools=(), strategy=AT_ONCE, home=tmp_path / "a", record=tmp_path / "c.jsonl") as agent:
        recorded = [agent.run(question) for question in QUESTIONS]
    with Agent(f"cassette:{tmp_path / 'c.jsonl'}", tools=(), strategy=AT_ONCE, home=tmp_path / "b") as agent:
        replayed = [agent.run(question) for question in QUESTIONS]
        with pytest.raises(UsageError, match="no further run"):
            agent.run(QUESTIONS[0])
    for one, other in zip(recorded, replayed, strict=True):
        assert same(one, other)
        assert told(tmp_path / "a", one) == told(tmp_path / "b", other)
        bills = [result.ledger.by_tool["core"] for result in (one, other)]
        assert bills[0].tokens_out == bills[1].tokens_out > 0


def test_a_spent_budget_is_spent_again_at_the_same_point(record: Record, tmp_path: Path) -> None:
    tape, one = record(lambda _p, i: f"ANSWER: {i}, after very many words " * 20, delay_s=0.5, budget=Budget(tokens=90))
    assert one.stop_reason == "budget"
    other = replay(tape, tmp_path / "b")
    assert same(one, other)
    assert told(tmp_path / "a", one) == told(tmp_path / "b", other)
    assert one.ledger.by_tool["core"].tokens_out == other.ledger.by_tool["core"].tokens_out
    assert same(one, replay(tape, tmp_path / "c", budget=Budget(tokens=90)))


def test_a_wall_budget_is_no_matter_of_todays_clock(record: Record, tmp_path: Path) -> None:
    tape, one = record(lambda _p, i: f"ANSWER: {i}", delay_s=0.6, budget=Budget(wall_seconds=1.0))
    assert one.stop_reason == "budget"
    other = replay(tape, tmp_path / "b")
    assert other.elapsed_s < one.elapsed_s
    assert same(one, other)


def test_a_run_that_was_interrupted_is_interrupted_again(tmp_path: Path) -> None:
    core, tape = ScriptedCore(lambda _p, i: f"ANSWER: {i}", delay_s=0.3), tmp_path / "c.jsonl"
    with Agent(core, tools=(), strategy=AT_ONCE, home=tmp_path / "a", record=tape) as agent:
        one = agent.run(QUESTIONS[0], on_event=lambda e: agent.interrupt() if e.kind == "decided" else None)
    assert one.stop_reason == "interrupted"
    other = replay(tape, tmp_path / "b")
    assert same(one, other)
    assert told(tmp_path / "a", one) == told(tmp_path / "b", other)


def test_a_replay_can_be_interrupted(record: Record, tmp_path: Path) -> None:
    tape, _ = record()
    with Agent(f"cassette:{tape}", tools=(), strategy=AT_ONCE, home=tmp_path / "b") as agent:
        result = agent.run(QUESTIONS[0], on_event=lambda e: agent.interrupt() if e.kind == "asked" else None)
    assert (result.stop_reason, result.warnings) == ("interrupted", ())


def test_an_engine_that_broke_twice_breaks_again(record: Record, tmp_path: Path) -> None:
    tape, one = record(["ANSWER: 4"])
    assert one.stop_reason == "error"
    assert same(one, replay(tape, tmp_path / "b"))


@pytest.mark.parametrize(
    ("question", "options", "words"),
    [
        (QUESTIONS[1], {}, "another prompt: 'What is 2"),
        (QUESTIONS[0], {"tools": ("python",)}, "another tools: '', now 'python'"),
        (QUESTIONS[0], {"budget": Budget(tokens=5)}, r"another budget \(none\)"),
    ],
)
def test_another_run_than_the_recorded_one_is_refused(
    record: Record, tmp_path: Path, question: str, options: dict[str, Any], words: str
) -> None:
    tape, _ = record()
    with pytest.raises(UsageError, match=words):
        replay(tape, tmp_path / "b", question, **options)


def test_a_replay_is_not_recorded_again(record: Record, tmp_path: Path) -> None:
    tape, _ = record()
    with pytest.raises(UsageError, match="not recorded again"):
        replay(tape, tmp_path / "b", record=tmp_path / "again.jsonl")


def changed(tape: Path, old: str, new: str) -> Path:
    text = tape.read_text("utf-8")
    assert old in text
    tape.write_text(text.replace(old, new))
    return tape


def test_a_search_that_goes_another_way_says_where(record: Record, tmp_path: Path) -> None:
    tape, one = record()
    event = next(line for line in read_tape(tape).lines if isinstance(line, Wrote) and line.kind == "thought")
    assert event.data["text"] == "ANSWER:ANSWER: 4"
    assert "kind" not in event.data, "cassettes of before have none"
    changed(tape, '"data":{"text":"ANSWER:ANSWER: 4"', '"data":{"text":"ANSWER:ANSWER: 6"')
    other = replay(tape, tmp_path / "b")
    assert (one.stop_reason, other.stop_reason) == ("not_worth_it", "error")
    (warning,) = other.warnings
    assert "parts from the recording: now the event 'thought' of node 1" in warning
    assert "has next the event 'thought' of node 1: data.text from character 15 on (recorded '" in warning


def test_other_prompts_are_told_with_what_the_recording_has_next(record: Record, tmp_path: Path) -> None:
    tape, _ = record()
    changed(tape, '"temperature":', '"temperature":1')
    other = replay(tape, tmp_path / "b")
    assert other.stop_reason == "error"
    assert "now a request to the core (n=" in other.warnings[0]
    assert "the recording has next a request to the core" in other.warnings[0]
    assert "temperature (recorded 1" in other.warnings[0]


def test_a_recording_that_was_cut_off_ends_where_it_ends(record: Record, tmp_path: Path) -> None:
    tape, _ = record(delay_s=0.05)
    lines = tape.read_text("utf-8").split("\n")
    cut = next(i for i, line in enumerate(lines) if '"at":"ended"' in line)
    tape.write_text("\n".join(lines[:cut]) + "\n")
    other = replay(tape, tmp_path / "b")
    assert other.stop_reason == "error"
    assert "ends here: it was cut off" in other.warnings[0]


# --- tools -------------------------------------------------------------------------------------------------


class Sleeper:
    """A tool whose programs say how many hundredths of a second they sleep, or that they break."""

    name = "python"

    async def run(self, action: Action, *, session: str, limits: Limits, on_usage: OnUsage) -> Observation:  # noqa: ARG002
        assert isinstance(action, RunCode)
        try:
            if action.code == "break":
                raise BrowserError("it broke", fix="mend it")
            await asyncio.sleep(int(action.code) / 100)
            return Observation(tool="python", ok=True, text=f"slept {action.code} in {session}")
        finally:
            on_usage(Usage(cpu_user_s=1.5, method="cgroup"))

    async def check(
        self, program: str, tests: Sequence[str], *, calls: Sequence[str] = (), limits: Limits, on_usage: OnUsage
    ) -> Observation:
        assert not calls
        seen = await self.run(RunCode(code=program), session="0", limits=limits, on_usage=on_usage)
        return seen.model_copy(update={"passed": len(tests), "total": len(tests)})

    def read(self) -> CpuReading:
        return CpuReading(user_s=9.0, method="cgroup")

    async def close(self) -> None: ...


class Tape:
    """A recording of tool calls, as a run would make it; then its replay."""

    def __init__(self, path: Path) -> None:
        self.path, self.task = path, Task(prompt="q")
        self.control = Control()
        self.bill: list[Usage] = []
        self.seen: list[Any] = []

    async def recording(self) -> tuple[RecordingTool, RecordingChecker, Recorder]:
        recorder = Recorder(self.path, ["python"])
        await RecordingCore(ScriptedCore([]), recorder).start()
        recorder.begin_run(self.control, self.task, Budget(), {})
        return RecordingTool(Sleeper(), recorder), RecordingChecker(Sleeper(), recorder), recorder

    def replaying(self) -> tuple[ReplayingTool, Timeline]:
        timeline = CassetteCore.replay(self.path).run
        assert timeline is not None
        timeline.begin_run(self.control)
        return ReplayingTool("python", timeline), timeline

    async def call(self, tool: Any, code: str, branch: int = 1, run: str = "r") -> None:
        action = RunCode(code=code)
        seen = await tool.run(action, session=f"{run}-{branch}", limits=Limits(), on_usage=self.bill.append)
        self.seen.append(seen.text)


async def test_calls_end_in_the_recorded_order_with_the_recorded_bill(tmp_path: Path) -> None:
    one, other = Tape(tmp_path / "c"), Tape(tmp_path / "c")
    tool, checker, _ = await one.recording()
    await asyncio.gather(one.call(tool, "9", 1), one.call(tool, "1", 2), one.call(tool, "5", 3))
    checked = await checker.check("1", ["assert x"], limits=Limits(), on_usage=one.bill.append)
    assert one.seen == ["slept 1 in r-2", "slept 5 in r-3", "slept 9 in r-1"]
    replayed, _ = other.replaying()
    calls = (other.call(replayed, code, branch, "another-run") for code, branch in (("9", 1), ("1", 2), ("5", 3)))
    await asyncio.gather(*calls)
    assert await replayed.check("1", ["assert x"], limits=Limits(cpu_s=1), on_usage=other.bill.append) == checked
    assert (other.seen, other.bill) == (one.seen, one.bill)


async def test_calls_side_by_side_may_begin_in_another_order(tmp_path: Path) -> None:
    one, other = Tape(tmp_path / "c"), Tape(tmp_path / "c")
    tool, _, _ = await one.recording()
    await asyncio.gather(one.call(tool, "9", 1), one.call(tool, "1", 2))
    replayed, _ = other.replaying()
    await asyncio.gather(other.call(replayed, "1", 2), other.call(replayed, "9", 1))
    assert other.seen == one.seen


async def test_a_call_that_is_not_recorded_is_named(tmp_path: Path) -> None:
    one, other = Tape(tmp_path / "c"), Tape(tmp_path / "c")
    tool, _, _ = await one.recording()
    await one.call(tool, "1")
    replayed, timeline = other.replaying()
    branch = "a call of python in branch 1"
    with pytest.raises(CoreError, match=rf"now {branch} .*'2'.* has next {branch} .*'1'"):
        await other.call(replayed, "2")
    with pytest.raises(CoreError, match="parts from the recording"):
        await other.call(replayed, "1")  # it is over: nothing goes on by chance
    timeline.taken()
    timeline.wrote(Event(kind="cancelled", node=1))


async def test_a_tool_that_broke_breaks_again_in_the_same_way(tmp_path: Path) -> None:
    one, other = Tape(tmp_path / "c"), Tape(tmp_path / "c")
    tool, _, _ = await one.recording()
    with pytest.raises(BrowserError, match="mend it"):
        await one.call(tool, "break")
    replayed, _ = other.replaying()
    with pytest.raises(BrowserError, match="mend it"):
        await other.call(replayed, "break")
    assert other.bill == one.bill


async def test_a_call_that_was_cut_off_is_cut_off_by_the_tape(tmp_path: Path) -> None:
    one, other = Tape(tmp_path / "c"), Tape(tmp_path / "c")
    tool, _, _ = await one.recording()
    asyncio.get_running_loop().call_later(0.05, one.control.stop_tool, "python", "spent")
    with pytest.raises(Exception, match="spent"):
        await one.control.race(one.call(tool, "500"), tool="python")
    replayed, _ = other.replaying()
    with pytest.raises(Exception, match="spent"):
        await asyncio.wait_for(other.control.race(other.call(replayed, "500"), tool="python"), 5)
    assert other.control.tool_stopped("python") == "spent"
    assert other.bill == one.bill == [Usage(cpu_user_s=1.5, method="cgroup")]


async def test_a_stop_falls_between_the_same_two_steps(tmp_path: Path) -> None:
    """The tape's stop waits for what the search did before it."""
    one, other = Tape(tmp_path / "c"), Tape(tmp_path / "c")
    _, _, recorder = await one.recording()
    recorder.wrote(Event(kind="judged", node=1))
    one.control.stop("budget", "spent")
    recorder.wrote(Event(kind="cancelled", node=2))
    recorder.close()
    assert [type(line) for line in read_tape(one.path).lines[1:]] == [Wrote, Told, Wrote]
    _, timeline = other.replaying()
    await asyncio.sleep(0.05)
    assert other.control.reason is None
    timeline.wrote(Event(kind="judged", node=1))
    await asyncio.sleep(0)
    assert (other.control.reason, other.control.why) == ("budget", "spent")


async def test_decisions_see_what_the_recorded_run_had_spent(tmp_path: Path) -> None:
    one, other = Tape(tmp_path / "c"), Tape(tmp_path / "c")
    recorder = Recorder(one.path)
    core = RecordingCore(ScriptedCore(["x"]), recorder)
    await core.start()
    recorder.begin_run(one.control, one.task, Budget(), {})
    prompt = Prompt(messages=(Message(role="user", content="a"),))
    await core.sample([prompt], 1, SamplingParams())
    core.decides(Spending(cpu_s=2.5, wall_s=3.5, tokens=7))
    await core.close()
    replaying = CassetteCore.replay(one.path)
    assert replaying.run is not None
    replaying.run.begin_run(other.control)
    await replaying.sample([prompt], 1, SamplingParams())
    assert replaying.decides(Spending(cpu_s=0, wall_s=0, tokens=0)) == Spending(cpu_s=2.5, wall_s=3.5, tokens=7)


@pytest.mark.real
def test_programs_and_tests_replay_without_a_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ["import random\nprint(random.random())\n", "print(1 / 0)\n", "import time\nprint(time.time())\n"] * 9
    one, tape = ScriptedCore(script, delay_s=0.02), tmp_path / "c.jsonl"
    with Agent(one, tools=("python",), home=tmp_path / "a", record=tape) as agent:
        recorded = agent.run(QUESTIONS[0])
    monkeypatch.setenv("PONDER_SANDBOX", "none")
    replayed = replay(tape, tmp_path / "b", tools=("python",), strategy=None)  # the default, as it was recorded
    assert same(recorded, replayed)
    assert told(tmp_path / "a", recorded) == told(tmp_path / "b", replayed)
    assert recorded.ledger.by_tool["python"].calls == replayed.ledger.by_tool["python"].calls
    manifest = json.loads(tape.read_text("utf-8").split("\n")[0])
    assert manifest["tools"] == ["python"]
