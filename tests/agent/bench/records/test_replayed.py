"""A recorded tree, replayed, is what the policy was shown when it lived."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ponder.bench.problems import Problem
from ponder.bench.records.recording import recorded, write_tables
from ponder.bench.rooms import GradingRooms
from ponder.policies.full_depth import FullDepth
from ponder.policies.replay import Rates, Replay
from ponder.records import Task
from ponder.search.best_of_n import BestOfN
from ponder.tree import Event
from tests.agent.bench.records.test_recording import Seven

pytest.importorskip("pyarrow")

RATES = Rates(core="c", prompt_token_s=0.01, token_s={1: 0.2})


def test_a_tree_is_seen_again_as_it_was_at_each_decision(make_agent: Any, tmp_path: Path) -> None:
    answers = iter([" 7", " 8", " 7", " 7", " 9", " 7", " 7", " 7"])
    agent = make_agent(lambda *_: next(answers), strategy=BestOfN(5, first=2, step=3), policy=FullDepth())
    events: list[Event] = []
    agent.run(Task(prompt="q", id="suite/1"), on_event=events.append)
    problem = Problem(task=Task(prompt="q", id="suite/1"), grader=Seven(), plain="q", reply="text")
    with GradingRooms() as rooms:
        write_tables(tmp_path, [recorded("suite", problem, events, rooms)], {
            "suite": {"strategy": "best-of-n", "samples": 5}
        })  # fmt: skip
    (trace,) = Replay(RATES).traces(tmp_path)
    lived = [event.data["features"] for event in events if event.kind == "decided"]
    assert len(lived) == len(trace.prefixes)
    for then, now in zip(lived, trace.prefixes, strict=True):
        seen = now.features.model_dump(mode="json")
        spent = ("cpu_spent_s", "wall_spent_s", "tokens_spent", "cost_by_tool", "next_cost")
        assert {k: v for k, v in seen.items() if k not in spent} == {k: v for k, v in then.items() if k not in spent}
    assert trace.full.right == 1.0
