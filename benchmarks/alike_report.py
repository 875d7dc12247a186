"""How many programs have to pass all visible checks and do the same, before a search believes them: from records.

    python benchmarks/alike_report.py --records FOLDER... [--write docs/stop.md]

A FOLDER is one of `benchmarks/records/`. The plain rule (`ChecksAndVotes`) is replayed over the searches for programs
that have visible checks, with one to four such programs asked for. No core runs here. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from judge_tables import table
from pages import exit_status, put

from ponder.bench.records.recording import manifest_of
from ponder.judges.calibration import load
from ponder.policies.checks_and_votes import ChecksAndVotes
from ponder.policies.learned import kind_of
from ponder.policies.replay.frontier import Outcome, outcomes
from ponder.policies.replay.rates import RATES, rates_of
from ponder.policies.replay.traces import Replay, Trace
from ponder.records import Record

PROGRAMS = (1, 2, 3, 4)
BEGIN, END = "<!-- table of benchmarks/alike_report.py -->", "<!-- end of the table -->"


class Kept(Record):
    """What a rule keeps of some searches: the share that is right, and their mean cost in CPU seconds."""

    right: float
    cost: float

    @classmethod
    def of(cls, found: Sequence[Outcome]) -> Kept:
        """Return the means."""
        return cls(right=fmean(one.right for one in found), cost=fmean(one.cost for one in found))

    def __str__(self) -> str:
        return f"{self.right:.1%}, {self.cost:.0f} CPU-s"


def rows_of(traces: Sequence[Trace]) -> dict[str, Kept]:
    """Return what comes of each number of programs, and of the full depth."""
    by_rule = {str(wanted): outcomes(traces, ChecksAndVotes(alike=wanted - 1)) for wanted in PROGRAMS}
    return {name: Kept.of(found) for name, found in (by_rule | {"full": outcomes(traces, None)}).items()}


def compare(folder: Path, replay: Replay) -> dict[str, tuple[int, dict[str, Kept]]]:
    """Return the number of searches and what comes of them, by suite. Raises UsageError."""
    traces = [one for one in replay.traces(folder) if kind_of(one.full.features) == "programs"]
    found = {}
    for suite in dict.fromkeys(one.suite for one in traces):
        own = [one for one in traces if one.suite == suite]
        found[f"{suite}, {folder.name}"] = (len(own), rows_of(own))
    return found


def main() -> None:
    """Replay, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--core", help="whose tokens' cost to take; else the records' own")
    parser.add_argument("--rates", type=Path, default=RATES, help="what tokens cost (benchmarks/rates.py)")
    parser.add_argument("--write", type=Path, help="put the table into this page, between its marks")
    options = parser.parse_args()
    found = {}
    for folder in options.records:
        core = options.core or str(next(iter(manifest_of(folder).values()))["core"])
        found |= compare(folder, Replay(rates=rates_of(core, options.rates), calibration=load().of(core)))
    head = ["records", "searches", "one", "two", "three (the rule)", "four", "full depth"]
    shown = table(head, [[name, str(count), *map(str, kept.values())] for name, (count, kept) in found.items()])
    if options.write:
        put(shown, options.write, BEGIN, END)
    print(shown)
    told = {name: {rule: one.model_dump() for rule, one in kept.items()} for name, (_, kept) in found.items()}
    print(json.dumps(told))


if __name__ == "__main__":
    sys.exit(exit_status(main))
