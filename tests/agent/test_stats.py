"""The Beta criterion against values that are known in closed form."""

from __future__ import annotations

import pytest

from ponder.stats import chance_of_lead, laplace


@pytest.mark.parametrize("votes", range(8))
def test_unanimous_votes(votes: int) -> None:
    # With no vote against, P(p > 1/2) under Beta(v + 1, 1) is 1 - 2^-(v + 1).
    assert chance_of_lead(votes, 0) == pytest.approx(1 - 0.5 ** (votes + 1), abs=1e-6)


def test_a_tie_is_even() -> None:
    assert chance_of_lead(3, 3) == pytest.approx(0.5, abs=1e-6)


def test_more_votes_against_lower_it() -> None:
    assert chance_of_lead(4, 0) > chance_of_lead(4, 1) > chance_of_lead(4, 2.5)


def test_laplace() -> None:
    assert laplace(3, 3) == pytest.approx(0.8)
