"""The live view of a search: branches, tool calls, votes and cost on a terminal; plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ponder.answers import normalise, shown
from ponder.cli.output import HasBill
from ponder.records import Node, Task
from ponder.tree import Event, Tree

_WIDTH = 60
_REFRESH_S = 0.25


@contextmanager
def watching(agent: HasBill, *, quiet: bool) -> Iterator[Callable[[Event], None]]:
    """Show the run whose events are fed to what this yields; on standard error only."""
    console = Console(stderr=True, highlight=False)
    if quiet:
        yield lambda _event: None
    elif console.is_terminal:
        view = LiveView(agent)
        with Live(get_renderable=view.draw, console=console, refresh_per_second=1 / _REFRESH_S, transient=True):
            yield view.hear
    else:
        yield PlainLines().hear


class _Follower:
    """Keeps a tree of its own, so that drawing never meets a tree that is being changed."""

    def __init__(self) -> None:
        self.tree: Tree | None = None
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

    def __init__(self, agent: HasBill) -> None:
        super().__init__()
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
            self._say(f"step {node.id}: {_state(node).plain}: {_summary(node).plain}")
        elif event.kind == "decided":
            decision = event.data["decision"]
            self._say(f"{'stop, ' + str(decision['reason']) if decision['stop'] else 'go on'}: {decision['why']}")

    @staticmethod
    def _say(text: str) -> None:
        print(f"ponder: {text}", file=sys.stderr, flush=True)


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
