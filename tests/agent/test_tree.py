"""The tree is a fold over events, the same live and rebuilt."""

from __future__ import annotations

import pytest

from ponder.records import Answer, RunCode, Task
from ponder.tree import Event, Tree


def test_path_children_and_answer(grow) -> None:  # type: ignore[no-untyped-def]
    maker = grow()
    first = maker.add(RunCode(code="1"))
    second = maker.add(Answer(text="7"), parent=first)
    other = maker.add(status="failed")
    tree = maker.tree
    assert [node.id for node in tree.path(second)] == [first, second]
    assert [node.id for node in tree.children(0)] == [first, other]
    assert tree.nodes[second].answer == "7"
    assert tree.nodes[second].branch == first
    assert tree.path(0) == []


def test_rebuilding_gives_the_same_tree() -> None:
    task = Task(prompt="q")
    events = [
        Event(kind="started", data={"task": task.model_dump(mode="json")}),
        Event(kind="asked", data={"id": 1, "parent": 0, "branch": 1, "depth": 1}),
        Event(kind="thought", node=1, data={"text": "ANSWER: 3", "action": {"type": "answer", "text": "3"}}),
        Event(kind="charged", node=1, data={"tool": "core", "cost": 1.5}),
        Event(kind="charged", node=1, data={"tool": "core", "cost": 1.0}),
        Event(kind="charged", node=1, data={"tool": "python", "cost": 0.5}),
        Event(kind="charged", data={"tool": "browser", "cost": 9.0}),
        Event(kind="judged", node=1, data={"score": 0.5}),
        Event(kind="decided", data={}),
    ]
    live = Tree(task)
    for event in events[1:]:
        live.apply(event)
    rebuilt = Tree.from_events(events)
    assert rebuilt.nodes == live.nodes
    assert rebuilt.rounds == 1
    assert rebuilt.nodes[1].costs == {"core": 2.5, "python": 0.5}


def test_a_run_begins_with_started() -> None:
    with pytest.raises(ValueError, match="started"):
        Tree.from_events([])
