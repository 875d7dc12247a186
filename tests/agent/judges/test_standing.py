"""Where a search stands: the same of the same candidates, wherever they come from."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ponder.judges.calibration import Calibration, Model, Term
from ponder.judges.candidates import Candidate
from ponder.judges.standing import assessed, standing
from ponder.records import Standing


def candidate(node: int, key: str, **fields: Any) -> Candidate:
    return Candidate(node=node, answer=key, key=key, **fields)


def test_without_a_candidate_there_is_nothing_to_tell() -> None:
    assert standing([]) == Standing()
    assert assessed([]) is None


def test_votes_checks_and_signals() -> None:
    seen = standing([candidate(1, "7"), candidate(2, "8", way="executed"), candidate(3, "8")])
    assert seen.best is not None
    assert (seen.best.answer, seen.votes, seen.kind) == ("8", (3.0, 1.0), "answers")
    assert seen.signals["lead_share"] == 0.75
    assert "rubric" not in seen.signals
    assert (seen.best_passed, seen.best_followed) == (None, 1.0)
    checked = standing([candidate(1, "a", passed=1, checks=2, tested=True),
                        candidate(2, "b", passed=2, checks=2, tested=True)])  # fmt: skip
    assert (checked.best_passed, checked.kind) == (1.0, "programs")
    assert standing([candidate(1, "a", asked=4, followed=3)]).best_followed == 0.75


@pytest.mark.parametrize(("keys", "steady"), [("7", None), ("77", 1.0), ("788", 0.0), ("7788", 1.0), ("778888", 0.0)])
def test_it_is_steady_where_half_of_the_candidates_say_the_same(keys: str, steady: float | None) -> None:
    assert standing([candidate(n, key) for n, key in enumerate(keys)]).steady == steady


@pytest.mark.parametrize(
    ("keys", "counts", "stale", "same"),
    [("a", (1,), 0, 1), ("aa", (2,), 1, 2), ("ab", (1, 1), 0, 1), ("aba", (2, 1), 1, 1), ("abab", (2, 2), 2, 1),
     ("abbb", (3, 1), 2, 3)],
)  # fmt: skip
def test_repeats_are_counted_from_the_end(keys: str, counts: tuple[int, ...], stale: int, same: int) -> None:
    seen = standing([candidate(n, key) for n, key in enumerate(keys)])
    assert (seen.counts, seen.stale, seen.same_in_a_row) == (counts, stale, same)


def test_programs_that_do_the_same_are_the_same() -> None:
    def program(node: int, came: str, passed: int) -> Candidate:
        return candidate(node, f"program {node}", outcomes={"f(1)": came}, passed=passed, checks=1)

    assert standing([program(1, "=1", 0), program(2, "=1", 1)]).steady == 1.0
    assert standing([program(1, "=1", 0), program(2, "=2", 1)]).steady == 0.0


def test_programs_that_do_the_same_vote_together() -> None:
    came = ("=1", "=2", "=1", "~time", "~time")
    found = [candidate(n, f"program {n}", outcomes={"f(1)": one, "f(2)": "~time"}) for n, one in enumerate(came)]
    assert standing(found).votes == (2.0, 1.0, 1.0, 1.0)  # those that come to nothing have nothing in common


def test_the_gain_is_what_the_other_half_has_added() -> None:
    doubled = Term(name="log_candidates", weight=math.log(4) - math.log(2 / 3), mean=1, scale=1, low=0, high=9)
    known = Calibration(models=(Model(kind="answers", bias=math.log(2 / 3), terms=(doubled,)),))
    seen = standing([candidate(n, "7") for n in range(4)], (), known)
    assert seen.best is not None
    assert (seen.best.confidence, seen.gain) == (pytest.approx(0.8), pytest.approx(0.4))
    assert standing([candidate(1, "7")], (), known).gain is None
