"""Recorded searches as tables: what stands in them, and what does not."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from ponder.bench.problems import Problem
from ponder.bench.records.recording import TABLES, Recorded, manifest_of, read_table, recorded, write_tables
from ponder.bench.rooms import GradingRooms
from ponder.errors import UsageError
from ponder.policies.full_depth import FullDepth
from ponder.records import Task
from ponder.search.best_of_n import BestOfN
from ponder.search.self_consistency import SelfConsistency
from ponder.tree import Event

from .graders import Seven


@pytest.fixture
def run(make_agent: Any) -> tuple[Problem, list[Event]]:
    """Return a problem and the events of its run: three samples."""
    agent = make_agent([" 7", " 8", " 7"], strategy=SelfConsistency(3), policy=FullDepth())
    task = Task(prompt="a secret prompt", id="suite/1")
    events: list[Event] = []
    agent.run(task, on_event=events.append)
    return Problem(task=task, grader=Seven(), plain="q", reply="text"), events


def test_every_node_is_graded_by_its_own_answer_and_equal_ones_once(run: tuple[Problem, list[Event]]) -> None:
    problem, events = run
    with GradingRooms() as rooms:
        found = recorded("suite", problem, events, rooms)
    answers = {row["node"]: (row["answer"], row["right"]) for row in found.nodes if row["answer"]}
    assert sorted(answers.values()) == [("7", True), ("7", True), ("8", False)]
    assert sorted(problem.grader.graded) == ["7", "8"]  # type: ignore[attr-defined]
    (task,) = found.tasks
    assert (task["answer"], task["right"], task["stop_reason"]) == ("7", True, "exhausted")
    assert found.decisions[-1]["feature_answered"] == 3
    assert all(row["task"] == "suite/1" for table in TABLES for row in getattr(found, table))


def test_a_node_says_after_how_many_decisions_it_was_asked_for_and_settled(make_agent: Any) -> None:
    answers = itertools.count(1)
    strategy = BestOfN(5, first=2, step=2, kinds=("answer",))
    agent = make_agent(lambda *_: f" {next(answers)}", strategy=strategy, policy=FullDepth())
    events: list[Event] = []
    agent.run(Task(prompt="q", id="suite/1"), on_event=events.append)
    with GradingRooms() as rooms:
        found = recorded("suite", Problem(task=Task(prompt="q", id="suite/1"), grader=Seven(), plain="q", reply="text"),
                         events, rooms)  # fmt: skip
    first, second, third, fourth, last, *_ = (row["decisions_before"] for row in found.nodes)
    assert first == second == 0 < third == fourth < last < len(found.decisions)
    assert found.decisions[last - 1]["feature_samples"] == 4
    for place, decision in enumerate(found.decisions):
        settled = [row for row in found.nodes if row["settled_after"] <= place]
        assert decision["feature_answered"] == sum(bool(row["answer"]) for row in settled)


def test_tables_come_back_as_they_were_and_hold_no_task(run: tuple[Problem, list[Event]], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    problem, events = run
    with GradingRooms() as rooms:
        found = recorded("suite", problem, events, rooms)
    counts = write_tables(tmp_path / "made", [found, found], {"suite": {"core": "scripted"}})
    assert counts == {"tasks": 2, "nodes": 2 * len(found.nodes), "decisions": 2 * len(found.decisions)}
    assert list(read_table(tmp_path / "made", "nodes")) == [*found.nodes, *found.nodes]
    assert "secret" not in repr([list(read_table(tmp_path / "made", table)) for table in TABLES])


def test_tables_take_more_runs_and_refuse_other_settings(run: tuple[Problem, list[Event]], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    problem, events = run
    with GradingRooms() as rooms:
        found = recorded("suite", problem, events, rooms)
    other = Recorded(**{
        table: tuple(row | {"task": "suite/2"} for row in getattr(found, table)) for table in TABLES
    })  # fmt: skip
    manifest = {"strategy": "auto", "run": {"cpu": "one"}}
    write_tables(tmp_path, [found], {"suite": manifest})
    write_tables(tmp_path, [other], {"suite": manifest | {"run": {"cpu": "two"}}})
    counts = write_tables(tmp_path, [found], {"suite": manifest | {"run": {"cpu": "one"}}})
    assert counts["tasks"] == 2, "a task that is there is replaced"
    assert {row["task"]: row["run"] for row in read_table(tmp_path, "tasks")} == {"suite/1": 0, "suite/2": 1}
    assert manifest_of(tmp_path) == {"suite": {"strategy": "auto", "runs": [{"cpu": "one"}, {"cpu": "two"}]}}
    with pytest.raises(UsageError, match="with strategy 'auto', not 'mcts'"):
        write_tables(tmp_path, [found], {"suite": manifest | {"strategy": "mcts"}})
    assert not list(tmp_path.glob("*.new")), "nothing half written is left"


def test_a_run_that_did_not_end_is_refused(run: tuple[Problem, list[Event]]) -> None:
    problem, events = run
    with GradingRooms() as rooms, pytest.raises(ValueError, match="has not ended"):
        recorded("suite", problem, events[:-1], rooms)
