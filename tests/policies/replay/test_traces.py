"""Replay: recorded searches as they stood earlier, and what they would have cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ponder.bench.records.offline import searches
from ponder.bench.records.recording import read_table
from ponder.errors import UsageError
from ponder.judges.choosing import choose
from ponder.policies.full_depth import FullDepth
from ponder.policies.replay.rates import Rates
from ponder.policies.replay.traces import Replay, Trace, as_recorded, replayed
from ponder.policies.rules import AdaptiveConsistency, FixedN

pytest.importorskip("pyarrow")

SAMPLE = Path(__file__).parents[2] / "agent" / "bench" / "records" / "sample"
RATES = Rates(core="c", prompt_token_s=0.01, token_s={1: 0.2, 4: 0.1, 16: 0.06})


def test_a_token_costs_the_less_the_more_are_computed_together() -> None:
    assert [RATES.token(width) for width in (1, 4, 16, 64)] == [0.2, 0.1, 0.06, 0.06]
    assert RATES.token(2) == pytest.approx(0.2 - (1 - 1 / 2) / (1 - 1 / 4) * 0.1)
    assert Rates(core="c", prompt_token_s=0.01, token_s={4: 0.1}).token(1) == 0.1


def test_texts_that_end_leave_a_smaller_batch() -> None:
    assert RATES.side_by_side([10, 10, 10, 10]) == pytest.approx(40 * RATES.token(4))
    assert RATES.side_by_side([30, 10, 0]) == pytest.approx(20 * RATES.token(2) + 20 * RATES.token(1))
    assert RATES.side_by_side([30, 10], until=15) == pytest.approx(20 * RATES.token(2) + 5 * RATES.token(1))
    assert RATES.side_by_side([]) == 0.0


@pytest.fixture(scope="module")
def found() -> list[Trace]:
    return Replay(RATES, step=4).traces(SAMPLE)


def test_samples_grow_a_step_at_a_time_and_end_as_recorded(found: list[Trace]) -> None:
    whole = {(search.suite, search.task): search for search in searches(SAMPLE)}
    for trace in found:
        search = whole[trace.suite, trace.task]
        assert [prefix.features.samples for prefix in trace.prefixes] == [4, 8, 12, 16]
        assert [prefix.features.next_steps for prefix in trace.prefixes] == [4, 4, 4, 0]
        costs = [prefix.cpu_s for prefix in trace.prefixes]
        assert costs == sorted(costs)
        best = choose(search.first(16), ())
        assert trace.full.right == (best is not None and search.right[best.node])


def test_samples_are_seen_in_other_orders_too(found: list[Trace]) -> None:
    orders = Replay(RATES, step=4, orders=3).traces(SAMPLE)
    assert as_recorded(orders) == [dataclasses.replace(trace, weight=1 / 3) for trace in found]
    by_task: dict[str, list[Trace]] = {}
    for trace in orders:
        by_task.setdefault(trace.task, []).append(trace)
    assert {len(own) for own in by_task.values()} == {3}
    for own in by_task.values():
        assert sum(trace.weight for trace in own) == pytest.approx(1.0)
        assert len({trace.full.features.tokens_spent for trace in own}) == 1  # whichever is first reads the prompt
        assert len({round(trace.prefixes[0].features.tokens_spent) for trace in own}) > 1
    assert Replay(RATES, step=4, orders=3).traces(SAMPLE) == orders


def test_whole_searches_cost_what_their_tokens_do(found: list[Trace]) -> None:
    priced = {(search.suite, search.task): search for search in Replay(RATES, step=4).searches(SAMPLE)}
    for trace in found:
        search = priced[trace.suite, trace.task]
        assert search.cost.total_s == pytest.approx(trace.full.cpu_s)
        assert max(search.spent.values()) == pytest.approx(search.cost.total_s)


def test_the_samples_of_a_round_are_written_side_by_side() -> None:
    """The first of sixteen is not there after a sixteenth of what they cost, but when all have written as much."""
    rows = [row for row in read_table(SAMPLE, "nodes") if row["decisions_before"] == 0 and row["kind"] != "check"]
    rated = {row["task"] for row in rows if row["rubric_cpu_s"]}
    for search in Replay(RATES, step=16).searches(SAMPLE):
        if search.task in rated:
            continue
        own = sorted((row for row in rows if row["task"] == search.task), key=lambda row: row["tokens_out"])
        spent = [search.spent[row["node"]] for row in own]
        assert len(own) == 16
        assert spent == sorted(spent)
        shortest = own[0]["tokens_out"]
        assert 16 * shortest * RATES.token(16) < spent[0] < 16 * shortest * RATES.token(16) + 15


def test_a_smaller_step_costs_more_a_token(found: list[Trace]) -> None:
    one_by_one = Replay(RATES, step=1).traces(SAMPLE)
    assert [trace.task for trace in one_by_one] == [trace.task for trace in found]
    for slow, fast in zip(one_by_one, found, strict=True):
        assert slow.full.cpu_s > fast.full.cpu_s
        assert slow.prefixes[3].features.counts == fast.prefixes[0].features.counts


def test_prices_change_costs_and_not_cpu(found: list[Trace]) -> None:
    dear = Replay(RATES, step=4, prices={"python": 10.0}).traces(SAMPLE)
    for one, other in zip(found, dear, strict=True):
        assert other.full.cpu_s == one.full.cpu_s
        assert other.full.features.cost_by_tool["core"] == one.full.features.cost_by_tool["core"]
        assert other.full.cost >= one.full.cost


def test_a_policy_stops_a_search_earlier_or_not_at_all(found: list[Trace]) -> None:
    for trace in found:
        assert replayed(trace, FixedN(8)).at is trace.prefixes[1]
        never = replayed(trace, FullDepth())
        assert never.at is trace.full
        assert never.decision is None
        assert replayed(trace, AdaptiveConsistency()).at.cpu_s <= trace.full.cpu_s


def test_records_of_another_version_are_refused_by_name(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in SAMPLE.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    nodes = pq.read_table(tmp_path / "nodes.parquet")
    pq.write_table(nodes.drop_columns(["decisions_before"]), tmp_path / "nodes.parquet")
    with pytest.raises(UsageError, match="lacks 'decisions_before'"):
        Replay(RATES).traces(tmp_path)
    with pytest.raises(UsageError, match="holds no records"):
        Replay(RATES).traces(tmp_path / "nothing")
    decisions = pq.read_table(tmp_path / "decisions.parquet")
    at = decisions.column_names.index("feature_version")
    later = decisions.set_column(at, "feature_version", pa.array([99] * len(decisions)))
    pq.write_table(later, tmp_path / "decisions.parquet")
    with pytest.raises(UsageError, match="features of version 99, and these are"):
        Replay(RATES).traces(tmp_path)
