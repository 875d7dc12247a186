"""Tables and figures that a benchmark writes into a page of `docs/`, between two marks there."""

from __future__ import annotations

from pathlib import Path

from ponder.errors import UsageError


def put(text: str, page: Path, begin: str, end: str) -> None:
    """Replace what stands between the marks. Raises UsageError: the page does not have them."""
    before, there, rest = page.read_text("utf-8").partition(begin)
    _, also, after = rest.partition(end)
    if not there or not also:
        raise UsageError(f"{page.name} has no marks for this", fix=f"write {begin} and {end} into it")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", "utf-8")
