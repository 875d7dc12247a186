"""Features are figures of the tree: the same live and replayed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ponder.policies.features import extract
from ponder.records import (
    Answer,
    Expansion,
    Features,
    Node,
    Observation,
    RunCode,
    Spending,
    Standing,
    StepKind,
    Task,
    Verdict,
)
from ponder.tree import Event, Tree


def add(tree: Tree, node: int, action: Answer | RunCode, *, ok: bool, parent: int = 0) -> None:
    asked = Node(id=node, parent=parent, branch=node, depth=1)
    thought = {"text": "x", "action": action.model_dump(mode="json")}
    seen = Observation(tool="python", ok=ok, text="", outcome="ok" if ok else "error")
    events: list[tuple[str, dict[str, object]]] = [
        ("asked", asked.model_dump(mode="json")), ("thought", thought), ("observed", seen.model_dump(mode="json")),
        ("judged", Verdict(score=0.5).model_dump(mode="json")),
    ]  # fmt: skip
    for kind, data in events:
        tree.apply(Event.model_validate({"kind": kind, "node": node, "data": data}))


STANDING = Standing(votes=(2.0, 1.0), counts=(2, 1), stale=1, same_in_a_row=1)
SPENT = Spending(cpu_s=4.0, wall_s=2.0, tokens=9, cost_by_tool={"core": 3.0, "python": 1.0})


def features(tree: Tree, *, wished: Sequence[Expansion] = ()) -> Features:
    return extract(tree, standing=STANDING, max_samples=6, wished=wished, spent=SPENT)


def test_a_branch_that_goes_on_has_not_ended() -> None:
    tree = Tree(Task(prompt="q"))
    add(tree, 1, RunCode(code="1/0"), ok=False)
    add(tree, 2, Answer(text="7"), ok=True)
    assert features(tree).samples == 2
    found = features(tree, wished=[Expansion(parent=1)])
    assert (found.samples, found.answered, found.failed_steps) == (1, 1, 1)


def test_what_comes_next_costs_what_steps_cost_so_far() -> None:
    tree = Tree(Task(prompt="q"))
    add(tree, 1, Answer(text="7"), ok=True)
    add(tree, 2, Answer(text="8"), ok=True)
    asked = Node(id=3, parent=2, branch=2, depth=2).model_dump(mode="json")
    tree.apply(Event.model_validate({"kind": "asked", "node": 3, "data": asked}))
    found = features(tree, wished=[Expansion(parent=0)] * 2)
    assert (found.next_steps, found.cost_by_tool) == (3, {"core": 3.0, "python": 1.0})
    assert found.next_cost == pytest.approx(4.0 / 2.7 * 2.3), "the step on its way has cost seven tenths already"
    assert (found.pending, found.width, found.depth) == (1, 2, 1)
    assert (found.votes, found.counts, found.stale) == (STANDING.votes, (2, 1), 1)


def test_a_step_costs_as_those_of_its_kind_did() -> None:
    step = Node(id=0, parent=0, branch=0, depth=1, status="judged")
    program = step.model_copy(update={"kind": "code", "tokens_out": 30, "costs": {"python": 0.5}})
    said = step.model_copy(update={"kind": "reason", "tokens_out": 90})
    past = [node.model_copy(update={"id": place}) for place, node in enumerate((program, program, said), 1)]
    tree = Tree.of(Task(prompt="q"), past)

    def expected(kind: StepKind) -> dict[str, float]:
        return dict(features(tree, wished=[Expansion(parent=0, kind=kind)]).next_cost_by_tool)

    # A step has cost 1 of the core for 50 tokens, and a third of a run; one more such step of each kind is assumed.
    code, words = (30 + 30 + 50) / 3, (90 + 50) / 2
    assert expected("code") == pytest.approx({"core": code / 50, "python": (3 + 1) / 3 / 3})
    assert expected("reason") == pytest.approx({"core": words / 50, "python": 1 / 3 / 2})
    assert expected("free") == pytest.approx({"core": 1.0, "python": 1 / 3}), "the core will choose: as any"


def test_how_far_what_comes_next_works_in_another_way() -> None:
    tree = Tree(Task(prompt="q"))
    words = [Expansion(parent=0, kind="reason")] * 2
    assert features(tree, wished=words).next_other == 0.0, "nothing was tried yet"
    for node in (1, 2, 3):
        add(tree, node, RunCode(code="1"), ok=True)
    assert features(tree, wished=words).next_other == 1.0
    assert features(tree, wished=[*words, *[Expansion(parent=0, kind="code")] * 2]).next_other == 0.5
    assert features(tree, wished=[Expansion(parent=0)]).next_other == 0.0, "the core will choose, as it did before"
    asked = Node(id=4, parent=0, branch=4, depth=1, kind="reason").model_dump(mode="json")
    tree.apply(Event.model_validate({"kind": "asked", "node": 4, "data": asked}))
    assert features(tree).next_other == 1.0, "what is on its way comes next, too"
