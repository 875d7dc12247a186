"""`ponder runs`: look at recorded runs, and go on with one that was cut off."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree as Drawing

from ponder.cli.output import bill_table, make_console, note, print_json
from ponder.records import Bill, Node
from ponder.tree import Event, Tree

if TYPE_CHECKING:
    from rich.console import Console

    from ponder.protocols import Strategy
    from ponder.store import Store  # SQLAlchemy takes a third of a second, which other commands do not need

runs = typer.Typer(help="Recorded runs: list, show, resume.", no_args_is_help=True)
_WIDEST = 50
"""Characters of a question in a list: one of thousands would squeeze the other columns."""
_JSON = typer.Option("--json", help="Print exactly one JSON object on standard output.")


def _store() -> Store:
    from ponder.parts import default_home
    from ponder.store import open_store

    return open_store(default_home() / "runs.sqlite")


def _is_running(run: str) -> bool:
    """Return whether a run that has not ended goes on at this moment."""
    from ponder.parts import default_home
    from ponder.store import is_held

    return is_held(default_home(), run)


@runs.command("list")
def list_runs(
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many, newest first.")] = 20,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """List the newest runs."""
    found = _store().runs(limit)
    running = {run.id for run in found if run.stop_reason is None and _is_running(run.id)}
    if as_json:
        print_json({"runs": [run.model_dump(mode="json") | {"running": run.id in running} for run in found]})
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("run", "when", "stopped", "conf.", "steps", "CPU s"):
        table.add_column(name, no_wrap=True)
    for name in ("answer", "question"):
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for run in found:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.created))
        confidence = "" if run.confidence is None else f"{run.confidence:.2f}"
        cpu = "" if run.cpu_s is None else f"{run.cpu_s:.1f}"
        answer, prompt = _shown(run.answer or "", 30), _shown(run.prompt, _WIDEST)
        stopped = run.stop_reason or ("running" if run.id in running else "cut off")
        table.add_row(run.id, when, stopped, confidence, str(run.nodes), cpu, answer, prompt)
    make_console().print(table)


@runs.command()
def show(
    run_id: Annotated[str, typer.Argument(help="A run's id, or how it begins.")],
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Show one run: its tree, the decisions, the bill, and what it was made with."""
    store = _store()
    run = store.find(run_id)
    events = store.events(run)
    tree = Tree.from_events(events)
    ended = next((event.data for event in reversed(events) if event.kind == "ended"), None)
    if as_json:
        print_json(_as_json(run, tree, events, ended))
        return
    console = make_console()
    drawing = Drawing(f"[bold]{escape(tree.task.prompt)}[/bold]  ({run})")
    _grow(drawing, tree, 0)
    console.print(drawing)
    for event in events:
        if event.kind == "decided":
            decision = event.data["decision"]
            console.print(f"[dim]{decision['reason'] or 'go on'}: {escape(decision['why'])}[/dim]")
    if ended is None:
        _print_manifest(console, events[0].data["manifest"])
        going_on = f"the run was cut off; `ponder runs resume {run}` goes on with it"
        note("the run is running: it is still being searched" if _is_running(run) else going_on)
        return
    console.print(f"[bold]{escape(str(ended['answer']))}[/bold]  {ended['stop_reason']}, {ended['confidence']:.2f}")
    console.print(bill_table(Bill.model_validate(ended["ledger"])))
    _print_manifest(console, events[0].data["manifest"])


@runs.command()
def resume(
    run_id: Annotated[str, typer.Argument(help="A run's id, or how it begins.")],
    as_json: Annotated[bool, _JSON] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> int:
    """Go on with a run that was cut off; what it had finished is not done again."""
    from ponder.agent import Agent
    from ponder.cli.view import search_and_print

    store = _store()
    run = store.find(run_id)
    events = store.events(run)
    make = partial(Agent, **_as_begun(events[0].data))
    return search_and_print(
        make, lambda agent, hear: agent.resume(run, on_event=hear), as_json=as_json, quiet=quiet,
        tree=Tree.from_events(events),
    )


def _as_begun(started: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the agent that a run was begun with; its budget is read where it is resumed."""
    from ponder.plan import Terms

    manifest, terms = started["manifest"], Terms.model_validate(started.get("search", {}))
    if "search" not in started:  # an older record: the run's own pages were permitted when it began
        terms = Terms(permitted=tuple(_origin(url) for url in started["task"].get("urls", ())))
    tools = [name for name in str(manifest.get("tools", "")).split(",") if name]
    return {
        "core": _core_of(manifest),
        "tools": tools,
        "strategy": _strategy_of(manifest, tools),
        "value": terms.value,
        "risk": terms.risk,
        "prices": terms.prices,
        "hosts": terms.hosts,
    }


def _strategy_of(manifest: dict[str, Any], tools: list[str]) -> Strategy:
    """Return the strategy that searched; the default one where its name is not known here: a library's own, say."""
    from ponder.errors import UnknownName
    from ponder.parts import make_strategy

    if "strategy" not in manifest:
        return make_strategy(tools)
    samples = manifest.get("samples")
    try:
        return make_strategy(tools, str(manifest["strategy"]), int(samples) if samples is not None else None)
    except UnknownName:
        return make_strategy(tools)


def _shown(text: str, width: int) -> str:
    return escape(" ".join(text.split())[:width])


def _print_manifest(console: Console, manifest: dict[str, Any]) -> None:
    for name, value in manifest.items():
        if value != "":
            console.print(f"[dim]{name:<12}[/dim] {escape(str(value))}")


def _core_of(manifest: dict[str, Any]) -> str:
    """Return the core as it was asked for; older records have the model's name only."""
    return str(manifest.get("core_spec") or manifest.get("model") or manifest.get("core"))


def _origin(url: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else str(parts.hostname)
    return f"{host}:{parts.port}" if parts.port else host


def _as_json(run: str, tree: Tree, events: list[Event], ended: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "run_id": run,
        "manifest": events[0].data["manifest"],
        "task": tree.task.model_dump(mode="json"),
        "nodes": [node.model_dump(mode="json") for node in tree.nodes.values() if node.id],
        "decisions": [event.data for event in events if event.kind == "decided"],
        "charges": [event.data for event in events if event.kind == "charged"],
        "result": ended,
    }


def _grow(drawing: Drawing, tree: Tree, at: int) -> None:
    for node in tree.children(at):
        twig = drawing.add(_line(node))
        _grow(twig, tree, node.id)


def _line(node: Node) -> str:
    score = f"  [dim]{node.verdict.score:.2f}[/dim]" if node.verdict else ""
    kind = node.action.type if node.action else node.kind
    lines = [f"[bold]{node.id}[/bold] {kind} {node.status}{score}"]
    if node.repair is not None:
        lines.append(f"[dim]asked again: {escape(node.repair.wrong)}[/dim]")
    if node.text:
        lines.append(escape(node.text.strip()))
    if node.observation is not None:
        lines.append(f"[cyan]{escape(node.observation.text.strip()[:1500])}[/cyan]")
    return "\n".join(lines)
