"""Shared makers for the agent's unit tests: trees from short scripts, and agents on the scripted core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from ponder.agent import Agent
from ponder.core.scripted import Script, ScriptedCore
from ponder.records import Action, Node, Observation, StepKind, Task, Verdict
from ponder.tree import Event, Tree

from .scripts import at_once

MakeAgent = Callable[..., Agent]
Running = Callable[[str], list[psutil.Process]]


def has_word(process: psutil.Process, word: str) -> bool:
    try:
        return word in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it has just ended, and may not have been waited for
        return False


@pytest.fixture(scope="session")
def running() -> Running:
    """Return a function: the processes below this one that have a word in their command line."""
    return lambda word: [one for one in psutil.Process().children(recursive=True) if has_word(one, word)]


@pytest.fixture
def make_agent(tmp_path: Path) -> Iterator[MakeAgent]:
    """Return a maker of agents on a scripted core without tools, which answers in a step; all are closed at the end."""
    made: list[Agent] = []

    def make(script: Sequence[str] | Script, **options: Any) -> Agent:
        core = options.pop("core", None) or ScriptedCore(at_once(script), delay_s=options.pop("delay_s", 0.0))
        agent = Agent(core, home=tmp_path, **{"tools": (), **options})
        made.append(agent)
        return agent

    yield make
    for agent in made:
        agent.close()


class TreeMaker:
    """Grows a tree step by step, as a run's events would."""

    def __init__(self, task: Task | str = "q") -> None:
        self.tree = Tree(task if isinstance(task, Task) else Task(prompt=task))

    def add(
        self,
        action: Action | None = None,
        *,
        parent: int = 0,
        seen: Observation | None = None,
        logprob: float = -0.1,
        status: str = "judged",
        text: str = "words",
        tokens: int = 0,
        kind: StepKind = "free",
    ) -> int:
        """Add a node in one go and return its id."""
        above, new = self.tree.nodes[parent], self.tree.next_id
        node = Node(id=new, parent=parent, branch=above.branch or new, depth=above.depth + 1, kind=kind)
        self.apply("asked", new, node.model_dump(mode="json"))
        if action is not None:
            thought = {"text": text, "action": action.model_dump(mode="json"), "mean_logprob": logprob}
            self.apply("thought", new, thought | {"tokens_out": tokens})
        if seen is not None:
            self.apply("observed", new, seen.model_dump(mode="json"))
        if status == "judged" and action is not None:
            self.apply("judged", new, Verdict(score=0.5).model_dump(mode="json"))
        elif status in ("failed", "cancelled"):
            self.apply(status, new, {"text": "broke"})
        return new

    def apply(self, kind: Any, node: int | None, data: dict[str, Any]) -> None:
        """Apply one event."""
        self.tree.apply(Event(kind=kind, node=node, data=data))


@pytest.fixture
def grow() -> type[TreeMaker]:
    """Return the tree maker."""
    return TreeMaker


def printed(text: str, *, ok: bool = True, answer: str | None = None) -> Observation:
    """Return what a program's run looks like."""
    return Observation(tool="python", ok=ok, text=text, outcome="ok" if ok else "error", answer=answer)


class GrammarReader:
    """Says whether a grammar takes a text, as a whole or as a beginning: llguidance, byte by byte."""

    def __init__(self) -> None:
        llguidance = pytest.importorskip("llguidance")
        self._tokenizer = llguidance.LLTokenizer("byte")
        self._matchers: dict[str, Any] = {}

    def takes(self, grammar: str, text: str) -> bool:
        matcher = self._fed(grammar, text)
        return matcher is not None and (matcher.is_accepting() or matcher.is_stopped())

    def begins(self, grammar: str, text: str) -> bool:
        return self._fed(grammar, text) is not None

    def _fed(self, grammar: str, text: str) -> Any:
        matcher = self._matcher(grammar).deep_copy()
        tokens = list(text.encode())
        return matcher if matcher.try_consume_tokens(tokens) == len(tokens) else None

    def _matcher(self, grammar: str) -> Any:
        from llguidance import LLMatcher
        from llguidance.gbnf_to_lark import gbnf_to_lark

        if grammar not in self._matchers:
            matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(gbnf_to_lark(grammar)), log_level=0)
            assert not matcher.is_error(), matcher.get_error()
            self._matchers[grammar] = matcher
        return self._matchers[grammar]


@pytest.fixture(scope="session")
def reader() -> GrammarReader:
    return GrammarReader()
