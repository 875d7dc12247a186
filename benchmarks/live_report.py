"""Searches that the learned stop ended as they ran, beside what replay makes of full searches of the same tasks.

    python benchmarks/record.py run  --data FOLDER --split held-out --kind live --tasks 20
    python benchmarks/record.py pack --data FOLDER --split held-out --kind live
    python benchmarks/live_report.py --full FOLDER... --live FOLDER... --weights FILE [--write docs/stop.md]

A FOLDER is one of `benchmarks/records/`; those of `--full` hold searches at full depth by the strategy of the live
ones. Those of one name, in several folders, are runs of the same searches: they have a row each, and one for all,
where a task counts once, as the mean of its runs. What a right answer was worth, and prices, stand in the manifest of
the live ones. CPU seconds are worked out from tokens in both, so that it does not matter how busy the machine was; what
was measured stands beside them, and agrees with these where one search at a time was recorded on the machine whose
rates are named. No core runs.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from judge_tables import points, share, table
from pages import exit_status, put

from ponder.bench.records.recording import by_strategy, manifest_of, read_table
from ponder.billing import Prices
from ponder.errors import UsageError
from ponder.judges.calibration import load as load_calibration
from ponder.policies.learned import LearnedStop, Weights, read
from ponder.policies.replay.frontier import Outcome, Row, row
from ponder.policies.replay.rates import RATES, rates_of
from ponder.policies.replay.traces import Replay, Trace, replayed
from ponder.policies.train import SCORED, worth
from ponder.records import Record
from ponder.stats import Interval, paired_bootstrap

BEGIN, END = "<!-- table of benchmarks/live_report.py -->", "<!-- end of the table -->"
WITHIN = 0.1
"""CPU agrees where it differs by less than this share."""

Key = tuple[str, str]
"""A suite and a task."""


class Setting(Record):
    """What live searches were asked for."""

    value: float
    prices: Mapping[str, float]
    """By tool, what a CPU second counts, where it is not 1."""

    @classmethod
    def of(cls, folder: Path) -> Setting:
        """Return a packed folder's. Raises UsageError: its searches were not ended by a value."""
        suites = list(manifest_of(folder).values())
        values = {suite.get("value") for suite in suites}
        if len(values) != 1 or None in values:
            raise UsageError(f"{folder.name} has no searches that a value ended", fix="record.py run --kind live")
        prices = Prices.model_validate(suites[0].get("prices", {}))
        return cls(value=values.pop(), prices={tool: own.cpu_second for tool, own in prices.per_tool.items()})


class Compared(Record):
    """Live searches, and the replay of full searches of the same tasks."""

    name: str
    setting: Setting
    times: int
    """How often each task was searched."""
    live: Row
    """Against the replay: it saves so much of its CPU, and is so much more accurate."""
    replay: Row
    measured_cpu_s: float
    """A task, of the live searches."""
    runs: float
    """Runs of code, a task."""
    words: float
    """Steps that ran nothing, a task."""
    cancelled: float
    """Steps that the end of the search cut off, a task."""

    @property
    def agrees(self) -> bool:
        """Whether the live accuracy lies in the interval of the replay's, and the CPU differs by a tenth at most."""
        inside = self.replay.accuracy.low <= self.live.accuracy.value <= self.replay.accuracy.high
        return inside and abs(self.live.saved.value) <= WITHIN

    @property
    def measured_agrees(self) -> bool:
        """Whether the CPU that was measured differs from the replay's by a tenth at most."""
        return abs(self.measured_cpu_s / self.replay.cost.value - 1) <= WITHIN


def compare(
    name: str, live: Sequence[Path], setting: Setting, full: Sequence[Trace], weights: Weights, replay: Replay
) -> Compared:
    """Return how live searches compare with the replay of full ones. Raises UsageError.

    Args:
        live: runs of the same searches; a task is compared by the mean of those that have it.
    """
    recorded = {(one.suite, one.task): one for one in full}
    policy = LearnedStop(weights, value=setting.value)
    ran: dict[Key, list[Outcome]] = defaultdict(list)
    measured, took = dict[tuple[Path, Key], float](), dict[tuple[Path, Key], Counter[str]]()
    for folder in live:
        about = {(one["suite"], one["task"]): one for one in read_table(folder, "tasks")}
        counted = steps_by_task(folder)
        for one in replay.traces(folder):
            key = (one.suite, one.task)
            if key in recorded:
                # What it came to is what the run said, not what replay would choose.
                came = about[key]["score" if one.suite in SCORED else "right"]
                ran[key].append(Outcome(right=float(came), cost=one.full.cpu_s))
                measured[folder, key], took[folder, key] = float(about[key]["charged_cpu_s"]), counted[key]
    if not ran:
        raise UsageError(f"{name} has no task in common with the full searches")
    ends = {key: replayed(recorded[key], policy).at for key in ran}
    seen = [Outcome(right=worth(suite, at), cost=at.cpu_s) for (suite, _), at in ends.items()]
    means = [
        Outcome(right=fmean(one.right for one in own), cost=fmean(one.cost for one in own)) for own in ran.values()
    ]
    return Compared(
        name=name, setting=setting, times=len(live),
        live=row(means, seen, policy="live", value=setting.value),
        replay=row(seen, seen, policy="replay", value=setting.value), measured_cpu_s=fmean(measured.values()),
        **{kind: fmean(one[kind] for one in took.values()) for kind in ("runs", "words", "cancelled")},
    )  # fmt: skip


def steps_by_task(folder: Path) -> Mapping[Key, Counter[str]]:
    """Count each search's steps that ran code, that ran nothing, and that the end of the search cut off."""
    found: dict[Key, Counter[str]] = defaultdict(Counter)
    for step in read_table(folder, "nodes"):
        if step["kind"] == "check":
            continue
        done = step["status"] in ("judged", "failed")
        kind = "cancelled" if not done else "words" if step["ok"] is None else "runs"
        if kind != "runs" or step["act"] != "browse":
            found[step["suite"], step["task"]][kind] += 1
    return found


class Changed(Record):
    """What a price did: live searches at it less those without, task by task."""

    setting: Setting
    tasks: int
    runs: Interval
    words: Interval
    cpu_s: Interval
    """As measured."""


def change(pairs: Sequence[tuple[Path, Path]]) -> Changed:
    """Return how the searches of folders differ on the tasks that both of a pair have: by the mean of the pairs.

    Args:
        pairs: searches without a price, and at one: runs of the same searches.

    Raises:
        UsageError: the folders of a pair have no task in common.
    """
    found: dict[Key, list[tuple[float, ...]]] = defaultdict(list)
    for plain, dear in pairs:
        cpu_s, dear_cpu_s = (
            {(one["suite"], one["task"]): float(one["charged_cpu_s"]) for one in read_table(folder, "tasks")}
            for folder in (plain, dear)
        )
        took, dear_took = steps_by_task(plain), steps_by_task(dear)
        both = sorted(cpu_s.keys() & dear_cpu_s.keys())
        if not both:
            raise UsageError(f"{plain.name} and {dear.name} have no task in common")
        for key in both:
            more = (dear_took[key][kind] - took[key][kind] for kind in ("runs", "words"))
            found[key].append((*more, dear_cpu_s[key] - cpu_s[key]))
    means = [[fmean(column) for column in zip(*own, strict=True)] for own in found.values()]
    runs, words, seconds = (paired_bootstrap(list(column)) for column in zip(*means, strict=True))
    return Changed(setting=Setting.of(pairs[0][1]), tasks=len(found), runs=runs, words=words, cpu_s=seconds)


def changes(live: Sequence[Path]) -> list[Changed]:
    """Return what prices did, where there are searches without them in the same place. Raises UsageError."""
    plain = {folder.parent: folder for folder in live if not Setting.of(folder).prices}
    pairs: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    for folder in live:
        if Setting.of(folder).prices and folder.parent in plain:
            pairs[folder.name].append((plain[folder.parent], folder))
    return [change(own) for own in pairs.values()]


def changes_shown(found: Sequence[Changed]) -> str:
    """Return it as a table."""
    head = ["live, against the same without that price", "tasks", "runs of code", "other steps", "CPU s, measured"]

    def more(one: Interval) -> str:
        return f"{one.value:+.1f} ({one.low:+.1f} to {one.high:+.1f})"

    rows = [
        [_name(one.setting), str(one.tasks), more(one.runs), more(one.words), more(one.cpu_s)] for one in found
    ]
    return table(head, rows)


def shown(found: Sequence[Compared]) -> str:
    """Return the comparison as a table."""
    head = [
        "searches", "tasks", "right: live", "replay", "live less replay", "CPU s a task: live", "replay",
        "live, measured", "runs of code a task", "other steps a task", "cut off a task",
    ]  # fmt: skip
    rows = [
        [
            _name(one.setting) + (f": all {one.times} runs" if one.times > 1 else ""),
            str(one.live.tasks), share(one.live.accuracy), share(one.replay.accuracy),
            points(one.live.difference), _against(one.live.cost.value, one.replay.cost.value),
            f"{one.replay.cost.value:.1f}", _against(one.measured_cpu_s, one.replay.cost.value),
            f"{one.runs:.1f}", f"{one.words:.1f}", f"{one.cancelled:.1f}",
        ]
        for one in found
    ]  # fmt: skip
    return table(head, rows)


def _against(cpu_s: float, replay_s: float) -> str:
    """Return CPU seconds, and how much more than the replay's they are."""
    return f"{cpu_s:.1f} ({cpu_s / replay_s - 1:+.1%})" if replay_s else f"{cpu_s:.1f}"


def _name(setting: Setting) -> str:
    dear = [f"`{tool}` {price:g} times as dear" for tool, price in setting.prices.items()]
    return ", ".join([f"value {setting.value:g}", *dear])


def look(options: argparse.Namespace) -> list[Compared]:
    """Return the comparison of each live folder, and of those of one name together. Raises UsageError."""
    weights = read(options.weights)
    if len(by_strategy([*options.full, *options.live])) != 1:
        raise UsageError("live and full searches are of several strategies", fix="name one's")
    rates, calibration = rates_of(weights.core, options.rates), load_calibration().of(weights.core)
    by_name: dict[str, list[Path]] = defaultdict(list)
    for folder in options.live:
        by_name[folder.name].append(folder)
    found = []
    for name, folders in by_name.items():
        setting = Setting.of(folders[0])
        if any(Setting.of(folder) != setting for folder in folders):
            raise UsageError(f"the searches of {name} have several values or prices")
        replay = Replay(rates, calibration, setting.prices)
        full = [trace for one in options.full for trace in replay.traces(one)]
        if len(folders) > 1:
            one_run = [f"{folder.parent.name}/{name}" for folder in folders]
            found += [
                compare(run, [folder], setting, full, weights, replay)
                for run, folder in zip(one_run, folders, strict=True)
            ]
        found.append(compare(name, folders, setting, full, weights, replay))
    return found


def main() -> None:
    """Compare, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", type=Path, nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--live", type=Path, nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--weights", type=Path, required=True, help="what ended the live searches")
    parser.add_argument("--rates", type=Path, default=RATES, help="what tokens cost (benchmarks/rates.py)")
    parser.add_argument("--write", type=Path, help="put the table into this page, between its marks")
    options = parser.parse_args()
    found = look(options)
    text = shown(found)
    if by_price := changes(options.live):
        text = f"{text}\n\n{changes_shown(by_price)}"
    if options.write:
        put(text, options.write, BEGIN, END)
    print(text)
    told: dict[str, Any] = {
        one.name: one.model_dump(mode="json") | {"agrees": one.agrees, "measured_agrees": one.measured_agrees}
        for one in found
    }
    told["prices"] = [one.model_dump(mode="json") for one in by_price]
    print(json.dumps(told))


if __name__ == "__main__":
    sys.exit(exit_status(main))
