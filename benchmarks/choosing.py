"""Does a core choose the right kind of first step? What it gives to "a program", over tasks that need one or do not.

    python benchmarks/choosing.py --data FOLDER --core qwen2.5-coder-1.5b --rows rows.jsonl

Sixty open-ended tasks want words; as many of GSM8K (train) and of reasoning-gym's families want a program. Each is one
token of the core after the prompt `choose`, as in a run. The table says, for each core, how many are chosen rightly at
the prompt set's own threshold and at the best one, and the area under the ROC curve. Rows are kept: a run that was
stopped goes on. FOLDER holds gsm8k_train_2000.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from action_tasks import gsm8k_cases, gym_cases, rows
from actions import SEED, Records, in_turn

from ponder.bench.open_ended.tasks import tasks
from ponder.ledger import Ledger
from ponder.parts import open_core
from ponder.prompting import Prompting
from ponder.prompts import prompts_for
from ponder.protocols import Core
from ponder.records import Task
from ponder.sandboxes.groups import group_factory
from ponder.tree import Tree

EACH = 30
NO_PAGES = "http://127.0.0.1:9"


def labelled(data: Path) -> Iterator[tuple[str, Task, bool]]:
    """Yield name, task, and whether it wants a program. Tasks with a page begin with the page: they choose nothing."""
    for one in tasks(NO_PAGES):
        if not one.task.urls:
            yield one.id, one.task, False
    for cases in (gsm8k_cases(data / "gsm8k_train_2000.jsonl"), gym_cases(SEED, 2 * EACH)):
        first_steps = (case for case in cases if not case.parent)
        for case in itertools.islice(first_steps, EACH):
            yield case.name, case.tree.task, True


async def ask(core: Core, name: str, options: argparse.Namespace) -> None:
    """Ask a core about every task that was not asked yet."""
    records, prompting = Records(options.rows), Prompting(["python"], prompts=prompts_for(core.manifest()))
    version = prompting.prompts.version

    async def one(task_name: str, task: Task, wanted: bool) -> None:
        request = prompting.choose(Tree(task), 0)
        ((said,),) = await core.sample([request.prompt], 1, request.params)
        chance = prompting.chance_of_value(said)
        about = {"key": f"{name}/{version}/{task_name}", "core": name, "prompts": version, "task": task_name}
        records.add(about | {"program": wanted, "chance": chance, "cpu_s": said.usage.cpu_s})

    todo = [one for one in labelled(options.data) if f"{name}/{version}/{one[0]}" not in records.done]
    await in_turn([lambda case=case: one(*case) for case in todo], 4)  # type: ignore[misc]


def right_at(found: Sequence[tuple[float, bool]], threshold: float) -> int:
    """Return how many are chosen rightly when a program is taken from this chance on."""
    return sum((chance >= threshold) == wanted for chance, wanted in found)


def area(found: Sequence[tuple[float, bool]]) -> float:
    """Return the area under the ROC curve: how often a task that wants a program gets the higher chance."""
    programs, words = ([chance for chance, wanted in found if wanted is kind] for kind in (True, False))
    pairs = [(p > w) + (p == w) / 2 for p in programs for w in words]
    return sum(pairs) / len(pairs) if pairs else 0.0


def table(path: Path) -> str:
    """Return the table of what the rows hold."""
    head = "| core | prompts | tasks | right at its threshold | best threshold: right | area under ROC |"
    lines = [head, "|" + "---|" * 6]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows(path):
        groups.setdefault((str(row["core"]), str(row["prompts"])), []).append(row)
    for (core, version), own in groups.items():
        found = [(float(row["chance"]), bool(row["program"])) for row in own if row["chance"] is not None]
        at = prompts_for({"model": core}).choose_value_at
        best = max((chance for chance, _ in found), key=lambda threshold: right_at(found, threshold))
        lines.append(
            f"| {core} | {version} | {len(found)} | {right_at(found, at)} (from {at:g} on) "
            f"| {best:.2f}: {right_at(found, best)} | {area(found):.3f} |"
        )
    return "\n".join(lines)


async def measure(options: argparse.Namespace) -> None:
    """Ask the cores one after the other."""
    for name in options.core:
        core = await open_core(name, group_factory(), None, Ledger())
        try:
            await core.start()
            await ask(core, name, options)
        finally:
            await core.close()


def main() -> None:
    """Ask what was not asked yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the task files")
    parser.add_argument("--core", action="append", default=[], help="a core; may be repeated")
    parser.add_argument("--rows", type=Path, required=True, help="keep the rows in this file, and go on where it ends")
    options = parser.parse_args()
    asyncio.run(measure(options))
    print(table(options.rows))
    print(json.dumps({"rows": len(rows(options.rows))}))


if __name__ == "__main__":
    main()
