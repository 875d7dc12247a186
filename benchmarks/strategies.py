"""One strategy against others, on the same tasks and at the same CPU, from recorded searches.

    python benchmarks/strategies.py --first FOLDER... --others FOLDER... [--cpu 20 40] [--weights FILE [--by-suite]]
                                    [--write docs/search.md [--mark kinds]]

A FOLDER is one of `benchmarks/records/`, as `benchmarks/record.py pack` writes it; those of `--first` are of one
strategy. Searches are cut off after so many CPU seconds a task that each strategy's tasks cost as much on average as
`--cpu` says, or as those of the first with all they have: `ponder.bench.records.matched`. The judge chooses in both,
with the evidence that was there by then. With `--weights FILE` a second table has each strategy's searches ended by
that stop policy, as a user's are, each beside the first strategy's on the same tasks; with `--by-suite` also on those
of each suite. No core runs here. CPU seconds are worked out from tokens, at the width of the batches that a search has
by itself (`ponder.policies.replay`), so that it does not matter how busy a machine was, with which engine records were
made, or how many searches shared it.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from judge_tables import points, share, table
from pages import exit_status, put

from ponder.bench.records.matched import Matched, match
from ponder.bench.records.offline import Search
from ponder.bench.records.recording import by_strategy, manifest_of
from ponder.errors import UsageError
from ponder.judges.calibration import load
from ponder.policies.learned import LearnedStop, Weights, read
from ponder.policies.replay.frontier import MOST, Row, outcomes, row
from ponder.policies.replay.rates import RATES, rates_of
from ponder.policies.replay.traces import Replay, Trace
from ponder.records import Record

Compared = tuple[str, Matched]
"""Another strategy's name, and how the first one does against it."""

BEGIN, END = "<!-- table of benchmarks/strategies.py{mark} -->", "<!-- end of the table -->"


def searches_of(folders: Sequence[Path], rates: Path) -> dict[str, list[Search]]:
    """Return the searches of each strategy. Raises UsageError."""
    cores = {str(suite["core"]) for folder in folders for suite in manifest_of(folder).values()}
    if len(cores) != 1:
        raise UsageError(f"these are searches of {', '.join(sorted(cores)) or 'no core'}", fix="name one's")
    replay = Replay(rates_of(cores.pop(), rates), step=MOST)
    return {
        name: [one for folder in own for one in replay.searches(folder)] for name, own in by_strategy(folders).items()
    }


def compare(
    first: Sequence[Path], others: Sequence[Path], means: Sequence[float], rates: Path
) -> tuple[str, list[Compared]]:
    """Return the first strategy's name, and how it does against each other one at each mean CPU. Raises UsageError."""
    own = searches_of(first, rates)
    if len(own) != 1:
        raise UsageError(f"--first is one strategy, not {', '.join(sorted(own))}")
    ((name, ours),) = own.items()
    others_too = searches_of(others, rates)
    try:
        return name, [(other, match(ours, theirs, s)) for other, theirs in others_too.items() for s in means]
    except ValueError as error:
        raise UsageError(str(error)) from error


def shown(name: str, found: Sequence[Compared]) -> str:
    """Return the comparison as a table."""
    head = ["against", "tasks", f"CPU s a task: `{name}`, the other", f"`{name}`", "the other", "ahead by", "cut off"]
    rows = [
        [
            f"`{other}`", str(one.tasks), f"{one.cpu_s:.0f}, {one.other_cpu_s:.0f}", share(one.own), share(one.other),
            points(one.ahead), f"{_bound(one.own_bound_s)}, {_bound(one.bound_s)}",
        ]
        for other, one in found
    ]  # fmt: skip
    return table(head, rows)


class Ended(Record):
    """Another strategy beside the first one on the same tasks, both ended by the same stop policy."""

    other: str
    suite: str | None
    """Whose tasks these are; None: all of them."""
    tasks: int
    own: Row
    theirs: Row


def ended(
    first: Sequence[Path], others: Sequence[Path], weights: Weights, rates: Path, *, by_suite: bool = False
) -> list[Ended]:
    """Return what the strategies come to where the stop policy ends them. Raises UsageError."""
    replay, policy = Replay(rates_of(weights.core, rates), load().of(weights.core)), LearnedStop(weights)

    def traces(folders: Sequence[Path]) -> dict[str, Trace]:
        return {one.task: one for folder in folders for one in replay.traces(folder)}

    ours, found = traces(first), list[Ended]()
    for name, folders in by_strategy(others).items():
        theirs = traces(folders)
        both = sorted(ours.keys() & theirs.keys())
        suites = list(dict.fromkeys(trace.suite for trace in ours.values())) if by_suite else []
        for suite in [None, *suites]:
            tasks = [task for task in both if suite in (None, ours[task].suite)]
            one, two = (outcomes([own[task] for task in tasks], policy) for own in (ours, theirs))
            found.append(Ended(other=name, suite=suite, tasks=len(tasks), own=row(one, two, policy="first"),
                               theirs=row(two, two, policy=name)))  # fmt: skip
    return found


def ended_table(name: str, found: Sequence[Ended]) -> str:
    """Return it as a table."""
    head = ["against", "tasks", f"`{name}`", "the other", "ahead by", f"CPU s a task: `{name}`", "the other"]
    rows = [
        [
            one.suite or f"`{one.other}`", str(one.tasks), share(one.own.accuracy), share(one.theirs.accuracy),
            points(one.own.difference), f"{one.own.cost.value:.0f}", f"{one.theirs.cost.value:.0f}",
        ]
        for one in found
    ]  # fmt: skip
    return table(head, rows)


def as_json(one: Matched) -> dict[str, Any]:
    """Return the figures of one comparison; JSON knows no infinity."""
    return {key: None if value == math.inf else value for key, value in one.model_dump().items()}


def _bound(seconds: float) -> str:
    return "-" if math.isinf(seconds) else f"{seconds:.0f} s"


def main() -> None:
    """Compare, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=Path, nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--others", type=Path, nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--cpu", type=float, nargs="+", default=[math.inf], metavar="S", help="mean CPU seconds a task")
    parser.add_argument("--rates", type=Path, default=RATES, help="what tokens cost (benchmarks/rates.py)")
    parser.add_argument("--weights", type=Path, help="of the stop policy that ends searches (`ponder policy train`)")
    parser.add_argument("--by-suite", action="store_true", help="with --weights: a row for each suite, too")
    parser.add_argument("--write", type=Path, help="put the table into this page, between its marks")
    parser.add_argument("--mark", help="between those marks that name this")
    options = parser.parse_args()
    name, found = compare(options.first, options.others, options.cpu, options.rates)
    text = shown(name, found)
    if options.weights:
        stopped = ended(
            options.first, options.others, read(options.weights), options.rates, by_suite=options.by_suite
        )
        text = f"{text}\n\nEach ended by the stop policy:\n\n{ended_table(name, stopped)}"
    if options.write:
        put(text, options.write, BEGIN.format(mark=f", {options.mark}" if options.mark else ""), END)
    print(text)
    print(json.dumps({"first": name, "against": [{"strategy": other} | as_json(one) for other, one in found]}))


if __name__ == "__main__":
    sys.exit(exit_status(main))
