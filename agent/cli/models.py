"""`ponder models`: the weights that ponder knows, and how they get here."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ponder.cli.output import print_json

models = typer.Typer(help="Model weights: list, pull, path.", no_args_is_help=True)


@models.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on standard output.")] = False,
) -> None:
    """List the registered models and which of them are on this machine."""
    from ponder.models import is_here, load_registry
    from ponder.parts import DEFAULT_CORE

    found = [(name, model, is_here(name)) for name, model in load_registry().items()]
    if as_json:
        rows = [{**model.model_dump(mode="json"), "name": name, "here": here, "default": name == DEFAULT_CORE}
                for name, model, here in found]  # fmt: skip
        print_json({"models": rows})
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("model", "parameters", "MB", "license", "here", ""):
        table.add_column(heading)
    for name, model, here in found:
        default = "default" if name == DEFAULT_CORE else ""
        size = f"{model.bytes / 1e6:.0f}"
        table.add_row(name, model.parameters, size, model.license, "yes" if here else "no", default)
    Console().print(table)


@models.command()
def pull(
    name: Annotated[str, typer.Argument(help="A registered model.")],
    force: Annotated[bool, typer.Option("--force", help="Fetch it again even when it is here.")] = False,
) -> None:
    """Fetch a model's weights, verified; an interrupted pull goes on where it stopped."""
    from ponder.models import pull as fetch
    from ponder.models import showing

    with showing() as progress:
        typer.echo(fetch(name, force=force, progress=progress))


@models.command()
def path(name: Annotated[str, typer.Argument(help="A registered model.")]) -> None:
    """Print where a model's weights are on this machine."""
    from ponder.models import path as path_of

    typer.echo(path_of(name))
