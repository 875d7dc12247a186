"""Features are figures of the tree: the same live and replayed."""

from __future__ import annotations

from ponder.policies.features import extract
from ponder.records import Answer, Node, Observation, RunCode, Standing, Task, Verdict
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


def test_a_branch_that_goes_on_has_not_ended() -> None:
    tree = Tree(Task(prompt="q"))
    add(tree, 1, RunCode(code="1/0"), ok=False)
    add(tree, 2, Answer(text="7"), ok=True)
    spent = {"cpu_spent_s": 4.0, "wall_spent_s": 2.0, "tokens_spent": 9}
    base = {"standing": Standing(votes=(1.0,)), "max_samples": 6, **spent}
    assert extract(tree, **base).samples == 2  # type: ignore[arg-type]
    features = extract(tree, open_ends={1}, **base)  # type: ignore[arg-type]
    assert (features.samples, features.answered, features.failed_steps) == (1, 1, 1)
    assert features.round_cost_s == 4.0
