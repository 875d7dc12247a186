"""Agreement of candidates: by their own tests (CodeT) and by the words of texts."""

from __future__ import annotations

import pytest

from ponder.judges.agreement import dual_agreement, groups
from ponder.judges.candidates import Candidate
from ponder.program_tests import read_tests

TESTS = read_tests("assert f(1) == 1\nassert f(2) == 4\nassert f(3) == 8")


def program(node: int, *passed: int) -> Candidate:
    outcomes = {test.comparison: "=1" if number in passed else "=0" for number, test in enumerate(TESTS, 1)}
    return Candidate(node=node, answer=f"p{node}", key=f"p{node}", outcomes=outcomes)


def test_programs_that_pass_the_same_tests_stand_by_each_other() -> None:
    found = [program(1, 1, 2), program(2, 1, 2), program(3, 1, 2), program(4, 1, 3), program(5, 3), program(6)]
    scores = dual_agreement(found, TESTS)
    assert scores[1] == scores[2] == scores[3] == 1.0
    assert scores[4] == pytest.approx(2 / (3**0.5 * 2))
    assert scores[5] == pytest.approx(1 / (3**0.5 * 2))
    assert scores[6] == 0.0


def test_answers_of_one_way_go_wrong_together() -> None:
    """Four answers that were worked out in words outvote twelve programs; each by itself, a program outvotes a word."""
    programs = [Candidate(node=n, answer="29", key="29", way="executed") for n in range(12)]
    worked_out = [Candidate(node=n, answer="19", key="19", way="reasoned") for n in range(12, 16)]
    said = [Candidate(node=n, answer="7", key="7") for n in range(16, 18)]
    found = groups([*programs, *worked_out, *said])
    assert [len(group.members) for group in found] == [4, 12, 2]
    own = [4 * 2 / 1.6, 12 * 2 / 6.5, 2]
    assert [group.votes for group in found] == pytest.approx([34 * each / sum(own) for each in own])
    assert groups(programs)[0].votes == pytest.approx(24.0)
    assert [group.votes for group in groups([programs[0], worked_out[0], said[0]])] == [2.0, 2.0, 1.0]


def test_nothing_passes_or_nothing_was_written() -> None:
    assert dual_agreement([program(1), program(2)], TESTS) == {1: 0.0, 2: 0.0}
    assert dual_agreement([program(1, 1)], ()) == {1: 0.0}
    assert dual_agreement([], TESTS) == {}
