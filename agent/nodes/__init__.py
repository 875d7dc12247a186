"""The six states of the graph, each a function `(state, deps) -> update`, testable without LangGraph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from pydantic import Field

from ponder.budgets import BudgetWatch
from ponder.control import Control
from ponder.flight import Flight
from ponder.ledger import Ledger
from ponder.prompting import Prompting
from ponder.protocols import Checker, Core, Judge, StopPolicy, Strategy, Tool
from ponder.records import Action, Features, Limits, Node, Observation, Record, StepKind
from ponder.tree import Event, EventKind, EventLog, Tree


class State(TypedDict):
    """What the graph carries: ids and counters only. Texts live in the event store."""

    run_id: str
    round: int
    pending: list[int]
    """Nodes asked for and not harvested yet."""
    ready: list[int]
    """Nodes harvested in this round, on their way to the judge."""
    stopped: bool


@dataclass
class Deps:
    """All that the nodes may use. Nothing reaches out to a global."""

    tree: Tree
    log: EventLog
    ledger: Ledger
    core: Core
    flight: Flight
    prompting: Prompting
    strategy: Strategy
    judge: Judge
    policy: StopPolicy
    control: Control
    budgets: BudgetWatch
    features: Callable[..., Features]
    """Makes the policy's features; see `ponder.policies.features.extract`."""
    tools: Mapping[str, Tool]
    checker: Checker | None = None
    limits: Limits = field(default_factory=Limits)
    parallel: int = 2
    """Tool calls at once."""

    def write(self, kind: EventKind, node: int | None = None, data: Record | None = None) -> None:
        """Append an event; the tree has it before this returns."""
        self.log.write(Event(kind=kind, node=node, data=data.model_dump(mode="json") if data else {}))

    def nodes(self, ids: list[int]) -> list[Node]:
        """Return these nodes of the tree."""
        return [self.tree.nodes[i] for i in ids]


class Thought(Record):
    """The payload of a `thought` event."""

    text: str
    action: Action
    mean_logprob: float | None = None
    tokens_out: int = 0
    kind: StepKind | None = Field(default=None, exclude_if=lambda kind: kind is None)
    """The kind of step, where neither what was asked for nor what it did tells: words that worked a value out. Else it
    is not written, so that cassettes of before replay."""


class Rated(Record):
    """The payload of a `rated` event."""

    rubric: float


class Failure(Record):
    """The payload of a `failed` event."""

    text: str


def needs_browser(node: Node) -> bool:
    """Return whether the node waits for the browser."""
    return node.status == "thought" and node.action is not None and node.action.type == "browse"


def needs_verify(node: Node, checker: bool) -> bool:
    """Return whether the node waits for a program to run: its own, or the tests of its answer."""
    if node.status != "thought" or node.action is None:
        return False
    return node.action.type in ("run_code", "call_tool") or (checker and node.action.type == "answer")


def opened_for_all(node: Node) -> bool:
    """Return whether the strategy set the node itself (no core wrote it): it belongs to all branches below it."""
    return node.id != 0 and not node.text and node.action is not None


def unknown_tool(name: str, known: Mapping[str, Tool]) -> Observation:
    """Return what the core sees when it calls a tool that it does not have."""
    return Observation(
        tool=name, ok=False, outcome="error", text=f"There is no tool {name!r}. Tools: {', '.join(known) or 'none'}."
    )
