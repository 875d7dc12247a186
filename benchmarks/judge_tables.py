"""The tables of `benchmarks/judge_report.py`, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ponder.bench.records.curves import SHOWN, Curve
from ponder.bench.records.reliability import Reliability
from ponder.bench.records.selection import Selection, Without
from ponder.judges.calibration import Calibration
from ponder.stats import Interval

TOGETHER = "together"
"""How the row of several suites is named."""


def is_sum(name: str) -> bool:
    """Return whether a row is of several suites."""
    return name.startswith(TOGETHER)


def coverage_table(curves: Sequence[Curve]) -> str:
    """Return pass@k of each suite, with both fits."""
    if not curves:
        return ""
    ks = [k for k in SHOWN if k in curves[0].intervals]
    head = ["suite", "tasks", *(f"pass@{k}" for k in ks), "a doubling adds", "R² of the line", "power law", "its R²"]
    rows = []
    for one in curves:
        law = one.law
        bent = [f"exp({law.a:.3g} k^{law.b:.3g})", f"{law.r_squared:.4f}"] if law else ["none", ""]
        line = [f"{100 * one.line.slope:.1f} points", f"{one.line.r_squared:.4f}"]
        rows.append([one.suite, str(one.tasks), *(share(one.intervals[k]) for k in ks), *line, *bent])
    picture = "![Coverage over the number of samples](pictures/coverage.svg)"
    short = sum(one.short for one in curves if not is_sum(one.suite))
    note = f"{short} tasks with fewer samples are left out." if short else ""
    return "\n\n".join(part for part in ("### Coverage", table(head, rows), note, picture) if part)


def selection_table(chosen: Mapping[str, Selection], k: int) -> str:
    """Return how well the judge picks."""
    if not chosen:
        return ""
    head = [
        "tasks of", "tasks", "pass@1", f"pass@{k}", "judge", "share of the gap closed", "majority vote",
        "judge less vote", "vote of equal outcomes", "judge less that",
    ]  # fmt: skip
    rows = [
        [
            name, str(one.tasks), share(one.one), share(one.oracle), share(one.judge),
            share(one.gap_closed) if one.gap_closed else "no gap", share(one.vote), points(one.over_vote),
            share(one.alike), points(one.over_alike),
        ]
        for name, one in chosen.items()
    ]  # fmt: skip
    return f"### Selection\n\n{table(head, rows)}"


def ablation_table(pieces: Mapping[str, Sequence[Without]]) -> str:
    """Return what each piece of evidence is worth, and what it costs."""
    rows = [
        [name, one.piece, share(one.accuracy), points(one.change), f"{one.saved_cpu_s:.2f}", f"{one.share_of_cpu:.1%}"]
        for name, own in pieces.items()
        for one in own
    ]
    head = ["tasks of", "taken away", "accuracy without", "change", "its CPU s a task", "of the search's CPU"]
    return f"### Ablation\n\n{table(head, rows)}" if rows else ""


def calibration_table(rated: Iterable[tuple[str, Reliability, Reliability]]) -> str:
    """Return how far the probability can be believed, beside the uncalibrated confidence."""
    rows = [
        [
            name, str(made.number), f"{made.right:.1%}", f"{made.said:.1%}", f"{made.ece:.3f}", f"{made.floor:.3f}",
            f"{made.ece_wide:.3f}", f"{made.brier:.3f}", f"{plain.ece:.3f}", f"{plain.brier:.3f}",
        ]
        for name, made, plain in rated
    ]  # fmt: skip
    head = [
        "snapshots", "number", "right", "mean probability", "ECE", "chance alone", "ECE, equal widths", "Brier",
        "uncalibrated: ECE", "Brier",
    ]  # fmt: skip
    picture = "![Reliability](pictures/reliability.svg)"
    return f"### Calibration\n\n{table(head, rows)}\n\n{picture}" if rows else ""


def models_table(calibration: Calibration) -> str:
    """Return the models that are in use: weights of standardised signals."""
    rows = []
    for model in calibration.models:
        terms = sorted(model.terms, key=lambda term: -abs(term.weight))
        weights = ", ".join(f"{term.name} {term.weight:+.2f}" for term in terms)
        about = model.fitted_on
        told = [str(about.tasks), str(about.snapshots), f"{about.ece:.3f}"] if about else ["", "", ""]
        rows.append([model.kind, *told, weights])
    head = ["evidence", "tasks", "snapshots", "cross-fitted ECE", "weights of the standardised signals"]
    return f"### Models\n\n{table(head, rows)}" if rows else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def share(one: Interval) -> str:
    """Return a share with its interval, in percent."""
    return f"{one.value:.1%} ({one.low:.1%} to {one.high:.1%})"


def points(one: Interval) -> str:
    """Return a difference with its interval, in percentage points."""
    return f"{100 * one.value:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
