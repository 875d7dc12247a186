"""The search tree: a fold over the run's events, nothing more.

The event store is the only truth. A tree is rebuilt from events on resume, and kept up to date in a run by applying
each event as it is written, by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, Protocol

from pydantic import Field, TypeAdapter

from ponder.records import Action, Node, Observation, Record, Repair, Task, Verdict

EventKind = Literal[
    "started", "asked", "repairing", "thought", "observed", "rated", "judged", "cancelled", "failed",
    "charged", "decided", "ended",
]

_ACTION: TypeAdapter[Any] = TypeAdapter(Action)


class Event(Record):
    """One thing that happened. `node` is the tree node it concerns; `data` is JSON, its shape given by `kind`."""

    kind: EventKind
    node: int | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    time: float = 0.0
    """Unix time, seconds."""


class EventLog(Protocol):
    """Where a run's events are written: each is safely stored before `write` returns."""

    run_id: str

    def write(self, event: Event) -> None:
        """Append the event. Raises StoreError."""


class Tree:
    """An explicit search tree. Node 0 is the root; ids grow in the order in which steps were asked for."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.rounds = 0
        self._nodes: dict[int, Node] = {0: Node(id=0, parent=None, branch=0, depth=0, status="judged")}
        self._children: dict[int, list[int]] = {0: []}

    @classmethod
    def from_events(cls, events: Iterable[Event]) -> Tree:
        """Rebuild a tree. The first event must be `started`; raises ValueError else."""
        stream = iter(events)
        first = next(stream, None)
        if first is None or first.kind != "started":
            raise ValueError("a run's first event is 'started'")
        tree = cls(Task.model_validate(first.data["task"]))
        for event in stream:
            tree.apply(event)
        return tree

    @classmethod
    def of(cls, task: Task, nodes: Iterable[Node], *, rounds: int = 0) -> Tree:
        """Return a tree of nodes that are known already, below the root and in the order of their ids."""
        tree = cls(task)
        tree.rounds = rounds
        for node in nodes:
            tree._add(node)
        return tree

    @property
    def nodes(self) -> Mapping[int, Node]:
        """All nodes by id, the root included."""
        return MappingProxyType(self._nodes)

    @property
    def next_id(self) -> int:
        """The id that the next node asked for will get."""
        return len(self._nodes)

    def children(self, node: int) -> Sequence[Node]:
        """Return the node's children in the order they were asked for."""
        return [self._nodes[child] for child in self._children[node]]

    def path(self, node: int) -> Sequence[Node]:
        """Return the nodes from the root's child down to `node`, both included; empty for the root."""
        line: list[Node] = []
        at: int | None = node
        while at:
            line.append(self._nodes[at])
            at = self._nodes[at].parent
        return line[::-1]

    def apply(self, event: Event) -> None:
        """Fold one event in. Of those that concern no node, decisions count the rounds."""
        if event.kind == "asked":
            self._add(Node.model_validate(event.data))
        elif event.kind == "decided":
            self.rounds += 1
        elif event.kind == "charged" and event.node is not None:
            self._charge(self._nodes[event.node], event.data["tool"], event.data["cost"])
        elif event.node is not None and event.kind in _CHANGES:
            self._nodes[event.node] = self._nodes[event.node].model_copy(update=_CHANGES[event.kind](event.data))

    def _charge(self, node: Node, tool: str, cost: float) -> None:
        costs = {**node.costs, tool: node.costs.get(tool, 0.0) + cost}
        self._nodes[node.id] = node.model_copy(update={"costs": costs})

    def _add(self, node: Node) -> None:
        self._nodes[node.id] = node
        self._children[node.id] = []
        self._children[node.parent or 0].append(node.id)


def _thought(data: dict[str, Any]) -> dict[str, Any]:
    action, kind = data.get("action"), data.get("kind")
    return ({"kind": kind} if kind else {}) | {
        "status": "thought",
        "text": data.get("text", ""),
        "action": _ACTION.validate_python(action) if action else None,
        "mean_logprob": data.get("mean_logprob"),
        "tokens_out": data.get("tokens_out", 0),
    }


_CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "repairing": lambda data: {"repair": Repair.model_validate(data)},
    "thought": _thought,
    "observed": lambda data: {"status": "observed", "observation": Observation.model_validate(data)},
    "rated": lambda data: {"rubric": data["rubric"]},
    "judged": lambda data: {"status": "judged", "verdict": Verdict.model_validate(data)},
    "cancelled": lambda _: {"status": "cancelled"},
    "failed": lambda data: {"status": "failed", "text": data.get("text", "")},
}
