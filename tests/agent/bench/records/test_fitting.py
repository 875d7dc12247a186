"""Calibration on made-up searches whose truth is known."""

from __future__ import annotations

import importlib
import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ponder.bench.records.fitting import FEWEST, Snapshot, cross_fitted, fit, probabilities, snapshots
from ponder.bench.records.offline import Cost, Search
from ponder.bench.records.recording import Recorded, write_tables
from ponder.bench.records.reliability import bins_of_equal_size, bins_of_equal_width, calibration_error, reliability
from ponder.errors import UsageError
from ponder.judges.calibration import Calibration
from ponder.judges.candidates import Candidate, Way

REPORT = Path(__file__).parents[4] / "benchmarks/judge_report.py"


def made_up(tasks: int, seed: int = 1, samples: int = 16) -> list[Search]:
    """Return searches of tasks of different difficulty: the chance of a sample is the task's, wrong answers scatter.

    Hard tasks have a wrong answer that comes often, so that agreement alone promises too much.
    """
    draw, found = random.Random(seed), []
    for number in range(tasks):
        chance = draw.betavariate(0.8, 0.8)
        right, sampled = {}, []
        for node in range(1, samples + 1):
            good = draw.random() < chance
            answer = "7" if good else draw.choice(["8", "8", "8", "9", "10", "11"])
            logprob = draw.gauss(-0.3 if good else -0.5, 0.2)
            way: Way = "executed" if node % 5 == 0 else "said"
            one = Candidate(node=node, answer=answer, key=answer, way=way, mean_logprob=logprob)
            right[node] = good
            sampled.append((one,))
        task, told = f"made/{number}", tuple(sampled)
        found.append(Search("made", task, independent=True, samples=told, right=right, tests=(), cost=Cost()))
    return found


def taken(found: list[Search]) -> list[Snapshot]:
    return [one for search in found for one in snapshots(search)]


# --- what was said against what came true --------------------------------------------------------------------------


def test_bins_by_hand() -> None:
    said, right = [0.1, 0.2, 0.3, 0.9], [False, True, False, True]
    low, high = bins_of_equal_size(said, right, 2)
    assert (low.size, low.said, low.right) == (2, pytest.approx(0.15), 0.5)
    assert (high.size, high.said, high.right) == (2, pytest.approx(0.6), 0.5)
    assert calibration_error(bins_of_equal_size(said, right, 2)) == pytest.approx((0.35 + 0.1) / 2)
    wide = bins_of_equal_width([0.0, 0.05, 1.0], [False, True, True], 10)
    assert [(one.size, one.right) for one in wide] == [(2, 0.5), (1, 1.0)]
    assert calibration_error([]) == 0.0


def test_more_bins_than_probabilities() -> None:
    assert [one.size for one in bins_of_equal_size([0.5, 0.6], [True, False], 15)] == [1, 1]


def test_true_probabilities_err_as_much_as_chance_lets_them() -> None:
    draw = random.Random(7)
    said = [draw.random() for _ in range(3000)]
    made = reliability(said, [draw.random() < p for p in said])
    assert made.ece < 0.04
    assert abs(made.ece - made.floor) < 0.015
    assert made.brier == pytest.approx(1 / 6, abs=0.02)
    too_sure = reliability([0.95] * 100, [True, False] * 50, draws=5)
    assert (too_sure.ece, too_sure.ece_wide) == (pytest.approx(0.45, abs=0.1), pytest.approx(0.45))


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="0 probabilities"):
        reliability([], [])


# --- the fit ----------------------------------------------------------------------------------------------------


def test_snapshots_are_after_1_2_4_8_and_16_samples_and_at_the_end() -> None:
    assert [one.depth for one in taken(made_up(1))] == [1, 2, 4, 8, 16]
    assert [one.depth for one in taken(made_up(1, samples=6))] == [1, 2, 4, 6]
    blank = Search("made", "made/0", independent=True, samples=((), ()), right={}, tests=(), cost=Cost())
    assert snapshots(blank) == []


def test_a_fit_is_calibrated_on_tasks_that_it_has_not_seen() -> None:
    pytest.importorskip("sklearn")
    known, fresh = taken(made_up(250, seed=1)), taken(made_up(250, seed=2))
    made = fit(known, core="made-up", records=["iid"])
    (model,) = made.models
    assert model.fitted_on is not None
    assert (model.kind, model.fitted_on.tasks, model.fitted_on.snapshots) == ("answers", 250, 1250)
    right = [one.right for one in fresh]
    calibrated = reliability(probabilities(made, fresh), right, draws=20)
    plain = reliability([one.said for one in fresh], right, draws=20)
    assert calibrated.ece < 0.06 < plain.ece
    assert calibrated.brier < plain.brier
    crossed = reliability(cross_fitted(known), [one.right for one in known], draws=5)
    assert crossed.ece == pytest.approx(model.fitted_on.ece, abs=1e-5)
    assert abs(crossed.brier - calibrated.brier) < 0.03


def test_no_task_is_in_two_folds() -> None:
    pytest.importorskip("sklearn")
    # Each task's snapshots are alike and nobody else's: whoever has seen one of them knows the others' truth.
    base = taken(made_up(1))[0]
    draw = random.Random(3)
    found = []
    for number in range(60):
        seen, right = base.seen.model_copy(update={"mean_logprob": draw.random()}), draw.random() < 0.5
        found += [base.model_copy(update={"task": f"made/{number}", "seen": seen, "right": right})] * 4
    said = cross_fitted(found)
    assert reliability(said, [one.right for one in found], draws=1).brier > 0.22


def test_where_there_is_no_model_the_old_confidence_stays() -> None:
    found = taken(made_up(3))
    assert probabilities(Calibration(), found) == [one.said for one in found]


def test_where_all_is_right_the_rate_is_what_is_known() -> None:
    sure = [one.model_copy(update={"right": True}) for one in taken(made_up(10))]
    (model,) = fit(sure, core="made-up", records=["iid"]).models
    assert model.probability(sure[0].seen) == pytest.approx(51 / 52)


def test_too_few_snapshots_are_told() -> None:
    found = taken(made_up(5))
    assert len(found) < FEWEST
    with pytest.raises(UsageError, match="25 snapshots are too few"):
        fit(found, core="made-up", records=["iid"])


# --- the command line, on records in files ---------------------------------------------------------------------------


def packed(folder: Path, found: list[Search], strategy: str = "self-consistency", core: str = "made-up") -> Path:
    """Write made-up searches as `benchmarks/record.py pack` would."""
    bare = {"kind": "free", "status": "judged", "text": "", "total": None, "outcomes": None, "checks": 0,
            "checks_passed": 0, "rubric": None, "rubric_cpu_s": None, "core_cpu_s": 1.0, "tool_cpu_s": 0.0}  # fmt: skip
    rows = []
    for one in found:
        about = {"suite": one.suite, "task": one.task}
        nodes = tuple(
            {**about, **bare, "node": c.node, "parent": 0, "answer": c.answer, "right": one.right[c.node],
             "mean_logprob": c.mean_logprob, "executed": c.executed}
            for (c,) in one.samples
        )  # fmt: skip
        rows.append(Recorded(tasks=({**about, "charged_cpu_s": 16.0},), nodes=nodes, decisions=()))
    write_tables(folder, rows, {"made": {"core": core, "strategy": strategy}})
    return folder


class Came(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def judge_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Came]:
    """Run the script in this process."""
    monkeypatch.syspath_prepend(str(REPORT.parent))
    script = importlib.import_module(REPORT.stem)

    def run(*words: Any) -> Came:
        monkeypatch.setattr(sys, "argv", [str(REPORT), *map(str, words)])
        return Came(script.exit_status(script.main), *capsys.readouterr())

    return run


def test_fit_and_report_on_records_in_files(tmp_path: Path, judge_report: Callable[..., Came]) -> None:
    for needed in ("pyarrow", "sklearn", "matplotlib"):
        pytest.importorskip(needed)
    train, held = packed(tmp_path / "iid", made_up(24)), packed(tmp_path / "fresh", made_up(34, seed=2)[24:])
    trees = packed(tmp_path / "auto", made_up(24)[:6], strategy="auto")
    file, page = tmp_path / "calibration.json", tmp_path / "judge.md"
    came = judge_report("fit", "--train", train, "--calibration", file)
    assert (came.returncode, came.stderr) == (0, "")
    assert json.loads(came.stdout)["models"][0]["records"] == ["iid"]
    page.write_text("#\n<!-- tables: made by benchmarks/judge_report.py report -->\n<!-- end of tables -->\nend\n")
    paths = ("--calibration", file, "--page", page, "--pictures", tmp_path / "pictures")
    came = judge_report("report", "--train", train, trees, "--held-out", held, *paths)
    assert (came.returncode, came.stderr) == (0, "")
    figures = json.loads(came.stdout.splitlines()[-1])
    tasks = {name: one["tasks"] for name, one in figures["selection"].items()}
    assert tasks == {"made, samples": 10, "made (training), samples": 24, "made (training), trees": 6}
    assert figures["calibration"]["held out, all"]["number"] == 50
    text = page.read_text("utf-8")
    assert [line[4:] for line in text.splitlines() if line.startswith("### ")] == [
        "Coverage", "Selection", "Ablation", "Calibration", "Models",
    ]  # fmt: skip
    assert text.endswith("<!-- end of tables -->\nend\n")
    assert sorted(one.name for one in (tmp_path / "pictures").iterdir()) == ["coverage.svg", "reliability.svg"]
    came = judge_report("report", "--held-out", train, *paths)
    assert (came.returncode, "fitted on 24 of the tasks that are to be held out" in came.stderr) == (2, True)
    came = judge_report("report", "--held-out", shutil.copytree(train, tmp_path / "other"), *paths)
    assert came.returncode == 2, "another name makes them no other tasks"
    came = judge_report("report", "--train", held, "--held-out", held, *paths)
    assert (came.returncode, "--train has 10 of the tasks" in came.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("fit",), "--train names"),
        (("report",), "names folders"),
        (("report", "--records", "nowhere"), "holds no records"),
    ],
)
def test_what_is_missing_is_told_in_a_line(
    words: tuple[str, ...], says: str, judge_report: Callable[..., Came]
) -> None:
    came = judge_report(*words)
    assert (came.returncode, came.stdout) == (2, "")
    assert says in came.stderr
    assert len(came.stderr.splitlines()) == 1
