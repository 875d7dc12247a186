"""Recorded searches: full depth, every node, charge and feature vector kept.

    python benchmarks/record.py run  --data FOLDER --kind iid --minutes 150      a shard; the same command goes on
    python benchmarks/record.py pack --data FOLDER --kind iid                    tables into benchmarks/records/
    python benchmarks/record.py show --kind iid                                  what there is

`iid`: sixteen independent samples of each task, their programs run, nothing revised (self-consistency without a stop).
`auto`: trees of the `auto` strategy at full depth. Other kinds are trees of the strategy of that name, or of `auto`
without one kind of step, to compare it with (benchmarks/strategies.py; without programs: `--tools browser`). In `iid`
the core also writes tests of its own for programs, so that the judge can be looked at with and without them.

`live` is no record of full searches: `auto` is ended by the stop policy that was learned for the core, as a user's
search is; in `live-dear-core` and `live-dear-python` tokens and runs of code cost ten times as much. They are compared
with what the policy makes of recorded searches (benchmarks/live_report.py).

With `--jobs N` so many searches share one engine, whose batches they fill: more tasks an hour, at another CPU a token
than a search has by itself (the manifest says so).

`--split train` (for policies and judges to learn from): MBPP train, GSM8K, twenty and more families of reasoning-gym,
the open-ended tasks. `--split held-out` (to measure on): HumanEval, MBPP validation, and GSM8K rows that the other
split leaves alone. Suites take turns, so that a record that was stopped has something of each. FOLDER holds
mbpp_train.jsonl, mbpp_validation.jsonl and gsm8k_train_2000.jsonl; `--file gsm8k=PATH` takes all of another file.

What is done is in the work folder, a folder for each split, kind and core: the store of runs and a results file for
each suite. A record may be stopped at any place (Ctrl-C, SIGTERM, kill -9): the task at hand is searched again. `pack`
adds to the tables that are there, and `run` leaves out what they have: another machine, with the tables only, goes on.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from platformdirs import user_cache_dir

from ponder.bench.problems import Problem, Suite
from ponder.bench.records.recording import (
    Recorded,
    manifest_of,
    read_table,
    recorded,
    refuse_other_settings,
    write_tables,
)
from ponder.bench.results import ResultRow, ResultsFile, read_results
from ponder.bench.rooms import GradingRooms
from ponder.bench.suites.registry import open_suite
from ponder.billing import Prices
from ponder.errors import PonderError, UsageError
from ponder.parts import DEFAULT_CORE, file_name_of
from ponder.policies.full_depth import FullDepth
from ponder.policies.hosts import HostRules
from ponder.policies.learned import VALUE
from ponder.prompting import step_kinds
from ponder.protocols import Core, Strategy
from ponder.records import Budget
from ponder.search.auto import Auto
from ponder.store import Store, open_store

if TYPE_CHECKING:
    from ponder.bench.solvers import Solver

RECORDS = Path(__file__).parent / "records"
SPLITS: dict[str, dict[str, str | None]] = {
    "train": {
        "mbpp": "mbpp_train.jsonl", "gsm8k": "gsm8k_train_2000.jsonl", "reasoning_gym": None, "open_ended": None,
    },
    "held-out": {"humaneval": None, "mbpp": "mbpp_validation.jsonl", "gsm8k": "gsm8k_train_2000.jsonl"},
}  # fmt: skip
"""By split its suites, in the order of a turn, each with its file in the data folder."""

HELD_OUT_FROM = 1500
"""GSM8K rows from this place in the file on are held out, those before are for training."""

SAMPLES = 16


class Kind(NamedTuple):
    """How tasks are searched."""

    strategy: str | Strategy
    options: Mapping[str, Any] = {"policy": FullDepth()}
    """Of the agent."""


def _dear(tool: str) -> Kind:
    return Kind("auto", {"value": VALUE, "prices": Prices(per_tool={tool: Prices(cpu_second=10)})})


KINDS = {
    "iid": Kind("self-consistency+tests"),
    "auto": Kind("auto"),
    "best-of-n": Kind("best-of-n"),
    "revision": Kind("revision"),
    "mcts": Kind("mcts"),
    "ab-mcts": Kind("ab-mcts"),
    "auto-without-revision": Kind(Auto(SAMPLES, deep=0, name="auto-without-revision")),
    "auto-without-words": Kind(Auto(SAMPLES, kinds=("code",), name="auto-without-words")),
    "auto-without-code": Kind(
        Auto(SAMPLES, kinds=step_kinds(("browser",)), name="auto-without-code"),
        {"policy": FullDepth(), "tools": ("browser",)},
    ),
    "live": Kind("auto", {"value": VALUE}),
    "live-dear-core": _dear("core"),
    "live-dear-python": _dear("python"),
}
TASKS = 120
TOOLS = ("python", "browser")
"""For all suites, so that one agent with one core serves them; the browser only starts where a task names pages."""


def suites(options: argparse.Namespace, stack: ExitStack) -> list[Suite]:
    """Return the chosen suites of the split, open until the stack ends."""
    found = []
    for name, file in SPLITS[options.split].items():
        if name not in (options.suites or SPLITS[options.split]):
            continue
        named = dict(options.file).get(name)
        suite = stack.enter_context(open_suite(name, data=named or (options.data / file if file else None)))
        found.append(_part(suite, options.split) if name == "gsm8k" and named is None else suite)
    return found


def _part(suite: Suite, split: str) -> Suite:
    """Return the tasks of a suite that belong to the split, by their places in the file."""
    held_out = split == "held-out"
    kept = [
        one for one in suite.problems(suite.size) if (int(one.id.rpartition("/")[2]) >= HELD_OUT_FROM) == held_out
    ]
    about = suite.manifest | {"rows": f"from {HELD_OUT_FROM}" if held_out else f"before {HELD_OUT_FROM}"}
    return dataclasses.replace(suite, manifest=about, size=len(kept), problems=lambda count: kept[:count])


def work_folder(options: argparse.Namespace) -> Path:
    """Return where a record grows."""
    name = options.core if isinstance(options.core, str) else options.core.name
    split = "" if options.split == "train" else f"{options.split}-"
    return Path(options.work) / f"{split}{options.kind}-{file_name_of(name)}"


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Search and grade, until the tasks or the minutes are used up."""
    from ponder.bench.runner import answered  # with all that an agent takes: seconds that no other command has to spend
    from ponder.bench.solvers import side_by_side

    progress = Progress(options.minutes)
    with ExitStack() as stack:
        rooms = stack.enter_context(GradingRooms())
        opened = suites(options, stack)
        make = partial(_solver, options, opened)
        solvers = stack.enter_context(side_by_side(options.core, options.jobs, make, branches=SAMPLES))
        settings = {suite.name: {"suite": suite.name, **suite.manifest, **solvers[0].settings} for suite in opened}
        for name, there in packed(options).items():  # a whole shard of other settings could never be packed
            if name in settings:
                refuse_other_settings(packed_folder(options), name, there, settings[name])
        files = {
            name: stack.enter_context(ResultsFile(work_folder(options) / f"{name}.jsonl", own, option="--work"))
            for name, own in settings.items()
        }
        plan = [(suite.name, one) for suite, one in turns(opened, options.tasks or TASKS)]
        todo = progress.begin(plan, {name: file.done for name, file in files.items()}, in_tables(options))
        stopped = "all done"
        try:
            left = ((one, files[name]) for name, one in todo)
            for row in answered(left, solvers, rooms):
                progress.show(row)
        except KeyboardInterrupt:
            stopped = "interrupted"
        if progress.is_late:
            stopped = "time"
    rows = {task: row for file in files.values() for task, row in file.rows.items()}
    # Ctrl-C may come between a row that was written and its line.
    progress.catch_up(rows[one.id] for _, one in plan if one.id in rows)
    return progress.told() | {"stopped": stopped}


def in_tables(options: argparse.Namespace) -> set[str]:
    """Return the tasks that the tables have: they came from elsewhere, where the work folder lacks them."""
    return {row["task"] for row in read_table(packed_folder(options), "tasks")} if packed(options) else set()


def packed_folder(options: argparse.Namespace) -> Path:
    """Return where the tables are."""
    return Path(options.records) / work_folder(options).name


def packed(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the manifest of the tables, by suite; nothing where there are none. Raises UsageError."""
    folder = packed_folder(options)
    return manifest_of(folder) if (folder / "manifest.json").exists() else {}


def _solver(options: argparse.Namespace, opened: list[Suite], core: str | Core) -> Solver:
    from ponder.bench.solvers import open_solver

    hosts = HostRules(permitted=frozenset().union(*(suite.hosts.permitted for suite in opened)))
    return open_solver(
        core, KINDS[options.kind].strategy, SAMPLES, budget=Budget(cpu_seconds=options.cpu),
        home=work_folder(options), **{"tools": options.tools, "hosts": hosts, **KINDS[options.kind].options},
    )  # fmt: skip


def turns(opened: list[Suite], tasks: int) -> Iterator[tuple[Suite, Problem]]:
    """Yield the tasks in the order of the record: in each turn one of each suite that has more."""
    drawn = [(suite, suite.problems(min(tasks, suite.size))) for suite in opened]
    for turn in range(tasks):
        yield from ((suite, problems[turn]) for suite, problems in drawn if turn < len(problems))


class Progress:
    """What is done, what it took, and how long it will go on, as a line a task on standard error.

    Args:
        minutes: no task is begun after that.
    """

    def __init__(self, minutes: float) -> None:
        self._began = time.monotonic()
        self._ends = self._began + 60 * minutes
        self._done: Counter[str] = Counter()
        self._known: set[str] = set()
        self._billed = 0
        self._suite: dict[str, str] = {}
        self._all = self._now = 0
        self._cpu_s = 0.0
        self.is_late = False

    def begin(
        self, plan: list[tuple[str, Problem]], done: Mapping[str, Mapping[str, ResultRow]], packed: Collection[str] = ()
    ) -> Iterator[tuple[str, Problem]]:
        """Return what is left of the plan, by suite, until the minutes are over.

        Args:
            packed: tasks that stand in the tables; what they took is not told.
        """
        self._all, self._suite = len(plan), {one.id: name for name, one in plan}
        before = [done[name][one.id] for name, one in plan if one.id in done[name]]
        self._known.update(row.task for row in before)
        self._known.update(one.id for _, one in plan if one.id in packed)
        self._done.update(self._suite[task] for task in self._known)
        self._billed, self._cpu_s = len(before), sum(row.cpu_s for row in before)
        return self._left([(name, one) for name, one in plan if one.id not in self._known])

    def _left(self, todo: list[tuple[str, Problem]]) -> Iterator[tuple[str, Problem]]:
        for name, one in todo:
            if time.monotonic() > self._ends:
                self.is_late = True
                return
            yield name, one

    def show(self, row: ResultRow) -> None:
        """Count a task and write its line."""
        self._done[self._suite[row.task]] += 1
        self._known.add(row.task)
        self._cpu_s += row.cpu_s
        self._now += 1
        self._billed += 1
        now = time.monotonic()
        each, left = (now - self._began) / self._now, self._all - self._done.total()
        said = [
            f"{self._done.total()} of {self._all} tasks",
            f"{row.task} {row.graded}, {row.cpu_s:.0f} CPU-s",
            f"{self._cpu_s / self._billed:.0f} CPU-s a task",
            f"{max(0.0, self._ends - now) / 60:.0f} min of this shard and {left * each / 60:.0f} min of work left",
        ]
        print(f"{time.strftime('%H:%M:%S')} {'; '.join(said)}", file=sys.stderr, flush=True)

    def catch_up(self, rows: Iterable[ResultRow]) -> None:
        """Show those of the rows that were not shown yet."""
        for row in rows:
            if row.task not in self._known:
                self.show(row)

    def told(self) -> dict[str, Any]:
        """Return what is done."""
        each = self._cpu_s / max(1, self._billed)
        return {"done": dict(self._done), "of": self._all, "cpu_s_per_task": round(each, 2)}


def pack(options: argparse.Namespace) -> dict[str, Any]:
    """Write the tables of what is done."""
    work = work_folder(options)
    if not any(work.glob("*.jsonl")):
        wrong = f"nothing was recorded in {work}"
        raise UsageError(wrong, fix="record.py run records it: with the same --split, --kind, --core and --work")
    manifests: dict[str, Any] = {}
    with ExitStack() as stack:
        rooms = stack.enter_context(GradingRooms())
        store = open_store(work / "runs.sqlite")
        stack.callback(store.close)

        def all_of() -> Iterator[Recorded]:
            for suite in suites(options, stack):
                if not (work / f"{suite.name}.jsonl").exists():
                    continue
                results = read_results(work / f"{suite.name}.jsonl")
                manifests[suite.name] = results.manifest
                yield from searched(suite, results.rows, store, rooms, options.tasks)

        folder = packed_folder(options)
        counts = write_tables(folder, all_of(), manifests)
    return counts | {"bytes": size(folder)}


def searched(
    suite: Suite, rows: Mapping[str, ResultRow], store: Store, rooms: GradingRooms, tasks: int | None = None
) -> Iterator[Recorded]:
    """Yield the searches of a suite that came to an end, of so many of its tasks at most."""
    for problem in suite.problems(min(tasks or suite.size, suite.size)):
        row = rows.get(problem.id)
        if row is not None and row.run_id is not None and row.stop_reason != "error":
            yield recorded(suite.name, problem, store.events(row.run_id), rooms)


def size(folder: Path) -> int:
    """Return the bytes of a packed folder."""
    return sum(path.stat().st_size for path in folder.iterdir())


def show(options: argparse.Namespace) -> dict[str, Any]:
    """Count what the tables hold."""
    return counted(options.records / work_folder(options).name)


def counted(folder: Path) -> dict[str, Any]:
    """Return what the tables of a folder hold, by suite. Raises UsageError: there are none."""
    manifest_of(folder)
    columns = ["suite", "right", "score", "tokens_out"]
    tasks, nodes = list(read_table(folder, "tasks")), list(read_table(folder, "nodes", columns))
    found = {}
    for suite in dict.fromkeys(row["suite"] for row in tasks):
        own, steps = [r for r in tasks if r["suite"] == suite], [r for r in nodes if r["suite"] == suite]
        answers = [row for row in steps if row["right"] is not None]
        found[suite] = {
            "tasks": len(own),
            "nodes": len(steps),
            "answers": len(answers),
            "right": round(sum(row["right"] for row in answers) / max(1, len(answers)), 3),
            "score": round(sum(row["score"] for row in answers) / max(1, len(answers)), 3),
            "tokens_out": sum(row["tokens_out"] for row in steps),
            "cpu_s": round(sum(row["charged_cpu_s"] for row in own)),
        }
    return found


def _named_file(text: str) -> tuple[str, Path]:
    name, is_there, path = text.partition("=")
    if not is_there or not any(name in suites for suites in SPLITS.values()):
        raise argparse.ArgumentTypeError(f"{text!r} is not SUITE=FILE")
    return name, Path(path)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("what", choices=("run", "pack", "show"))
    made.add_argument("--data", type=Path, help="folder with the task files")
    made.add_argument("--file", type=_named_file, action="append", default=[], help="SUITE=FILE, instead of its own")
    made.add_argument("--split", choices=SPLITS, default="train")
    made.add_argument("--kind", choices=KINDS, default="iid")
    made.add_argument("--core", default=DEFAULT_CORE)
    made.add_argument("--tasks", type=int, help=f"of each suite, at most (run: {TASKS}, pack: all that are done)")
    made.add_argument("--suites", nargs="+", help="only these of the split")
    made.add_argument("--tools", type=lambda text: tuple(filter(None, text.split(","))), default=TOOLS)
    made.add_argument(
        "--cpu", type=float, help="seconds at which a search is ended: for kinds that are compared at the same CPU only"
    )
    made.add_argument("--jobs", type=int, default=1, choices=range(1, 9), metavar="N",
                      help="searches at once, on one engine: for more tasks an hour where their CPU is not compared")
    made.add_argument("--minutes", type=float, default=150, help="no further task is begun after that")
    made.add_argument("--work", type=Path, default=Path(user_cache_dir("ponder")) / "records")
    made.add_argument("--records", type=Path, default=RECORDS, help="where the tables lie")
    return made


def main(core: Core | None = None) -> None:
    """Do what the command line says.

    Args:
        core: searched with instead of `--core`.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is open is closed
    made = parser()
    options = made.parse_args()
    options.core = core or options.core
    if options.data is None and options.what != "show":
        made.error("--data names the folder with the tasks")
    unknown = set(options.suites or ()) - SPLITS[options.split].keys()
    if unknown:
        made.error(f"{options.split} has {', '.join(SPLITS[options.split])}, and no {', '.join(sorted(unknown))}")
    try:
        print(json.dumps({"run": run, "pack": pack, "show": show}[options.what](options)))
    except PonderError as error:
        sys.exit(f"record: {error}")


if __name__ == "__main__":
    main()
