"""The judge: checks before execution before agreement."""

from __future__ import annotations

import pytest

from ponder.judges.calibration import Calibration, Model
from ponder.judges.candidates import candidates
from ponder.judges.evidence import EvidenceJudge
from ponder.records import Answer, Browse, Observation, Reason, RunCode, SuccessCriterion, Task

JUDGE = EvidenceJudge()


def ran(answer: str) -> Observation:
    return Observation(tool="python", ok=True, text=f"ANSWER: {answer}", answer=answer)


def checked(passed: int, total: int = 3) -> Observation:
    return Observation(tool="python", ok=passed == total, text="", passed=passed, total=total)


def test_no_answer_yet(grow) -> None:  # type: ignore[no-untyped-def]
    maker = grow()
    node = maker.add(RunCode(code="1/0"), seen=Observation(tool="python", ok=False, text="boom", outcome="error"))
    assert JUDGE.best(maker.tree) is None
    assert JUDGE.judge(maker.tree, [node])[node].score < 0.5


def test_an_executed_answer_outweighs_an_opinion(grow) -> None:  # type: ignore[no-untyped-def]
    maker = grow()
    maker.add(Answer(text="3"))
    maker.add(RunCode(code="x"), seen=ran("4.0"))
    best = JUDGE.best(maker.tree)
    assert best is not None
    assert best.answer == "4"


def test_equal_answers_are_grouped(grow) -> None:  # type: ignore[no-untyped-def]
    maker = grow()
    for answer in ("434.0", "434", "7"):
        maker.add(RunCode(code=answer), seen=ran(answer))
    best = JUDGE.best(maker.tree)
    assert best is not None
    assert (best.answer, best.votes, best.total) == ("434", 2, 3)
    assert list(JUDGE.standing(maker.tree).votes) == [4.0, 2.0]


def test_an_answer_that_stands_on_the_page_weighs_more(grow) -> None:  # type: ignore[no-untyped-def]
    maker = grow()
    page = Observation(tool="browser", ok=True, text="The code word was quillfish.")
    at = maker.add(Browse(op="goto", url="http://x"), seen=page)
    maker.add(Answer(text="Quillfish"), parent=at)
    maker.add(Answer(text="starfish"), parent=at)
    assert list(JUDGE.standing(maker.tree).votes) == [2.0, 1.0]


def test_visible_tests_decide(grow) -> None:  # type: ignore[no-untyped-def]
    task = Task(prompt="q", success=SuccessCriterion(kind="tests", visible=("assert f() == 1",) * 3))
    maker = grow(task)
    maker.add(Answer(text="bad"), seen=checked(1), logprob=-0.01)
    good = maker.add(Answer(text="good"), seen=checked(3), logprob=-0.9)
    best = JUDGE.best(maker.tree)
    assert best is not None
    assert (best.answer, best.node) == ("good", good)
    assert JUDGE.standing(maker.tree).best_passed == 1.0
    assert JUDGE.judge(maker.tree, [good])[good].score == 1.0


def test_other_visible_checks_decide_too(grow) -> None:  # type: ignore[no-untyped-def]
    task = Task(prompt="q", success=SuccessCriterion(kind="regex", visible=(r"^\d{4}$",)))
    maker = grow(task)
    for answer in ("about 1900", "about 1900", "1911"):
        maker.add(Answer(text=answer))
    best = JUDGE.best(maker.tree)
    assert best is not None
    assert best.answer == "1911"


def test_answers_that_pass_the_checks_have_votes(grow) -> None:  # type: ignore[no-untyped-def]
    task = Task(prompt="q", success=SuccessCriterion(kind="regex", visible=(r"^\d+$",)))
    maker = grow(task)
    maker.add(Answer(text="13"), logprob=-0.01)
    for answer in ("about 12", "12", "12", "12"):
        maker.add(Answer(text=answer), logprob=-0.9)
    best = JUDGE.best(maker.tree)
    assert best is not None
    assert (best.answer, best.votes, best.total) == ("12", 3, 5)
    assert best.confidence > 2 / 3, "more than one that passes the check by itself"
    assert JUDGE.standing(maker.tree).best_passed == 1.0
    only = grow(task)
    only.add(Answer(text="none"))
    failed = JUDGE.best(only.tree)
    assert failed is not None
    assert failed.confidence < 0.5


def test_a_number_does_not_stand_on_a_page_within_another(grow) -> None:  # type: ignore[no-untyped-def]
    maker = grow()
    page = Observation(tool="browser", ok=True, text="Built in 1912; the fee is $5.")
    at = maker.add(Browse(op="goto", url="http://x"), seen=page)
    for answer in ("12", "$5", "1912"):
        maker.add(Answer(text=answer), parent=at)
    assert [candidate.executed for candidate in candidates(maker.tree)] == [False, True, True]


def test_hidden_checks_are_never_looked_at(grow) -> None:  # type: ignore[no-untyped-def]
    task = Task(prompt="q", success=SuccessCriterion(kind="python", hidden=("no_such_module:f",)))
    maker = grow(task)
    node = maker.add(Answer(text="x"))
    assert JUDGE.judge(maker.tree, [node])[node].score == pytest.approx(2 / 3)


def test_among_programs_that_pass_the_one_that_does_what_most_do_wins(grow) -> None:  # type: ignore[no-untyped-def]
    task = Task(prompt="q", success=SuccessCriterion(kind="tests", visible=("assert f(1) == 1",)))
    maker = grow(task)

    def add(program: str, *outcomes: str, passed: int = 1, logprob: float = -0.5) -> int:
        seen = checked(passed, 1).model_copy(update={"outcomes": dict(zip(("f(1)", "f(2)"), outcomes, strict=True))})
        return int(maker.add(Answer(text=program), seen=seen, logprob=logprob))

    add("sure of itself", "=1", "=9", logprob=-0.01)
    add("breaks off", "~time", "~time")
    liked = add("first of two", "=1", "=2", logprob=-0.3)
    add("second of two", "=1", "=2", logprob=-0.4)
    for _ in range(3):  # what fails the tests has no say
        add("wrong", "=0", "=9", passed=0)
    best = JUDGE.best(maker.tree)
    assert best is not None
    assert best.node == liked


def test_programs_are_compared_on_what_visible_tests_call(grow) -> None:  # type: ignore[no-untyped-def]
    tests = SuccessCriterion(kind="tests", visible=("assert f([1, 2]) == 3",), hidden=("assert f([7]) == 7",))
    inputs = JUDGE.inputs(grow(Task(prompt="q", success=tests)).tree)
    assert inputs[0] == "f([1, 2])"
    assert len(inputs) > 5
    assert "f([7])" not in inputs
    assert not JUDGE.inputs(grow().tree)
    assert not JUDGE.inputs(grow(Task(prompt="q", success=SuccessCriterion(kind="exact", visible=("f(1)",)))).tree)


def test_tests_of_the_core_are_called_too_and_tell_programs_apart(grow) -> None:  # type: ignore[no-untyped-def]
    maker = grow(Task(prompt="q", success=SuccessCriterion(kind="tests", visible=("assert f(1) == 1",))))
    maker.apply("asked", 1, {"id": 1, "parent": 0, "branch": 1, "depth": 1, "kind": "check"})
    words = Reason(text="assert f(5) == 25\nassert f(6) == 36")
    maker.apply("thought", 1, {"text": words.text, "action": words.model_dump(mode="json")})
    assert {"f(5)", "f(5) == 25", "f(6) == 36"} <= set(JUDGE.inputs(maker.tree))

    def add(program: str, five: str, six: str) -> int:
        outcomes = {"f(5) == 25": five, "f(6) == 36": six}
        seen = checked(1, 1).model_copy(update={"outcomes": outcomes})
        return int(maker.add(Answer(text=program), seen=seen))

    add("first", "=0", "=1")
    liked = add("second", "=1", "=1")
    add("third", "=0", "=0")
    best = JUDGE.best(maker.tree)
    assert best is not None
    assert best.node == liked


LONG = "It is a plan of so many words that no other one will ever be the same, number "
NAMES_A_RIVER = SuccessCriterion(kind="rubric", visible=("names a river",))


def test_of_texts_the_core_s_opinion_decides_where_a_rubric_is_given(grow) -> None:  # type: ignore[no-untyped-def]
    maker = grow(Task(prompt="q", success=NAMES_A_RIVER))
    nodes = [maker.add(Answer(text=f"{LONG}{word}."), status="thought") for word in ("one", "two", "three")]
    assert JUDGE.unclear(maker.tree, nodes) == nodes
    assert JUDGE.unclear(maker.tree, nodes[1:2]) == nodes[1:2]
    for node, chance in zip(nodes, (0.2, 0.9, 0.4), strict=True):
        maker.apply("rated", node, {"rubric": chance})
    best = JUDGE.best(maker.tree)
    assert best is not None
    assert best.node == nodes[1]
    assert JUDGE.judge(maker.tree, nodes)[nodes[2]].score == 0.4
    assert JUDGE.unclear(grow().tree, nodes) == []


TWO_LINES = Task(
    prompt="Write about the sea in exactly two lines of at most eight words each.", success=NAMES_A_RIVER
)


def test_of_texts_those_that_do_what_the_task_asks_come_first(grow) -> None:  # type: ignore[no-untyped-def]
    maker = grow(TWO_LINES)
    liked, faithful, other = (
        maker.add(Answer(text=text), status="thought")
        for text in (
            "The sea is wide.\nIt is blue.\nIt sings to all of us.",
            "The sea is wide and deep.\nIt sings to all of us here.",
            "The waves come and go all day.\nThey tell us what they saw.",
        )
    )
    assert JUDGE.unclear(maker.tree, [liked, faithful, other]) == [faithful, other]
    for node, chance in ((liked, 0.99), (faithful, 0.4), (other, 0.3)):
        maker.apply("rated", node, {"rubric": chance})
    best, verdicts = JUDGE.best(maker.tree), JUDGE.judge(maker.tree, [liked, faithful])
    assert best is not None
    assert best.node == faithful
    assert verdicts[liked].score == pytest.approx(0.99 * 3 / 4)
    assert verdicts[liked].evidence | {"followed": 3, "asked": 4} == verdicts[liked].evidence
    assert JUDGE.standing(maker.tree).best_followed == 1.0


def test_of_texts_that_do_the_same_the_first_is_taken(grow) -> None:  # type: ignore[no-untyped-def]
    maker = grow()
    texts = {f"{LONG}1": -0.1, f"{LONG}2.": -0.2, f"{LONG}3.": -0.1}
    nodes = [maker.add(Answer(text=text), logprob=logprob) for text, logprob in texts.items()]
    best = JUDGE.best(maker.tree)
    assert best is not None
    assert best.node == nodes[1]  # the first one breaks off
    assert JUDGE.standing(grow().tree).best_followed == 0.0


@pytest.mark.parametrize(
    ("question", "answers", "kind"),
    [
        ("Write a slogan without the word book.", ["Read more, worry less.", "A quiet place to read."], "texts"),
        ("Name a river, in capital letters.", ["RHINE", "PO"], "answers"),  # so short that they may agree
        ("Write a slogan, not on books.", ["Read more, worry less."] * 2 + ["A quiet place to read."], "answers"),
        ("Which month?", ["It is the month of May.", "April"], "answers"),  # no text is asked for
        ("Which month?", [f"{LONG}1.", f"{LONG}2."], "texts"),
        ("Which month?", [f"{LONG}1.", f"{LONG}1."], "answers"),
    ],
)  # fmt: skip
def test_texts_are_told_from_answers_that_can_agree(question: str, answers: list[str], kind: str, grow) -> None:  # type: ignore[no-untyped-def]
    maker = grow(Task(prompt=question))
    for answer in answers:
        maker.add(Answer(text=answer))
    assert JUDGE.standing(maker.tree).kind == kind


def test_short_answers_vote_among_those_that_do_what_is_asked(grow) -> None:  # type: ignore[no-untyped-def]
    maker = grow(Task(prompt="Name a river, in capital letters."))
    for answer in ("Rhine", "Rhine", "Rhine", "PO", "PO", "ELBE"):
        maker.add(Answer(text=answer))
    best = JUDGE.best(maker.tree)
    assert best is not None
    assert (best.answer, best.votes, best.total) == ("PO", 2, 6)
    assert list(JUDGE.standing(maker.tree).votes) == [2.0, 1.0]


def test_a_rubric_is_for_all_answers_and_is_no_check(grow) -> None:  # type: ignore[no-untyped-def]
    maker = grow(Task(prompt="q", success=NAMES_A_RIVER))
    node = maker.add(Answer(text="Po"), status="thought")
    assert JUDGE.unclear(maker.tree, [node]) == [node]
    assert JUDGE.standing(maker.tree).best_passed is None


def test_the_confidence_is_the_calibrated_one_where_there_is_a_model(grow) -> None:  # type: ignore[no-untyped-def]
    judge = EvidenceJudge(Calibration(models=(Model(kind="answers", bias=-0.8, terms=()),)))
    maker = grow()
    maker.add(Answer(text="4"))
    best = judge.best(maker.tree)
    assert best is not None
    assert best.confidence == pytest.approx(0.31, abs=0.001)
    plain = grow()
    plain.add(Answer(text=f"{LONG}one"))
    other = judge.best(plain.tree)
    assert other is not None
    assert other.confidence == 0.75
