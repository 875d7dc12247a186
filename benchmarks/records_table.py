"""What the packed records hold: tasks, nodes, tokens, CPU and size, suite by suite.

    python benchmarks/records_table.py [--records benchmarks/records] [--write docs/search.md]

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from judge_tables import table
from pages import exit_status, put
from record import RECORDS, counted, size

from ponder.errors import UsageError

BEGIN, END = "<!-- table of benchmarks/records_table.py -->", "<!-- end of the table -->"


def look(root: Path) -> dict[str, dict[str, Any]]:
    """Return what each packed folder below this one holds. Raises UsageError: there is none."""
    folders = sorted(path.parent for path in root.rglob("manifest.json"))
    if not folders:
        raise UsageError(f"{root} holds no records", fix="benchmarks/record.py makes some")
    return {one.relative_to(root).as_posix(): {"bytes": size(one), "suites": counted(one)} for one in folders}


def shown(found: dict[str, dict[str, Any]]) -> str:
    """Return it as a table."""
    rows = [
        [
            f"`{name}`" if place == 0 else "", suite, f"{own['tasks']:,}", f"{own['nodes']:,}",
            f"{own['tokens_out']:,}", f"{own['cpu_s'] / 3600:.1f}",
            f"{folder['bytes'] / 1000:,.0f}" if place == 0 else "",
        ]
        for name, folder in found.items()
        for place, (suite, own) in enumerate(folder["suites"].items())
    ]  # fmt: skip
    every = [own for folder in found.values() for own in folder["suites"].values()]
    sums = [f"{sum(own[key] for own in every):,}" for key in ("tasks", "nodes", "tokens_out")]
    whole = sum(folder["bytes"] for folder in found.values()) / 1000
    rows.append(["all", "", *sums, f"{sum(own['cpu_s'] for own in every) / 3600:.1f}", f"{whole:,.0f}"])
    head = ["records", "suite", "tasks", "nodes", "tokens written", "CPU hours", "KB"]
    return table(head, rows)


def main() -> None:
    """Count, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS, metavar="FOLDER")
    parser.add_argument("--write", type=Path, help="put the table into this page, between its marks")
    options = parser.parse_args()
    found = look(options.records)
    text = shown(found)
    if options.write:
        put(text, options.write, BEGIN, END)
    print(text)
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(exit_status(main))
