"""The tables of `benchmarks/actions.py`, from its rows on disk."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pages import put

from ponder.stats import paired_bootstrap, wilson

BEGIN, END = "<!-- tables: made by benchmarks/actions.py --report -->", "<!-- end of tables -->"

Row = dict[str, Any]


def write_report(records: Path, page: Path | None) -> None:
    """Print the tables as Markdown; with a page, put them between its marks."""
    text = "\n\n".join([*_steps(records), *_after(records), *_accuracy(records)]) or "No rows yet."
    if page is None:
        print(text)
        return
    put(text, page, BEGIN, END)


def _read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def _steps(records: Path) -> list[str]:
    files = sorted(records.glob("*.steps.jsonl"))
    if not files:
        return []
    head = (
        "| core | grammar | completions | parse to an allowed act | and compile | after one repair | cut at the limit, "
        "whole part kept | CPU s |\n|---|---|---|---|---|---|---|---|"
    )
    lines, rest = [head], []
    for file in files:
        rows = _read(file)
        lines.append(_step_line(rows))
        rest.append(_suites(rows))
        rest.append(_invalid(rows))
    return ["### Valid actions", "\n".join(lines), *rest]


def _step_line(rows: list[Row]) -> str:
    n = len(rows)
    parsed = sum(row["parses"] for row in rows)
    valid = sum(row["valid"] for row in rows)
    mended = valid + sum(bool(row["repaired"] and row["repaired"]["valid"]) for row in rows)
    kept = sum(row["valid"] and row["finish"] == "length" and row["kind"] == "code" for row in rows)
    cpu = sum(row["cpu_s"] + (row["repaired"] or {}).get("cpu_s", 0.0) for row in rows)
    cells = [f"{_share(count, n)}" for count in (parsed, valid, mended)]
    on = "on" if rows[0]["grammar"] else "off"
    return f"| {rows[0]['core']} | {on} | {n} | {' | '.join(cells)} | {kept} | {cpu:.0f} |"


def _share(good: int, of: int) -> str:
    share = wilson(good, of)
    return f"{share.value:.1%} ({good}; {share.low:.1%} to {share.high:.1%})"


def _suites(rows: list[Row]) -> str:
    title = f"{rows[0]['core']}, grammar {'on' if rows[0]['grammar'] else 'off'}, by suite:"
    head = "| suite | completions | parse | compile too | after one repair | median tokens |"
    lines = [head, "|---|---|---|---|---|---|"]
    for suite in dict.fromkeys(row["suite"] for row in rows):
        own = [row for row in rows if row["suite"] == suite]
        mended = sum(row["valid"] or bool(row["repaired"] and row["repaired"]["valid"]) for row in own)
        tokens = sorted(row["tokens_out"] for row in own)[len(own) // 2]
        parsed, valid = sum(row["parses"] for row in own), sum(row["valid"] for row in own)
        lines.append(f"| {suite} | {len(own)} | {parsed} | {valid} | {mended} | {tokens} |")
    return "\n".join([title, "", *lines])


def _invalid(rows: list[Row]) -> str:
    """Return what the rest were, commonest first."""
    bad = Counter(_why(row) for row in rows if not row["valid"])
    if not bad:
        return "None was invalid."
    lines = ["| what the rest were | completions | valid after one repair |", "|---|---|---|"]
    for why, count in bad.most_common(12):
        again = sum(bool(r["repaired"] and r["repaired"]["valid"]) for r in rows if not r["valid"] and _why(r) == why)
        lines.append(f"| {why} | {count} | {again} |")
    return "\n".join(lines)


def _why(row: Row) -> str:
    if row["finish"] == "length" and row["kind"] == "code":
        return "a program cut at the limit of tokens"
    if row["compile_error"]:
        return "no valid Python: " + str(row["compile_error"]).split(" (line")[0].replace("|", "\\|")[:60]
    return str(row["wrong"])[:60].replace("|", "\\|")


def _after(records: Path) -> list[str]:
    lines = ["| core | steps | no token after the act's end | one | more | not counted |", "|---|---|---|---|---|---|"]
    for file in sorted(records.glob("*.after.jsonl")):
        rows = _read(file)
        counts = Counter("not" if row["after"] is None else min(row["after"], 2) for row in rows)
        cells = " | ".join(str(counts[key]) for key in (0, 1, 2, "not"))
        lines.append(f"| {rows[0]['core']} | {len(rows)} | {cells} |")
    head = "### Tokens paid for after an act's end"
    note = "Not counted: steps that met the limit of tokens, or that came out otherwise when asked again."
    return [head, "\n".join(lines), note] if len(lines) > 2 else []


def _accuracy(records: Path) -> list[str]:
    files = sorted(records.glob("*.accuracy.jsonl"))
    lines = [
        "| core | tasks | passed with the grammar | without | difference, points (95%, paired bootstrap) "
        "| tokens a task, with and without |",
        "|---|---|---|---|---|---|",
    ]
    for file in files:
        rows = _read(file)
        on = {row["task"]: row for row in rows if row["grammar"]}
        off = {row["task"]: row for row in rows if not row["grammar"]}
        both = sorted(on.keys() & off.keys())
        if not both:
            continue
        gains = [int(on[task]["passed"]) - int(off[task]["passed"]) for task in both]
        gain, n = paired_bootstrap(gains), len(both)
        tokens = [sum(side[task]["tokens_out"] for task in both) / n for side in (on, off)]
        right = [sum(side[task]["passed"] for task in both) for side in (on, off)]
        lines.append(
            f"| {rows[0]['core']} | {n} | {right[0]} ({right[0] / n:.1%}) | {right[1]} ({right[1] / n:.1%}) "
            f"| {100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}) "
            f"| {tokens[0]:.0f}, {tokens[1]:.0f} |"
        )
    return ["### Does the grammar cost right answers?", "\n".join(lines)] if len(lines) > 2 else []
