"""The agent on the scripted core: every stop reason, the record, the library's three fronts."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from ponder import Agent, Budget, Result, SuccessCriterion, Task
from ponder.control import Control
from ponder.core.scripted import ScriptedCore
from ponder.errors import CoreError, StoreError, UnknownName, UsageError
from ponder.judges.candidates import candidates
from ponder.ledger import Prices
from ponder.plan import Terms
from ponder.policies.hosts import HostRules
from ponder.records import Completion, Prompt
from ponder.search.best_of_n import BestOfN
from ponder.store import Store, held, is_held, open_store
from ponder.tree import Event, Tree

from .scripts import asks_how_to_begin, at_once


def always(text: str):  # type: ignore[no-untyped-def]
    return lambda _prompt, _sample: text


def kinds(home: Path, run: str) -> list[str]:
    return [event.kind for event in open_store(home / "runs.sqlite").events(run)]


def test_agreement_is_confident(make_agent) -> None:  # type: ignore[no-untyped-def]
    result = make_agent(always(" Paris")).run("What is the capital of France?")
    assert (result.answer, result.stop_reason) == ("Paris", "confident")
    assert result.confidence == pytest.approx(1 - 0.5**5)
    assert result.nodes == 4, "the first round's"
    assert result.ledger.by_tool["core"].calls == 5, "the first asks whether there is something to work out"


def test_disagreement_exhausts_the_samples(make_agent) -> None:  # type: ignore[no-untyped-def]
    words = iter(["a", "b", "c", "d", "e", "f", "g", "h"])
    result = make_agent(lambda _p, _s: next(words), strategy=BestOfN(4, kinds=("answer",))).run("q")
    assert (result.stop_reason, result.nodes) == ("exhausted", 4)
    assert result.answer == "a"


def test_no_answer_is_hopeless(make_agent) -> None:  # type: ignore[no-untyped-def]
    result = make_agent(always("")).run("q")
    assert (result.answer, result.stop_reason, result.confidence) == (None, "hopeless", 0.0)


def test_a_spent_budget_gives_the_best_answer_so_far(make_agent) -> None:  # type: ignore[no-untyped-def]
    words = iter(range(100))
    agent = make_agent(lambda _p, _s: f"w{next(words)}", delay_s=0.1, strategy=BestOfN(64))
    result = agent.run("q", budget=Budget(wall_seconds=0.6))
    assert result.stop_reason == "budget"
    assert result.answer is not None
    assert result.elapsed_s < 2


def test_tokens_are_a_budget_too(make_agent) -> None:  # type: ignore[no-untyped-def]
    words = iter(range(100))
    agent = make_agent(lambda _p, _s: f"w{next(words)}", delay_s=0.06, strategy=BestOfN(64))
    assert agent.run("q", budget=Budget(tokens=200)).stop_reason == "budget"


def test_interrupt_gives_the_best_answer_so_far(make_agent) -> None:  # type: ignore[no-untyped-def]
    words = iter(range(100))
    agent = make_agent(lambda _p, _s: f"w{next(words)}", delay_s=0.1, strategy=BestOfN(64))
    threading.Timer(0.7, agent.interrupt).start()
    result = agent.run("q")
    assert result.stop_reason == "interrupted"
    assert result.answer is not None


def test_a_core_that_breaks_is_tried_again_once_then_told(make_agent) -> None:  # type: ignore[no-untyped-def]
    class Fragile(ScriptedCore):
        breaks = 1

        async def sample(self, prompts, n, params, on_done=None):  # type: ignore[no-untyped-def]
            self.breaks -= 1
            if self.breaks >= 0:
                for sample in range(n if on_done else 0):  # as an engine says that is killed in mid-answer
                    on_done(0, sample, Completion(text="", finish_reason="error", error="died"))
                raise CoreError("the engine died")
            return await super().sample(prompts, n, params, on_done)

    core = Fragile(always(" yes"))
    assert make_agent([], core=core).run("q").answer == "yes"
    core = Fragile(always(" yes"))
    core.breaks = 99
    result = make_agent([], core=core).run("q")
    assert (result.answer, result.stop_reason) == (None, "error")
    assert "the engine died" in result.warnings[-1]


def test_a_part_that_has_a_bug_does_not_take_the_answer_with_it(make_agent) -> None:  # type: ignore[no-untyped-def]
    words = iter([" Paris", " Rome", " Oslo"])
    result = make_agent(lambda _p, _s: next(words)).run("q")
    assert (result.answer, result.stop_reason) == ("Paris", "error")
    assert "StopIteration" in result.warnings[-1]


def test_a_judge_that_breaks_takes_neither_the_bill_nor_the_warning_with_it(make_agent) -> None:  # type: ignore[no-untyped-def]
    class Broken:
        def __getattr__(self, name: str) -> object:
            raise ValueError("no opinion")

    result = make_agent(always(" Paris"), judge=Broken()).run("q")
    assert (result.answer, result.stop_reason) == (None, "error")
    assert "ValueError: no opinion" in result.warnings[-1]
    assert result.ledger.total.calls


def test_every_event_is_recorded_and_rebuilds_the_tree(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    heard: list[Event] = []
    result = make_agent(always(" Paris")).run("q", on_event=heard.append)
    events = open_store(tmp_path / "runs.sqlite").events(result.run_id)
    assert events == heard
    assert events[0].data["manifest"]["core"] == "scripted"
    tree = Tree.from_events(events)
    assert len(tree.nodes) == result.nodes + 1
    assert all(node.verdict for node in tree.nodes.values() if node.id)
    assert Result.model_validate(events[-1].data) == result


def test_bill_sums_to_total(make_agent) -> None:  # type: ignore[no-untyped-def]
    ledger = make_agent(always(" Paris")).run("q").ledger
    for key in ("calls", "cpu_user_s", "cpu_system_s", "wall_s", "tokens_in", "tokens_out", "cost"):
        assert sum(getattr(row, key) for row in ledger.by_tool.values()) == pytest.approx(getattr(ledger.total, key))


def test_checkpoints_stay_small(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = iter(range(1000))
    agent = make_agent(lambda _p, _s: f"w{next(words)} " + "long " * 200, strategy=BestOfN(64))
    agent.run("q")
    agent.close()
    assert sum(file.stat().st_size for file in tmp_path.glob("checkpoints.sqlite*")) < 1_000_000


def cut_off(store: Store, events: Sequence[Event]) -> None:
    """Record a run with these events and no more: as `cut-off`."""
    store.create("cut-off", "q")
    for number, event in enumerate(events):
        store.append("cut-off", number, event)


def test_resume_goes_on_from_the_last_event(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    whole = make_agent(always(" Paris")).run("q")
    store = open_store(tmp_path / "runs.sqlite")
    events = store.events(whole.run_id)
    cut_off(store, events[: next(i for i, event in enumerate(events) if event.kind == "judged")])
    core = ScriptedCore(at_once(always(" Paris")))
    result = make_agent([], core=core).resume("cut")
    assert (result.answer, result.stop_reason) == ("Paris", "confident")
    assert sum(not asks_how_to_begin(prompt) for prompt in core.prompts) < 4, "what was finished is not asked again"
    with pytest.raises(UsageError, match="has ended"):
        make_agent(always("x")).resume("cut-off")


def test_resume_of_a_run_that_had_decided_to_stop_only_writes_its_end(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    whole = make_agent(always(" Paris")).run("q")
    store = open_store(tmp_path / "runs.sqlite")
    events = store.events(whole.run_id)
    cut_off(store, events[: 1 + max(i for i, event in enumerate(events) if event.kind == "decided")])
    core = ScriptedCore([])
    result = make_agent([], core=core).resume("cut-off")
    assert (result.answer, result.stop_reason, core.prompts) == ("Paris", whole.stop_reason, [])
    tree = Tree.from_events(store.events("cut-off"))
    assert all(node.status in ("judged", "failed", "cancelled") for node in tree.nodes.values() if node.id)


@pytest.mark.timeout(20)
def test_resume_takes_up_a_step_that_was_run_and_not_judged(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    whole = make_agent(always(" Paris")).run("q")
    store = open_store(tmp_path / "runs.sqlite")
    events = [event for event in store.events(whole.run_id) if event.kind in ("started", "asked", "thought")]
    seen = {"tool": "python", "ok": True, "text": "ANSWER: Rome", "answer": "Rome"}
    cut_off(store, [*events, Event(kind="observed", node=1, data=seen)])
    result = make_agent([], core=ScriptedCore(always(" Paris"))).resume("cut-off")
    assert result.stop_reason in ("confident", "exhausted")
    tree = Tree.from_events(store.events("cut-off"))
    assert tree.nodes[1].status == "judged"


def test_arun_and_stream_inside_a_running_loop(make_agent) -> None:  # type: ignore[no-untyped-def]
    agent = make_agent(always(" Paris"))

    async def use() -> None:
        assert (await agent.arun("q")).answer == "Paris"
        seen = [item async for item in agent.stream("q")]
        assert isinstance(seen[-1], Result)
        assert isinstance(seen[0], Event)
        assert agent.run("q").answer == "Paris"  # the synchronous front works in here too (Jupyter)

    asyncio.run(use())


def test_leaving_a_stream_ends_the_search(make_agent) -> None:  # type: ignore[no-untyped-def]
    words = iter(range(1000))
    agent = make_agent(lambda _p, _s: f"w{next(words)}", delay_s=0.05, strategy=BestOfN(64))

    async def use() -> None:
        stream = agent.stream("q")
        async for _ in stream:
            break
        await stream.aclose()

    asyncio.run(use())
    began = time.monotonic()
    agent.close()
    assert time.monotonic() - began < 5


def test_visible_checks_guide_and_hidden_ones_stay_hidden(make_agent) -> None:  # type: ignore[no-untyped-def]
    words = iter(["a guess", "1911", "x"])
    core = ScriptedCore(at_once(lambda _p, _s: next(words)))
    criterion = SuccessCriterion(kind="regex", visible=(r"^\d{4}$",), hidden=("SECRET-CHECK",))
    result = make_agent([], core=core).run(Task(prompt="Which year?", success=criterion))
    assert (result.answer, result.stop_reason) == ("1911", "confident")
    assert not any("SECRET" in message.content for prompt in core.prompts for message in prompt.messages)


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_question_is_refused(make_agent, prompt: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="empty"):
        make_agent(always("x")).run(prompt)


def test_unknown_names_are_refused_at_once() -> None:
    with pytest.raises(UnknownName, match=r"qwen2.5-coder-0.5b"):
        Agent("gpt-17")
    with pytest.raises(UnknownName, match="python"):
        Agent(ScriptedCore([]), tools=["hammer"])


def test_the_kind_of_step_is_chosen_once_for_siblings(make_agent) -> None:  # type: ignore[no-untyped-def]
    asked: list[str] = []

    def script(prompt: Prompt, _sample: int) -> str:
        asked.append(prompt.prefill)
        return " Paris" if prompt.prefill else "text"

    agent = make_agent([], core=ScriptedCore(script), tools=("python",))
    assert agent.run("q").answer == "Paris"
    assert asked.count("") == 1


@pytest.mark.parametrize("strategy", [None, BestOfN(1, kinds=("code",))], ids=["core chooses", "program wished for"])
def test_without_a_tool_that_runs_code_a_value_is_worked_out_in_words(make_agent, tmp_path: Path, strategy) -> None:  # type: ignore[no-untyped-def]
    said = {"": r"Two and two make \boxed{4}.", "ANSWER:": " 5"}

    def script(prompt: Prompt, _sample: int) -> str:
        return "value" if asks_how_to_begin(prompt) else said[prompt.prefill]

    result = make_agent([], core=ScriptedCore(script), strategy=strategy).run("How much is two and two?")
    assert result.answer == "4"
    tree = Tree.from_events(open_store(tmp_path / "runs.sqlite").events(result.run_id))
    assert {node.worked for node in tree.nodes.values() if node.id} == {"reason"}
    assert {one.way for one in candidates(tree)} == {"reasoned"}


@pytest.mark.real
def test_a_program_need_not_repeat_what_the_task_gives(make_agent) -> None:  # type: ignore[no-untyped-def]
    given = SuccessCriterion(
        kind="tests", visible=("assert f([1, 2]) == 4",), prelude="from typing import List\n\ndef one():\n    return 1"
    )
    agent = make_agent(always("def f(x: List[int]):\n    return sum(x) + one()\n"), tools=("python",))
    result = agent.run(Task(prompt="q", success=given))
    assert result.stop_reason == "confident"
    assert "import" not in (result.answer or "")


class Pressed(Future[Result]):
    """A future whose waiter is met by Ctrl-C."""

    def __init__(self, future: Future[Result]) -> None:
        self._future, self._pressed = future, False

    def result(self, timeout: float | None = None) -> Result:
        if not self._pressed:
            self._pressed = True
            raise KeyboardInterrupt
        return self._future.result(timeout)


def test_ctrl_c_as_the_search_ends_is_heard_all_the_same(make_agent) -> None:  # type: ignore[no-untyped-def]
    agent = make_agent(always(" Paris"))
    ended = agent.run("Capital of France?")
    assert ended.stop_reason != "interrupted"

    over: Future[Result] = Future()
    over.set_result(ended)
    again = agent._wait(Pressed(over), Control())
    assert (again.answer, again.stop_reason) == (ended.answer, "interrupted")


# --- what breaks beside the search ---------------------------------------------------------------------------------


def test_a_store_that_breaks_takes_no_answer_with_it(make_agent, monkeypatch: pytest.MonkeyPatch, caplog) -> None:  # type: ignore[no-untyped-def]
    whole, judged = Store.append, 0

    def append(store: Store, run: str, seq: int, event: Event) -> None:
        nonlocal judged
        judged += event.kind == "judged"
        if judged > 1:
            raise StoreError("the disk is full")
        whole(store, run, seq, event)

    monkeypatch.setattr(Store, "append", append)
    numbers = iter(range(100))
    result = make_agent(lambda _p, _s: f"w{next(numbers)}", delay_s=0.02, strategy=BestOfN(8)).run("q")
    assert (result.answer, result.stop_reason) == ("w0", "error")
    assert result.warnings == ("the disk is full",)
    assert not caplog.records, "no callback broke either"


def test_a_charge_that_cannot_be_recorded_ends_the_run(make_agent, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    whole = Store.append

    def append(store: Store, run: str, seq: int, event: Event) -> None:
        if event.kind == "charged" and event.node is not None and event.node > 4:
            raise OSError("no space left")
        whole(store, run, seq, event)

    monkeypatch.setattr(Store, "append", append)
    numbers = iter(range(100))
    result = make_agent(lambda _p, _s: f"w{next(numbers)}", strategy=BestOfN(32)).run("q")
    assert (result.answer, result.stop_reason) == ("w0", "error")
    assert "no space left" in result.warnings[0]
    assert result.ledger.by_tool["core"].calls > 4, "the bill has it"


def test_a_listener_that_breaks_is_logged_once_and_the_search_goes_on(make_agent, caplog) -> None:  # type: ignore[no-untyped-def]
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        raise ValueError("no ears")

    with caplog.at_level(logging.ERROR):
        result = make_agent(always(" Paris")).run("q", on_event=hear)
    assert (result.answer, result.stop_reason, result.warnings) == ("Paris", "confident", ())
    assert [event.kind for event in heard] == ["started"]
    assert [record.name for record in caplog.records] == ["ponder.works"]
    assert "no ears" in caplog.text


def test_a_stream_whose_loop_was_closed_harms_nothing(make_agent, tmp_path: Path, caplog) -> None:  # type: ignore[no-untyped-def]
    agent = make_agent(always(" Paris"), delay_s=0.05)
    loop = asyncio.new_event_loop()
    stream = agent.stream("q")
    first = loop.run_until_complete(anext(stream))
    assert first.kind == "started"
    loop.close()
    store = open_store(tmp_path / "runs.sqlite")
    deadline = time.monotonic() + 10
    while store.runs()[0].stop_reason is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert store.runs()[0].stop_reason == "confident"
    assert not caplog.records


def test_a_task_with_pages_needs_a_browser(make_agent) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=r"http://a/.*browser"):
        make_agent(always("x")).run(Task(prompt="q", urls=("http://a/",)))


# --- whose run is ended --------------------------------------------------------------------------------------------


def slow(make_agent) -> Agent:  # type: ignore[no-untyped-def]
    numbers = iter(range(1000))
    return make_agent(lambda _p, _s: f"w{next(numbers)}", delay_s=0.05, strategy=BestOfN(16))  # type: ignore[no-any-return]


def test_cancelling_a_queued_run_leaves_the_current_one_alone(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    agent = slow(make_agent)
    begun = threading.Event()

    async def use() -> Result:
        first = asyncio.create_task(agent.arun("q", on_event=lambda _: begun.set()))
        await asyncio.to_thread(begun.wait)
        second = asyncio.create_task(agent.arun("r"))
        stream = agent.stream("s")
        third = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.1)
        second.cancel()
        third.cancel()
        await asyncio.gather(second, third, return_exceptions=True)
        return await first

    assert asyncio.run(use()).stop_reason == "exhausted"
    assert len(open_store(tmp_path / "runs.sqlite").runs()) == 1, "the others never began"


def test_ctrl_c_while_waiting_for_a_turn_ends_that_run_at_once(make_agent) -> None:  # type: ignore[no-untyped-def]
    agent = slow(make_agent)
    begun = threading.Event()
    ended: list[Result] = []
    first = threading.Thread(target=lambda: ended.append(agent.run("q", on_event=lambda _: begun.set())))
    first.start()
    begun.wait()
    future, control = agent._submit("r", None, None)
    second = agent._wait(Pressed(future), control)
    assert (second.answer, second.stop_reason, second.nodes) == (None, "interrupted", 0)
    assert not ended
    first.join()
    assert ended[0].stop_reason == "exhausted"


class NeverLoaded(ScriptedCore):
    def __init__(self) -> None:
        super().__init__([])
        self.loading = threading.Event()

    async def start(self) -> None:
        self.loading.set()
        await asyncio.Event().wait()


def test_ctrl_c_while_the_core_loads_gives_a_result(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    core = NeverLoaded()
    agent = make_agent([], core=core)
    future, control = agent._submit("q", None, None)
    core.loading.wait()
    result = agent._wait(Pressed(future), control)
    assert (result.answer, result.stop_reason) == (None, "interrupted")
    assert kinds(tmp_path, result.run_id) == ["started", "ended"]


def test_closing_ends_what_waits_and_a_closed_agent_can_be_used_again(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    class Counted(ScriptedCore):
        closed = 0

        async def close(self) -> None:
            self.closed += 1

    core = Counted(at_once(always(" Paris")), delay_s=0.1)
    agent = make_agent([], core=core)
    begun = threading.Event()
    results: list[Result] = []
    threads = [threading.Thread(target=lambda: results.append(agent.run("q", on_event=lambda _: begun.set())))]
    threads += [threading.Thread(target=lambda: results.append(agent.run("r"))) for _ in range(2)]
    threads[0].start()
    begun.wait()
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.1)
    agent.close()
    for thread in threads:
        thread.join()
    assert {result.stop_reason for result in results} == {"interrupted"}
    assert len(open_store(tmp_path / "runs.sqlite").runs()) == 1, "the others never began"
    assert core.closed == 1
    assert agent.run("q").answer == "Paris"
    agent.close()
    agent.close()
    assert core.closed == 2


# --- going on ------------------------------------------------------------------------------------------------------


def keep(home: Path, events: list[Event], run: str = "cut-off") -> Store:
    store = open_store(home / "runs.sqlite")
    store.create(run, "q")
    for seq, event in enumerate(events):
        store.append(run, seq, event)
    return store


def first_events(make_agent, home: Path, **options: object) -> list[Event]:  # type: ignore[no-untyped-def]
    whole = make_agent(always(" Paris"), **options).run("q")
    return open_store(home / "runs.sqlite").events(whole.run_id)[:-1]


def test_a_run_that_is_searched_cannot_be_resumed_beside(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    keep(tmp_path, first_events(make_agent, tmp_path)[:4])
    agent = make_agent(always(" Paris"))
    with held(tmp_path, "cut-off"):
        assert is_held(tmp_path, "cut-off")
        with pytest.raises(UsageError, match="run cut-off is still being searched by another process"):
            agent.resume("cut-off")
    assert not is_held(tmp_path, "cut-off")
    seen: list[bool] = []
    agent.resume("cut-off", on_event=lambda _: seen.append(is_held(tmp_path, "cut-off")))
    assert all(seen)
    assert seen
    assert list((tmp_path / "running").iterdir()) == []


def test_where_no_lock_can_be_made_a_run_goes_on_without(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "running").write_text("in the way")
    assert make_agent(always(" Paris")).run("q").answer == "Paris"
    assert not is_held(tmp_path, "any")


def test_a_resumed_run_that_ends_while_the_core_loads_gives_what_it_had(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    events = first_events(make_agent, tmp_path)
    before = [event for event in events if event.kind != "decided"]
    keep(tmp_path, before)
    result = make_agent([], core=NeverLoaded()).resume("cut-off", budget=Budget(wall_seconds=0.3))
    assert (result.answer, result.stop_reason, result.nodes) == ("Paris", "budget", 4)
    assert result.confidence > 0.9
    assert kinds(tmp_path, "cut-off")[-1] == "ended"


def test_a_resumed_run_has_the_budget_that_it_was_begun_with(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    events = first_events(make_agent, tmp_path)
    started = events[0].model_copy(update={"data": events[0].data | {"budget": {"tokens": 1}}})
    keep(tmp_path, [started, *(event for event in events[1:] if event.kind != "decided")])
    assert make_agent(always(" Paris"), budget=Budget(tokens=10_000)).resume("cut-off").stop_reason == "budget"


def test_what_a_run_was_begun_with_is_recorded_where_it_is_not_the_default(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert first_events(make_agent, tmp_path)[0].data["search"] == {}
    hosts = HostRules(allow_private=True, permitted=frozenset({"b:80", "a"}), only_hosts=frozenset())
    prices = Prices(per_tool={"core": Prices(cpu_second=3.0)})
    started = first_events(make_agent, tmp_path, hosts=hosts, prices=prices)[0]
    assert started.data["search"] == {
        "prices": {"per_tool": {"core": {"cpu_second": 3.0}}}, "allow_private": True, "permitted": ["a", "b:80"],
        "only_hosts": [],
    }  # fmt: skip
    terms = Terms.model_validate(started.data["search"])
    assert (terms.hosts, terms.prices) == (hosts, prices)
