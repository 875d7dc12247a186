"""`auto`: wide while answers disagree, deep where feedback says something, all samples unless a policy stops it."""

from __future__ import annotations

from typing import Any

import pytest

from ponder.parts import make_strategy
from ponder.records import Answer, Expansion, Observation, RunCode, SuccessCriterion, Task
from ponder.search.auto import Auto

BAD = Observation(tool="python", ok=False, text="boom", outcome="error")
TESTS = Task(prompt="q", success=SuccessCriterion(kind="tests", visible=("assert f(1) == 1", "assert f(2) == 2")))


def printed(answer: str) -> Observation:
    return Observation(tool="python", ok=True, text=f"ANSWER: {answer}", answer=answer)


def graded(passed: int, outcome: str = "=1") -> Observation:
    return Observation(
        tool="python", ok=passed == 2, text="", passed=passed, total=2, outcomes={"f(3)": outcome}
    )


def parents(wishes: Any) -> list[int]:
    return [wish.parent for wish in wishes]


def test_it_begins_wide(grow: Any) -> None:
    assert Auto(8).ask(grow().tree) == [Expansion(parent=0)] * 4
    assert Auto(2).ask(grow().tree) == [Expansion(parent=0)] * 2


def test_rounds_widen_with_what_is_there(grow: Any) -> None:
    for there, width in ((4, 4), (8, 4), (12, 6), (20, 10), (60, 4)):
        maker = grow(TESTS)
        for number in range(there):
            maker.add(Answer(text=f"def f(): return {number}"), seen=graded(0))
        assert len(Auto(64, deep=0).ask(maker.tree)) == width


def test_programs_and_words_take_turns_by_what_they_cost(grow: Any) -> None:
    maker = grow()
    for answer in ("1", "2", "2"):
        maker.add(RunCode(code=answer), seen=printed(answer), tokens=10)
    assert Auto(8).ask(maker.tree) == [Expansion(parent=0, kind="reason")] * 4
    maker.add(Answer(text="2"), kind="reason", tokens=20)
    assert Auto(8).ask(maker.tree) == [Expansion(parent=0, kind="reason")] * 4
    maker.add(Answer(text="3"), kind="reason", tokens=20)
    assert Auto(8).ask(maker.tree) == [Expansion(parent=0, kind="code")] * 3
    assert Auto(8, kinds=("code",)).ask(maker.tree) == [Expansion(parent=0, kind="code")] * 3


@pytest.mark.parametrize(("price", "kind"), [(1.0, "code"), (10.0, "reason")])
def test_where_running_code_is_dear_words_are_taken(grow: Any, price: float, kind: str) -> None:
    maker = grow()
    for answer in ("1", "2", "2"):
        node = maker.add(RunCode(code=answer), seen=printed(answer), tokens=10)
        maker.apply("charged", node, {"tool": "core", "cost": 1.0})
        maker.apply("charged", node, {"tool": "python", "cost": 0.5 * price})
    maker.apply("charged", maker.add(Answer(text="3"), kind="reason", tokens=60), {"tool": "core", "cost": 6.0})
    assert {wish.kind for wish in Auto(8).ask(maker.tree)} == {kind}


def test_where_no_way_to_a_value_agrees_a_plain_answer_is_tried(grow: Any) -> None:
    maker = grow()
    for answer in ("1", "2"):
        maker.add(RunCode(code=answer), seen=printed(answer), tokens=10)
    maker.add(Answer(text="3"), kind="reason", tokens=20)
    assert Auto(8).ask(maker.tree) == [Expansion(parent=0, kind="answer")] * 4


def test_where_the_core_chose_words_they_stay_while_they_agree(grow: Any) -> None:
    maker = grow()
    maker.add(Answer(text="Rome"))
    maker.add(Answer(text="rome"))
    assert Auto(8).ask(maker.tree) == [Expansion(parent=0, kind="answer")] * 4
    maker = grow()
    maker.add(Answer(text="Rome"))
    maker.add(Answer(text="Milan"))
    assert Auto(8).ask(maker.tree) == [Expansion(parent=0, kind="code")] * 4


def test_without_a_tool_that_runs_code_words_stay_while_they_agree(grow: Any) -> None:
    strategy, maker = make_strategy(("browser",), "auto", 16), grow()
    assert strategy.ask(maker.tree) == [Expansion(parent=0)] * 4
    for answer in ("3", "3", "4"):
        maker.add(Answer(text=answer), kind="reason", tokens=90)
    assert strategy.ask(maker.tree) == [Expansion(parent=0, kind="reason")] * 4
    maker = grow()
    for answer in ("Rome", "Milan"):
        maker.add(Answer(text=answer))
    assert strategy.ask(maker.tree) == [Expansion(parent=0, kind="reason")] * 4, "they were just said, and differ"


SALT = Task(prompt="Praise salt in at most 14 words.")
SHORT, LONG = "Salt is old, and cheap, and so it keeps our food for all winter.", "Salt is old. " + "And so it is. " * 9


def test_texts_are_not_bettered(grow: Any) -> None:
    maker = grow(SALT)
    for number in range(4):
        maker.add(Answer(text=f"{LONG}{number}."), tokens=40)
    assert parents(Auto(16).ask(maker.tree)) == [0, 0, 0, 0]
    maker.add(Answer(text=SHORT))
    assert parents(Auto(16).ask(maker.tree)) == [0, 0, 0, 0]


def test_where_programs_are_the_same_failed_one_only_other_ones_are_tried(grow: Any) -> None:
    maker = grow(TESTS)
    for _ in range(4):
        maker.add(Answer(text="def f(): return 0"), seen=graded(0), tokens=40)
    assert parents(Auto(16).ask(maker.tree)) == [1, 1, 1, 1]
    for _ in range(4):
        maker.add(Answer(text="def f(): return 0"), seen=graded(0), parent=1)
    assert Auto(16).ask(maker.tree) == []  # they were only repeated
    assert Auto(16, deep=0).ask(maker.tree) == []


def test_an_attempt_that_was_only_repeated_is_not_bettered_again(grow: Any) -> None:
    maker = grow(TESTS)
    for number in range(4):
        maker.add(Answer(text=f"def f(): return {number}"), seen=graded(0), tokens=40)
    maker.add(Answer(text="def f(): return 7"), seen=graded(2, "=2"), parent=2)  # to better them pays
    assert 1 in parents(Auto(16).ask(maker.tree))
    maker.add(Answer(text="def f(): return 0"), seen=graded(0), parent=1)
    assert parents(Auto(16).ask(maker.tree)) == [3, 0, 0, 0]


def test_a_program_that_was_only_repeated_leaves_other_broken_ones_to_be_bettered(grow: Any) -> None:
    maker = grow()
    first = maker.add(RunCode(code="1/0"), seen=BAD)
    second = maker.add(RunCode(code="[][1]"), seen=BAD)
    maker.add(RunCode(code="1/0"), seen=BAD, parent=first)
    assert parents(Auto(8).ask(maker.tree)) == [second, 0, 0, 0]


@pytest.mark.parametrize("text", ["7", "It is one of those long texts of which no two ever agree, number {}."])
def test_whether_what_is_there_is_enough_is_for_the_policy_to_say(grow: Any, text: str) -> None:
    maker = grow()
    for number in range(5):
        maker.add(Answer(text=text.format(number)))
    assert len(Auto(16).ask(maker.tree)) == 4


def test_a_failed_program_is_bettered_while_there_is_no_answer(grow: Any) -> None:
    maker = grow()
    failed = maker.add(RunCode(code="1/0"), seen=BAD)
    assert parents(Auto(8).ask(maker.tree)) == [failed, 0, 0, 0]


def test_the_best_failed_candidate_is_bettered_when_new_ones_fail_more_dearly(grow: Any) -> None:
    maker = grow(TESTS)
    best = 0
    for number in range(6):
        node = maker.add(Answer(text=f"def f(): return {number}"), seen=graded(number % 2), status="observed")
        maker.apply("judged", node, {"score": number % 2 / 2})
        best = best or (node if number % 2 else 0)
    wishes = Auto(16).ask(maker.tree)
    assert parents(wishes) == [best, 0, 0, 0]
    # Bettered twice without success: it is left alone, and another one's turn has come.
    for number in range(2):
        maker.add(Answer(text=f"def f(): return {number + 10}"), seen=graded(0), parent=best)
    assert best not in parents(Auto(16).ask(maker.tree))


def test_programs_that_pass_are_sampled_to_full_depth(grow: Any) -> None:
    maker = grow(TESTS)
    for _ in range(15):
        assert parents(Auto(16).ask(maker.tree))[0] == 0
        maker.add(Answer(text="def f(x): return x"), seen=graded(2, "=3"))
    assert parents(Auto(16).ask(maker.tree)) == [0]


def test_samples_are_bounded(grow: Any) -> None:
    maker = grow()
    for number in range(6):
        maker.add(RunCode(code=str(number)), seen=printed(str(number)))
    assert len(Auto(7).ask(maker.tree)) == 1
    assert Auto(6).ask(maker.tree) == []


def test_a_kind_of_step_can_be_taken_away(grow: Any) -> None:
    assert Auto(8, kinds=("code",)).ask(grow().tree) == [Expansion(parent=0, kind="code")] * 4
    maker = grow()
    failed = maker.add(RunCode(code="1/0"), seen=BAD)
    assert failed in parents(Auto(8).ask(maker.tree))
    assert parents(Auto(8, deep=0).ask(maker.tree)) == [0, 0, 0, 0]


def test_what_the_core_must_read_to_better_an_attempt_counts(grow: Any) -> None:
    for length, deep in ((10, True), (2000, False)):
        maker = grow(TESTS)
        for number in range(5):
            seen = graded(0).model_copy(update={"text": "x" * length})
            maker.add(Answer(text=f"def f(): return {number}"), seen=seen, tokens=40)
        assert (parents(Auto(16).ask(maker.tree))[0] != 0) == deep
