"""`ponder doctor`: what works on this machine, and how to fix the rest."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from ponder.cli.checks import (
    Report,
    check_browser,
    check_core,
    check_cores,
    check_docker,
    check_engine,
    check_image,
    check_meters,
)
from ponder.cli.output import make_console, print_json

PATIENCE_S = 60.0
"""The first sandbox of a machine lays out its root image, and Chromium may start from a cold disk."""


def doctor(
    core: Annotated[
        list[str] | None, typer.Option(help="Look at this core, too: a server is asked what it is and can do.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on standard output.")] = False,
) -> int:
    """Check what works on this machine: sandboxes, docker, browser, cores, meters; and say how to fix the rest.

    Exit code 0 when `ponder ask` can work with all its tools and with the cores that were named, 5 when something is
    missing. A server in OPENAI_BASE_URL is looked at without being named.
    """
    named = core or (["openai:"] if os.environ.get("OPENAI_BASE_URL") else [])
    found = examine(cores=named)
    if as_json:
        print_json(found)
    else:
        _print(found)
    needed = [found["choice"], found["browser"], *(found["cores"][name] for name in core or ())]
    return 0 if all(one["ok"] for one in needed) else 5


def examine(patience_s: float = PATIENCE_S, *, cores: Sequence[str] = ()) -> Report:
    """Try every part for real, all at once. Shapes: name -> {"ok": bool, "why": str, ...} per part.

    Args:
        cores: further cores to look at, besides the registry's.
        patience_s: a check that takes longer is reported as broken, and left alone.
    """
    from ponder.sandboxes import SANDBOXES, check_sandbox
    from ponder.sandboxes.groups import group_factory

    before = gather({"meters": start(check_meters)}, patience_s)  # cleans up after dead ponders, first of all
    groups = group_factory()
    wanted = os.environ.get("PONDER_SANDBOX", "")
    names = [*SANDBOXES, *([wanted] if ":" in wanted else [])]
    started = {
        **{f"sandbox {name}": start(partial(check_sandbox, name)) for name in names},
        "browser": start(lambda: check_browser(groups)),
        "docker": start(check_docker),
        "cores": start(check_cores),
        "engine": start(check_engine),
        **{f"core {name}": start(partial(check_core, name)) for name in cores},
    }
    done = gather(started, patience_s)
    sandboxes = {name: done[f"sandbox {name}"] for name in names}
    return {
        "sandboxes": sandboxes,
        "choice": choose(sandboxes),
        **gather({"image": start(check_image)}, patience_s),  # after the sandboxes, which build it
        **before,
        "docker": done["docker"],
        "browser": done["browser"],
        "cores": {**done["cores"], **{name: done[f"core {name}"] for name in cores}},
        "engine": done["engine"],
    }


def choose(sandboxes: Mapping[str, Report]) -> Report:
    """Tell which backend a search would use (`name`), or why code is refused."""
    wanted = os.environ.get("PONDER_SANDBOX") or None
    working = [name for name, report in sandboxes.items() if report["ok"]]
    chosen = next((name for name in working if wanted in (None, name)), None)
    if chosen is not None:
        return {"ok": True, "why": f"programs run in {chosen}", "name": chosen}
    if wanted is not None:
        return {"ok": False, "why": f"PONDER_SANDBOX={wanted}: code is refused", "fix": "unset PONDER_SANDBOX"}
    fix = next((report["fix"] for report in sandboxes.values() if report.get("fix")), "")
    return {"ok": False, "why": "no sandbox works here: code is refused", "fix": fix}


# --- checks side by side ------------------------------------------------------------------------------------------


def start(check: Callable[[], Report | Coroutine[Any, Any, Report]]) -> Future[Report]:
    """Begin a check in a thread of its own, which cannot hold the program up when it hangs."""
    future: Future[Report] = Future()

    def work() -> None:
        try:
            begun = check()
            future.set_result(asyncio.run(begun) if asyncio.iscoroutine(begun) else begun)
        except Exception as error:  # whatever breaks is what the doctor is for
            future.set_result({"ok": False, "why": f"{type(error).__name__}: {error}"})

    threading.Thread(target=work, daemon=True).start()
    return future


def gather(started: Mapping[str, Future[Report]], patience_s: float) -> dict[str, Report]:
    """Return what the checks found; one that gives no answer in time is broken."""
    end = time.monotonic() + patience_s
    done: dict[str, Report] = {}
    for name, future in started.items():
        try:
            done[name] = future.result(max(0.0, end - time.monotonic()))
        except NoAnswer:
            done[name] = {"ok": False, "why": f"no answer within {patience_s:g} s"}
    return done


# --- output -------------------------------------------------------------------------------------------------------


def _print(found: Report) -> None:
    console = make_console()
    for part, entries in found.items():
        named = entries if "ok" not in entries else {"": entries}
        title = {"sandboxes": "sandbox", "cores": "core", "meters": "meter"}.get(part, part)
        for name, one in named.items():
            _print_one(console, f"{title} {name}".rstrip(), one)


def _print_one(console: Console, title: str, one: Report) -> None:
    sign = "[green]ok[/green] " if one["ok"] else "[red]no[/red] "
    fix = one.get("fix") or ""
    why = escape(one.get("why", "").removesuffix(f" ({fix})"))
    console.print(f"{sign} {escape(title)}  [dim]{why}[/dim]".rstrip(), soft_wrap=True)
    if fix:
        console.print(f"     [yellow]fix:[/yellow] {escape(fix)}", soft_wrap=True)
    if active := one.get("active"):
        console.print(f"     [dim]active: {', '.join(active)}[/dim]", soft_wrap=True)
    for word, lines in (("missing", one.get("missing")), ("", one.get("roles"))):
        for name, text in (lines or {}).items():
            console.print(f"     [dim]{escape(f'{word} {name}: {text}'.strip())}[/dim]", soft_wrap=True)
