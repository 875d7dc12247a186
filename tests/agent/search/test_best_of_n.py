"""Best-of-N in rounds: it is told nothing but the tree."""

from __future__ import annotations

from ponder.records import Answer, Browse, Expansion, Observation, Reason, RunCode, Task
from ponder.search.best_of_n import BestOfN

OK = Observation(tool="python", ok=True, text="7")
BAD = Observation(tool="python", ok=False, text="boom", outcome="error")
ANSWERED = Observation(tool="python", ok=True, text="ANSWER: 7", answer="7")
PAGE = Observation(tool="browser", ok=True, text="a page")


def test_first_round_then_smaller_ones_then_nothing(grow) -> None:  # type: ignore[no-untyped-def]
    strategy, maker = BestOfN(4, first=3, step=2), grow()
    assert strategy.ask(maker.tree) == [Expansion(parent=0)] * 3
    for i in range(3):
        maker.add(RunCode(code=str(i)), seen=ANSWERED)
    assert len(strategy.ask(maker.tree)) == 1
    maker.add(Answer(text="7"))
    assert strategy.ask(maker.tree) == []


def test_nothing_new_while_a_branch_is_on_its_way(grow) -> None:  # type: ignore[no-untyped-def]
    strategy, maker = BestOfN(8, first=2), grow()
    maker.add(RunCode(code="1"), seen=ANSWERED)
    maker.add(status="asked")
    assert strategy.ask(maker.tree) == []


def test_open_ends_go_on_with_the_step_they_need(grow) -> None:  # type: ignore[no-untyped-def]
    strategy, maker = BestOfN(8, first=3), grow()
    failed = maker.add(RunCode(code="1/0"), seen=BAD)
    printed = maker.add(RunCode(code="print(7)"), seen=OK)
    mused = maker.add(Reason(text="hm"))
    assert [(e.parent, e.kind) for e in strategy.ask(maker.tree)] == [
        (failed, "code"),
        (printed, "answer"),
        (mused, "answer"),
    ]


def test_a_branch_ends_when_it_repeats_itself_or_grows_too_deep(grow) -> None:  # type: ignore[no-untyped-def]
    strategy, maker = BestOfN(1, max_depth=2), grow()
    first = maker.add(RunCode(code="1/0"), seen=BAD)
    maker.add(RunCode(code="1/0"), seen=BAD, parent=first)
    assert strategy.ask(maker.tree) == []
    maker = grow()
    first = maker.add(RunCode(code="1/0"), seen=BAD)
    second = maker.add(RunCode(code="2/0"), seen=BAD, parent=first)
    assert strategy.ask(maker.tree) == []
    assert BestOfN(1, max_depth=3).ask(maker.tree) == [Expansion(parent=second, kind="code")]


def test_pages_are_opened_once_before_branches_part(grow) -> None:  # type: ignore[no-untyped-def]
    strategy = BestOfN(4, first=2)
    maker = grow(Task(prompt="q", urls=("http://a/", "http://b/")))
    assert strategy.ask(maker.tree) == [Expansion(parent=0, kind="browse", action=Browse(op="goto", url="http://a/"))]
    first = maker.add(Browse(op="goto", url="http://a/"), seen=PAGE, text="")
    assert strategy.ask(maker.tree) == [
        Expansion(parent=first, kind="browse", action=Browse(op="goto", url="http://b/"))
    ]
    second = maker.add(Browse(op="goto", url="http://b/"), seen=PAGE, text="", parent=first)
    assert strategy.ask(maker.tree) == [Expansion(parent=second, kind="browse")] * 2


def test_a_wrong_program_is_revised(grow) -> None:  # type: ignore[no-untyped-def]
    maker = grow()
    wrong = Observation(tool="python", ok=False, text="1 of 2", outcome="error", passed=1, total=2)
    node = maker.add(Answer(text="def f(): ..."), seen=wrong)
    assert BestOfN(1).ask(maker.tree) == [Expansion(parent=node, kind="code")]


def test_tell_gives_each_node_its_own_score(grow) -> None:  # type: ignore[no-untyped-def]
    maker = grow()
    node = maker.add(Answer(text="7"))
    assert BestOfN().tell(maker.tree, [node]) == {node: 0.5}


def test_while_answers_of_one_kind_all_differ_the_other_kind_is_tried(grow) -> None:  # type: ignore[no-untyped-def]
    strategy, maker = BestOfN(8, first=2), grow()
    maker.add(Answer(text="24"))
    assert BestOfN(8, first=1).ask(maker.tree)[0].kind == "answer"
    maker.add(Answer(text="10"))
    assert strategy.ask(maker.tree) == [Expansion(parent=0, kind="code")] * 2
    assert BestOfN(8, kinds=("answer",)).ask(maker.tree)[0].kind == "answer"
    maker.add(Answer(text="10"))
    assert strategy.ask(maker.tree)[0].kind == "answer"
