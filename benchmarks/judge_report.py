"""The judge's figures from recorded searches: coverage, selection, ablation, calibration.

    python benchmarks/judge_report.py fit --train FOLDER...
    python benchmarks/judge_report.py report --train FOLDER... --held-out FOLDER...
    python benchmarks/judge_report.py report --records FOLDER...

`fit` writes agent/judges/calibration.json; `report` writes tables into docs/judge.md and pictures into docs/pictures/.
A FOLDER is one of `benchmarks/records/`, as `benchmarks/record.py pack` writes it; all must be of one core. Coverage,
selection and ablation are of `--records`, else of all folders that are named. Calibration is of `--train` by
cross-fitting over tasks, and of `--held-out` by the calibration file as it is. No core runs here. Records of trees
count as the judge's choice at full depth, on tasks of which there are independent samples too. Tasks of `--train` and
others are never in one row.

Samples may have been recorded with tests of the core's own (`+tests`). These are looked at in the ablation only: all
else is about the judge as an agent has it by itself, without them.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from judge_tables import (
    TOGETHER,
    ablation_table,
    calibration_table,
    coverage_table,
    is_sum,
    models_table,
    selection_table,
)
from pages import exit_status, put

from ponder.bench.records.curves import Curve, curve, draw_coverage, draw_reliability
from ponder.bench.records.fitting import DEPTHS, Snapshot, cross_fitted, fit, probabilities, snapshots
from ponder.bench.records.offline import Search, as_shipped, searches
from ponder.bench.records.recording import manifest_of
from ponder.bench.records.reliability import Reliability, bins_of_equal_size, reliability
from ponder.bench.records.selection import Selection, Without, ablate, picks, select
from ponder.errors import UsageError
from ponder.judges.calibration import FILE, Calibration, load

ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURES = ROOT / "docs/judge.md", ROOT / "docs/pictures"
BEGIN, END = "<!-- tables: made by benchmarks/judge_report.py report -->", "<!-- end of tables -->"
TRAINING = " (training)"

Rated = tuple[str, Reliability, Reliability]
"""A set of snapshots, by name: the figures of the calibrated probability, and of the uncalibrated confidence."""


def core_of(folders: Sequence[Path]) -> str:
    """Return the core of records. Raises UsageError: they are of several."""
    cores = {str(suite.get("core")) for folder in folders for suite in manifest_of(folder).values()}
    if len(cores) != 1:
        raise UsageError(f"records of one core are wanted, not of {', '.join(sorted(cores)) or 'none'}")
    return cores.pop()


def read(folders: Sequence[Path]) -> list[Search]:
    """Return all searches of some folders. Raises UsageError: one is there twice."""
    found = [search for folder in folders for search in searches(folder)]
    twice = Counter((one.suite, one.task, one.independent) for one in found).most_common(1)
    if twice and twice[0][1] > 1:
        raise UsageError(f"{twice[0][0][1]} is recorded {twice[0][1]} times in these folders")
    return found


def snapshots_in(folders: Sequence[Path]) -> list[Snapshot]:
    """Return the snapshots of all searches of some folders, as the judge sees them by itself."""
    return [one for search in read(folders) for one in snapshots(as_shipped(search))]


def by_suite(found: Sequence[Search], trained: Collection[str]) -> dict[str, list[Search]]:
    """Return the searches of each suite and, where there are several, of all of them; those of training apart."""
    every: dict[str, list[Search]] = {}
    for mark, part in (
        ("", [one for one in found if one.task not in trained]),
        (TRAINING, [one for one in found if one.task in trained]),
    ):
        suites = {f"{name}{mark}": [one for one in part if one.suite == name] for name in _suites(part)}
        every |= suites | ({f"{TOGETHER}{mark}": part} if len(suites) > 1 else {})
    return every


def _suites(found: Sequence[Search]) -> list[str]:
    return list(dict.fromkeys(one.suite for one in found))


def make(options: argparse.Namespace) -> dict[str, Any]:
    """Fit the calibration and write it."""
    if not options.train:
        raise UsageError("--train names the records to fit on")
    found = snapshots_in(options.train)
    core = core_of(options.train)
    made = fit(found, core=core, records=[folder.name for folder in options.train])
    others = [model for model in load(options.calibration).models if model.fitted_on and model.fitted_on.core != core]
    whole = Calibration(models=(*others, *made.models), tasks={**load(options.calibration).tasks, **made.tasks})
    options.calibration.write_text(whole.model_dump_json(indent=1, exclude_none=True) + "\n", "utf-8")
    rows = [{"kind": model.kind, **model.fitted_on.model_dump()} for model in made.models if model.fitted_on]
    return {"written": options.calibration.name, "models": rows}


def report(options: argparse.Namespace) -> dict[str, Any]:
    """Write the tables into the page, and the pictures."""
    folders = options.records or list(dict.fromkeys((*options.train, *options.held_out)))
    if not folders:
        raise UsageError("--records (or --train, --held-out) names folders with records")
    core = core_of([*folders, *options.train, *options.held_out])
    calibration = load(options.calibration).of(core)
    trained = {one.task for one in read(options.train)}
    refuse_what_was_trained_on(options, calibration, trained)
    found = read(folders)
    samples = [one for one in found if one.independent and len(one.samples) >= options.k]
    trees = [one for one in found if not one.independent]
    curves = coverage([one for one in found if one.independent], options, trained)
    chosen = selection([as_shipped(one) for one in samples], [as_shipped(one) for one in trees], options.k, trained)
    pieces = {f"{name}, samples": ablate(own, options.k) for name, own in by_suite(samples, trained).items()}
    pieces |= {f"{name}, trees": ablate(own, None) for name, own in by_suite(trees, trained).items()}
    rated = calibrated(options, calibration)
    text = [
        f"Core `{core}`; records {', '.join(f'`{folder.name}`' for folder in folders)}.",
        coverage_table(curves), selection_table(chosen, options.k), ablation_table(pieces),
        calibration_table(rated), models_table(calibration),
    ]  # fmt: skip
    put("\n\n".join(part for part in text if part), options.page, BEGIN, END)
    return summary(curves, chosen, pieces, rated)


def refuse_what_was_trained_on(options: argparse.Namespace, calibration: Calibration, trained: Collection[str]) -> None:
    """Raise UsageError where held-out records are none."""
    fitted = {task for ids in calibration.tasks.values() for task in ids}
    held = {one.task for one in read(options.held_out)}
    for seen, wrong in ((fitted, "the calibration was fitted on"), (set(trained), "--train has")):
        if both := seen & held:
            raise UsageError(f"{wrong} {len(both)} of the tasks that are to be held out, as {min(both)}")


def coverage(found: Sequence[Search], options: argparse.Namespace, trained: Collection[str]) -> list[Curve]:
    """Return the curve of each suite, and draw them."""
    groups = by_suite(found, trained)
    deep = {name: [one for one in own if len(one.samples) >= options.k] for name, own in groups.items()}
    curves = [curve(name, found_of, options.k) for name, found_of in groups.items() if deep[name]]
    if curves:
        draw_coverage([one for one in curves if not is_sum(one.suite)], options.pictures / "coverage.svg")
    return curves


def selection(
    samples: Sequence[Search], trees: Sequence[Search], k: int, trained: Collection[str]
) -> dict[str, Selection]:
    """Return the judge's choice among samples and, of tasks that have them, in trees."""
    grown = {(one.suite, one.task): one for one in trees}
    groups = by_suite(samples, trained)
    chosen = {f"{name}, samples": select([picks(one, k) for one in own]) for name, own in groups.items()}
    both = [one for one in samples if (one.suite, one.task) in grown]
    for name, own in by_suite(both, trained).items():
        rows = [picks(one, k, trees=grown[one.suite, one.task]) for one in own]
        chosen[f"{name}, trees"] = select(rows)
    return chosen


def calibrated(options: argparse.Namespace, calibration: Calibration) -> list[Rated]:
    """Return how far the probability can be believed, and draw it."""
    rated: list[Rated] = []
    drawn: dict[str, list[tuple[float, bool]]] = {}
    train, held_out = options.train or options.records, options.held_out
    if calibration.models and held_out:
        own = snapshots_in(held_out)
        said = probabilities(calibration, own)
        rated += sets("held out", own, said)
        drawn["held out"] = pairs(own, said)
    if train:
        own = snapshots_in(train)
        said = cross_fitted(own)
        rated += sets("cross-fitted", own, said)
        drawn["cross-fitted"] = pairs(own, said)
        drawn["uncalibrated"] = pairs(own, [one.said for one in own])
    lines = {name: bins_of_equal_size([p for p, _ in line], [r for _, r in line]) for name, line in drawn.items()}
    if lines:
        draw_reliability(lines, options.pictures / "reliability.svg")
    return rated


def pairs(found: Sequence[Snapshot], said: Sequence[float]) -> list[tuple[float, bool]]:
    """Return probabilities, each with what came true."""
    return [(chance, one.right) for one, chance in zip(found, said, strict=True)]


def sets(name: str, found: Sequence[Snapshot], said: Sequence[float]) -> list[Rated]:
    """Return the figures of all snapshots, and of parts of them: each suite's, and those after so many samples."""
    parts = {f"{name}, all": list(range(len(found)))}
    for suite in dict.fromkeys(one.suite for one in found):
        parts[f"{name}, {suite}"] = [at for at, one in enumerate(found) if one.suite == suite]
    for depth in DEPTHS:
        parts[f"{name}, after {depth}"] = [at for at, one in enumerate(found) if one.depth == depth]
    rated = []
    for part, members in parts.items():
        if members:
            right = [found[at].right for at in members]
            made = reliability([said[at] for at in members], right)
            rated.append((part, made, reliability([found[at].said for at in members], right)))
    return rated


def summary(
    curves: Sequence[Curve], chosen: Mapping[str, Selection], pieces: Mapping[str, Sequence[Without]],
    rated: Sequence[Rated],
) -> dict[str, Any]:
    """Return the figures as JSON."""
    return {
        "coverage": {one.suite: {str(k): round(value, 4) for k, value in one.at.items()} for one in curves},
        "selection": {name: one.model_dump() for name, one in chosen.items()},
        "ablation": {name: [one.model_dump() for one in rows] for name, rows in pieces.items()},
        "calibration": {name: made.model_dump() for name, made, _ in rated},
    }


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fit", "report"))
    parser.add_argument("--records", type=Path, nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--train", type=Path, nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--held-out", type=Path, nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--k", type=int, default=16, help="samples of each task; tasks with fewer are left out")
    parser.add_argument("--calibration", type=Path, default=FILE)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    options = parser.parse_args()
    print(json.dumps({"fit": make, "report": report}[options.what](options)))


if __name__ == "__main__":
    sys.exit(exit_status(main))
