"""Recorded searches as candidates again: of the first k samples, with any piece of evidence taken away."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, TypeVar

from ponder.answers import normalise
from ponder.bench.records.recording import manifest_of, read_table, strategy_of
from ponder.errors import UsageError
from ponder.judges.candidates import Candidate, way_of
from ponder.program_tests import OwnTest, read_tests

T = TypeVar("T")
Row = Mapping[str, Any]

INDEPENDENT = "self-consistency"
"""The strategy whose records are independent samples; any other's are trees."""


@dataclass(frozen=True)
class Cost:
    """CPU seconds that a recorded search spent on evidence."""

    visible_s: float = 0.0
    """Runs of visible checks. One run in the sandbox checks and calls a program: its cost is parted by the number of
    tests and calls."""
    behaviour_s: float = 0.0
    """Calls of candidate programs, those of the core's own tests aside."""
    own_tests_s: float = 0.0
    """What the core took to write tests, and their runs."""
    rubric_s: float = 0.0
    total_s: float = 0.0
    """All of the search."""


@dataclass(frozen=True)
class Search:
    """One recorded search.

    A sample is what one first step led to: it and all steps below it.
    """

    suite: str
    task: str
    independent: bool
    """Whether the samples know nothing of each other."""
    samples: tuple[tuple[Candidate, ...], ...]
    """Per sample, in the order in which they were asked for, its candidates: none where it came to no answer."""
    right: Mapping[int, bool]
    """By a candidate's node, whether its answer is right."""
    tests: tuple[OwnTest, ...]
    """What the core wrote to test programs with."""
    cost: Cost
    spent: Mapping[int, float] = field(default_factory=dict)
    """By a candidate's node, the CPU seconds of the search up to it, as if its nodes had come one after the other."""
    ended_by_budget: bool = False

    @property
    def outcomes(self) -> list[bool]:
        """Whether each sample is right: whether its last answer is."""
        return [bool(sample) and self.right[sample[-1].node] for sample in self.samples]

    def first(self, k: int) -> list[Candidate]:
        """Return the candidates of the first k samples, or of a tree the first k candidates, in the order of nodes.

        A tree grows from what came before, so that its past is a matter of order, not of branches.
        """
        if self.independent:
            return _in_order(self.samples[:k])
        return _in_order(self.samples)[:k]


def searches(folder: Path) -> list[Search]:
    """Return the recorded searches of a packed folder.

    Raises:
        UsageError: there are no records, or records that lack what this needs.
        ImportError: pyarrow is not installed.
    """
    return made_of_each(
        folder, lambda about, nodes, settings: rebuilt(about, nodes, independent=strategy_of(settings) == INDEPENDENT)
    )


def made_of_each(folder: Path, make: Callable[[Row, Sequence[Row], Row], T]) -> list[T]:
    """Return what is made of each recorded search of a packed folder.

    Args:
        make: gets a search's row of the tasks table, its rows of the nodes table, and its suite's manifest.

    Raises:
        UsageError: there are no records, or records that lack what this needs.
        ImportError: pyarrow is not installed.
    """
    manifest, again = manifest_of(folder), "pack it with benchmarks/record.py again"
    try:
        about = {(row["suite"], row["task"]): row for row in read_table(folder, "tasks")}
        nodes = sorted(read_table(folder, "nodes"), key=_task_of)
        return [make(about[key], list(rows), manifest[key[0]]) for key, rows in groupby(nodes, key=_task_of)]
    except (FileNotFoundError, KeyError) as error:
        raise UsageError(f"{folder} lacks {error.args[-1]!r}", fix=again) from error
    except (ValueError, TypeError, IndexError, OSError) as error:  # no Parquet file, or empty where a number belongs
        told, _, _ = str(error).partition("\n")
        raise UsageError(f"{folder} holds no records that can be read: {told}", fix=again) from error


def rebuilt(about: Row, nodes: Sequence[Row], *, independent: bool) -> Search:
    """Return one search from its row of the tasks table and its rows of the nodes table."""
    rows = {int(row["node"]): row for row in sorted(nodes, key=lambda row: int(row["node"]))}
    written = [row["text"] for row in rows.values() if row["kind"] == "check" and row["status"] != "asked"]
    tests = tuple({test.comparison: test for text in written for test in read_tests(text or "")}.values())
    steps = {node: row for node, row in rows.items() if row["kind"] != "check"}
    samples: dict[int, list[Candidate]] = {head: [] for head in heads_of(steps)}
    for node, row in steps.items():
        candidate = candidate_of(row)
        if candidate is not None and (head := head_of(node, steps, samples)) is not None:
            samples[head].append(candidate)
    kept = [candidate.node for sample in samples.values() for candidate in sample]
    return Search(
        suite=about["suite"],
        task=about["task"],
        ended_by_budget=about.get("stop_reason") == "budget",
        independent=independent,
        samples=tuple(tuple(sample) for sample in samples.values()),
        right={node: bool(rows[node]["right"]) for node in kept},
        tests=tests,
        cost=_cost(about, list(rows.values()), tests),
        spent=dict(zip(rows, accumulate(_cpu_s(row) for row in rows.values()), strict=True)),
    )


def candidate_of(row: Row) -> Candidate | None:
    """Return the candidate of a row of the nodes table, as `ponder.judges.candidates` had it; None: it offers none."""
    if not row["answer"] or row["status"] not in ("thought", "observed", "judged"):
        return None
    return Candidate(
        node=int(row["node"]),
        answer=row["answer"],
        key=normalise(row["answer"]),
        way=way_of(row["kind"], executed=bool(row["executed"])),
        passed=row["checks_passed"] or 0,
        checks=row["checks"] or 0,
        tested=bool(row["checks"]),  # a suite's visible checks are tests of programs
        asked=row.get("asked") or 0,
        followed=row.get("followed") or 0,
        text_asked=row.get("text_asked") or False,
        mean_logprob=row["mean_logprob"] or 0.0,
        outcomes=json.loads(row["outcomes"]) if row["outcomes"] else {},
        rubric=row["rubric"],
    )


# --- taking evidence away ------------------------------------------------------------------------------------

Evidence = tuple[list[Candidate], tuple[OwnTest, ...]]
"""Candidates and the core's own tests: what the judge chooses by."""


def without_visible(found: Sequence[Candidate], tests: Sequence[OwnTest]) -> Evidence:
    """Take the results of visible checks away."""
    return [one.model_copy(update={"passed": 0, "checks": 0}) for one in found], tuple(tests)


def without_instructions(found: Sequence[Candidate], tests: Sequence[OwnTest]) -> Evidence:
    """Take away whether answers do what the task's words ask."""
    return [one.model_copy(update={"asked": 0, "followed": 0, "text_asked": False}) for one in found], tuple(tests)


def without_behaviour(found: Sequence[Candidate], tests: Sequence[OwnTest]) -> Evidence:
    """Take away what programs return; which of the core's own tests they pass stays."""
    own = {test.comparison for test in tests}
    return [_with_outcomes(one, lambda call: call in own) for one in found], tuple(tests)


def without_own_tests(found: Sequence[Candidate], tests: Sequence[OwnTest]) -> Evidence:
    """Take the core's own tests away, and the calls that only they make."""
    return [_with_outcomes(one, set(_others(one, tests)).__contains__) for one in found], ()


def without_ways(found: Sequence[Candidate], tests: Sequence[OwnTest]) -> Evidence:
    """Forget how answers came about: each has the same votes."""
    return [one.model_copy(update={"way": "said"}) for one in found], tuple(tests)


def without_rubric(found: Sequence[Candidate], tests: Sequence[OwnTest]) -> Evidence:
    """Take the core's opinion of answers away."""
    return [one.model_copy(update={"rubric": None}) for one in found], tuple(tests)


def as_shipped(search: Search) -> Search:
    """Return a search with the evidence that an agent has by itself.

    That is without tests of the core's own (`+tests`), and without its opinion of answers, which is asked for where a
    task has a rubric: no suite's has one.
    """
    kept = tuple(
        tuple(without_rubric(without_own_tests(sample, search.tests)[0], ())[0]) for sample in search.samples
    )
    return replace(search, samples=kept, tests=())


PIECES: Mapping[str, tuple[Callable[[Sequence[Candidate], Sequence[OwnTest]], Evidence], Callable[[Cost], float]]] = {
    "visible checks": (without_visible, lambda cost: cost.visible_s),
    "instructions in the task's words": (without_instructions, lambda _: 0.0),
    "behaviour": (without_behaviour, lambda cost: cost.behaviour_s),
    "own tests": (without_own_tests, lambda cost: cost.own_tests_s),
    "how answers came about": (without_ways, lambda _: 0.0),
    "rubric": (without_rubric, lambda cost: cost.rubric_s),
}
"""The judge's pieces of evidence: how each is taken away, and the CPU seconds that this saves."""


def _with_outcomes(one: Candidate, keep: Callable[[str], bool]) -> Candidate:
    return one.model_copy(update={"outcomes": {call: came for call, came in one.outcomes.items() if keep(call)}})


def _others(one: Candidate, tests: Sequence[OwnTest]) -> list[str]:
    """Return the calls of a candidate that are made without the core's own tests too: all of these stand first."""
    own = {call for test in tests for call in (test.call, test.comparison)}
    calls = list(one.outcomes)
    last = max((at for at, call in enumerate(calls) if call not in own), default=-1)
    return calls[: last + 1]


# --- the shape of a tree, and its bill ----------------------------------------------------------------------------


def _task_of(row: Row) -> tuple[str, str]:
    return row["suite"], row["task"]


def heads_of(steps: Mapping[int, Row]) -> Iterator[int]:
    """Yield the first steps of the samples: those at the root, or below the pages that are opened for all of them."""
    base = 0
    while True:
        below = [node for node, row in steps.items() if row["parent"] == base]
        if len(below) != 1 or steps[below[0]]["kind"] != "browse":
            break
        if not any(row["parent"] == below[0] for row in steps.values()):
            break
        base = below[0]
    yield from below


def head_of(node: int, steps: Mapping[int, Row], heads: Collection[int]) -> int | None:
    """Return the first step of the sample that a step belongs to; None: it belongs to all of them."""
    at: int | None = node
    while at is not None and at not in heads:
        at = steps[at]["parent"] if at in steps else None
    return at


def _in_order(samples: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    return sorted((candidate for sample in samples for candidate in sample), key=lambda candidate: candidate.node)


def _cpu_s(row: Row) -> float:
    return float(row["core_cpu_s"]) + float(row["tool_cpu_s"])


def _run_cost(row: Row, tests: Sequence[OwnTest]) -> tuple[float, float, float]:
    """Return the CPU seconds of a program's visible checks, of the calls of it, and of those of the core's own tests.

    One run makes all of them, and is parted by their number.
    """
    candidate, checks = candidate_of(row), row["total"] or 0
    if candidate is None or not checks + len(candidate.outcomes):
        return 0.0, 0.0, 0.0
    others = len(_others(candidate, tests))
    each = row["tool_cpu_s"] / (checks + len(candidate.outcomes))
    return each * checks, each * others, each * (len(candidate.outcomes) - others)


def tool_s_as_shipped(row: Row, tests: Sequence[OwnTest]) -> float:
    """Return the CPU seconds of a step's tools, but for the calls that only tests of the core's own make."""
    return float(row["tool_cpu_s"]) - _run_cost(row, tests)[2]


def core_share_as_shipped(row: Row) -> float:
    """Return the share of a step's core CPU that did not go into the core's opinion of its answer."""
    whole = float(row["core_cpu_s"])
    return 1 - min(1.0, (row["rubric_cpu_s"] or 0.0) / whole) if whole else 1.0


def _cost(about: Row, rows: Sequence[Row], tests: Sequence[OwnTest]) -> Cost:
    visible = behaviour = own = 0.0
    for row in rows:
        if row["kind"] == "check":
            own += row["core_cpu_s"]
            continue
        parts = _run_cost(row, tests)
        visible, behaviour, own = visible + parts[0], behaviour + parts[1], own + parts[2]
    rubric = sum(row["rubric_cpu_s"] or 0.0 for row in rows)
    return Cost(visible, behaviour, own, rubric, about["charged_cpu_s"])
