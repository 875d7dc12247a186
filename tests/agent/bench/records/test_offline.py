"""Recorded searches as candidates again, and what the judge makes of them: with all its evidence, and with less."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ponder.bench.problems import Problem
from ponder.bench.records.offline import PIECES, Cost, Search, rebuilt, searches
from ponder.bench.records.recording import recorded, write_tables
from ponder.bench.records.selection import Picks, ablate, gap_closed, picks, select
from ponder.bench.rooms import GradingRooms
from ponder.errors import UsageError
from ponder.judges.candidates import Candidate, candidates, own_tests
from ponder.judges.choosing import choose
from ponder.judges.evidence import EvidenceJudge
from ponder.policies.full_depth import FullDepth
from ponder.program_tests import OwnTest
from ponder.records import Task
from ponder.search.self_consistency import SelfConsistency
from ponder.tree import Event, Tree

from .graders import Seven

ROW: dict[str, Any] = {
    "suite": "s", "task": "s/1", "parent": 0, "kind": "free", "status": "judged", "text": "", "answer": None,
    "right": None, "mean_logprob": -0.5, "total": None, "outcomes": None, "executed": False, "checks": 0,
    "checks_passed": 0, "rubric": None, "rubric_cpu_s": None, "core_cpu_s": 1.0, "tool_cpu_s": 0.0,
}  # fmt: skip
ABOUT = {"suite": "s", "task": "s/1", "charged_cpu_s": 20.0}
TEST = OwnTest(call="f(3)", comparison="f(3) == 9")


def node(number: int, answer: str | None = None, right: bool | None = None, **more: Any) -> dict[str, Any]:
    return {**ROW, "node": number, "answer": answer, "right": right, **more}


def candidate(number: int, answer: str, **more: Any) -> Candidate:
    return Candidate(node=number, answer=answer, **{"key": answer, **more})


def search(*found: Candidate | None, right: set[int], task: str = "s/1", **more: Any) -> Search:
    """Return a search with one candidate a sample; None: no answer."""
    samples = tuple((one,) if one is not None else () for one in found)
    told = {one.node: one.node in right for one in found if one is not None}
    plain = {"suite": "s", "independent": True, "tests": (), "cost": Cost(total_s=10.0)}
    return Search(task=task, samples=samples, right=told, **{**plain, **more})


# --- from rows ------------------------------------------------------------------------------------------------


def test_samples_are_the_branches_in_the_order_in_which_they_began() -> None:
    rows = [
        node(1, kind="check", text="assert f(3) == 9\nassert f(3) == 9\nwords"),
        node(2), node(3, "7", True), node(4, status="failed"), node(6, "9", False, parent=5), node(5, parent=2),
        node(7, "8", False, status="cancelled", parent=4),
    ]  # fmt: skip
    made = rebuilt(ABOUT, rows, independent=True)
    assert [[one.node for one in sample] for sample in made.samples] == [[6], [3], []]
    assert made.outcomes == [False, True, False]
    assert made.tests == (TEST,)
    assert [[one.node for one in made.first(k)] for k in (1, 2, 3)] == [[6], [3, 6], [3, 6]]


def test_pages_that_are_opened_for_all_are_no_samples() -> None:
    rows = [node(1, kind="browse"), node(2, kind="browse", parent=1), node(3, "a", parent=2), node(4, "b", parent=2)]
    assert [len(sample) for sample in rebuilt(ABOUT, rows, independent=True).samples] == [1, 1]


def test_of_a_tree_the_past_is_what_came_first() -> None:
    rows = [node(1, "7", False), node(2, "8", False), node(3, "9", True, parent=1)]
    made = rebuilt(ABOUT, rows, independent=False)
    assert [[one.node for one in made.first(k)] for k in (1, 2, 3)] == [[1], [1, 2], [1, 2, 3]]
    assert made.outcomes == [True, False]


def test_the_bill_is_parted_by_tests_and_calls() -> None:
    outcomes = {"f(1)": "=1", "f(2)": "=2", "f(3)": "=9", "f(3) == 9": "=1"}
    rows = [
        node(1, kind="check", text="assert f(3) == 9", core_cpu_s=2.0),
        node(2, "def f", True, total=2, checks=2, tool_cpu_s=3.0, outcomes=json.dumps(outcomes), rubric_cpu_s=0.25),
        node(3, "12", True, tool_cpu_s=5.0),
    ]
    assert rebuilt(ABOUT, rows, independent=True).cost == Cost(1.0, 1.0, 3.0, 0.25, 20.0)


def test_offline_the_judge_sees_what_it_saw_live(make_agent: Any, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    agent = make_agent([" 7", " 8", " 7", " 9"], strategy=SelfConsistency(4), policy=FullDepth())
    task, events = Task(prompt="q", id="s/1"), []
    agent.run(task, on_event=events.append)
    problem = Problem(task=task, grader=Seven(), plain="q", reply="text")
    with GradingRooms() as rooms:
        found = recorded("s", problem, events, rooms)
    write_tables(tmp_path, [found], {"s": {"strategy": "self-consistency+tests", "core": "scripted"}})
    (made,) = searches(tmp_path)
    tree = Tree.from_events(events)
    assert made.independent
    assert made.first(4) == candidates(tree)
    assert made.tests == own_tests(tree)
    assert choose(made.first(4), made.tests) == EvidenceJudge().best(tree)


def test_programs_too(grow: Any) -> None:
    """Evidence that no scripted core makes: checks, outcomes, an opinion, a program's answer."""
    from ponder.bench.records.recording import _evidence, _node  # the rows of one node: all that is compared here
    from ponder.records import Answer, Observation, RunCode, SuccessCriterion

    maker = grow(Task(prompt="q", success=SuccessCriterion(kind="tests", visible=("assert f(1) == 1",) * 2)))
    ran = Observation(tool="python", ok=False, text="", passed=1, total=2, outcomes={"f(1)": "=1"})
    first = maker.add(Answer(text="def f"), seen=ran, logprob=-0.3)
    maker.apply("rated", first, {"rubric": 0.7})
    maker.add(RunCode(code="print"), seen=Observation(tool="python", ok=True, text="", answer="12"))
    live = candidates(maker.tree)
    rows = [
        {**ABOUT, **_node(one, (), None), **_evidence(one, next((c for c in live if c.node == one.id), None), None)}
        for one in maker.tree.nodes.values()
        if one.id
    ]
    assert rebuilt(ABOUT, rows, independent=True).first(2) == live


def test_what_a_rating_took_stands_beside_it() -> None:
    from ponder.bench.records.recording import _rating_cpu_s

    def charge(number: int, cpu_s: float, tool: str = "core") -> Event:
        usage = {"cpu_user_s": cpu_s}
        return Event(kind="charged", node=number, data={"tool": tool, "node": number, "usage": usage, "cost": 0.0})

    rated = Event(kind="rated", node=1, data={"rubric": 0.5})
    events = [charge(1, 5.0), charge(2, 4.0), charge(1, 0.5), charge(1, 9.0, "python"), rated, charge(1, 7.0)]
    assert _rating_cpu_s(events) == {1: 0.5}


@pytest.mark.parametrize(
    ("manifest", "says"),
    [(None, "holds no records"), ("[]", "names no suites"), ('{"t": {"strategy": "auto"}}', "lacks 's'")],
)
def test_a_folder_without_records_is_told(manifest: str | None, says: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rows = {"tasks": (ABOUT,), "nodes": (node(1, "7", True),), "decisions": ()}
    from ponder.bench.records.recording import Recorded

    write_tables(tmp_path, [Recorded(**rows)], {})
    (tmp_path / "manifest.json").unlink()
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest, "utf-8")
    with pytest.raises(UsageError, match=says):
        searches(tmp_path)


def test_older_records_are_to_be_packed_again(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from ponder.bench.records.recording import Recorded

    old = {name: value for name, value in node(1, "7", True).items() if name != "executed"}
    write_tables(tmp_path, [Recorded(tasks=(ABOUT,), nodes=(old,), decisions=())], {"s": {"strategy": "auto"}})
    with pytest.raises(UsageError, match=r"lacks 'executed'.*again"):
        searches(tmp_path)


# --- selection, by hand -----------------------------------------------------------------------------------------


def hand_made() -> list[Search]:
    """Return four tasks of four samples; the right answer is 7."""
    seven = [candidate(n, "7", mean_logprob=-0.1) for n in range(5)]
    eight = [candidate(n, "8", mean_logprob=-0.9) for n in range(5)]
    nine = [candidate(n, "9", mean_logprob=-0.9) for n in range(5)]
    return [
        search(seven[1], seven[2], eight[3], eight[4], right={1, 2}, task="s/1"),  # a tie: the first is taken
        search(seven[1], eight[2], eight[3], nine[4], right={1}, task="s/2"),  # the majority is wrong
        search(None, None, None, None, right=set(), task="s/3"),
        search(seven[1], seven[2], seven[3], None, right={1, 2, 3}, task="s/4"),
    ]


def test_ways_of_picking_by_hand() -> None:
    rows = [picks(one, 4) for one in hand_made()]
    assert [row.one for row in rows] == [0.5, 0.25, 0.0, 0.75]
    assert [row.oracle for row in rows] == [1.0, 1.0, 0.0, 1.0]
    assert [row.judge for row in rows] == [1.0, 0.0, 0.0, 1.0]
    assert [row.vote for row in rows] == [0.5, 0.0, 0.0, 1.0]


def test_share_of_the_gap_by_hand() -> None:
    made = select([picks(one, 4) for one in hand_made()])
    assert made.gap_closed is not None
    assert made.gap_closed.value == pytest.approx((2 - 1.5) / (3 - 1.5))
    assert made.gap_closed.low <= made.gap_closed.value <= made.gap_closed.high
    assert made.over_vote.value == pytest.approx(0.5 / 4)


def test_no_gap_is_no_share() -> None:
    assert gap_closed([Picks(suite="s", task="s/1", one=1, oracle=1, judge=1, vote=1, alike=1)]) is None


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="has 4 samples, not 16"):
        picks(hand_made()[0], 16)


def test_in_a_tree_the_judge_picks_among_all() -> None:
    tree = search(candidate(9, "7"), right={9}, independent=False)
    assert picks(hand_made()[1], 4, trees=tree).judge == 1.0
    assert picks(hand_made()[1], 4, trees=tree).one == 0.25


def test_votes_of_equal_outcomes() -> None:
    same, other = {"f(1)": "=1"}, {"f(1)": "=2"}
    made = picks(
        search(
            candidate(1, "a", outcomes=other), candidate(2, "b", outcomes=same), candidate(3, "c", outcomes=same),
            right={2, 3},
        ),
        3,
    )  # fmt: skip
    assert (made.vote, made.alike) == (pytest.approx(2 / 3), 1.0)


# --- ablation: each piece carries all there is to know, once ----------------------------------------------------------


def informed(piece: str) -> Search:
    """Return a search in which only this piece tells the right candidate, 2, from the wrong one, 1."""
    match piece:
        case "visible checks":
            wrong, right = candidate(1, "a", passed=0, checks=1), candidate(2, "b", passed=1, checks=1)
            return search(wrong, right, right={2})
        case "instructions in the task's words":
            wrong, right = candidate(1, "a", asked=3, followed=2), candidate(2, "b", asked=3, followed=3)
            return search(wrong, right, right={2})
        case "behaviour":
            lone, twins = {"f(1)": "=5"}, {"f(1)": "=1"}
            found = [candidate(1, "a", outcomes=lone), *(candidate(n, str(n), outcomes=twins) for n in (2, 3))]
            return search(*found, right={2, 3})
        case "own tests":
            fails, passes = {TEST.call: "=6", TEST.comparison: "=0"}, {TEST.call: "=9", TEST.comparison: "=1"}
            return search(
                candidate(1, "a", outcomes=fails), candidate(2, "b", outcomes=passes), right={2}, tests=(TEST,)
            )
        case "how answers came about":
            return search(candidate(1, "7"), candidate(2, "8", way="executed"), right={2})
    words = "of a text that has rather more than a dozen words in it, so that none agree"
    return search(candidate(1, f"one {words}", rubric=0.1), candidate(2, f"two {words}", rubric=0.9), right={2})


@pytest.mark.parametrize("piece", PIECES)
def test_without_the_piece_that_tells_all_the_judge_is_lost(piece: str) -> None:
    rows = {row.piece: row for row in ablate([informed(piece)] * 3, 16)}
    assert rows[piece].change.value == -1.0
    assert rows[piece].accuracy.value == 0.0


def test_pieces_that_no_search_has_are_left_out() -> None:
    assert [row.piece for row in ablate([informed("how answers came about")], 16)] == ["how answers came about"]


def test_what_a_piece_costs_stands_beside_it() -> None:
    cost = Cost(own_tests_s=2.0, total_s=10.0)
    one, other = informed("own tests"), informed("how answers came about")
    rows = {row.piece: row for row in ablate([search(*one.first(2), right={2}, tests=one.tests, cost=cost), other], 16)}
    assert (rows["own tests"].saved_cpu_s, rows["own tests"].share_of_cpu) == (1.0, 0.1)


def test_calls_that_are_made_anyhow_stay_without_own_tests() -> None:
    take, _ = PIECES["own tests"]
    shared = OwnTest(call="f(1)", comparison="f(1) == 1")
    outcomes = {"f(1)": "=1", "f(2)": "=4", "f(3)": "=9", "f(1) == 1": "=1", "f(3) == 9": "=1"}
    (left,), none = take([candidate(1, "a", outcomes=outcomes)], (shared, TEST))
    assert (list(left.outcomes), none) == (["f(1)", "f(2)"], ())
