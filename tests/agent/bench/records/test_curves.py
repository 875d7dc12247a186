"""Coverage curves, their fits, and pictures that only change when figures do."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ponder.bench.records.curves import PowerLaw, curve, draw_coverage, draw_reliability, power_law
from ponder.bench.records.offline import Cost, Search
from ponder.bench.records.reliability import Bin
from ponder.judges.candidates import Candidate

MOST_BYTES = 60_000


def search(outcomes: list[bool]) -> Search:
    found = [Candidate(node=n, answer="7", key="7") for n in range(len(outcomes))]
    right = dict(enumerate(outcomes))
    samples = tuple((one,) for one in found)
    return Search("s", "s/1", independent=True, samples=samples, right=right, tests=(), cost=Cost())


def test_coverage_by_hand() -> None:
    made = curve("s", [search([True, False, False, False]), search([False] * 4), search([True])], 4)
    assert (made.tasks, made.short) == (2, 1)
    assert made.at == pytest.approx({1: 1 / 8, 2: 2 / 8, 3: 3 / 8, 4: 4 / 8})
    assert list(made.intervals) == [1, 2, 4]
    assert made.intervals[4].value == 0.5
    assert made.line.slope > 0


def test_a_power_law_is_found_again() -> None:
    law = PowerLaw(a=-1.2, b=-0.4, r_squared=1.0)
    found = power_law({k: law.at(k) for k in range(1, 17)})
    assert found is not None
    assert (found.a, found.b, found.r_squared) == (pytest.approx(-1.2), pytest.approx(-0.4), pytest.approx(1.0))
    assert found.at(1) == pytest.approx(math.exp(-1.2))


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_coverage_that_is_none_or_all_has_no_power_law(edge: float) -> None:
    assert power_law({1: 0.5, 2: edge}) is None


def test_no_task_with_as_many_samples() -> None:
    with pytest.raises(ValueError, match="no task of s has 4 samples"):
        curve("s", [search([True])], 4)


def test_pictures_are_small_and_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    suites = ("humaneval", "mbpp", "gsm8k", "reasoning_gym")
    tasks = {suite: at + 9 for at, suite in enumerate(suites)}
    curves = [curve(suite, [search([i < n for i in range(16)]) for n in range(tasks[suite])]) for suite in suites]
    bins = [Bin(size=40, said=at / 15, right=(at / 15) ** 1.2) for at in range(1, 15)]
    for number in (1, 2):
        draw_coverage(curves, tmp_path / f"{number}/coverage.svg")
        draw_reliability({"held out": bins, "uncalibrated": bins[::2]}, tmp_path / f"{number}/reliability.svg")
    for name in ("coverage.svg", "reliability.svg"):
        first, second = ((tmp_path / f"{number}" / name).read_bytes() for number in (1, 2))
        assert first == second
        assert len(first) < MOST_BYTES
        assert b"<dc:date>" not in first
        words = " ".join(ElementTree.fromstring(first).itertext())  # text stays text: it can be searched and read
        assert ("humaneval (9 tasks)" if name == "coverage.svg" else "held out") in words
