"""ponder beside other frameworks: the same tasks, the same model, the same grader; accuracy and CPU seconds.

    pip install '.[bench,search,peers]'
    python benchmarks/peers.py run   --data FOLDER --work WORK [--who NAME...] [--minutes M]
    python benchmarks/peers.py pack  --data FOLDER --work WORK
    python benchmarks/peers.py table [--write docs/peers.md]

Tasks: MBPP validation and GSM8K rows that nothing was trained on, in turns. smolagents' CodeAgent, LangChain's
`create_agent` on LangGraph, and its_hub (best-of-N and self-consistency of eight) ask the model through an
OpenAI-compatible server, each with its own defaults (benchmarks/peer_agents.py); treequest's AB-MCTS runs on ponder's
tools and judge, with eight samples. ponder is `auto` as it comes, with sixteen at most. All use the engine that ponder
has here (with PONDER_ENGINE=wheel, the wheel's). A task's CPU seconds are the engine's, the sandbox's and the
framework's own process; loading is left out.

The table compares ponder at the CPU that each peer spends: its searches are cut off after so many seconds that its
tasks cost as much on average as the peer's (all they had, where that is less). All take turns, a task each, so that a
machine whose CPU seconds are worth more at one time than at another is the same to all.

`run` goes on where it ended; a task for which a peer has not found an answer within 240 CPU seconds is left without.
`pack` puts what is done into benchmarks/records/peers, which `table` reads; what is there is not run again.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from importlib.metadata import PackageNotFoundError
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import record
from judge_tables import points, share, table
from openai_server import MAX_TOKENS, OpenAIServer, serve
from pages import exit_status, put
from peer_agents import PEERS, SAMPLES, Said, Where, packages, serve_questions
from peer_records import FOLDER, SEARCHES, Part, add, parts_of

from ponder.bench.problems import Problem, Suite
from ponder.bench.records.matched import bound_for, costing, mean_within, picked_within
from ponder.bench.records.offline import Search
from ponder.bench.records.recording import write_tables
from ponder.bench.results import ResultRow, ResultsFile, read_results
from ponder.bench.rooms import GradingRooms
from ponder.bench.runner import answered
from ponder.bench.solvers import Solved, Solver, open_solver
from ponder.errors import MachineError, UsageError
from ponder.ledger import OVERHEAD, Ledger
from ponder.metering import Meter
from ponder.parts import DEFAULT_CORE
from ponder.policies.full_depth import FullDepth
from ponder.policies.replay.rates import rates_of
from ponder.policies.replay.traces import Replay
from ponder.records import Charge, CpuReading
from ponder.stats import Interval, paired_bootstrap
from ponder.store import open_store

OWN, TREES = "ponder", "treequest AB-MCTS"
WHO = (OWN, TREES, *PEERS)
SUITES = ("mbpp", "gsm8k")
TASKS = 40
"""Of each suite."""
MOST = 16
"""Samples of ponder's search."""
LIMIT_CPU_S, POLL_S = 240.0, 0.5
"""CPU seconds that a peer has for a task, six times what ponder takes; how often that is looked at."""
START_S = 120.0
BEGIN, END = "<!-- table of benchmarks/peers.py -->", "<!-- end of the table -->"


class PeerSolver:
    """Asks a framework in a process of its own, which is ended where it does not answer."""

    def __init__(self, name: str, server: OpenAIServer, model: str) -> None:
        self._name, self._server = name, server
        self._where = Where(url=server.url, key=server.key, model=model)
        self._process: Any = None
        self._line: Any = None
        self._seen = CpuReading(method="rusage")
        self._ended = 0.0  # CPU seconds of processes that were ended
        self._served_s = 0.0
        self.settings = {
            "core": model, "strategy": name, "samples": SAMPLES, "max_tokens": MAX_TOKENS, **packages(name),
        }  # fmt: skip
        self.circumstances: Mapping[str, Any] = {"engine": server.engine, "threads": len(os.sched_getaffinity(0))}

    def start(self) -> float:
        """See `Solver.start`. Raises MachineError: the framework did not get ready."""
        if self._process is None or not self._process.is_alive():
            spawn = get_context("spawn")
            self._line, other = spawn.Pipe()
            work = spawn.Process(target=serve_questions, args=(self._name, self._where, other), daemon=True)
            work.start()
            other.close()
            self._process = work
            if not self._is_ready():
                raise MachineError(f"{self._name} did not get ready")
        return self._own().cpu_s

    def _is_ready(self) -> bool:
        try:
            return self._line.poll(START_S) and self._line.recv() == "ready"
        except EOFError:
            return False

    def solve(self, problem: Problem) -> Solved:
        """See `Solver.solve`."""
        self.start()
        ledger = Ledger([
            Meter("core", self._served, rest="core"), Meter("framework", self._own, rest="framework"),
        ])  # fmt: skip
        said = self._said(problem, ledger)
        if said is not None and said.programs:
            ledger.add(Charge(tool="python", node=None, usage=said.usage, cost=said.usage.cpu_s))
        if not self._server.is_alive():
            raise MachineError(f"the server died while {self._name} asked it", fix="the same command goes on")
        bill = ledger.bill()
        if said is None:
            self._end()
        broken = said.broken if said else ""
        return Solved(
            answer=said.answer if said else None,
            confidence=0.0,
            stop_reason="error" if broken else "exhausted" if said else "budget",
            run_id=None,
            nodes=1,
            wall_s=ledger.elapsed_s,
            bill=bill,
            warnings=tuple(one for one in (broken, said.error if said else "") if one),
        )

    def _said(self, problem: Problem, ledger: Ledger) -> Said | None:
        """Return what came of it; None: it took too much, or its process ended."""
        try:
            self._line.send((problem.plain, problem.reply))
            while not self._line.poll(POLL_S):
                if ledger.cpu_s() > LIMIT_CPU_S:
                    return None
            return self._line.recv()
        except (EOFError, ConnectionError):
            return None

    def _served(self) -> CpuReading:
        if self._server.is_alive():
            self._served_s = self._server.cpu_s()
        return CpuReading(user_s=self._served_s, method="process-tree")

    def _own(self) -> CpuReading:
        """Return the process's CPU so far; of one that has ended, what it last was."""
        try:
            times = psutil.Process(self._process.pid).cpu_times()
            self._seen = CpuReading(user_s=self._ended + times.user, system_s=times.system, method="process-tree")
        except (psutil.Error, AttributeError):
            pass
        return self._seen

    def interrupt(self) -> None:
        """See `Solver.interrupt`: Ctrl-C reaches `solve` by itself, since it waits in the main thread."""

    def _end(self) -> None:
        if self._process is not None:
            self._ended = self._own().cpu_s
            self._process.kill()
            self._process.join()
            self._line.close()
            self._process = None

    def close(self) -> None:
        """See `Solver.close`."""
        self._end()


def solvers_of(options: argparse.Namespace, stack: ExitStack) -> dict[str, Solver]:
    """Return who answers, by name, until the stack ends; frameworks share a server."""
    found: dict[str, Solver] = {}
    peers = [who for who in options.who if who not in (OWN, TREES)]
    server = stack.enter_context(serve(options.core)) if peers else None
    for who in options.who:
        if who == OWN:
            solver: Solver = open_solver(options.core, "auto", MOST, home=options.work / OWN)
        elif who == TREES:
            solver = open_solver(options.core, "ab-mcts", SAMPLES, policy=FullDepth(), home=options.work / "treequest")
        else:
            assert server is not None
            solver = PeerSolver(who, server, options.core)
        found[who] = stack.enter_context(closing(solver))
    return found


def opened(options: argparse.Namespace, stack: ExitStack) -> list[Suite]:
    """Return the suites, of which nothing was trained on, until the stack ends."""
    asked = argparse.Namespace(split="held-out", suites=SUITES, data=options.data, file=[])
    return record.suites(asked, stack)


def file_of(options: argparse.Namespace, who: str, suite: str) -> Path:
    """Return where results lie."""
    return Path(options.work) / f"{who.replace(' ', '-')}-{suite}.jsonl"


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Ask who is to be asked what was not asked yet, until the minutes are over."""
    ends = time.monotonic() + 60 * options.minutes
    with ExitStack() as stack:
        rooms, suites = stack.enter_context(GradingRooms()), opened(options, stack)
        packed = {key: {row.task for row in part.rows} for key, part in parts_of(options.records).items()}
        files: dict[str, list[ResultsFile]] = {}
        rows: dict[str, Iterator[ResultRow]] = {}
        for who, solver in solvers_of(options, stack).items():
            own = {
                suite.name: stack.enter_context(ResultsFile(
                    file_of(options, who, suite.name), {"suite": suite.name, **suite.manifest, **solver.settings},
                    option="--work",
                ))
                for suite in suites
            }  # fmt: skip
            todo = [
                (one, own[suite.name])
                for suite, one in record.turns(suites, options.tasks)
                if one.id not in own[suite.name].done and one.id not in packed.get((who, suite.name), ())
            ]
            files[who], rows[who] = list(own.values()), answered(_until(ends, todo), [solver], rooms)
        stopped = "all done"
        try:
            for who, row in in_turn(rows):
                show(who, row)
        except KeyboardInterrupt:
            stopped = "interrupted"
        done = {
            who: sum(
                len(file.rows.keys() | packed.get((who, suite.name), set()))
                for suite, file in zip(suites, own, strict=True)
            )
            for who, own in files.items()
        }
    if stopped == "all done" and time.monotonic() > ends:
        stopped = "time"
    return {"done": done, "of": sum(min(options.tasks, suite.size) for suite in suites), "stopped": stopped}


def in_turn(streams: Mapping[str, Iterator[ResultRow]]) -> Iterator[tuple[str, ResultRow]]:
    """Yield from each in turn, with its name, until all have ended."""
    left = dict(streams)
    while left:
        for who, rows in list(left.items()):
            row = next(rows, None)
            if row is None:
                del left[who]
            else:
                yield who, row


def _until(ends: float, todo: Sequence[tuple[Problem, ResultsFile]]) -> Iterator[tuple[Problem, ResultsFile]]:
    for one in todo:
        if time.monotonic() > ends:
            return
        yield one


def show(who: str, row: ResultRow) -> None:
    """Write a line for a task that is done."""
    more = f"; {row.warnings[0][:100]}" if row.warnings else ""
    print(f"{time.strftime('%H:%M:%S')} {who}: {row.task} {row.graded}, {row.cpu_s:.0f} CPU-s{more}",
          file=sys.stderr, flush=True)  # fmt: skip


# --- what is kept -------------------------------------------------------------------------------------------


def pack(options: argparse.Namespace) -> dict[str, Any]:
    """Put what the work folder holds into the records. Raises UsageError: it holds nothing."""
    own = file_of(options, OWN, SUITES[0])
    if not own.exists():
        raise UsageError(f"nothing was run in {options.work}", fix="python benchmarks/peers.py run ...")
    parts, manifests, searches = [], {}, []
    with ExitStack() as stack:
        rooms, suites = stack.enter_context(GradingRooms()), opened(options, stack)
        store = stack.enter_context(closing(open_store(options.work / OWN / "runs.sqlite")))
        for who in WHO:
            for suite in suites:
                path = file_of(options, who, suite.name)
                if not path.exists():
                    continue
                results = read_results(path)
                settings = {key: value for key, value in results.manifest.items() if key != "run"}
                rows = tuple(results.rows.values())
                parts.append(Part(who=who, suite=suite.name, settings=settings, rows=rows))
                if who == OWN:
                    manifests[suite.name] = results.manifest
                    searches += record.searched(suite, results.rows, store, rooms)
    write_tables(options.records / SEARCHES, searches, manifests)
    return {"done": add(options.records, parts)}


# --- the table ---------------------------------------------------------------------------------------------


def own_searches(options: argparse.Namespace, rows: Mapping[str, ResultRow]) -> dict[str, Search]:
    """Return ponder's packed searches by task.

    When each answer was there is worked out from tokens; all of it together costs what its whole bill says.

    Args:
        rows: what it did, by task.
    """
    searches = Replay(rates_of(options.core)).searches(options.records / SEARCHES)
    return {search.task: costing(search, rows[search.task].cpu_s) for search in searches}


def cost_of(row: ResultRow) -> float:
    """Return a task's CPU seconds; a framework works in its own process, and what this one does meanwhile is none."""
    return row.cpu_s - (row.cpu_by_tool.get(OVERHEAD, 0.0) if "framework" in row.cpu_by_tool else 0.0)


def compared(rows: Sequence[ResultRow], own: Mapping[str, Search]) -> dict[str, Any]:
    """Return a peer beside ponder at the peer's CPU, on the tasks that both have. Raises UsageError: there are none."""
    both = [row for row in rows if row.task in own]
    if not both:
        raise UsageError("ponder and a peer have no task in common yet", fix="python benchmarks/peers.py run ...")
    searches = [own[row.task] for row in both]
    cpu_s = sum(cost_of(row) for row in both) / len(both)
    bound_s = bound_for(searches, cpu_s)
    ours, theirs = [picked_within(one, bound_s) for one in searches], [float(row.right) for row in both]
    return {
        "tasks": len(both),
        "right": paired_bootstrap(theirs),
        "cpu_s": cpu_s,
        "ponder": paired_bootstrap(ours),
        "ponder_cpu_s": mean_within(searches, bound_s),
        "ahead": paired_bootstrap([a - b for a, b in zip(ours, theirs, strict=True)]),
        "cut": not math.isinf(bound_s),
        "no_answer": sum(row.graded == "no answer" for row in both),
    }


def tabled(options: argparse.Namespace) -> dict[str, Any]:
    """Compare, and print or write the table. Raises UsageError: nothing was run yet."""
    parts = parts_of(options.records)
    did = {row.task: row for suite in SUITES if (OWN, suite) in parts for row in parts[OWN, suite].rows}
    own = own_searches(options, did) if did else {}
    rows, found = [], {}
    for who in options.who:
        if who == OWN or not all((who, suite) in parts for suite in SUITES):
            continue
        read = {suite: list(parts[who, suite].rows) for suite in SUITES}
        for name, results in [*read.items(), ("both", [row for each in read.values() for row in each])]:
            one = compared(results, own)
            found[f"{who}, {name}"] = {
                key: [value.value, value.low, value.high] if isinstance(value, Interval) else value
                for key, value in one.items()
            }
            rows.append([
                who, name, str(one["tasks"]), share(one["right"]), str(one["no_answer"]), f"{one['cpu_s']:.0f}",
                share(one["ponder"]), f"{one['ponder_cpu_s']:.0f}" + (" (cut)" if one["cut"] else ""),
                points(one["ahead"]),
            ])  # fmt: skip
    if not rows:
        raise UsageError("there is nothing to compare yet", fix="python benchmarks/peers.py run ..., then pack")
    head = [
        "peer", "suite", "tasks", "right", "no answer", "its CPU s a task", "ponder at that CPU",
        "ponder's CPU s a task", "ponder ahead by",
    ]  # fmt: skip
    text = table(head, rows)
    if options.write:
        put(text, options.write, BEGIN, END)
    print(text)
    return found


def main() -> None:
    """Do what the command line says."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is open is closed
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "pack", "table"))
    parser.add_argument("--data", type=Path, help="folder with the task files (run, pack)")
    parser.add_argument("--work", type=Path, help="where results grow (run, pack)")
    parser.add_argument("--records", type=Path, default=FOLDER, help="where they are packed")
    parser.add_argument("--who", nargs="+", choices=WHO, default=WHO, metavar="NAME", help=", ".join(WHO))
    parser.add_argument("--tasks", type=int, default=TASKS, help="of each suite")
    parser.add_argument("--core", default=DEFAULT_CORE)
    parser.add_argument("--minutes", type=float, default=150, help="no further task is begun after that")
    parser.add_argument("--write", type=Path, help="put the table into this page, between its marks")
    options = parser.parse_args()
    if options.what != "table" and not (options.data and options.work):
        parser.error(f"{options.what} needs --data and --work")
    try:
        print(json.dumps({"run": run, "pack": pack, "table": tabled}[options.what](options)))
    except PackageNotFoundError as error:
        missing = f"{error.args[0]} is not installed"
        raise MachineError(missing, fix="pip install '.[bench,search,peers]'") from error


if __name__ == "__main__":
    sys.exit(exit_status(main))
