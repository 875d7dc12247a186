"""How results look: one JSON object, or an answer with its bill."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from ponder.records import Bill, Result, StopReason, ToolBill

EXIT_CODES: dict[StopReason, int] = {
    "confident": 0,
    "not_worth_it": 0,
    "exhausted": 0,
    "budget": 3,
    "hopeless": 4,
    "error": 5,
    "interrupted": 130,
}


def exit_code(result: Result) -> int:
    """Return the design's exit code for a result; a search that ended by itself without an answer is 4."""
    code = EXIT_CODES[result.stop_reason]
    return 4 if code == 0 and result.answer is None else code


def print_json(data: Any) -> None:
    """Print exactly one JSON object on standard output."""
    print(json.dumps(data, ensure_ascii=False), flush=True)


def note(text: str) -> None:
    """Print a line on standard error."""
    print(f"ponder: {text}", file=sys.stderr, flush=True)


def print_result(result: Result) -> None:
    """Print the answer on standard output; why the search stopped and what it cost on standard error."""
    if result.answer is not None:
        print(result.answer, flush=True)
    console = Console(stderr=True, highlight=False)
    console.print(
        f"[bold]{result.stop_reason}[/bold]  confidence {result.confidence:.2f}  "
        f"{result.nodes} steps  {result.elapsed_s:.1f} s  run {result.run_id}"
        if result.answer is not None
        else f"[bold]{result.stop_reason}[/bold]  no answer  {result.nodes} steps  {result.elapsed_s:.1f} s  "
        f"run {result.run_id}"
    )
    console.print(bill_table(result.ledger))


def bill_table(bill: Bill) -> Table:
    """Return the bill as a table, a tool a row."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name, justify in (("tool", "left"), ("calls", "right"), ("CPU s", "right"), ("user", "right"),
                          ("system", "right"), ("peak MB", "right"), ("tokens in", "right"), ("cached", "right"),
                          ("out", "right"), ("cost", "right"), ("measured by", "left")):  # fmt: skip
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for tool, row in sorted(bill.by_tool.items(), key=lambda item: -item[1].cpu_s):
        table.add_row(tool, *_cells(row))
    table.add_row("total", *_cells(bill.total), style="bold")
    return table


def _cells(row: ToolBill) -> list[str]:
    return [
        str(row.calls),
        f"{row.cpu_s:.2f}",
        f"{row.cpu_user_s:.2f}",
        f"{row.cpu_system_s:.2f}",
        f"{row.peak_rss_bytes / 1e6:.0f}",
        str(row.tokens_in),
        str(row.tokens_cached),
        str(row.tokens_out),
        f"{row.cost:.2f}",
        row.method + (", shared" if row.shared else ""),
    ]
