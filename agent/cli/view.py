"""The live view of a search: branches, tool calls, votes and cost on a terminal; plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ponder.answers import normalise, shown
from ponder.cli.output import HasBill, finish, note, with_whole_bill
from ponder.records import Node, Result, Task
from ponder.tree import Event, Tree

if TYPE_CHECKING:
    from ponder.agent import Agent

_WIDTH = 60
_REFRESH_S = 0.25
Hear = Callable[[Event], None]


def search_and_print(
    make: Callable[..., Agent], search: Callable[[Agent, Hear], Result], *, as_json: bool, quiet: bool,
    tree: Tree | None = None,
) -> int:
    """Search while it is shown, close the agent, and print the result with the whole bill; return the exit code.

    Once there is a result, it is printed whatever comes while the agent is being closed: Ctrl-C, too.

    Args:
        make: makes the agent; given what hears of downloads (`progress`).
        search: searches with it, and lets what it is given hear of events.
        tree: of a resumed run: what it has so far.
    """
    from ponder.models import showing

    result: Result | None = None
    try:
        with showing() as progress:
            agent = make(progress=progress, whole_process=True)
            with agent, watching(agent, quiet=quiet, tree=tree) as hear:
                result = search(agent, hear)
    except (KeyboardInterrupt, Exception) as error:
        if result is None:
            raise
        if not isinstance(error, KeyboardInterrupt):
            note(f"closing broke: {type(error).__name__}: {error}")
    return finish(with_whole_bill(result, agent), as_json=as_json)


@contextmanager
def watching(agent: HasBill, *, quiet: bool, tree: Tree | None = None) -> Iterator[Hear]:
    """Show the run whose events are fed to what this yields, after those of the tree; on standard error only."""
    console = Console(stderr=True, highlight=False)
    if quiet:
        yield lambda _event: None
    elif console.is_terminal:
        view = LiveView(agent, tree)
        with Live(get_renderable=view.draw, console=console, refresh_per_second=1 / _REFRESH_S, transient=True):
            yield view.hear
    else:
        yield PlainLines(tree).hear


class _Follower:
    """Keeps a tree of its own, so that drawing never meets a tree that is being changed.

    Args:
        tree: to go on with: a resumed run does not start again.
    """

    def __init__(self, tree: Tree | None = None) -> None:
        self.tree = tree
        self.why = ""
        self._lock = threading.Lock()

    def hear(self, event: Event) -> None:
        with self._lock:
            if event.kind == "started":
                self.tree = Tree(Task.model_validate(event.data["task"]))
            elif self.tree is not None:
                self.tree.apply(event)
            if event.kind == "decided":
                self.why = event.data["decision"]["why"]

    def nodes(self) -> list[Node]:
        with self._lock:
            return list(self.tree.nodes.values())[1:] if self.tree is not None else []


class LiveView(_Follower):
    """A table of steps, a line of votes, a line of cost."""

    def __init__(self, agent: HasBill, tree: Tree | None = None) -> None:
        super().__init__(tree)
        self._agent, self._began = agent, time.monotonic()

    def draw(self) -> RenderableType:
        """Return what to show now."""
        nodes = self.nodes()
        if not nodes:
            return Text(f"starting the core ... {time.monotonic() - self._began:.0f} s", style="dim")
        table = Table(box=None, pad_edge=False, show_header=False)
        for node in nodes[-16:]:
            table.add_row(f"{'  ' * (node.depth - 1)}{node.id}", _state(node), _summary(node))
        parts: list[RenderableType] = [table]
        if votes := _votes(nodes):
            parts.append(Text("votes  " + "   ".join(f"{answer}: {count}" for answer, count in votes[:4])))
        if self.why:
            parts.append(Text(self.why, style="dim"))
        return Group(*parts, self._cost())

    def _cost(self) -> Text:
        bill, elapsed = self._agent.bill(), time.monotonic() - self._began
        if bill is None:
            return Text(f"{elapsed:.0f} s", style="dim")
        tools = "  ".join(f"{name} {row.cpu_s:.1f}" for name, row in bill.by_tool.items())
        cost = f"{elapsed:.0f} s   CPU {bill.total.cpu_s:.1f} s ({tools})"
        return Text(f"{cost}   Ctrl-C: best answer so far", style="dim")


class PlainLines(_Follower):
    """A line when a step is done and when the policy has spoken."""

    def hear(self, event: Event) -> None:
        """Print what an event means to a person, if anything."""
        super().hear(event)
        if event.kind in ("judged", "failed") and event.node is not None and self.tree is not None:
            node = self.tree.nodes[event.node]
            note(f"step {node.id}: {_state(node).plain}: {_summary(node).plain}")
        elif event.kind == "decided":
            decision = event.data["decision"]
            note(f"{'stop, ' + str(decision['reason']) if decision['stop'] else 'go on'}: {decision['why']}")


def _state(node: Node) -> Text:
    what = node.action.type.replace("_", " ") if node.action else "thinking"
    style = {"asked": "yellow", "thought": "yellow", "failed": "red", "cancelled": "dim"}.get(node.status, "green")
    if node.observation is not None and not node.observation.ok:
        style = "red"
    if node.status in ("failed", "cancelled"):
        what = node.status
    return Text(what, style=style)


def _summary(node: Node) -> Text:
    if node.status == "failed":
        words = node.text
    elif node.answer is not None and "\n" not in node.answer:
        words = f"-> {shown(node.answer)}"
    elif node.observation is not None:
        checked = f"{node.observation.passed} of {node.observation.total} checks pass. "
        words = (checked if node.observation.total else "") + node.observation.text
    else:
        words = node.text
    line = " ".join(words.split())
    return Text(line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…")


def _votes(nodes: list[Node]) -> list[tuple[str, int]]:
    counts: dict[str, tuple[str, int]] = {}
    for node in nodes:
        if node.answer and "\n" not in node.answer and node.status == "judged":
            first, count = counts.get(normalise(node.answer), (shown(node.answer), 0))
            counts[normalise(node.answer)] = (first, count + 1)
    return sorted(((a if len(a) < 40 else a[:39] + "…", c) for a, c in counts.values()), key=lambda v: -v[1])
