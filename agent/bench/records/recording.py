"""Recorded searches as tables: every node with what it cost and whether its answer is right, every decision's features.

The event store is the source; what is added is the grade of each node's own answer, by the suite's graders. A task is
named by its id only: its text stays in the suite's data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ponder.answers import shown
from ponder.bench.problems import Grade, Problem
from ponder.bench.rooms import GradingRooms
from ponder.errors import UsageError
from ponder.judges.candidates import Candidate, candidates
from ponder.records import Charge, Node, Record
from ponder.tree import Event, EventKind, Tree

Table = Literal["tasks", "nodes", "decisions"]
TABLES: tuple[Table, ...] = ("tasks", "nodes", "decisions")
_FULL_DEPTH = "full-depth"
"""The policy that never stops, as circumstances name it."""


class Recorded(Record):
    """One recorded search, as rows of the three tables (lists of flat mappings)."""

    tasks: tuple[dict[str, Any], ...]
    nodes: tuple[dict[str, Any], ...]
    decisions: tuple[dict[str, Any], ...]


def recorded(suite: str, problem: Problem, events: Sequence[Event], rooms: GradingRooms) -> Recorded:
    """Return the rows of one run.

    Args:
        events: the whole run, as the store has it.
        rooms: where answers are graded; equal answers are graded once.

    Raises:
        ValueError: the events are no run that ended.
        MachineError: an answer cannot be graded on this machine.
    """
    tree = Tree.from_events(events)
    ended = next((event for event in reversed(events) if event.kind == "ended"), None)
    if ended is None:
        raise ValueError(f"the run of {problem.id} has not ended")
    about = {"suite": suite, "task": problem.id}
    grades: dict[str, Grade] = {}

    def grade(answer: str | None) -> Grade | None:
        """Grade an answer as it would have been given: programs and texts as they are, others as they are shown."""
        if not answer:
            return None
        answer = answer if problem.reply in ("program", "whole") else shown(answer)
        if answer not in grades:
            grades[answer] = rooms.grade(problem, answer)
        return grades[answer]

    charges = [Charge.model_validate(event.data) for event in events if event.kind == "charged"]
    found, rated = {one.node: one for one in candidates(tree)}, _rating_cpu_s(events)
    asked, settled = _decisions_before(events, "asked"), _decisions_before(events, "judged", "failed", "cancelled")
    nodes = [
        about
        | {"decisions_before": asked[node.id], "settled_after": settled.get(node.id)}
        | _node(node, charges, grade(node.answer))
        | _evidence(node, found.get(node.id), rated.get(node.id))
        for node in tree.nodes.values()
        if node.id
    ]
    decisions = [about | _decision(event.data) for event in events if event.kind == "decided"]
    return Recorded(
        tasks=(about | _task(ended.data, grade(ended.data.get("answer")), tree, charges),),
        nodes=tuple(nodes),
        decisions=tuple(decisions),
    )


def _node(node: Node, charges: Iterable[Charge], grade: Grade | None) -> dict[str, Any]:
    own = [charge for charge in charges if charge.node == node.id]
    core = [charge.usage for charge in own if charge.tool == "core"]
    seen = node.observation
    return {
        "node": node.id,
        "parent": node.parent,
        "branch": node.branch,
        "depth": node.depth,
        "kind": node.kind,
        "status": node.status,
        "act": node.action.type if node.action is not None else None,
        "repaired": node.repair is not None,
        "text": node.text,
        "answer": node.answer,
        "right": grade.right if grade is not None else None,
        "score": grade.score if grade is not None else None,
        "mean_logprob": node.mean_logprob,
        "ok": seen.ok if seen is not None else None,
        "outcome": seen.outcome if seen is not None else None,
        "passed": seen.passed if seen is not None else None,
        "total": seen.total if seen is not None else None,
        "outcomes": json.dumps(seen.outcomes) if seen is not None and seen.outcomes else None,
        "verdict": node.verdict.score if node.verdict is not None else None,
        "evidence": json.dumps(node.verdict.evidence) if node.verdict is not None else None,
        "tokens_in": sum(usage.tokens_in for usage in core),
        "tokens_cached": sum(usage.tokens_cached for usage in core),
        "tokens_out": sum(usage.tokens_out for usage in core),
        "step_tokens_out": node.tokens_out,
        "core_cpu_s": sum(usage.cpu_s for usage in core),
        "tool_cpu_s": sum(charge.usage.cpu_s for charge in own if charge.tool != "core"),
        "tool_wall_s": sum(charge.usage.wall_s for charge in own if charge.tool != "core"),
    }


def _evidence(node: Node, candidate: Candidate | None, rated_cpu_s: float | None) -> dict[str, Any]:
    """Return what the judge knew of a node's answer, besides what its observation and its verdict say."""
    return {
        "executed": candidate.executed if candidate is not None else None,
        "checks": candidate.checks if candidate is not None else None,
        "checks_passed": candidate.passed if candidate is not None else None,
        "asked": candidate.asked if candidate is not None else None,
        "followed": candidate.followed if candidate is not None else None,
        "text_asked": candidate.text_asked if candidate is not None else None,
        "rubric": node.rubric,
        "rubric_cpu_s": rated_cpu_s,
    }


def _decisions_before(events: Sequence[Event], *kinds: EventKind) -> dict[int, int]:
    """Return, by node, how many decisions had been taken when such an event came for it last."""
    taken, found = 0, {}
    for event in events:
        taken += event.kind == "decided"
        if event.kind in kinds and event.node is not None:
            found[event.node] = taken
    return found


def _rating_cpu_s(events: Sequence[Event]) -> dict[int, float]:
    """Return, by node, the core's CPU seconds for its opinion of the answer: the call before the answer was rated."""
    last: dict[int | None, float] = {}
    found: dict[int, float] = {}
    for event in events:
        if event.kind == "charged" and event.data["tool"] == "core":
            charge = Charge.model_validate(event.data)
            last[charge.node] = charge.usage.cpu_s
        elif event.kind == "rated" and event.node is not None:
            found[event.node] = last.get(event.node, 0.0)
    return found


def _decision(data: Mapping[str, Any]) -> dict[str, Any]:
    decision, features = data["decision"], dict(data["features"])
    features |= {name: json.dumps(features[name]) for name in ("votes", "signals") if name in features}
    said = {"stop": decision["stop"], "reason": decision["reason"], "confidence": decision["confidence"]}
    return {**said, **{f"feature_{name}": value for name, value in features.items()}}


def _task(
    ended: Mapping[str, Any], grade: Grade | None, tree: Tree, charges: Iterable[Charge]
) -> dict[str, Any]:
    cpu: dict[str, float] = {}
    for charge in charges:
        cpu[charge.tool] = cpu.get(charge.tool, 0.0) + charge.usage.cpu_s
    criterion = tree.task.success
    return {
        "answer": ended.get("answer"),
        "right": grade.right if grade is not None else False,
        "score": grade.score if grade is not None else 0.0,
        "confidence": ended.get("confidence"),
        "stop_reason": ended.get("stop_reason"),
        "nodes": len(tree.nodes) - 1,
        "rounds": tree.rounds,
        "visible": len(criterion.visible) if criterion is not None else 0,
        "charged_cpu_s": sum(cpu.values()),
        "core_cpu_s": cpu.get("core", 0.0),
        "elapsed_s": ended.get("elapsed_s"),
    }


def write_tables(folder: Path, found: Iterable[Recorded], manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Add searches to the tables of a folder; return how many rows each has then.

    The tables are Parquet files (zstd) beside `manifest.json`; they are made where there are none. A task that is there
    is replaced. Searches of one suite must have been made with the same settings, but may come from several runs, on
    other machines: the manifest has, by suite, the settings and the circumstances of each of its `runs`, and each row
    of the tasks table the number of its `run`.

    Args:
        manifests: by suite, the manifest of the results file that the searches come with; looked at after these.

    Raises:
        UsageError: what is there was made with other settings, or is no record.
        ImportError: pyarrow is not installed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = list(found)
    there = manifest_of(folder) if (folder / "manifest.json").exists() else {}
    rows: dict[Table, list[dict[str, Any]]] = {table: [] for table in TABLES}
    known, number = dict(there), {}
    for suite, manifest in manifests.items():
        known[suite] = _with_run(folder, suite, there.get(suite), manifest)
        number[suite] = known[suite]["runs"].index(dict(manifest.get("run", {})))
    for one in found:
        rows["tasks"] += [row | {"run": number.get(row["suite"], 0)} for row in one.tasks]
        rows["nodes"] += one.nodes
        rows["decisions"] += one.decisions
    new = {(row["suite"], row["task"]) for row in rows["tasks"]}
    folder.mkdir(parents=True, exist_ok=True)
    for table, lines in rows.items():
        before = read_table(folder, table) if there else ()
        lines[:0] = [row for row in before if (row["suite"], row["task"]) not in new]
        # Features of an earlier version lack some names.
        names = dict.fromkeys(name for line in lines for name in line)
        made = pa.Table.from_pylist([{name: line.get(name) for name in names} for line in lines])
        pq.write_table(made, folder / f"{table}.parquet.new", compression="zstd", compression_level=19)
    (folder / "manifest.json.new").write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", "utf-8")
    for written in folder.glob("*.new"):  # one right after the other: what stops a long write leaves the old ones
        written.replace(written.with_suffix(""))
    return {table: len(lines) for table, lines in rows.items()}


def _with_run(
    folder: Path, suite: str, there: Mapping[str, Any] | None, manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a suite's manifest is with the run of one more results file. Raises UsageError: other settings."""
    settings, run = {key: value for key, value in manifest.items() if key != "run"}, dict(manifest.get("run", {}))
    if there is None:
        return settings | {"runs": [run]}
    runs = list(there["runs"])
    refuse_other_settings(folder, suite, there, settings)
    return settings | {"runs": runs if run in runs else [*runs, run]}


def refuse_other_settings(folder: Path, suite: str, there: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise UsageError where a suite of a packed folder was recorded with other settings than these.

    Args:
        there: its manifest in that folder.
    """
    before = {key: value for key, value in there.items() if key not in ("runs", "format")}
    now = {key: value for key, value in json.loads(json.dumps(settings)).items() if key != "format"}
    if before != now:
        name = next(key for key in {**before, **now} if before.get(key) != now.get(key))
        wrong = f"{suite} in {folder} was recorded with {name} {before.get(name)!r}, not {now.get(name)!r}"
        raise UsageError(wrong, fix="name another --records")


def manifest_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the manifest of packed records, by suite. Raises UsageError."""
    try:
        read = json.loads((folder / "manifest.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} holds no records", fix="benchmarks/record.py pack makes them") from error
    if not isinstance(read, dict) or not all(isinstance(suite, dict) for suite in read.values()):
        raise UsageError(f"{folder}/manifest.json names no suites")
    return read


def strategy_of(settings: Mapping[str, Any]) -> str:
    """Return the strategy of a suite's manifest, without what else the core wrote (`+tests`). Raises UsageError."""
    if "strategy" not in settings:
        raise UsageError("a manifest of records names no strategy", fix="pack them with benchmarks/record.py again")
    return str(settings["strategy"]).partition("+")[0]


def is_full_depth(folder: Path) -> bool:
    """Return whether nothing ended these searches early: no policy, no value, no risk, no budget. Raises UsageError."""
    return not any(
        any(suite.get(name) for name in ("value", "risk", "budget"))
        or any(run.get("policy", _FULL_DEPTH) != _FULL_DEPTH for run in suite.get("runs", ()))
        for suite in manifest_of(folder).values()
    )


def by_strategy(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Return packed folders by the strategies that were recorded in them. Raises UsageError."""
    found: dict[str, list[Path]] = {}
    for folder in folders:
        for name in {strategy_of(suite) for suite in manifest_of(folder).values()}:
            found.setdefault(name, []).append(folder)
    return found


def read_table(folder: Path, table: Table, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of one table, or some columns of them. Raises ImportError: pyarrow is not installed."""
    import pyarrow.parquet as pq

    names = None if columns is None else list(columns)
    yield from pq.read_table(folder / f"{table}.parquet", columns=names).to_pylist()
