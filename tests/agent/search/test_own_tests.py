"""A strategy with tests of the core's own: one step first, which the strategy itself does not see."""

from __future__ import annotations

import pytest

from ponder.errors import UnknownName
from ponder.parts import make_strategy
from ponder.policies.features import extract
from ponder.records import Answer, Expansion, Observation, Reason, Spending, Standing, SuccessCriterion, Task

TASK = Task(prompt="q", success=SuccessCriterion(kind="tests", visible=("assert f(1) == 1",)))


def with_tests(grow):  # type: ignore[no-untyped-def]
    maker = grow(TASK)
    maker.apply("asked", 1, {"id": 1, "parent": 0, "branch": 1, "depth": 1, "kind": "check"})
    words = Reason(text="assert f(2) == 2")
    maker.apply("thought", 1, {"text": words.text, "action": words.model_dump(mode="json")})
    return maker


def test_tests_are_asked_for_first_and_once(grow) -> None:  # type: ignore[no-untyped-def]
    strategy, alone = make_strategy(("python",), "auto+tests", 5), make_strategy(("python",), "auto", 5)
    assert (strategy.name, strategy.max_samples) == ("auto+tests", 5)
    empty = grow(TASK).tree
    assert strategy.ask(empty) == [Expansion(parent=0, kind="check"), *alone.ask(empty)]
    assert strategy.ask(with_tests(grow).tree) == alone.ask(empty)


@pytest.mark.parametrize("name", ["best-of-n", "self-consistency", "revision", "auto", "mcts", "ab-mcts"])
def test_no_strategy_takes_the_tests_for_an_attempt(grow, name: str) -> None:  # type: ignore[no-untyped-def]
    maker, bare = with_tests(grow), grow(TASK)
    for one in (maker, bare):
        failed = Observation(tool="python", ok=False, text="0 of 1", passed=0, total=1)
        one.add(Answer(text="def f(x): return 2"), seen=failed)
    wishes = make_strategy(("python",), f"{name}+tests", 5).ask(maker.tree)
    moved = [wish.parent and wish.parent - 1 for wish in wishes]
    assert moved == [wish.parent for wish in make_strategy(("python",), name, 5).ask(bare.tree)]


@pytest.mark.parametrize("success", [None, SuccessCriterion(kind="tests")])
def test_no_tests_where_there_is_nothing_to_test(grow, success: SuccessCriterion | None) -> None:  # type: ignore[no-untyped-def]
    asked = make_strategy(("python",), "auto+tests", 5).ask(grow(TASK.model_copy(update={"success": success})).tree)
    assert asked
    assert all(wish.kind != "check" for wish in asked)


def test_tests_are_no_sample(grow) -> None:  # type: ignore[no-untyped-def]
    maker = with_tests(grow)
    maker.apply("judged", 1, {"score": 0.5})
    made = extract(
        maker.tree, standing=Standing(), max_samples=5, spent=Spending(cpu_s=1, wall_s=1, tokens=1)
    )
    assert (made.samples, made.pending) == (0, 0)


def test_an_unknown_strategy_with_tests() -> None:
    with pytest.raises(UnknownName, match="dfs"):
        make_strategy((), "dfs+tests")
