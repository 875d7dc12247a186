"""How results look: one JSON object, or an answer with its bill."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from ponder.records import Bill, Result, StopReason, ToolBill

_WIDE = 160  # columns, where no terminal sets them

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
    """Print exactly one JSON object on standard output; letters that its encoding lacks are escaped as JSON has it."""
    text = json.dumps(data, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(data)
    print(text, flush=True)


def note(text: str) -> None:
    """Print a line on standard error; that nobody reads it there ends nothing."""
    with contextlib.suppress(BrokenPipeError):
        print(f"ponder: {text}", file=sys.stderr, flush=True)


class HasBill(Protocol):
    """What knows the running cost."""

    def bill(self) -> Bill | None:
        """Return the bill so far."""


def with_whole_bill(result: Result, closed: HasBill) -> Result:
    """Return the result with a bill that also holds what closing took."""
    return result.model_copy(update={"ledger": closed.bill() or result.ledger})


def finish(result: Result, *, as_json: bool) -> int:
    """Print the result, then what it warns of; return the exit code."""
    if as_json:
        print_json(result.model_dump(mode="json"))
        _warn(result)
    else:
        print_result(result)
    return exit_code(result)


def _warn(result: Result) -> None:
    for warning in result.warnings:
        note(warning)


def print_result(result: Result) -> None:
    """Print the answer on standard output; on standard error warnings, why the search stopped, and what it cost."""
    if result.answer is not None:
        print(result.answer, flush=True)
    _warn(result)
    console = make_console(stderr=True)
    found = f"confidence {result.confidence:.2f}" if result.answer is not None else "no answer"
    console.print(
        f"[bold]{result.stop_reason}[/bold]  {found}  {result.nodes} steps  {result.elapsed_s:.1f} s  "
        f"run {result.run_id}"
    )
    console.print(bill_table(result.ledger))


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that does not squeeze tables where no terminal limits the width."""
    kind = _Beside if stderr else Console
    console = kind(stderr=stderr, highlight=False)
    return console if console.is_terminal else kind(stderr=stderr, highlight=False, width=_WIDE)


class _Beside(Console):
    """A console on standard error: that nobody reads it there ends nothing."""

    def on_broken_pipe(self) -> None:
        """Say nothing more; rich would end the program."""
        self.quiet = True


def bill_table(bill: Bill) -> Table:
    """Return the bill as a table, a tool a row."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("tool")
    for name in ("calls", "CPU s", "user", "sys", "MB", "tok. in", "cached", "out", "cost"):
        table.add_column(name, justify="right")
    table.add_column("measured by")
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
