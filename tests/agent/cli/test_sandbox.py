"""`ponder sandbox run`: outcome, output, bill and exit code of one program; bad input is one line and exit code 2."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ponder.cli.app import run
from ponder.cli.sandbox import describe, printable
from ponder.records import ExecResult, Layers, Usage

USAGE = {
    "tool", "cost", "cpu_user_s", "cpu_system_s", "wall_s", "peak_rss_bytes", "tokens_in", "tokens_out",
    "tokens_cached", "bytes", "method", "shared",
}  # fmt: skip
COMMAND = [sys.executable, "-c", "from ponder.cli import main; main()", "sandbox"]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text("print(6 * 7)\n")
    return path


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """Run a command line that is wrong; return the one line that it says."""
    assert run(["sandbox", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ponder: ")
    assert err.count("\n") == 1, err
    return err


# --- bad input: nothing is run ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [(f"--{name}", value) for name in ("cpu", "wall", "memory", "pids", "output", "disk") for value in ("0", "-1")]
    + [("--cpu", "nan"), ("--wall", "nan"), ("--cpu", "inf"), ("--wall", "1e300"), ("--memory", "8"),
       ("--memory", "99999999999999999999"), ("--pids", "1.5"), ("--output", "many")],
)  # fmt: skip
def test_limits_that_are_none(capsys: pytest.CaptureFixture[str], program: Path, option: str, value: str) -> None:
    assert option in refused(capsys, ["run", str(program), f"{option}={value}"])


def test_programs_that_are_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "nowhere.py: No such file" in refused(capsys, ["run", "nowhere.py"])
    assert "Is a directory" in refused(capsys, ["run", str(tmp_path)])
    for content, why in ((b"\x7fELF\x02\xff\xfe", "UTF-8"), (b"print(1)\0", "binary"), (b" \n", "empty")):
        (tmp_path / "p").write_bytes(content)
        assert why in refused(capsys, ["run", str(tmp_path / "p")])
    assert "larger than 4 MB" in refused(capsys, ["run", "/dev/zero"])


def test_a_file_that_others_may_not_read(capsys: pytest.CaptureFixture[str], program: Path) -> None:
    if os.geteuid() == 0:
        program.unlink()
        program.symlink_to("program.py")  # root reads all; nobody reads a link to itself
    else:
        program.chmod(0)
    assert str(program) in refused(capsys, ["run", str(program)])


def test_empty_standard_input() -> None:
    done = subprocess.run(
        [*COMMAND, "run", "-"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "ponder: standard input is empty: there is no program to run\n"


def test_files_that_cannot_be_given(capsys: pytest.CaptureFixture[str], program: Path, tmp_path: Path) -> None:
    assert "nowhere" in refused(capsys, ["run", str(program), "--file", "nowhere"])
    assert "nowhere" in refused(capsys, ["run", str(program), "--stdin", "nowhere"])
    assert "Is a directory" in refused(capsys, ["run", str(program), "--file", str(tmp_path)])
    assert "two files" in refused(capsys, ["run", str(program), "--file", str(program), "--file", str(program)])
    assert "both" in refused(capsys, ["run", "-", "--stdin", "-"])
    large = tmp_path / "large"
    large.write_bytes(b"x" * 600_000)
    assert "--disk" in refused(capsys, ["run", str(program), "--file", str(large), "--disk", "1"])


def test_unknown_names(capsys: pytest.CaptureFixture[str], program: Path) -> None:
    assert "bubblewrap" in refused(capsys, ["run", str(program), "--backend", "cardboard"])
    assert "no packages" in refused(capsys, ["image", "numpy", "--no-packages"])
    for arguments in (["run"], ["nonsense"], ["run", str(program), "--no-such-flag"]):
        refused(capsys, arguments)


def test_refusal_without_a_sandbox(
    capsys: pytest.CaptureFixture[str], program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PONDER_SANDBOX", "none")
    assert run(["sandbox", "run", str(program), "--json"]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert "unset PONDER_SANDBOX" in err


# --- what is printed ----------------------------------------------------------------------------------------------


def test_json_holds_the_bill_and_no_contents() -> None:
    usage = Usage(cpu_user_s=0.25, cpu_system_s=0.25, method="cgroup")
    told = describe(
        ExecResult(
            outcome="ok", exit_code=0, stdout="", stderr="", truncated=False, usage=usage, backend="b",
            layers=Layers(active=("a",), missing={"m": "why"}), files={"new": b"abc", "gone": None},
        )
    )  # fmt: skip
    assert told["files"] == {"new": 3, "gone": None}
    assert told["usage"].keys() == USAGE
    assert (told["usage"]["tool"], told["usage"]["cost"]) == ("python", 0.5)
    assert json.loads(json.dumps(told))["layers"] == {"active": ["a"], "missing": {"m": "why"}}


def test_a_terminal_gets_no_commands_of_the_program() -> None:
    text = "a\tb\n\x1b]0;owned\x07\r\x9b2J\u00e9"
    assert printable(text, "utf-8", terminal=True) == "a\tb\n\\x1b]0;owned\\x07\\r\\x9b2J\u00e9"
    assert printable(text, "utf-8", terminal=False) == text
    assert printable("\u00e9\u4e00", "ascii", terminal=False) == "\\xe9\\u4e00"


# --- real programs ------------------------------------------------------------------------------------------------


def told(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int) -> dict[str, Any]:
    assert run(["sandbox", "run", *arguments, "--json"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.real
def test_a_program_that_ends_well(capsys: pytest.CaptureFixture[str], program: Path) -> None:
    found = told(capsys, [str(program)], 0)
    assert found.keys() >= {"outcome", "exit_code", "stdout", "stderr", "truncated", "backend", "layers", "usage",
                            "files"}  # fmt: skip
    assert (found["outcome"], found["exit_code"], found["stdout"], found["files"]) == ("ok", 0, "42\n", {})
    assert found["layers"].keys() == {"active", "missing"}
    assert found["usage"].keys() == USAGE
    assert 0 < found["usage"]["cost"] < 5


@pytest.mark.real
@pytest.mark.parametrize(
    ("code", "options", "outcome", "exit_code"),
    [
        ("1 / 0", [], "error", 1),
        ("import sys; sys.exit(7)", [], "error", 1),
        ("import os; os.kill(os.getpid(), 6)", [], "error", 1),
        ("while True: pass", ["--cpu", "0.3"], "cpu", 3),
        ("import time; time.sleep(60)", ["--wall", "0.5"], "wall", 3),
        ("x = b'x' * 10**9", ["--memory", "64"], "memory", 3),
        ("while True: print('x' * 100)", ["--output", "1000"], "output", 3),
    ],
)
def test_how_programs_end(
    capsys: pytest.CaptureFixture[str], program: Path, code: str, options: list[str], outcome: str, exit_code: int
) -> None:
    program.write_text(code)
    found = told(capsys, [str(program), *options], exit_code)
    assert found["outcome"] == outcome
    assert found["truncated"] is (outcome == "output")


@pytest.mark.real
def test_files_and_standard_input_go_in_and_sizes_come_out(
    capsys: pytest.CaptureFixture[str], program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.csv").write_text("1,2\n")
    monkeypatch.chdir(tmp_path)
    program.write_text(
        "import os, sys\nprint(sys.stdin.read().upper(), open('data/x.csv').read(), open('y.csv').read())\n"
        "os.remove('y.csv')\nopen('out.txt', 'w').write('12345')"
    )
    (tmp_path / "y.csv").write_text("3")
    arguments = [str(program), "--stdin", "y.csv", "--file", "data/x.csv", "--file", str(tmp_path / "y.csv")]
    found = told(capsys, arguments, 0)
    assert found["stdout"] == "3 1,2\n 3\n"
    assert found["files"] == {"out.txt": 5, "y.csv": None}


@pytest.mark.real
def test_plain_output_keeps_the_streams_apart(capsys: pytest.CaptureFixture[str], program: Path) -> None:
    program.write_text("import sys\nprint('out')\nprint('err', file=sys.stderr)\nopen('f', 'w').write('abc')")
    assert run(["sandbox", "run", str(program)]) == 0
    out, err = capsys.readouterr()
    assert out == "out\n"
    assert err.startswith("err\nponder: ok  exit status 0  ")
    assert "CPU s" in err
    assert "files: f (3 bytes)" in err


@pytest.mark.real
@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_kills_the_program_and_keeps_its_output(program: Path, as_json: bool) -> None:
    mark = f"m{os.getpid()}-{int(as_json)}"[-15:]
    program.write_text(
        f"import time\nprint('so far', flush=True)\nopen('/proc/self/comm', 'w').write('{mark}')\ntime.sleep(60)"
    )
    command = [*COMMAND, "run", str(program), "--wall", "60", *(["--json"] if as_json else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        deadline = time.monotonic() + 60
        while not named(mark) and time.monotonic() < deadline:
            time.sleep(0.02)
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=60)
    assert started.returncode == 130
    assert (json.loads(out)["stdout"] if as_json else out) == "so far\n"
    assert "Traceback" not in err
    assert not named(mark)


def named(mark: str) -> bool:
    """Return whether a process of this name runs on the machine."""
    for file in Path("/proc").glob("[0-9]*/comm"):
        try:
            if file.read_text().strip() == mark:
                return True
        except OSError:
            continue
    return False


@pytest.mark.real
def test_it_starts_without_what_it_does_not_need(program: Path) -> None:
    heavy = ("langgraph", "sqlalchemy", "transformers", "playwright", "httpx", "pandas")
    code = (
        "import sys; from ponder.cli.app import run; code = run(sys.argv[1:]); "
        f"print(code, *({set(heavy)!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "sandbox", "run", str(program)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "42\n0\n"
