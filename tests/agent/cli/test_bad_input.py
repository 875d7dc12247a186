"""Bad input is one clear line on standard error and exit code 2 or 5; never a traceback, nothing on standard output."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from ponder.cli.app import run


def complaint(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int) -> str:
    assert run(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ponder: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PONDER_HOME", str(tmp_path / "home"))


def test_unknown_core(capsys: pytest.CaptureFixture[str]) -> None:
    assert "qwen2.5-coder-0.5b" in complaint(capsys, ["ask", "q", "--core", "gpt-17"], 2)


def test_missing_tests_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.py" in complaint(capsys, ["ask", "q", "--tests", "nowhere.py"], 2)


@pytest.mark.parametrize("content", ["", "def (:", "\x00"])
def test_tests_file_that_is_no_python(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str) -> None:
    file = tmp_path / "t.py"
    file.write_text(content)
    assert "t.py" in complaint(capsys, ["ask", "q", "--tests", str(file)], 2)


@pytest.mark.parametrize(
    "url", ["nonsense", "file:///etc/passwd", "http://127.0.0.1:9/", "http://2130706433/", "javascript:alert(1)"]
)
def test_bad_url(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert url in complaint(capsys, ["ask", "q", "--url", url], 2)


@pytest.mark.parametrize(
    ("risk", "told"),
    [("0%", "between 0 and 1"), ("nan", "between 0 and 1"), ("a fifth", "write 0.05 or 5%"), ("%", "write 0.05 or 5%")],
)
def test_bad_risk(capsys: pytest.CaptureFixture[str], risk: str, told: str) -> None:
    assert told in complaint(capsys, ["ask", "q", "--risk", risk], 2)


def test_bad_host(capsys: pytest.CaptureFixture[str]) -> None:
    assert "a b" in complaint(capsys, ["ask", "q", "--allow-host", "a b"], 2)


@pytest.mark.parametrize(
    "option", [["--budget-cpu", "0"], ["--budget-wall", "-1"], ["--budget-tokens", "0"], ["--budget-cpu", "nan"]]
)
def test_a_budget_that_allows_nothing(capsys: pytest.CaptureFixture[str], option: list[str]) -> None:
    assert "greater than" in complaint(capsys, ["ask", "q", *option], 2)


@pytest.mark.parametrize(
    ("price", "told"), [("python=-1", "python=10"), ("python", "python=10"), ("hammer=2", "unknown tool in a price")]
)
def test_a_price_that_is_none(capsys: pytest.CaptureFixture[str], price: str, told: str) -> None:
    assert told in complaint(capsys, ["ask", "q", "--price", price], 2)


@pytest.mark.parametrize("question", ["", " "])
def test_an_empty_question(capsys: pytest.CaptureFixture[str], question: str) -> None:
    assert "empty" in complaint(capsys, ["ask", question], 2)


def test_a_question_that_is_no_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"what \xff"), encoding="utf-8"))
    assert "standard input" in complaint(capsys, ["ask", "-"], 2)


def test_a_page_and_no_browser(capsys: pytest.CaptureFixture[str]) -> None:
    assert "browser" in complaint(capsys, ["ask", "q", "--url", "https://x.org", "--tools", "python"], 2)


def test_an_answer_in_letters_that_the_terminal_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert run(["--version"]) == 0
    print("Åse", flush=True)
    assert raw.getvalue().endswith(b"\\xc5se\n")


def test_a_file_that_is_no_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "own.gguf"
    file.write_bytes(b"rubbish")
    assert "own.gguf" in complaint(capsys, ["ask", "q", "--core", str(file)], 5)


def test_no_sandbox_means_refusal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PONDER_SANDBOX", "none")
    assert "sandbox" in complaint(capsys, ["ask", "q", "--quiet"], 5)


@pytest.mark.parametrize(
    "arguments",
    [["ask"], ["ask", "q", "--no-such-flag"], ["ask", "q", "--strategy", "luck"], ["ask", "q", "--tools", "hammer"],
     ["ask", "q", "-n", "0"], ["nonsense"], ["runs", "show", "nowhere"], ["models", "pull", "nowhere"]],
)  # fmt: skip
def test_bad_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    complaint(capsys, arguments, 2)


def test_a_store_that_is_broken(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "runs.sqlite").write_bytes(b"no database" * 100)
    assert "PONDER_HOME" in complaint(capsys, ["runs", "list"], 5)
