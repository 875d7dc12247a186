"""`ponder policy`: train the stop policy on recorded searches, say what it makes of others, show what it knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ponder.cli.output import make_console, note, print_json
from ponder.errors import MachineError, UsageError

if TYPE_CHECKING:
    from ponder.policies.learned import Weights
    from ponder.policies.replay.frontier import Evaluation, Row
    from ponder.stats import Interval

policy = typer.Typer(help="The stop policy: train it, evaluate it on recorded searches, show it.", no_args_is_help=True)
HELD_OUT = "held-out-"
"""How names of records begin that no policy is trained on."""
_JSON = typer.Option("--json", help="Print exactly one JSON object on standard output.")
_RECORDS = typer.Option(
    "--records", help="Packed records, or a folder of several (benchmarks/record.py makes them).", metavar="DIR"
)
_CORE = typer.Option(help="Whose searches.")
_RATES = typer.Option(help="What tokens cost (benchmarks/rates.py); else what they cost where this was made.")
_DEFAULT = Path("benchmarks/records")
_EXAMPLES = """Examples:

  ponder policy show

  ponder policy train --records benchmarks/records --out stop.json

  ponder policy eval --records benchmarks/records --weights stop.json --picture frontier.svg

  ponder policy eval --value 3000 --json
"""


@policy.command(epilog=_EXAMPLES)
def train(
    records: Annotated[list[Path] | None, _RECORDS] = None,
    core: Annotated[str | None, _CORE] = None,
    out: Annotated[Path | None, typer.Option(help="Where the weights go; else where searches find them.")] = None,
    rates: Annotated[Path | None, _RATES] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> int:
    """Train a policy on recorded searches of one core, those that are held out aside.

    Exit codes: 0 done; 2 bad input, or too few records; 5 something on this machine is missing.
    """
    name = core or _default_core()
    folders = [one for one in _folders(records, name) if not one.name.startswith(HELD_OUT)]
    if not folders:
        raise UsageError(f"there are no records of {name} to train on", fix="benchmarks/record.py makes some")
    made = _trained(folders, name, rates)
    path = out or _own_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(made.model_dump_json(indent=1) + "\n", "utf-8")
    _show(made, stderr=as_json)
    note(f"weights in {path}")
    if as_json:
        print_json({"weights": str(path), **made.model_dump(mode="json", exclude={"models", "careful", "tasks"})})
    return 0


@policy.command("eval", epilog=_EXAMPLES)
def evaluate(
    records: Annotated[list[Path] | None, _RECORDS] = None,
    core: Annotated[str | None, _CORE] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of `train`; else those that searches use.")] = None,
    value: Annotated[float | None, typer.Option(help="What a right answer is worth, in CPU seconds.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Only searches of this strategy; else auto's if there are any.")]
    = None,
    step: Annotated[int, typer.Option(min=1, max=16, help="Of independent samples: how many are taken at once.")] = 4,
    python: Annotated[float, typer.Option(min=0.0, help="Price of a CPU second in the sandbox.")] = 1.0,
    token: Annotated[float, typer.Option(min=0.0, help="Price of a CPU second of the core.")] = 1.0,
    rates: Annotated[Path | None, _RATES] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the frontier as SVG.")] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> int:
    """Say what a policy makes of recorded searches that it was not trained on: accuracy against cost.

    The searches are seen again at each place where a live one asks its policy; no core runs.

    Exit codes: 0 done; 2 bad input; 5 something on this machine is missing.
    """
    from ponder.policies.learned import VALUE

    own = _weights(weights, core)
    folders = [one for one in _folders(records, own.core) if one.name not in own.records]
    if not folders:
        wrong = f"there are no records of {own.core} that the policy was not trained on"
        raise UsageError(wrong, fix="benchmarks/record.py run --split held-out makes some")
    found = _evaluated(
        own, _of_strategy(folders, strategy), value=VALUE if value is None else value, step=step,
        prices={"python": python, "core": token}, rates=rates,
    )  # fmt: skip
    console = make_console(stderr=as_json)
    console.print(_frontier(found))
    for one in found.against:
        console.print(
            f"at the accuracy of {one.rule} ({one.accuracy.value:.1%}, {one.cost.value:.0f} a task, {one.step} at "
            f"once): {_points(one.saved)} saved"
        )
    for told in [*(one.told for one in found.guarantees), *(one.told for one in found.shipped)]:
        console.print(told)
    if as_json:
        rows = [one.model_dump(mode="json") for one in found.frontier]
        print_json({"summary": found.summary(), "frontier": rows, **found.model_dump(
            mode="json", include={"core", "records", "strategy", "tasks", "against", "guarantees", "shipped"}
        )})  # fmt: skip
    if picture is not None:  # last: what was found is not lost where it cannot be drawn
        _draw(found, picture)
        note(f"picture in {picture}")
    return 0


@policy.command(epilog=_EXAMPLES)
def show(
    core: Annotated[str | None, _CORE] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of `train`; else those that searches use.")] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> int:
    """Show what the stop policy of a core was trained on, and which risks are certified.

    Exit codes: 0 done; 2 there is no such policy.
    """
    own = _weights(weights, core)
    if as_json:
        print_json(own.model_dump(mode="json"))
    else:
        _show(own)
    return 0


def _default_core() -> str:
    from ponder.parts import DEFAULT_CORE

    return DEFAULT_CORE


def _own_file(core: str) -> Path:
    """Return where the user's own policy of a core is kept."""
    from ponder.parts import default_home, file_name_of

    return default_home() / "policies" / f"{file_name_of(core)}.json"


def _weights(path: Path | None, core: str | None) -> Weights:
    from ponder.parts import default_home, learned_for
    from ponder.policies.learned import read

    if path is not None:
        own = read(path)
        if core not in (None, own.core):
            raise UsageError(f"{path} is a stop policy for {own.core}, not for {core}", fix="leave --core out")
        return own
    name = core or _default_core()
    found = learned_for(name, default_home())
    if found is None:
        raise UsageError(f"no stop policy was trained for {name}", fix="`ponder policy train` trains one")
    return found


def _folders(given: list[Path] | None, core: str) -> list[Path]:
    """Return the packed records of a core's full searches in these folders. Raises UsageError."""
    from ponder.bench.records.recording import is_full_depth, manifest_of

    found = []
    for folder in (path.resolve() for path in given or [_DEFAULT]):
        inside = [folder] if (folder / "manifest.json").exists() else sorted(folder.glob("*/"))
        packed = [one for one in inside if (one / "manifest.json").exists()]
        if not packed:
            raise UsageError(f"{folder} holds no records", fix="name them with --records, or make some: docs/search.md")
        found += [
            one for one in packed
            if {suite.get("core") for suite in manifest_of(one).values()} == {core} and is_full_depth(one)
        ]  # fmt: skip
    return found


def _of_strategy(folders: list[Path], wanted: str | None) -> list[Path]:
    from ponder.bench.records.recording import by_strategy

    by_name = by_strategy(folders)
    chosen = wanted or ("auto" if "auto" in by_name else next(iter(by_name)))
    if chosen not in by_name:
        raise UsageError(f"there are no records of {chosen}", fix=f"there are some of {', '.join(sorted(by_name))}")
    return by_name[chosen]


def _calibration(core: str) -> Any:
    from ponder.judges.calibration import load

    return load().of(core)


def _trained(folders: list[Path], core: str, rates: Path | None) -> Weights:
    try:
        from ponder.policies.replay.rates import RATES, rates_of
        from ponder.policies.replay.traces import ORDERS, Replay
        from ponder.policies.train import train as fit

        replay = Replay(rates_of(core, rates or RATES), _calibration(core), orders=ORDERS)
        traces = [trace for folder in folders for trace in replay.traces(folder)]
        return fit(traces, core=core, records=[folder.name for folder in folders])
    except ImportError as error:
        raise MachineError(f"training needs {error.name}", fix="pip install 'ponder[bench]'") from error


def _evaluated(
    weights: Weights, folders: list[Path], *, value: float, step: int, prices: dict[str, float], rates: Path | None
) -> Evaluation:
    try:
        from ponder.policies.replay.frontier import evaluate as look
        from ponder.policies.replay.rates import RATES, rates_of
        from ponder.policies.replay.traces import ORDERS, Replay

        own = rates_of(weights.core, rates or RATES)
        replay = Replay(own, _calibration(weights.core), prices=prices, step=step, orders=ORDERS)
        return look(weights, replay, folders, value=value)
    except ImportError as error:
        raise MachineError(f"evaluating needs {error.name}", fix="pip install 'ponder[bench]'") from error


def _draw(found: Evaluation, path: Path) -> None:
    try:
        from ponder.bench.records.curves import draw_frontier

        draw_frontier(found.points(), path)
    except ImportError as error:
        raise MachineError(f"pictures need {error.name}", fix="pip install 'ponder[bench]'") from error


def _frontier(found: Evaluation) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", title=(
        f"{found.tasks} tasks, {found.strategy}, {found.core}: {', '.join(found.records)}"
    ), title_justify="left")  # fmt: skip
    table.add_column("policy", no_wrap=True)
    for name in ("value", "accuracy", "cost a task", "saved", "points"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.frontier:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    value = "" if row.value is None else f"{row.value:g}"
    difference = row.difference
    points = f"{100 * difference.value:+.1f} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
    return [row.policy, value, f"{row.accuracy.value:.1%}", f"{row.cost.value:.1f}", _points(row.saved), points]


def _points(interval: Interval) -> str:
    return f"{interval.value:.0%} ({interval.low:.0%} to {interval.high:.0%})"


def _show(weights: Weights, *, stderr: bool = False) -> None:
    console = make_console(stderr=stderr)
    console.print(f"stop policy for {weights.core}, features v{weights.features}, from {', '.join(weights.records)}")
    for model in weights.models:
        console.print(f"  {model.kind}: {model.snapshots} snapshots of {model.tasks} tasks, {len(model.inputs)} inputs")
    for certificate in weights.certificates:
        console.print(f"  --strategy {certificate.strategy} -n {certificate.samples}: {certificate.why}")
