"""Running a suite: each problem is solved, then graded, and its row kept, one after the other."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from ponder.bench.problems import Grade, Problem, Suite
from ponder.bench.results import ResultRow, ResultsFile
from ponder.bench.rooms import GradingRooms
from ponder.bench.solvers import Solved, Solver, raise_if_broken
from ponder.records import Record
from ponder.stats import Interval, paired_bootstrap, wilson

BROKEN_IN_A_ROW = 3
"""So many searches that broke, one after the other, are the machine's fault: the run ends."""


class Watcher(Protocol):
    """Shows how a run goes."""

    def update(self, rows: Sequence[ResultRow], total: int) -> None:
        """Show the rows that are there so far, of so many."""

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """Say what is waited for, if the block takes long."""


class Unwatched:
    """Shows nothing."""

    def update(self, rows: Sequence[ResultRow], total: int) -> None:
        """See `Watcher.update`."""

    def waiting(self, what: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """See `Watcher.waiting`."""
        return nullcontext()


class Summary(Record):
    """What a run of a suite came to."""

    suite: str
    core: str
    strategy: str
    tasks: int
    right: int
    accuracy: Interval
    score: Interval
    """The mean score, with a bootstrap interval: the accuracy, unless tasks have scores between wrong and right."""
    cpu_s_per_task: Interval
    load_cpu_s: float | None
    """CPU seconds that loading the core took each time, on average: on no task's bill. None: it is not known."""
    by_stop_reason: Mapping[str, int]
    by_grade: Mapping[str, int]
    manifest: Mapping[str, Any]
    names: tuple[str, ...] = ()
    """The tasks' ids, in the order in which they were done."""
    interrupted: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the keys of `ponder bench --json`; intervals are [low, high], 95%."""
        return {
            "suite": self.suite,
            "core": self.core,
            "strategy": self.strategy,
            "tasks": self.tasks,
            "accuracy": self.accuracy.value,
            "interval": [self.accuracy.low, self.accuracy.high],
            "score": self.score.value,
            "score_interval": [self.score.low, self.score.high],
            "cpu_s_per_task": self.cpu_s_per_task.value,
            "manifest": dict(self.manifest),
            "right": self.right,
            "cpu_s_interval": [self.cpu_s_per_task.low, self.cpu_s_per_task.high],
            "load_cpu_s": self.load_cpu_s,
            "by_stop_reason": dict(self.by_stop_reason),
            "by_grade": dict(self.by_grade),
            "interrupted": self.interrupted,
        }


def run_suite(
    suite: Suite,
    solvers: Sequence[Solver],
    rooms: GradingRooms,
    file: ResultsFile,
    *,
    limit: int | None = None,
    watcher: Watcher | None = None,
) -> Summary:
    """Solve and grade the suite's first `limit` problems that the file does not hold yet.

    Ctrl-C ends it: the task at hand is left out, what is done is kept, and the summary says `interrupted`.
    A search that broke is kept as a wrong answer, and tried again by the next run.

    Raises:
        UsageError: the file holds results of another core or version.
        MachineError: a task cannot be searched or graded here; what is done is kept.
    """
    watcher = watcher or Unwatched()
    with watcher.waiting(f"reading or making the tasks of {suite.name}"):
        problems = suite.problems(limit if limit is not None else suite.size)
    done = file.done
    todo = [(problem, file) for problem in problems if problem.id not in done]
    interrupted = False

    def rows() -> list[ResultRow]:
        on_disk = file.rows  # Ctrl-C may come between a row that was written and its coming back from here
        return [on_disk[problem.id] for problem in problems if problem.id in on_disk]

    watcher.update(rows(), len(problems))
    try:
        for _ in answered(todo, solvers, rooms, watcher):
            watcher.update(rows(), len(problems))
    except KeyboardInterrupt:
        interrupted = True
    return summarise(suite.name, solvers[0].settings, file.manifest, rows(), interrupted=interrupted)


def answered(
    todo: Iterable[tuple[Problem, ResultsFile]], solvers: Sequence[Solver], rooms: GradingRooms,
    watcher: Watcher | None = None,
) -> Iterator[ResultRow]:
    """Solve and grade; yield each problem's row when it is on disk in its file.

    Several solvers work side by side, each in a thread of its own. Where one fails, or Ctrl-C comes, the others are
    interrupted, and their tasks at hand are left out too.

    Raises:
        KeyboardInterrupt: Ctrl-C, also where a search ended by itself because of it; the task at hand is left out.
        UsageError: a file holds results of another core or version.
        MachineError: a task cannot be searched or graded here, or `BROKEN_IN_A_ROW` searches broke one after the other.
    """
    if len(solvers) > 1:
        return _side_by_side(iter(todo), solvers, rooms, watcher)
    return _one_by_one(todo, solvers[0], rooms, watcher, _Broken())


class _Broken:
    """Counts the searches that broke one after the other, whoever searched."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def count(self, solved: Solved) -> None:
        """Note how a search ended. Raises CoreError: too many broke."""
        self._in_a_row = self._in_a_row + 1 if solved.stop_reason == "error" else 0
        if self._in_a_row >= BROKEN_IN_A_ROW:
            raise_if_broken(solved)


def _one_by_one(
    todo: Iterable[tuple[Problem, ResultsFile]], solver: Solver, rooms: GradingRooms, watcher: Watcher | None,
    broken: _Broken,
) -> Iterator[ResultRow]:
    load_cpu_s: float | None = None
    started = False
    for problem, file in todo:
        if not started:
            with (watcher or Unwatched()).waiting("loading the core"):
                load_cpu_s, started = solver.start(), True
        solved = solver.solve(problem)
        if solved.stop_reason == "interrupted":
            raise KeyboardInterrupt
        file.begin(solver.circumstances)
        answer = None if solved.stop_reason == "error" else solved.answer  # what a search broke off with is none
        row = _row(problem, solved, rooms.grade(problem, answer), load_cpu_s)
        load_cpu_s = None
        file.add(row)
        yield row
        broken.count(solved)


def _side_by_side(
    todo: Iterator[tuple[Problem, ResultsFile]], solvers: Sequence[Solver], rooms: GradingRooms, watcher: Watcher | None
) -> Iterator[ResultRow]:
    lock, over, broken = threading.Lock(), threading.Event(), _Broken()
    came: queue.SimpleQueue[ResultRow | BaseException | None] = queue.SimpleQueue()

    def rest() -> Iterator[tuple[Problem, ResultsFile]]:
        while not over.is_set():
            with lock:
                one = next(todo, None)
            if one is None:
                return
            yield one

    def work(solver: Solver) -> None:
        try:
            for row in _one_by_one(rest(), solver, rooms, watcher if solver is solvers[0] else None, broken):
                came.put(row)
        except BaseException as error:  # told to who waits for the rows
            came.put(error)
        else:
            came.put(None)

    threads = [threading.Thread(target=work, args=(solver,), name="ponder-solver") for solver in solvers]
    for thread in threads:
        thread.start()
    try:
        working = len(threads)
        while working:
            one = came.get()
            if isinstance(one, BaseException):
                raise one
            if one is None:
                working -= 1
            else:
                yield one
    finally:
        over.set()
        while any(thread.is_alive() for thread in threads):
            for solver in solvers:
                solver.interrupt()  # again and again: a search that is only just beginning does not hear of it
            for thread in threads:
                thread.join(0.2)


def summarise(
    suite: str, settings: Mapping[str, Any], manifest: Mapping[str, Any], rows: Sequence[ResultRow], *,
    interrupted: bool = False,
) -> Summary:
    """Return what the rows come to: accuracy with its Wilson interval, means of scores and CPU with a bootstrap's."""
    right = sum(row.right for row in rows)
    loads = [row.load_cpu_s for row in rows if row.load_cpu_s is not None]
    return Summary(
        suite=suite,
        core=str(settings["core"]),
        strategy=str(settings["strategy"]),
        tasks=len(rows),
        right=right,
        accuracy=wilson(right, len(rows)),
        score=_mean([row.score for row in rows]),
        cpu_s_per_task=_mean([row.cpu_s for row in rows]),
        load_cpu_s=round(sum(loads) / len(loads), 4) if loads else None,
        by_stop_reason=Counter(row.stop_reason for row in rows),
        by_grade=Counter(row.graded for row in rows),
        manifest=manifest,
        names=tuple(row.task for row in rows),
        interrupted=interrupted,
    )


def _mean(figures: Sequence[float]) -> Interval:
    return paired_bootstrap(figures) if figures else Interval(value=0.0, low=0.0, high=0.0)


def _row(problem: Problem, solved: Solved, grade: Grade, load_cpu_s: float | None) -> ResultRow:
    criterion, total = problem.task.success, solved.bill.total
    return ResultRow(
        task=problem.id,
        right=grade.right,
        score=grade.score,
        graded=grade.outcome,
        answer=solved.answer,
        confidence=solved.confidence,
        stop_reason=solved.stop_reason,
        nodes=solved.nodes,
        run_id=solved.run_id,
        visible=len(criterion.visible) if criterion is not None else 0,
        cpu_s=round(solved.cpu_s, 4),
        wall_s=round(solved.wall_s, 3),
        cpu_by_tool={tool: round(row.cpu_s, 4) for tool, row in solved.bill.by_tool.items()},
        tokens_in=total.tokens_in,
        tokens_out=total.tokens_out,
        tokens_cached=total.tokens_cached,
        warnings=solved.warnings,
        load_cpu_s=round(load_cpu_s, 4) if load_cpu_s is not None else None,
    )
