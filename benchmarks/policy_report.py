"""The stop policy's figures from recorded searches: frontier, transfer between suites, risks, prices, its own cost; and
tasks without checks, each by a policy that was trained without it.

    python benchmarks/policy_report.py --train FOLDER... --held-out FOLDER... --weights FILE [--write docs/stop.md]

A FOLDER is one of `benchmarks/records/`; all must be of one core. `--weights` is what `ponder policy train` made of the
training ones. Records of each strategy are looked at by themselves. No core runs here.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from judge_tables import points, share, table
from pages import exit_status, put

from ponder.bench.open_ended.tasks import tasks as open_tasks
from ponder.bench.records.curves import draw_frontier
from ponder.bench.records.fitting import fit, snapshots
from ponder.bench.records.offline import INDEPENDENT, as_shipped, searches
from ponder.bench.records.recording import TABLES, by_strategy, manifest_of, read_table
from ponder.judges.calibration import load as load_calibration
from ponder.policies.full_depth import FullDepth
from ponder.policies.learned import VALUE, LearnedStop, Weights, read
from ponder.policies.replay.frontier import MOST, Evaluation, Row, evaluate, outcome, outcomes, row, unseen
from ponder.policies.replay.rates import RATES, rates_of
from ponder.policies.replay.traces import ORDERS, Replay, Stopped, Trace, as_recorded, replayed
from ponder.policies.train import FOLDS, SCORED, part_of, train
from ponder.records import Record
from ponder.stats import Interval, chance_of_lead, paired_bootstrap

BEGIN, END = "<!-- tables of benchmarks/policy_report.py -->", "<!-- end of the tables -->"
UNREAD = "by what no search checks"
DEAR = 10.0
"""So many times the price."""


class Moved(Record):
    """A policy that was trained without a suite, on that suite."""

    suite: str
    without: Row
    trained_on_all: Row
    outside: float
    """The share of its decisions that it did not judge: nothing like it was in training."""


class Stranger(NamedTuple):
    """A policy that has not seen a suite, and how it sees searches."""

    replay: Replay
    policy: LearnedStop


class Crossed(Record):
    """A policy on a suite that there are training tasks of only: each task by one that was trained without it."""

    suite: str
    full: Row
    learned: Row
    reasons: Mapping[str, int]
    """How often it stopped for which reason; `exhausted`: it never did."""


class Priced(Record):
    """What a price does."""

    tool: str
    samples: float
    """Mean samples that a search took, at the usual price."""
    fewer: Interval
    """How many less it took at ten times the price, task by task."""


def stranger_to(replay: Replay, folders: Sequence[Path], weights: Weights, suite: str, value: float) -> Stranger:
    """Return a policy that knows nothing of a suite; the judge's probability is fitted without it, too.

    Args:
        folders: all training searches, those of the suite among them.
    """
    known = [one for folder in folders for one in searches(folder)]
    if any(one.suite == suite for one in known):
        rest = [one for search in known if search.suite != suite for one in snapshots(as_shipped(search))]
        judge = fit(rest, core=weights.core, records=weights.records).of(weights.core)
        replay = replace(replay, calibration=judge)
    traces = [trace for trace in _traces(replay, folders) if trace.suite != suite]
    return Stranger(replay, LearnedStop(train(traces, core=weights.core, records=weights.records), value=value))


def moved(
    others: Mapping[str, Stranger], folders: Sequence[Path], held: Sequence[Trace], whole: Sequence[Trace],
    weights: Weights, value: float,
) -> list[Moved]:
    """Return, suite by suite, what a policy is worth there that has not seen it in training.

    Args:
        others: by suite, that policy.
        folders: the held-out searches.
        held: the same, as the policy of all suites sees them.
        whole: the same, as the full depth takes its samples.
    """
    found = []
    for suite, other in others.items():
        usual = [one for one in held if one.suite == suite]
        own = [one for one in unseen(weights, other.replay, folders) if one.suite == suite]
        full = outcomes([one for one in whole if one.suite == suite], None)
        decided = [other.policy.judges(prefix.features) for trace in own for prefix in trace.prefixes[:-1]]
        outside = decided.count(False)
        found.append(Moved(
            suite=suite,
            without=row(outcomes(own, other.policy), full, policy=suite),
            trained_on_all=row(outcomes(usual, LearnedStop(weights, value=value)), full, policy=suite),
            outside=outside / max(1, len(decided)),
        ))  # fmt: skip
    return found


def crossed(
    trained: Sequence[Trace], own: Sequence[Trace], whole: Sequence[Trace], weights: Weights, value: float
) -> Crossed:
    """Return what a policy makes of training tasks that was trained without them, in five folds.

    Args:
        trained: all training searches.
        own: those of one suite, to be measured on.
        whole: the same, as the full depth takes its samples.
    """
    stopped: dict[str, Stopped] = {}
    for fold in range(FOLDS):
        policy = LearnedStop(train([one for one in trained if _fold(one) != fold], core=weights.core,
                                   records=weights.records), value=value)  # fmt: skip
        stopped |= {one.task: replayed(one, policy) for one in own if _fold(one) == fold}
    full = outcomes(whole, None)
    made = [outcome(one, stopped[one.task].at) for one in own]
    reasons = Counter(str(at.decision.reason) if at.decision else "exhausted" for at in stopped.values())
    return Crossed(
        suite=own[0].suite, full=row(full, full, policy=FullDepth.name), reasons=reasons,
        learned=row(made, full, policy=LearnedStop.name, value=value),
    )  # fmt: skip


def by_what_no_search_checks(folder: Path, suite: str, into: Path) -> Path:
    """Copy packed records of open-ended tasks; answers' scores are of those constraints that no search checks itself.

    The judge reads constraints from the prompt too: where it chooses by the same ones, a score says little of the rest.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tasks = {one.id: one for one in open_tasks("http://127.0.0.1")}
    made = into / folder.name
    made.mkdir(parents=True)
    for name in TABLES:
        lines = [line for line in read_table(folder, name) if line["suite"] == suite]
        for line in lines:
            if line.get("answer"):
                line["score"] = statistics.fmean(tasks[line["task"]].unread(line["answer"]))
        pq.write_table(pa.Table.from_pylist(lines), made / f"{name}.parquet")
    shutil.copy(folder / "manifest.json", made)
    return made


def one_sample(replay: Replay, folders: Sequence[Path], whole: Sequence[Trace]) -> Row:
    """Return what the first sample alone is worth of such searches."""
    tasks = {one.task for one in whole}
    alone = [one for folder in folders for one in replay.first_samples(folder) if one.task in tasks]
    return row(outcomes(alone, None), outcomes(whole, None), policy="one sample")


def _fold(trace: Trace) -> int:
    return int(part_of(f"fold {trace.task}") * FOLDS)


def priced(
    replay: Replay, folders: Sequence[Path], held: Sequence[Trace], weights: Weights, value: float
) -> list[Priced]:
    """Return how far searches, `held` at the usual prices, shorten where tokens or code runs cost ten times as much."""
    policy = LearnedStop(weights, value=value)

    def samples(traces: Sequence[Trace]) -> dict[str, float]:
        found: dict[str, list[int]] = {}
        for trace in traces:
            found.setdefault(trace.task, []).append(replayed(trace, policy).at.features.samples)
        return {task: statistics.fmean(own) for task, own in found.items()}

    usual, priced = samples(held), list[Priced]()
    for tool in ("core", "python"):
        dear = samples(unseen(weights, replace(replay, prices={tool: DEAR}), folders))
        fewer = paired_bootstrap([usual[task] - dear[task] for task in usual])
        priced.append(Priced(tool=tool, samples=statistics.fmean(usual.values()), fewer=fewer))
    return priced


def _traces(replay: Replay, folders: Sequence[Path]) -> list[Trace]:
    return [trace for folder in folders for trace in replay.traces(folder)]


def _whole(replay: Replay, strategy: str) -> Replay:
    """Return how a full search is seen again: independent samples are all taken at once."""
    return replace(replay, step=MOST) if strategy == INDEPENDENT else replay


def milliseconds(weights: Weights, traces: Sequence[Trace]) -> tuple[float, float]:
    """Return what a decision takes on average, and what it takes to see where the search stands, by CPU.

    Nothing that is worked out for one decision is there already for the next.
    """
    policy = LearnedStop(weights)
    prefixes, decided = [prefix for trace in as_recorded(traces) for prefix in trace.prefixes], 0.0
    for prefix in prefixes:
        chance_of_lead.cache_clear()
        began = time.process_time()
        policy.decide(prefix.features)
        decided += time.process_time() - began
    return 1000 * decided / len(prefixes), 1000 * statistics.fmean(prefix.seen_s for prefix in prefixes)


# --- tables --------------------------------------------------------------------------------------------------


def frontier_table(found: Evaluation) -> str:
    """Return the frontier of one strategy's searches."""
    head = ["policy", "value", "accuracy", "cost a task", "saved", "accuracy less full depth"]
    rows = [
        [
            f"`{one.policy}`", "" if one.value is None else f"{one.value:g}", share(one.accuracy), _number(one.cost),
            share(one.saved), points(one.difference),
        ]
        for one in found.frontier
    ]  # fmt: skip
    lines = [
        f"- at the accuracy of `{one.rule}` ({share(one.accuracy)}, {_number(one.cost)} a task, {one.step} at once) "
        f"the learned policy saves {share(one.saved)} of its cost."
        for one in found.against
    ]
    lines += [f"- {one.told}." for one in (*found.guarantees, *found.shipped)]
    title = f"### {found.strategy}: {found.tasks} held-out tasks"
    return "\n\n".join([title, table(head, rows), "\n".join(lines)])


def moved_table(found: Sequence[Moved]) -> str:
    """Return the transfer from suite to suite."""
    head = ["suite", "tasks", "saved", "accuracy less full depth", "saved, trained without the suite",
            "accuracy less full depth", "decisions not judged: nothing like it in training"]  # fmt: skip
    rows = [
        [
            one.suite, str(one.without.tasks), share(one.trained_on_all.saved), points(one.trained_on_all.difference),
            share(one.without.saved), points(one.without.difference), f"{one.outside:.0%}",
        ]
        for one in found
    ]  # fmt: skip
    return table(head, rows)


def crossed_table(strategy: str, found: Crossed, alone: Row, what: str = "") -> str:
    """Return a suite's cross-fitted figures.

    Args:
        what: else all constraints grade.
    """
    head = ["search", "tasks", "score", "cost a task", "less than full depth", "score less full depth's"]
    rows = [
        [one.policy, str(one.tasks), share(one.accuracy), _number(one.cost), share(one.saved), points(one.difference)]
        for one in (found.full, found.learned, alone)
    ]
    why = ", ".join(f"{reason} {count}" for reason, count in sorted(found.reasons.items()))
    title = f"### {found.suite}, {strategy}{what and f', {what}'}: each task by a policy that was trained without it"
    return "\n\n".join([title, table(head, rows), f"Stops: {why}."])


def _number(interval: Interval) -> str:
    return f"{interval.value:.1f} ({interval.low:.1f} to {interval.high:.1f})"


def look(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Return the tables, and the figures."""
    weights = read(options.weights)
    replay = Replay(rates_of(weights.core, options.rates), load_calibration().of(weights.core), orders=ORDERS)
    folders_by = dict(sorted(by_strategy(options.train).items()))
    trained_by = {name: _traces(replay, folders) for name, folders in folders_by.items()}
    trained = [trace for traces in trained_by.values() for trace in traces]
    parts, figures = [], dict[str, Any]()
    suites = sorted({str(suite) for folder in options.held_out for suite in manifest_of(folder)})
    others = {suite: stranger_to(replay, options.train, weights, suite, options.value) for suite in suites}
    for strategy, folders in sorted(by_strategy(options.held_out).items()):
        found = evaluate(weights, replay, folders, value=options.value)
        held = unseen(weights, replay, folders)
        whole = unseen(weights, _whole(replay, strategy), folders)
        away = moved(others, folders, held, whole, weights, options.value)
        prices = priced(replay, folders, held, weights, options.value)
        own_ms, seeing_ms = milliseconds(weights, held)
        parts += [
            frontier_table(found), moved_table(away),
            "\n".join(
                f"- at ten times the price of `{one.tool}` a search takes {_number(one.fewer)} samples less than "
                f"{one.samples:.1f}."
                for one in prices
            ) + f"\n- a decision takes {own_ms:.2f} ms, and to see where the search stands {seeing_ms:.2f} ms.",
        ]  # fmt: skip
        if options.pictures:
            draw_frontier(found.points(), options.pictures / f"frontier-{strategy}.svg")
            parts.append(f"![Frontier of {strategy}](pictures/frontier-{strategy}.svg)")
        figures[strategy] = found.summary() | {
            "tasks": found.tasks, "decision_ms": own_ms, "standing_ms": seeing_ms,
            "transfer": [one.model_dump(mode="json") for one in away],
            "prices": [one.model_dump(mode="json") for one in prices],
        }  # fmt: skip
    for strategy, traces in trained_by.items():
        folders = folders_by[strategy]
        for suite in sorted({trace.suite for trace in traces if trace.suite in SCORED}):  # all are for training
            full = [trace for trace in as_recorded(traces) if trace.suite == suite]
            once = _whole(replace(replay, orders=1), strategy)
            whole = [trace for trace in _traces(once, folders) if trace.suite == suite]
            own = crossed(trained, full, whole, weights, options.value)
            parts.append(crossed_table(strategy, own, one_sample(replay, folders, whole)))
            figures[f"{suite}, {strategy}"] = own.model_dump(mode="json")
            with TemporaryDirectory() as copies:
                graded = [by_what_no_search_checks(folder, suite, Path(copies)) for folder in folders]
                whole = _traces(once, graded)
                other = crossed(trained, as_recorded(_traces(replay, graded)), whole, weights, options.value)
                parts.append(crossed_table(strategy, other, one_sample(replay, graded, whole), what=UNREAD))
                figures[f"{suite}, {strategy}, {UNREAD}"] = other.model_dump(mode="json")
    return "\n\n".join(parts), figures


def main() -> None:
    """Report, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--held-out", type=Path, nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--rates", type=Path, default=RATES)
    parser.add_argument("--value", type=float, default=VALUE)
    parser.add_argument("--pictures", type=Path, help="folder for the pictures")
    parser.add_argument("--write", type=Path, help="put the tables into this page, between its marks")
    options = parser.parse_args()
    text, figures = look(options)
    if options.write:
        put(text, options.write, BEGIN, END)
    print(text)
    print(json.dumps(figures))


if __name__ == "__main__":
    sys.exit(exit_status(main))
