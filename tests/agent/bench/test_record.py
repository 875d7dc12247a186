"""`benchmarks/record.py`: a record that is stopped at any place goes on with the same command and loses nothing."""

from __future__ import annotations

import importlib.util
import inspect
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ponder.bench.records.recording import read_table
from ponder.bench.results import read_results
from ponder.core.scripted import ScriptedCore
from ponder.errors import CoreError
from ponder.records import Prompt

WriteRows = Callable[..., Path]
Done = Callable[..., dict[str, Any]]
SCRIPT = Path(__file__).parents[3] / "benchmarks/record.py"


def say(prompt: Prompt, _: Any) -> str:
    if prompt.messages[0].content.startswith("Say what the task asks for"):
        return "text"
    words = prompt.messages[-1].content
    return f" {words.split('What is ')[1].split()[0]}\n" if "What is " in words else " Water, and then more of it.\n"


DRIVER = f"""
import runpy, sys
from ponder.core.scripted import ScriptedCore

{inspect.getsource(say).replace("prompt: Prompt, _: Any", "prompt, _")}
delay_s, *sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0])["main"](ScriptedCore(say, delay_s=float(delay_s)))
"""
"""The script as it is, on the scripted core, in a process of its own: to be stopped."""


@pytest.fixture(scope="module")
def record() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def data(write_rows: WriteRows, tmp_path: Path) -> Path:
    questions = [{"question": f"What is {i} + 0?", "answer": f"#### {i}"} for i in range(1520)]
    write_rows(questions, "gsm8k_train_2000.jsonl")
    tests = ["assert f(1) == 1", "assert f(2) == 2"]
    for name, first in (("mbpp_train.jsonl", 601), ("mbpp_validation.jsonl", 511)):
        write_rows([{"task_id": first + i, "text": "Write f.", "test_list": tests} for i in range(3)], name)
    return tmp_path


def script(data: Path, what: str, *words: str, suite: str = "gsm8k") -> list[str]:
    return [str(SCRIPT), what, "--data", str(data), "--tools", "", "--work", str(data / "work"),
            "--records", str(data / "records"), "--suites", suite, *words]  # fmt: skip


def command(data: Path, what: str, *words: str, delay_s: float) -> list[str]:
    return [sys.executable, "-c", DRIVER, str(delay_s), *script(data, what, *words)]


@pytest.fixture
def done(
    record: ModuleType, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Done]:
    """Run the script to its end in this process."""
    before = signal.getsignal(signal.SIGTERM)

    def run(what: str, *words: str, suite: str = "gsm8k", core: ScriptedCore | None = None) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", script(data, what, *words, suite=suite))
        record.main(core or ScriptedCore(say))
        told: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return told

    yield run
    signal.signal(signal.SIGTERM, before)


def broken(*_: Any) -> str:
    raise CoreError("it broke")


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def stopped(command: list[str], file: Path, rows: int, how: signal.Signals) -> subprocess.CompletedProcess[str]:
    """Run until the file has so many rows more than before, and a bit: in the middle of a task; then stop it."""
    wanted = max(1, lines(file)) + rows
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        deadline = time.monotonic() + 60
        while lines(file) < wanted and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.005)
        time.sleep(0.1)  # a task takes 16 samples of 20 ms
        child.send_signal(how)
        out, err = child.communicate(timeout=60)
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def test_a_record_that_is_killed_again_and_again_goes_on_and_loses_nothing(data: Path, done: Done) -> None:
    pytest.importorskip("pyarrow")
    file = data / "work/iid-scripted/gsm8k.jsonl"
    slow = command(data, "run", "--tasks", "6", delay_s=0.02)
    assert stopped(slow, file, 0, signal.SIGKILL).returncode == -signal.SIGKILL  # while it starts, or in its first task
    assert stopped(slow, file, 1, signal.SIGKILL).returncode == -signal.SIGKILL
    before = read_results(file).rows
    assert 1 <= len(before) < 6
    with file.open("ab") as whole:  # as if it had been killed while it wrote
        whole.write(b'{"task": "gsm8k/')
    told = done("run", "--tasks", "6")
    assert (told["done"], told["of"], told["stopped"]) == ({"gsm8k": 6}, 6, "all done")
    rows = read_results(file).rows
    assert before.items() <= rows.items()
    assert lines(file) == 7, "no task was done twice"
    packed = done("pack")
    assert packed["tasks"] == 6
    tables = data / "records/iid-scripted"
    assert Counter(row["task"] for row in read_table(tables, "nodes")) == dict.fromkeys(rows, 16)
    assert all(row["right"] for row in read_table(tables, "tasks"))
    shown = done("show")
    assert (shown["gsm8k"]["tasks"], shown["gsm8k"]["nodes"], shown["gsm8k"]["right"]) == (6, 96, 1.0)
    shutil.rmtree(data / "work")  # another machine has the tables only
    told = done("run", "--tasks", "8")
    assert (told["done"], told["of"]) == ({"gsm8k": 8}, 8)
    assert lines(file) == 3, "what stands in the tables was not done again"
    assert done("pack")["tasks"] == 8


def test_sigterm_ends_a_record_cleanly(data: Path) -> None:
    file = data / "work/auto-scripted/gsm8k.jsonl"
    words = ("--kind", "auto", "--tasks", "30")
    came = stopped(command(data, "run", *words, delay_s=0.02), file, 1, signal.SIGTERM)
    assert came.returncode == 0, came.stderr
    assert "Traceback" not in came.stderr
    told = json.loads(came.stdout.splitlines()[-1])
    assert told["stopped"] == "interrupted"
    assert told["done"]["gsm8k"] == lines(file) - 1 >= 1
    line = came.stderr.splitlines()[-1]
    assert f"{told['done']['gsm8k']} of 30 tasks" in line
    assert "CPU-s a task" in line
    assert "min of this shard and" in line


def test_ctrl_c_ends_searches_side_by_side_and_the_next_run_repeats_nothing(data: Path, done: Done) -> None:
    file = data / "work/iid-scripted/gsm8k.jsonl"
    words = ("--tasks", "12", "--jobs", "3")
    came = stopped(command(data, "run", *words, delay_s=0.02), file, 2, signal.SIGINT)
    assert came.returncode == 0, came.stderr
    assert "Traceback" not in came.stderr
    told = json.loads(came.stdout.splitlines()[-1])
    assert told["stopped"] == "interrupted"
    assert told["done"]["gsm8k"] == lines(file) - 1 < 12
    assert done("run", *words)["done"] == {"gsm8k": 12}
    assert lines(file) == 13, "no task was done twice"
    found = read_results(file)
    assert found.manifest["run"]["agents"] == 3
    assert all(row.right for row in found.rows.values())
    assert done("pack")["tasks"] == 12


def test_a_core_that_breaks_ends_all_searches(done: Done, data: Path) -> None:
    with pytest.raises(SystemExit, match=r"^record: .*it broke"):
        done("run", "--tasks", "20", "--jobs", "3", core=ScriptedCore(broken))
    rows = lines(data / "work/iid-scripted/gsm8k.jsonl") - 1
    assert 3 <= rows <= 5, "three in a row, whoever searched, and what the others had begun"


def test_a_shard_ends_with_its_time(done: Done) -> None:
    assert done("run", "--minutes", "0")["stopped"] == "time"


def test_open_ended_tasks_come_last_in_the_turn(record: ModuleType, data: Path) -> None:
    options = record.parser().parse_args(["run", "--data", str(data), "--suites", "open_ended", "mbpp", "gsm8k"])
    with ExitStack() as stack:
        opened = record.suites(options, stack)
        assert [suite.name for suite in opened] == ["mbpp", "gsm8k", "open_ended"]
        names = [problem.id.split("/")[0] for _, problem in record.turns(opened, 5)]
    assert names == ["mbpp", "gsm8k", "open"] * 3 + ["gsm8k", "open"] * 2


@pytest.mark.parametrize(("what", "told"), [("pack", "nothing was recorded in"), ("show", "holds no records")])
def test_where_nothing_was_recorded(what: str, told: str, done: Done, data: Path) -> None:
    with pytest.raises(SystemExit, match=rf"^record: .*{told}"):
        done(what)
    assert not (data / "records").exists()


def test_no_task_is_in_both_splits(record: ModuleType, data: Path) -> None:
    found = {}
    for split in record.SPLITS:
        words = ["run", "--data", str(data), "--split", split, "--suites", "mbpp", "gsm8k"]
        options = record.parser().parse_args(words)
        with ExitStack() as stack:
            found[split] = {one.id for suite in record.suites(options, stack) for one in suite.problems(suite.size)}
        assert record.work_folder(options).name.startswith("held-out-iid-" if split == "held-out" else "iid-")
    assert not found["train"] & found["held-out"]
    assert {name for name in found["held-out"] if "gsm8k" in name} == {f"gsm8k/{i}" for i in range(1500, 1520)}
    words = ["--split", "held-out", "--suites", "gsm8k", "--file", f"gsm8k={data / 'gsm8k_train_2000.jsonl'}"]
    options = record.parser().parse_args(["run", "--data", str(data), *words])
    with ExitStack() as stack:
        assert record.suites(options, stack)[0].size == 1520


def test_open_ended_tasks_go_on_though_their_pages_have_another_port(data: Path, done: Done) -> None:
    assert done("run", "--tasks", "1", suite="open_ended")["done"] == {"open_ended": 1}
    assert done("run", "--tasks", "2", suite="open_ended")["done"] == {"open_ended": 2}
    assert lines(data / "work/iid-scripted/open_ended.jsonl") == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--suites", "humaneval"], "train has mbpp"),
        (["--data", "nowhere", "--suites", "gsm8k"], "cannot read"),
        (["--file", "luck=x"], "SUITE=FILE"),
        (["--kind", "live"], "needs a stop policy that was trained for scripted"),
    ],
)
def test_bad_input_is_a_clear_line(done: Done, words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        done("run", *words)
    said = capsys.readouterr().err if ended.value.code == 2 else str(ended.value.code)
    assert told in said.splitlines()[-1]


def test_searches_that_could_not_be_packed_with_the_others_are_not_begun(done: Done, data: Path) -> None:
    pytest.importorskip("pyarrow")
    done("run", "--tasks", "1")
    done("pack", "--tasks", "1")
    assert done("run", "--tasks", "2", "--work", str(data / "elsewhere"))["done"] == {"gsm8k": 2}
    with pytest.raises(SystemExit, match="was recorded with budget"):
        done("run", "--tasks", "2", "--cpu", "5", "--work", str(data / "another"))
    assert not list((data / "another").rglob("*.jsonl"))
