"""`ponder policy`: trained, evaluated and shown by the command line a user has."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ponder.cli.app import run
from ponder.judges.calibration import UNCALIBRATED
from ponder.policies.learned import Weights
from ponder.policies.train import train
from tests.policies.searches import made

pytest.importorskip("pyarrow")

SAMPLE = Path(__file__).parents[1] / "bench" / "records" / "sample"
CORE = "qwen2.5-coder-1.5b"
RATES = {"core": CORE, "prompt_token_s": 0.03, "token_s": {"1": 0.2, "4": 0.1, "16": 0.06}}


@pytest.fixture(scope="module")
def weights() -> Weights:
    draw = random.Random(1)
    return train([made(task, draw) for task in range(150)], core=CORE, records=["elsewhere"])


@pytest.fixture
def files(weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("PONDER_HOME", str(tmp_path / "home"))
    # The sample is of tasks that the judge's own probability was fitted on: nothing is measured on these.
    monkeypatch.setattr("ponder.cli.policy._calibration", lambda _core: UNCALIBRATED)
    (tmp_path / "stop.json").write_text(weights.model_dump_json())
    (tmp_path / "rates.json").write_text(json.dumps({CORE: RATES}))
    return {"weights": str(tmp_path / "stop.json"), "rates": str(tmp_path / "rates.json")}


def last_object(text: str) -> dict[str, Any]:
    return dict(json.loads(text.strip().splitlines()[-1]))


def test_eval_ends_with_the_summary_and_the_frontier(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "frontier.svg"
    code = run(["policy", "eval", "--records", str(SAMPLE), "--weights", files["weights"], "--rates", files["rates"],
                "--value", "300", "--picture", str(picture), "--json"])  # fmt: skip
    assert code == 0
    found = last_object(capsys.readouterr().out)
    assert found["summary"].keys() == {
        "cpu_saved", "accuracy_difference_points", "accuracy_lower_bound_points", "cpu_saved_vs_adaptive_consistency",
        "cpu_saved_vs_esc", "guarantee_held",
    }  # fmt: skip
    assert (found["strategy"], found["tasks"], found["records"]) == ("self-consistency", 8, ["sample"])
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in found["frontier"]:
        by_name.setdefault(row["policy"], []).append(row)
    assert by_name["full-depth"][0]["saved"]["value"] == 0
    costs = [row["cost"]["value"] for row in by_name["learned"]]
    assert costs == sorted(costs), "what is worth more is searched for longer"
    assert [row["value"] for row in by_name["learned"]].count(300.0) == 1, "the value that was asked for, too"
    assert picture.read_text().startswith("<?xml")


def test_what_was_found_is_told_where_it_cannot_be_drawn(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["policy", "eval", "--records", str(SAMPLE), "--weights", files["weights"], "--rates", files["rates"],
             "--json", "--picture"]  # fmt: skip
    assert run([*words, str(tmp_path / "stop.json/folder.svg")]) == 5
    told = capsys.readouterr()
    assert last_object(told.out)["tasks"] == 8
    assert "stop.json" in told.err.splitlines()[-1]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run([*words, str(tmp_path / "frontier.svg")]) == 5
    told = capsys.readouterr()
    assert last_object(told.out)["tasks"] == 8
    assert "pictures need matplotlib" in told.err
    assert "pip install 'ponder[bench]'" in told.err


def test_train_prints_one_object_and_leaves_out_searches_that_were_ended_early(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ponder.policies.train.FEWEST", 3)
    shutil.copytree(SAMPLE, tmp_path / "records" / "full")
    live = shutil.copytree(SAMPLE, tmp_path / "records" / "live")
    manifest = json.loads((live / "manifest.json").read_text())
    ended = {suite: about | {"value": 1000.0} for suite, about in manifest.items()}
    (live / "manifest.json").write_text(json.dumps(ended))
    records, out = str(tmp_path / "records"), str(tmp_path / "made.json")
    assert run(["policy", "train", "--records", records, "--rates", files["rates"], "--out", out, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["weights"], told["records"]) == (out, ["full"])
    assert run(["policy", "eval", "--records", records, "--rates", files["rates"], "--weights", out]) == 2
    assert "no records of qwen2.5-coder-1.5b that the policy was not trained on" in capsys.readouterr().err


def test_searches_that_a_policy_ended_are_left_out(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the default policy ends them: nobody named a value, a risk or a budget."""
    ended = shutil.copytree(SAMPLE, tmp_path / "records" / "ended")
    manifest = json.loads((ended / "manifest.json").read_text())
    for about in manifest.values():
        about["runs"] = [run | {"policy": "learned"} for run in about["runs"]]
    (ended / "manifest.json").write_text(json.dumps(manifest))
    assert run(["policy", "train", "--records", str(ended), "--rates", files["rates"]]) == 2
    assert f"no records of {CORE} to train on" in capsys.readouterr().err


def _without_version(folder: Path) -> None:
    import pyarrow.parquet as pq

    decisions = pq.read_table(folder / "decisions.parquet")
    pq.write_table(decisions.drop_columns(["feature_version"]), folder / "decisions.parquet")


def _with_nulls(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tasks = pq.read_table(folder / "tasks.parquet")
    none = pa.array([None] * len(tasks), pa.int64())
    pq.write_table(tasks.set_column(tasks.column_names.index("visible"), "visible", none), folder / "tasks.parquet")


def _without(name: str) -> Callable[[Path], None]:
    def take(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        for about in manifest.values():
            del about[name]
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return take


@pytest.mark.parametrize(
    ("broken", "wrong"),
    [
        (_without("core"), "there are no records of"),
        (_without("strategy"), "names no strategy"),
        (_without("samples"), "lacks 'samples'"),
        (lambda folder: (folder / "tasks.parquet").write_bytes(b"rubbish"), "holds no records that can be read"),
        (lambda folder: (folder / "decisions.parquet").write_bytes(b"rubbish"), "names no version of its features"),
        (_without_version, "names no version of its features"),
        (_with_nulls, "holds no records that can be read"),
    ],
)
@pytest.mark.parametrize("command", ["train", "eval"])
def test_broken_records_are_a_clear_line(
    command: str, broken: Callable[[Path], None], wrong: str, files: dict[str, str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shutil.copytree(SAMPLE, tmp_path / "broken")
    broken(folder)
    words = ["policy", command, "--records", str(folder), "--rates", files["rates"]]
    assert run([*words, *(["--weights", files["weights"]] if command == "eval" else [])]) == 2
    assert wrong in capsys.readouterr().err


@pytest.mark.parametrize("tokens", [{}, {"0": 0.1}, {"1": 0.0}])
def test_rates_that_say_nothing_are_a_clear_line(
    tokens: dict[str, float], files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rates.json").write_text(json.dumps({CORE: RATES | {"token_s": tokens}}))
    assert run(["policy", "train", "--records", str(SAMPLE), "--rates", files["rates"]]) == 2
    assert "holds no rates" in capsys.readouterr().err


def test_show_tells_what_is_certified(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "show", "--weights", files["weights"]]) == 0
    assert "risk 2.0% cannot be certified with this record" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["train", "--records", str(SAMPLE)], "8 recorded searches are too few to train on"),
        (["train", "--records", str(SAMPLE), "--core", "other"], "no records of other to train on"),
        (["eval", "--records", str(SAMPLE.parents[1])], "holds no records"),
        (["eval", "--records", str(SAMPLE), "--strategy", "mcts"], "there are no records of mcts"),
        (["eval", "--records", str(SAMPLE), "--rates", str(SAMPLE / "manifest.json")], "has no rates of"),
        (["eval", "--records", str(SAMPLE), "--value", "-1"], "worth a positive number"),
        (["eval", "--records", str(SAMPLE), "--python", "0", "--token", "0"], "cost nothing at these prices"),
        (["eval", "--weights", str(SAMPLE / "manifest.json")], "is no stop policy of this version"),
        (["show", "--weights", "nowhere.json"], "nowhere.json cannot be read"),
        (["show", "--core", "other"], "no stop policy was trained for other"),
        (["eval", "--core", "other"], "is a stop policy for qwen2.5-coder-1.5b, not for other"),
    ],
)
def test_bad_input_is_a_clear_line(
    arguments: list[str], wrong: str, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, path in files.items():
        if (
            f"--{name}" not in arguments
            and not (name == "weights" and arguments[0] != "eval")
            and (name != "rates" or arguments[0] != "show")
        ):
            arguments = [*arguments, f"--{name}", path]
    assert run(["policy", *arguments]) == 2
    assert wrong in capsys.readouterr().err
