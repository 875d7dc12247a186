"""Words that are no act cost one more question, and the tree says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ponder.records import Prompt, SuccessCriterion, Task
from ponder.search.best_of_n import BestOfN
from ponder.store import open_store
from ponder.tree import Event, Tree


def said(*words: str):  # type: ignore[no-untyped-def]
    lines: Iterator[str] = iter(words)
    return lambda _prompt, _sample: next(lines)


def events_of(run_id: str, home: Path) -> list[Event]:
    return list(open_store(home / "runs.sqlite").events(run_id))


def test_one_repair_and_the_branch_goes_on(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    asked: list[Prompt] = []
    words = iter(["", " Paris"])

    def script(prompt: Prompt, _sample: int) -> str:
        asked.append(prompt)
        return next(words)

    result = make_agent(script, strategy=BestOfN(1, kinds=("answer",))).run("Which city?")
    assert result.answer == "Paris"
    assert len(asked) == 2
    assert asked[1].messages[: len(asked[0].messages)] == asked[0].messages, "the prefix is shared"
    assert "nothing in it" in asked[1].messages[-1].content
    assert asked[1].prefill == asked[0].prefill
    events = events_of(result.run_id, tmp_path)
    assert sum(event.kind == "repairing" for event in events) == 1
    tree = Tree.from_events(events)
    assert tree.nodes[1].repair is not None
    assert tree.nodes[1].repair.text == "ANSWER:"
    assert tree.nodes[1].answer == "Paris"
    charges = [event for event in events if event.kind == "charged" and event.node == 1]
    assert len(charges) == 2, "both questions are on the node's bill"


def test_there_is_no_second_repair(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = make_agent(lambda _p, _s: "", strategy=BestOfN(1, max_depth=1, kinds=("answer",))).run("Which city?")
    assert result.answer is None
    events = events_of(result.run_id, tmp_path)
    assert sum(event.kind == "repairing" for event in events) == 1
    assert sum(event.kind == "thought" for event in events) == 1


def test_what_met_the_limit_of_tokens_is_not_asked_again(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A ramble (a call that never closes) would only be as long again."""
    ramble = "f(g( " + "and " * 600
    agent = make_agent(lambda _p, _s: ramble, strategy=BestOfN(1, max_depth=1, kinds=("code",)), tools=("python",))
    result = agent.run("q")
    events = events_of(result.run_id, tmp_path)
    assert not any(event.kind == "repairing" for event in events)
    assert sum(event.kind == "thought" for event in events) == 1


def test_what_follows_waits_for_the_repair(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A branch that had to be asked again keeps its place: what was asked later is not decided on before it."""
    agent = make_agent(said("", " Rome", " Rome", " Paris"), strategy=BestOfN(3, first=3, kinds=("answer",)))
    result = agent.run("Which city?")
    events = events_of(result.run_id, tmp_path)
    decided = next(place for place, event in enumerate(events) if event.kind == "decided")
    assert sum(event.kind == "thought" for event in events[:decided]) == 3


def test_a_program_that_is_no_python_is_told_so(make_agent) -> None:  # type: ignore[no-untyped-def]
    asked: list[str] = []
    words = iter(["def f(:\n    return 1", "def f():\n    return 1"])

    def script(prompt: Prompt, _sample: int) -> str:
        asked.append(prompt.messages[-1].content)
        return next(words)

    criterion = SuccessCriterion(kind="tests", visible=("assert f() == 1",))
    result = make_agent(script, strategy=BestOfN(1)).run(Task(prompt="Write f", success=criterion))
    assert result.answer == "def f():\n    return 1"
    assert "no valid Python" in asked[1]
    assert "(line 1)" in asked[1]


def test_a_resumed_run_asks_the_repair_and_not_the_step(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    whole = make_agent(said("", " Paris"), strategy=BestOfN(1, kinds=("answer",))).run("q")
    store = open_store(tmp_path / "runs.sqlite")
    events = store.events(whole.run_id)
    cut = next(i for i, event in enumerate(events) if event.kind == "repairing") + 1
    store.create("cut-off", "q")
    for i, event in enumerate(events[:cut]):
        store.append("cut-off", i, event)
    asked: list[Prompt] = []

    def script(prompt: Prompt, _sample: int) -> str:
        asked.append(prompt)
        return " Paris"

    assert make_agent(script, strategy=BestOfN(1, kinds=("answer",))).resume("cut-off").answer == "Paris"
    assert len(asked) == 1
    assert "nothing in it" in asked[0].messages[-1].content
