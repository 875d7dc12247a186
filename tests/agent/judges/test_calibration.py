"""Signals of the best answer, and the models that turn them into a probability."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ponder.errors import UsageError
from ponder.judges.calibration import FILE, Calibration, FittedOn, Model, Signals, Term, load, signals
from ponder.judges.candidates import Candidate
from ponder.judges.choosing import choose
from ponder.program_tests import OwnTest
from ponder.records import Best

LONG = "a text that has rather more than a dozen words, so that no two of them agree, number"


def candidate(node: int, answer: str, **more: Any) -> Candidate:
    plain = {"key": answer, "mean_logprob": -0.5}
    return Candidate(node=node, answer=answer, **{**plain, **more})


def seen(found: list[Candidate], tests: tuple[OwnTest, ...] = ()) -> Signals:
    best = choose(found, tests)
    assert best is not None
    return signals(found, tests, best)


def test_answers_that_agree() -> None:
    found = [candidate(1, "7"), candidate(2, "8"), candidate(3, "7", way="executed", mean_logprob=-0.1)]
    found.append(candidate(4, "9"))
    made = seen(found)
    assert (made.kind, made.log_candidates, made.alone, made.distinct) == ("answers", 2.0, 0.0, 0.75)
    assert (made.lead_share, made.margin, made.log_lead) == (3 / 5, 2 / 5, 2.0)
    assert made.lead_chance == pytest.approx(0.8125)  # P(p > 1/2) under Beta(4, 2)
    assert (made.executed, made.mean_logprob) == (0.0, -0.5)
    assert {made.passed, made.behaves, made.obeys, made.rubric} == {None}


def test_programs_that_are_checked_and_called() -> None:
    tests = (OwnTest(call="f(2)", comparison="f(2) == 4"), OwnTest(call="f(3)", comparison="f(3) == 9"))
    good = {"f(1)": "=1", "f(2) == 4": "=1", "f(3) == 9": "=1"}
    other = {"f(1)": "=2", "f(2) == 4": "=1", "f(3) == 9": "=0"}
    found = [
        candidate(1, "a", passed=2, checks=2, outcomes=good),
        candidate(2, "b", passed=2, checks=2, outcomes=good),
        candidate(3, "c", passed=2, checks=2, outcomes=other),
        candidate(4, "d", passed=1, checks=2, outcomes=other),
    ]
    made = seen(found, tests)
    assert (made.kind, made.passed, made.passing) == ("programs", 1.0, 0.75)
    assert made.log_checks == pytest.approx(math.log2(3))
    assert made.behaves == pytest.approx(1 / 2), "what own tests say of the other calls is theirs"
    assert made.log_alike == pytest.approx(1.0)


def test_one_program_agrees_with_none() -> None:
    made = seen([candidate(1, "a", passed=1, checks=1, outcomes={"f(1)": "=1"})])
    assert (made.behaves, made.alone) == (0.0, 1.0)


def test_texts() -> None:
    made = seen([candidate(1, f"{LONG} 1", rubric=0.3), candidate(2, f"{LONG} 2", rubric=0.8)])
    assert (made.kind, made.rubric, made.obeys, made.obeying) == ("texts", 0.8, 1.0, 1.0)
    asked = seen([candidate(n, f"{LONG} {n}", asked=4, followed=followed) for n, followed in enumerate((4, 3, 1, 4))])
    assert (asked.obeys, asked.obeying) == (1.0, 0.5)


def test_the_best_is_one_of_the_candidates() -> None:
    with pytest.raises(ValueError, match="no candidate"):
        signals([candidate(1, "7")], (), Best(answer="8", confidence=0.5, node=2, votes=1, total=1))


# --- models ---------------------------------------------------------------------------------------------------


def term(name: str, weight: float, **more: float) -> Term:
    return Term(name=name, weight=weight, **{"mean": 0.5, "scale": 0.25, "low": 0.0, "high": 1.0, **more})


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


ANSWERS = seen([candidate(1, "7"), candidate(2, "7"), candidate(3, "7"), candidate(4, "8")])


def test_a_model_is_logistic_in_standardised_signals() -> None:
    model = Model(kind="answers", bias=-0.2, terms=(term("lead_share", 0.6), term("distinct", -0.1)))
    assert model.probability(ANSWERS) == pytest.approx(logistic(-0.2 + 0.6 * 1.0 - 0.1 * 0.0))


def test_beyond_what_training_saw_nothing_changes() -> None:
    model = Model(kind="answers", bias=0.0, terms=(term("log_candidates", 3.0, high=1.0),))
    assert model.probability(ANSWERS) == pytest.approx(logistic(3.0 * 2))


@pytest.mark.parametrize(("bias", "chance"), [(-1e6, 0.0), (1e6, 1.0)])
def test_far_out_is_certain(bias: float, chance: float) -> None:
    assert Model(kind="answers", bias=bias, terms=()).probability(ANSWERS) == chance


def test_a_missing_signal_leaves_it_to_the_next_model_of_the_kind() -> None:
    rich = Model(kind="answers", bias=5.0, terms=(term("rubric", 1.0),))
    plain = Model(kind="answers", bias=0.0, terms=())
    other = Model(kind="texts", bias=3.0, terms=())
    assert Calibration(models=(other, rich, plain)).probability(ANSWERS) == 0.5
    assert Calibration(models=(other, rich)).probability(ANSWERS) is None
    assert Calibration(models=(other,)).probability(ANSWERS) is None


def test_a_model_is_for_its_own_core() -> None:
    about = FittedOn(core="one", records=("r",), suites=("s",), tasks=1, snapshots=5, right=0.5, ece=0.1, brier=0.2)
    own, tried = (Model(kind="answers", bias=0.0, terms=(), fitted_on=one) for one in (about, None))
    both = Calibration(models=(tried, own))
    assert both.of("one").models == (own,)
    assert both.of("two").models == both.of(None).models == ()


def test_without_a_file_nothing_is_calibrated(tmp_path: Path) -> None:
    empty = load(tmp_path / "none.json")
    assert empty == Calibration()
    assert empty.probability(ANSWERS) is None


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    made = Calibration(models=(Model(kind="answers", bias=0.1, terms=(term("lead_share", 0.6),)),))
    file = tmp_path / "made.json"
    file.write_text(made.model_dump_json(), "utf-8")
    assert load(file) == made


def model_with(**term_fields: Any) -> str:
    """Return a file with a model of one term."""
    return json.dumps({"models": [{"kind": "texts", "bias": 0, "terms": [term_fields]}]})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no json", "the whole"),
        ('{"version": 2}', "version"),
        ('{"models": [{"kind": "songs", "bias": 0, "terms": []}]}', r"models\.0\.kind"),
        ('{"models": [{"kind": "texts", "terms": []}]}', r"models\.0\.bias: Field required"),
        (model_with(name="luck"), "no signal is called 'luck'"),
        (model_with(**{**term("obeys", 1.0).model_dump(), "scale": 0}), "greater than 0"),
    ],
)
def test_a_broken_file_is_told(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_text(text, "utf-8")
    with pytest.raises(UsageError, match=rf"broken\.json is no calibration: .*{says}"):
        load(file)


def test_the_file_that_is_shipped_can_be_read() -> None:
    shipped = load()
    assert bool(shipped.models) == FILE.exists()
    assert all(model.fitted_on is not None for model in shipped.models)


def test_no_library_for_numbers_is_loaded() -> None:
    probe = "import sys, ponder.judges.calibration as c; c.load(); print({'numpy', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout == "set()\n"
