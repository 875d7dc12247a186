"""What `peers.py` keeps: `results.jsonl` with who did what on which task, and the tables of ponder's own searches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from record import RECORDS

from ponder.bench.results import ResultRow
from ponder.errors import UsageError
from ponder.records import Record

FOLDER = RECORDS / "peers"
SEARCHES = "ponder"
"""Where in it ponder's searches lie, as `record.py` packs them."""


class Part(Record):
    """One line of `results.jsonl`: what one of them did on one suite; of answers only their grades."""

    who: str
    suite: str
    settings: Mapping[str, Any]
    rows: tuple[ResultRow, ...]


def parts_of(folder: Path) -> dict[tuple[str, str], Part]:
    """Return what was packed, by who and suite; nothing, where nothing was. Raises UsageError: it cannot be read."""
    path = folder / "results.jsonl"
    try:
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        parts = [Part.model_validate_json(line) for line in lines]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", fix="take it from the repository again") from error
    return {(part.who, part.suite): part for part in parts}


def add(folder: Path, new: Iterable[Part]) -> dict[str, int]:
    """Pack more; a task that is there is replaced. Return how many tasks each has then.

    Raises:
        UsageError: what is there was made with other settings.
    """
    parts = parts_of(folder)
    for part in new:
        before = parts.get((part.who, part.suite))
        if before is not None and before.settings != part.settings:
            raise UsageError(
                f"what {folder} has of {part.who} on {part.suite} was made with other settings",
                fix="run all of it anew, and remove what is there",
            )
        rows = {row.task: row for row in (before.rows if before else ())}
        rows |= {row.task: row.model_copy(update={"answer": None}) for row in part.rows if row.stop_reason != "error"}
        parts[part.who, part.suite] = part.model_copy(update={"rows": tuple(rows.values())})
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{part.model_dump_json()}\n" for _, part in sorted(parts.items()))
    (folder / "results.jsonl.new").write_text(text, "utf-8")
    (folder / "results.jsonl.new").replace(folder / "results.jsonl")
    done: dict[str, int] = {}
    for (who, _), part in parts.items():
        done[who] = done.get(who, 0) + len(part.rows)
    return done
