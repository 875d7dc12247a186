"""What reports have in common: pages of `docs/` that they write into, between two marks there, and how they end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from ponder.errors import PonderError, UsageError


def put(text: str, page: Path, begin: str, end: str) -> None:
    """Replace what stands between the marks. Raises UsageError: the page does not have them."""
    before, there, rest = page.read_text("utf-8").partition(begin)
    _, also, after = rest.partition(end)
    if not there or not also:
        raise UsageError(f"{page.name} has no marks for this", fix=f"write {begin} and {end} into it")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", "utf-8")


def exit_status(main: Callable[[], None]) -> int:
    """Run a script; a foreseen error is one line on stderr, and the exit status that ponder gives it."""
    try:
        main()
    except PonderError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
