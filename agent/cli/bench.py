"""`ponder bench`: run a suite of tasks that can be graded, or compare two results."""

from __future__ import annotations

import secrets
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from ponder.cli.ask import CORE_HELP, PRICE_HELP, RISK_HELP, SAMPLES_HELP, VALUE_HELP, prices_of, share
from ponder.cli.output import make_console, note, print_json
from ponder.errors import UsageError
from ponder.records import Budget

COMPARE = "compare"
EXIT_INTERRUPTED = 130
EPILOG = """Suites: humaneval, mbpp, gsm8k, reasoning_gym, open_ended (what each shows and hides: docs/bench.md).

Examples:

  ponder bench humaneval --core qwen2.5-coder-0.5b --out results.jsonl

  ponder bench mbpp --data mbpp_validation.jsonl --strategy greedy --limit 20 --json

  ponder bench reasoning_gym --families lcm,gcd,leg_counting --limit 12

  ponder bench open_ended --families explain,research --limit 10

  ponder bench mbpp --data mbpp_validation.jsonl --value 3000 --jobs 4

  ponder bench compare results.jsonl greedy.jsonl
"""


def bench(
    suite: Annotated[str, typer.Argument(help="humaneval, mbpp, gsm8k, reasoning_gym or open_ended; or: compare A B.")],
    files: Annotated[list[Path] | None, typer.Argument(help="For compare: two results files.")] = None,
    data: Annotated[Path | None, typer.Option(help="The suite's tasks, as JSON lines (.gz: gzipped).")] = None,
    core: Annotated[str | None, typer.Option(help=CORE_HELP)] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Tasks at most: a sample that the seed draws.")] = None,
    samples: Annotated[int | None, typer.Option("-n", "--samples", min=1, max=64, help=SAMPLES_HELP)] = None,
    seed: Annotated[int, typer.Option(help="Orders the tasks; makes reasoning-gym's puzzles.")] = 2026,
    strategy: Annotated[
        str | None, typer.Option(help="How to search (see ponder ask), or greedy: one plain sample.")
    ] = None,
    families: Annotated[str | None, typer.Option(help="Of reasoning_gym or open_ended, comma-separated.")] = None,
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, max=32, help="Tasks at once, on one engine.")] = 1,
    value: Annotated[float | None, typer.Option(help=VALUE_HELP)] = None,
    risk: Annotated[float | None, typer.Option(help=RISK_HELP, parser=share, metavar="SHARE")] = None,
    price: Annotated[list[str] | None, typer.Option(metavar="TOOL=X", help=PRICE_HELP)] = None,
    budget_cpu: Annotated[float | None, typer.Option(help="CPU seconds of each task, at most.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Results file (JSON lines): a run that was stopped goes on from it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> int:
    """Run a suite and say how many answers were right, with the interval and the CPU seconds a task took.

    An open-ended answer is right when it meets every constraint of its task; its score is the share that it meets.

    Exit codes: 0 done; 2 bad input; 5 something on this machine is missing or broke; 130 interrupted (what is done is
    kept in the results file).
    """
    if suite == COMPARE:
        return _compare(files or [], as_json=as_json)
    if files:
        raise UsageError(f"{files[0]} is one argument too many", fix="a suite's tasks are named by --data")
    budget, prices = _budget(budget_cpu), prices_of(price or [])
    from ponder.bench.report import progress, remarks, tables, waiting
    from ponder.bench.results import ResultsFile, read_results
    from ponder.bench.rooms import GradingRooms
    from ponder.bench.runner import run_suite
    from ponder.bench.solvers import GREEDY, open_solver, side_by_side
    from ponder.bench.suites.registry import open_suite
    from ponder.models import showing
    from ponder.parts import DEFAULT_CORE, DEFAULT_STRATEGY, make_strategy

    searches = strategy or DEFAULT_STRATEGY
    console, path = make_console(stderr=True), out or _new_file(suite)
    names = [name.strip() for name in (families or "").split(",") if name.strip()]
    with waiting(console, f"opening {suite}", quiet=quiet):
        opened = open_suite(suite, data=data, families=names, seed=seed)
    with opened, GradingRooms() as rooms, showing() as downloads:
        make = partial(
            open_solver, strategy=searches, samples=samples,
            budget=budget, progress=downloads, tools=opened.tools, hosts=opened.hosts,
            value=value, risk=risk, prices=prices,
        )  # fmt: skip
        branches = 1 if searches == GREEDY else make_strategy(opened.tools, searches, samples).max_samples
        with side_by_side(core or DEFAULT_CORE, jobs, make, branches=branches, progress=downloads) as solvers:
            settings = {"suite": opened.name, **opened.manifest, "seed": seed, **solvers[0].settings}
            with ResultsFile(path, settings) as file, progress(console, quiet=quiet) as watcher:
                summary = run_suite(opened, solvers, rooms, file, limit=limit, watcher=watcher)
    if summary.tasks:
        kept = read_results(path).rows
        rows = [kept[name] for name in summary.names]
        for table in tables(summary, rows):
            console.print(table)
        for remark in remarks(rows):
            note(remark)
        if summary.load_cpu_s is not None:
            note(f"loading the core: {summary.load_cpu_s:.1f} CPU-s, on no task's bill")
        note(f"results in {path}")
    if summary.interrupted:
        note("interrupted: the same command with --out goes on" if summary.tasks else "interrupted")
    if as_json:
        print_json(summary.as_json() | {"results": str(path) if summary.tasks else None})
    elif summary.tasks:
        share = summary.accuracy
        print(f"{summary.right} of {summary.tasks} right: {share.value:.1%} ({share.low:.1%} to {share.high:.1%})")
    return EXIT_INTERRUPTED if summary.interrupted else 0


def _compare(files: list[Path], *, as_json: bool) -> int:
    if len(files) != 2:
        raise UsageError("compare takes two results files")
    from ponder.bench.report import comparison_table
    from ponder.bench.results import compare, read_results

    found = compare(read_results(files[0]), read_results(files[1]))
    if as_json:
        print_json({"first": str(files[0]), "second": str(files[1]), **found.model_dump(mode="json")})
    else:
        make_console().print(comparison_table((files[0].name, files[1].name), found))
    return 0


def _budget(cpu_seconds: float | None) -> Budget:
    try:
        return Budget(cpu_seconds=cpu_seconds)
    except ValidationError as error:
        raise UsageError("--budget-cpu must be a number greater than zero", fix="leave it out for none") from error


def _new_file(suite: str) -> Path:
    """Return a results file of this run's own, beside the recorded runs."""
    from ponder.parts import default_home

    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in suite)
    return default_home() / "bench" / f"{name}-{time.strftime('%y%m%d-%H%M%S')}-{secrets.token_hex(2)}.jsonl"
