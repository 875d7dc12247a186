"""What a tree offers as answers, each with the evidence for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from ponder.answers import normalise
from ponder.instructions.reading import asks_for_text, instructions_of, unfollowed
from ponder.judges.checks import passes
from ponder.judges.inputs import changed_calls
from ponder.program_tests import OwnTest, calls_in, read_tests
from ponder.protocols import TreeView
from ponder.records import Answer, Node, Record, RunCode, StepKind

Way = Literal["executed", "reasoned", "said"]
"""How an answer came about: a program computed it, or it stands word for word on a page that was read; it was worked
out in words first; or it was just said."""
_CHANGED_CALLS = 12


class Candidate(Record):
    """A node that proposes an answer, with its evidence."""

    node: int
    answer: str
    key: str
    """The answer's normal form: equal answers have equal keys."""
    way: Way = "said"
    passed: int = 0
    checks: int = 0
    """Visible checks, and how many of them it passed."""
    tested: bool = False
    """Whether these are tests that ran it: what a program does decides then, and no vote."""
    asked: int = 0
    followed: int = 0
    """What the task's words ask of an answer (`ponder.instructions`), and how much of that it does."""
    text_asked: bool = False
    """Whether these words ask for what only a text has."""
    mean_logprob: float = 0.0
    outcomes: Mapping[str, str] = {}
    """What calls of it came to, for a program."""
    rubric: float | None = None
    """Chance that the core gives to it meeting the task (one token), where it was asked."""

    @property
    def executed(self) -> bool:
        """Whether a program computed it, or a page says it."""
        return self.way == "executed"

    @property
    def share(self) -> float:
        """The share of the visible checks that it passed: 0 where there are none."""
        return self.passed / self.checks if self.checks else 0.0

    @property
    def obeys(self) -> float:
        """The share of what the task's words ask that it does: 1 where they ask for nothing that can be checked."""
        return self.followed / self.asked if self.asked else 1.0


def candidates(tree: TreeView) -> list[Candidate]:
    """Return every node that proposes an answer, in the order in which they were asked for."""
    harvested = (node for node in tree.nodes.values() if node.status in ("thought", "observed", "judged"))
    return [_candidate(tree, node, node.answer) for node in harvested if node.answer]


def own_tests(tree: TreeView) -> tuple[OwnTest, ...]:
    """Return the tests that the core wrote in this tree, once each."""
    written = (node.text for node in tree.nodes.values() if node.kind == "check" and node.status != "asked")
    return tuple({test.comparison: test for text in written for test in read_tests(text)}.values())


def compared_calls(tree: TreeView) -> tuple[str, ...]:
    """Return the calls on which the programs of a tree are compared.

    Those of the visible tests, and changes of them; those of the tests that the core wrote, and these tests.
    """
    criterion = tree.task.success
    if criterion is None or criterion.kind != "tests":
        return ()
    own = own_tests(tree)
    calls = (*_near(criterion.visible), *(test.call for test in own), *(test.comparison for test in own))
    return tuple(dict.fromkeys(calls))


@lru_cache(maxsize=64)
def _near(tests: tuple[str, ...]) -> tuple[str, ...]:
    shown = calls_in(tests)
    return (*shown, *changed_calls(shown, _CHANGED_CALLS))


def _candidate(tree: TreeView, node: Node, answer: str) -> Candidate:
    seen, criterion = node.observation, tree.task.success
    passed, checks = 0, 0
    tested = seen is not None and bool(seen.total)
    if seen is not None and seen.total:
        passed, checks = seen.passed or 0, seen.total
    elif criterion is not None and criterion.kind not in ("tests", "rubric") and criterion.visible:
        checks = len(criterion.visible)
        passed = sum(passes(criterion, check, answer) for check in criterion.visible)
    asked = instructions_of(tree.task)
    executed = isinstance(node.action, RunCode) or _stands_on_page(tree, node, answer)
    return Candidate(
        node=node.id,
        answer=answer,
        key=normalise(answer),
        way=way_of(node.kind, executed=executed),
        passed=passed,
        checks=checks,
        tested=tested,
        asked=len(asked),
        followed=len(asked) - len(unfollowed(tree.task, answer)),
        text_asked=asks_for_text(tree.task),
        mean_logprob=node.mean_logprob or 0.0,
        outcomes=seen.outcomes if seen is not None else {},
        rubric=node.rubric,
    )


def way_of(kind: StepKind, *, executed: bool) -> Way:
    """Return how the answer of a step of this kind came about."""
    if executed:
        return "executed"
    return "reasoned" if kind == "reason" else "said"


def _stands_on_page(tree: TreeView, node: Node, answer: str) -> bool:
    """Return whether an answer stands on a page above it, word for word: "12" does not where the page says 1912."""
    if not isinstance(node.action, Answer):
        return False
    words = re.compile(rf"(?<!\w){re.escape(answer.strip())}(?!\w)", re.IGNORECASE)
    pages = (n.observation.text for n in tree.path(node.id)[:-1] if n.observation and n.observation.tool == "browser")
    return any(words.search(page) for page in pages)
