"""A recorded tree, replayed, is what the policy was shown when it lived; and ends where a live search ends."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ponder.bench.problems import Problem
from ponder.bench.records.recording import recorded, write_tables
from ponder.bench.rooms import GradingRooms
from ponder.billing import Prices
from ponder.policies.full_depth import FullDepth
from ponder.policies.learned import HEADS, LearnedStop, Model, Weights
from ponder.policies.replay.rates import Rates
from ponder.policies.replay.traces import Replay
from ponder.protocols import StopPolicy
from ponder.records import Task
from ponder.search.best_of_n import BestOfN
from ponder.tree import Event
from tests.agent.bench.records.graders import Seven

pytest.importorskip("pyarrow")

REPORT = Path(__file__).parents[4] / "benchmarks/live_report.py"
RATES = Rates(core="c", prompt_token_s=0.01, token_s={1: 0.2})
CONTENT = Model(
    kind="answers", inputs=(), bias=dict.fromkeys(HEADS, -9.0), weights={head: {} for head in HEADS},
)  # fmt: skip
WEIGHTS = Weights(core="c", features=5, records=(), models=(CONTENT,), careful=(CONTENT,), certificates=())
"""Stops at the first answer: nothing is gained after it, whatever it costs."""

WORDS = Prices(token_out=1.0)
"""A scripted core takes no CPU to speak of."""

Searched = Callable[..., tuple[Path, list[Event]]]


@pytest.fixture
def searched(make_agent: Any, tmp_path: Path) -> Searched:
    """Return a function that searches, and packs what came."""

    def search(name: str, policy: StopPolicy, task: str = "suite/1", **settings: Any) -> tuple[Path, list[Event]]:
        answers = iter([" 7", " 8", " 7", " 7", " 9", " 7", " 7", " 7"])
        strategy = BestOfN(5, first=2, step=3, kinds=("answer",))
        agent = make_agent(lambda *_: next(answers), strategy=strategy, policy=policy, prices=WORDS)
        events: list[Event] = []
        agent.run(Task(prompt="q", id=task), on_event=events.append)
        problem = Problem(task=Task(prompt="q", id=task), grader=Seven(), plain="q", reply="text")
        about = {"strategy": "best-of-n", "samples": 5, **settings}
        with GradingRooms() as rooms:
            write_tables(tmp_path / name, [recorded("suite", problem, events, rooms)], {"suite": about})
        return tmp_path / name, events

    return search


def test_a_tree_is_seen_again_as_it_was_at_each_decision(searched: Searched) -> None:
    folder, events = searched("full", FullDepth())
    (trace,) = Replay(RATES).traces(folder)
    lived = [event.data["features"] for event in events if event.kind == "decided"]
    assert len(lived) == len(trace.prefixes)
    for then, now in zip(lived, trace.prefixes, strict=True):
        seen = now.features.model_dump(mode="json")
        spent = ("cpu_spent_s", "wall_spent_s", "tokens_spent", "cost_by_tool", "next_cost_by_tool")
        assert {k: v for k, v in seen.items() if k not in spent} == {k: v for k, v in then.items() if k not in spent}
    assert trace.full.right == 1.0


Report = Callable[..., tuple[int, str, str]]


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Report:
    """Run the script in this process; return its exit status and what it wrote."""
    monkeypatch.syspath_prepend(str(REPORT.parent))
    script = importlib.import_module(REPORT.stem)
    weights, rates = tmp_path / "stop.json", tmp_path / "rates.json"
    weights.write_text(WEIGHTS.model_dump_json(), "utf-8")
    rates.write_text(json.dumps({"c": RATES.model_dump()}), "utf-8")

    def run(full: Path, *live: Path) -> tuple[int, str, str]:
        words = ["--full", full, "--live", *live, "--weights", weights, "--rates", rates]
        monkeypatch.setattr(sys, "argv", [str(REPORT), *map(str, words)])
        return (script.exit_status(script.main), *capsys.readouterr())

    return run


def test_live_searches_beside_the_replay_of_full_ones(searched: Searched, report: Report) -> None:
    full, _ = searched("full", FullDepth())
    live, events = searched("live", LearnedStop(WEIGHTS), value=1000.0)
    assert [event.data["decision"]["stop"] for event in events if event.kind == "decided"][-1]
    status, out, _ = report(full, live)
    assert status == 0
    found = json.loads(out.splitlines()[-1])["live"]
    assert found["agrees"]
    assert found["replay"]["accuracy"]["value"] == found["live"]["accuracy"]["value"] == 1.0
    assert 0 < found["live"]["cost"]["value"] == found["replay"]["cost"]["value"]
    assert found["live"]["cost"]["value"] < next(iter(Replay(RATES).traces(full))).full.cpu_s, "it was stopped early"
    dear = {"per_tool": {"core": {"cpu_second": 10.0}}}
    longer, steps = searched("dear", FullDepth(), value=1e6, prices=dear)
    status, out, _ = report(full, live, longer)
    assert (status, "value 1e+06, `core` 10 times as dear" in out) == (0, True)
    (changed,) = json.loads(out.splitlines()[-1])["prices"]
    more = sum(event.kind == "judged" for event in steps) - sum(event.kind == "judged" for event in events)
    assert (changed["tasks"], changed["runs"]["value"], changed["words"]["value"]) == (1, 0.0, more)
    assert more > 0


def test_runs_of_the_same_searches_together(searched: Searched, report: Report) -> None:
    full, _ = searched("full", FullDepth())
    first, _ = searched("first/live", LearnedStop(WEIGHTS), value=1000.0)
    second, _ = searched("second/live", FullDepth(), value=1000.0)
    status, out, _ = report(full, first, second)
    assert (status, "value 1000: all 2 runs | 1 |" in out) == (0, True)
    found = json.loads(out.splitlines()[-1])
    costs = [found[name]["live"]["cost"]["value"] for name in ("first/live", "second/live", "live")]
    assert costs[0] < costs[1]
    assert costs[2] == pytest.approx((costs[0] + costs[1]) / 2)
    assert (found["live"]["times"], found["live"]["live"]["tasks"]) == (2, 1)
    third, _ = searched("third/live", LearnedStop(WEIGHTS), value=2.0)
    assert "have several values" in report(full, first, third)[2]


def test_live_searches_that_cannot_be_compared(searched: Searched, report: Report) -> None:
    full, _ = searched("full", FullDepth())
    status, out, err = report(full, full)
    assert (status, out) == (2, "")
    assert "no searches that a value ended" in err
    other, _ = searched("other", FullDepth(), task="suite/2", value=1.0)
    assert "no task in common" in report(full, other)[2]


def test_the_first_sample_alone(searched: Searched) -> None:
    folder, _ = searched("full", FullDepth())
    (alone,) = Replay(RATES).first_samples(folder)
    (full,) = Replay(RATES).traces(folder)
    (only,) = alone.prefixes
    assert (only.features.samples, only.features.answered, only.right) == (1, 1, 1.0)
    assert (full.full.features.samples, full.full.features.answered) == (5, 5)
    assert only.cpu_s == pytest.approx(full.full.cpu_s / 5), "all were written one by one here, and share no prompt"
