"""`ponder doctor`: what works on this machine, and how to fix the rest."""

from __future__ import annotations

import asyncio
import shutil
from typing import Annotated, Any

import typer
from rich.console import Console

from ponder.cli.output import print_json


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on standard output.")] = False,
) -> int:
    """Check what works on this machine: sandbox, docker, browser, cores, meters; and say how to fix the rest.

    Exit code 0 when `ponder ask` can work with all its tools, 5 when something is missing.
    """
    found = asyncio.run(examine())
    if as_json:
        print_json(found)
    else:
        _print(found)
    works = any(one["ok"] for one in found["sandboxes"].values()) and found["browser"]["ok"]
    return 0 if works and all(one["ok"] for one in found["meters"].values()) else 5


async def examine() -> dict[str, Any]:
    """Try every part for real. Shapes: name -> {"ok": bool, "why": str, ...} per part."""
    from ponder.sandboxes import check_sandboxes
    from ponder.sandboxes.groups import group_factory
    from ponder.tools.browser import BrowserTool

    groups = group_factory()
    tool = BrowserTool(groups)
    try:
        browser = await tool.probe()
    finally:
        await tool.close()
    return {
        "sandboxes": await check_sandboxes(),
        "browser": browser,
        "cores": _cores(),
        "meters": _meters(groups),
        "docker": _docker(),
    }


def _cores() -> dict[str, Any]:
    from ponder.models import is_here, load_registry

    here = {name: is_here(name) for name in load_registry()}
    pull = "not on this machine yet: the first use fetches it, or `ponder models pull {}`"
    return {name: {"ok": yes, "why": "" if yes else pull.format(name)} for name, yes in here.items()}


def _meters(groups: Any) -> dict[str, Any]:
    group = groups("doctor")
    try:
        method = group.read().method
    finally:
        group.close()
    why = "" if method == "cgroup" else "no cgroup can be made here: CPU figures are lower bounds"
    return {method: {"ok": True, "why": why}}


def _docker() -> dict[str, Any]:
    import docker

    try:
        client = docker.from_env(timeout=3)
        version = client.version()["Version"]
        client.close()
    except Exception as error:  # docker's client raises many kinds; all mean that there is none to use
        client_here = "the client is installed, but no engine answers" if shutil.which("docker") else "not installed"
        return {"ok": False, "why": f"{client_here}: {str(error).splitlines()[0][:120]}"}
    return {"ok": True, "why": f"engine {version}"}


def _print(found: dict[str, Any]) -> None:
    console = Console(highlight=False)
    for part, entries in found.items():
        named = entries if "ok" not in entries else {"": entries}
        for name, one in named.items():
            sign = "[green]ok  [/green]" if one["ok"] else "[red]no  [/red]"
            console.print(f"{sign}{part} {name} [dim]{one.get('why', '')}[/dim]".rstrip())
