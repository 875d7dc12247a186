"""A small sample of real records: what is read from them is what the judge saw, and said, when they were made."""

from __future__ import annotations

import importlib
import json
import math
from collections import Counter
from pathlib import Path

import pytest

from ponder.bench.records.fitting import snapshots
from ponder.bench.records.matched import match
from ponder.bench.records.offline import Search, searches
from ponder.bench.records.recording import manifest_of, read_table
from ponder.bench.records.selection import ablate, picked, picks, select
from ponder.errors import UsageError
from ponder.judges.agreement import same_answer
from ponder.judges.calibration import load
from ponder.judges.choosing import choose
from ponder.policies.replay.rates import rates_of
from ponder.policies.replay.traces import Replay

pytest.importorskip("pyarrow")

SAMPLE = Path(__file__).parent / "sample"
"""Tasks of each training suite, sixteen samples each, packed by `benchmarks/record.py pack --tasks 2`."""


@pytest.fixture(scope="module")
def found() -> list[Search]:
    return searches(SAMPLE)


def test_every_suite_is_there_with_all_samples(found: list[Search]) -> None:
    assert {search.suite for search in found} == {"mbpp", "gsm8k", "reasoning_gym", "open_ended"}
    assert manifest_of(SAMPLE).keys() == {search.suite for search in found}
    for search in found:
        assert search.independent
        assert len(search.samples) == 16
        assert search.cost.total_s == pytest.approx(max(search.spent.values()))
        assert min(search.spent.values()) > 0


def test_no_task_is_told(found: list[Search]) -> None:
    columns = {table: set(next(iter(read_table(SAMPLE, table)))) for table in ("tasks", "nodes", "decisions")}
    assert not any(name in columns[table] for table in columns for name in ("prompt", "question", "visible_tests"))
    assert {search.task.split("/")[0] for search in found} == {"mbpp", "gsm8k", "gym", "open"}


def test_the_judge_chooses_what_it_chose(found: list[Search]) -> None:
    """Or what does the same on all calls: of such programs it once took the one that the core was surest of."""
    said = {(row["suite"], row["task"]): row["answer"] for row in read_table(SAMPLE, "tasks")}
    said["reasoning_gym", "gym/time_intervals/2026/0"] = "11:47"  # then read as 47, as 12:47 was
    for search in found:
        own = search.first(16)
        best = choose(own, search.tests)
        answer = said[search.suite, search.task]
        if best is not None and best.answer != answer:
            there = {candidate.node: candidate for candidate in own}
            then = next(candidate for candidate in own if candidate.answer == answer)
            assert same_answer(there[best.node], then), search.task
        else:
            assert (best.answer if best else None) == answer, search.task


def test_figures_come_of_them(found: list[Search]) -> None:
    for search in found:
        seen = picks(search, 16)
        assert 0 <= seen.one <= seen.oracle <= 1
        assert picked(search, 16) == seen.judge
    assert select([picks(search, 16) for search in found]).tasks == len(found)
    assert {row.piece for row in ablate(found, 16)} >= {"behaviour", "own tests", "rubric"}
    same = match(found, found)
    assert (same.ahead.value, same.other_cpu_s) == (0.0, pytest.approx(same.cpu_s))


def test_every_signal_is_a_number(found: list[Search]) -> None:
    for one in (snapshot for search in found for snapshot in snapshots(search)):
        told = one.seen.model_dump(exclude={"kind"}).values()
        assert all(value is None or math.isfinite(value) for value in told)


def test_decisions_have_the_features_of_a_live_run() -> None:
    rows = list(read_table(SAMPLE, "decisions"))
    assert {row["feature_version"] for row in rows} == {1, 2}
    assert all(sum(json.loads(row["feature_votes"])) >= 0 and row["feature_cpu_spent_s"] > 0 for row in rows)


def test_the_more_programs_have_to_agree_the_more_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[4] / "benchmarks"))
    report = importlib.import_module("alike_report")
    found = report.compare(SAMPLE, Replay(rates=rates_of("qwen2.5-coder-1.5b"), calibration=load()))
    ((count, kept),) = found.values()
    assert (list(found), count) == (["mbpp, sample"], 2)
    costs = [kept[rule].cost for rule in ("1", "2", "3", "4", "full")]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


def test_what_records_hold_as_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[4] / "benchmarks"))
    script = importlib.import_module("records_table")
    found = script.look(SAMPLE)
    assert {suite: own["tasks"] for suite, own in found["."]["suites"].items()} == Counter(
        one.suite for one in searches(SAMPLE)
    )
    head, _, first, *_, last = script.shown(found).splitlines()
    assert "tokens written" in head
    assert first.startswith("| `.` | ")
    assert last.startswith("| all |  | 8 | ")
    with pytest.raises(UsageError, match="holds no records"):
        script.look(SAMPLE.parent / "__pycache__")
