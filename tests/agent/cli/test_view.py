"""What a person sees while the search runs, and afterwards."""

from __future__ import annotations

import io
import json
import sys

import pytest
from rich.console import Console

from ponder.cli.output import exit_code, finish, print_json, print_result
from ponder.cli.view import LiveView, PlainLines
from ponder.records import Bill, Result, StopReason, ToolBill
from ponder.tree import Event, Tree

BILL = Bill(total=ToolBill(calls=3, cpu_user_s=2.5), by_tool={"core": ToolBill(calls=3, cpu_user_s=2.5)})
EVENTS = [
    Event(kind="started", data={"task": {"prompt": "q"}}),
    Event(kind="asked", node=1, data={"id": 1, "parent": 0, "branch": 1, "depth": 1}),
    Event(kind="thought", node=1, data={"text": "```", "action": {"type": "run_code", "code": "print(7)"}}),
    Event(kind="observed", node=1, data={"tool": "python", "ok": True, "text": "ANSWER: 7", "answer": "7"}),
    Event(kind="judged", node=1, data={"score": 0.7}),
    Event(kind="asked", node=2, data={"id": 2, "parent": 0, "branch": 2, "depth": 1}),
    Event(kind="decided", data={"decision": {"stop": False, "reason": None, "why": "votes 2 to 0"}}),
]


class FixedBill:
    def bill(self) -> Bill:
        return BILL


def test_live_view_shows_branches_votes_and_cost() -> None:
    view = LiveView(FixedBill())
    for event in EVENTS:
        view.hear(event)
    out = io.StringIO()
    Console(file=out, width=100).print(view.draw())
    text = out.getvalue()
    for part in ("run code", "-> 7", "thinking", "7: 1", "votes 2 to 0", "CPU 2.5 s", "core 2.5"):
        assert part in text


def test_a_resumed_run_is_shown_with_what_it_had() -> None:
    view = LiveView(FixedBill(), Tree.from_events(EVENTS[:5]))
    for event in EVENTS[5:]:
        view.hear(event)
    out = io.StringIO()
    Console(file=out, width=100).print(view.draw())
    for part in ("-> 7", "thinking", "7: 1"):
        assert part in out.getvalue()


def test_live_view_before_the_first_step() -> None:
    out = io.StringIO()
    Console(file=out).print(LiveView(FixedBill()).draw())
    assert "starting the core" in out.getvalue()


def test_plain_lines_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    lines = PlainLines()
    for event in EVENTS:
        lines.hear(event)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["ponder: step 1: run code: -> 7", "ponder: go on: votes 2 to 0"]


def result(reason: StopReason, answer: str | None) -> Result:
    return Result(answer=answer, confidence=0.5, stop_reason=reason, run_id="r", nodes=1, ledger=BILL)


@pytest.mark.parametrize(
    ("reason", "answer", "code"),
    [("confident", "7", 0), ("not_worth_it", "7", 0), ("exhausted", "7", 0), ("exhausted", None, 4),
     ("budget", "7", 3), ("budget", None, 3), ("hopeless", None, 4), ("error", None, 5), ("interrupted", "7", 130)],
)  # fmt: skip
def test_exit_codes(reason: StopReason, answer: str | None, code: int) -> None:
    assert exit_code(result(reason, answer)) == code


def test_the_answer_comes_before_the_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    both = io.StringIO()
    monkeypatch.setattr(sys, "stdout", both)
    monkeypatch.setattr(sys, "stderr", both)
    warned = result("confident", "7").model_copy(update={"warnings": ("mind the gap",)})
    assert finish(warned, as_json=False) == 0
    assert both.getvalue().splitlines()[:2] == ["7", "ponder: mind the gap"]
    both.truncate(both.seek(0))
    assert finish(warned, as_json=True) == 0
    first, second = both.getvalue().splitlines()
    assert json.loads(first)["answer"] == "7"
    assert second == "ponder: mind the gap"


class Gone(io.StringIO):
    """A stream that nobody reads any more."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError


def test_that_nobody_reads_standard_error_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", Gone())
    lines = PlainLines()
    for event in EVENTS:
        lines.hear(event)
    warned = result("confident", "7").model_copy(update={"warnings": ("mind the gap",)})
    assert finish(warned, as_json=False) == 0
    assert capsys.readouterr().out == "7\n"


@pytest.mark.parametrize("text", ["Åse", "lone \udcff"])
def test_json_holds_any_letter_on_any_stream(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for encoding in ("ascii", "utf-8"):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        print_json({"answer": text})
        assert json.loads(raw.getvalue()) == {"answer": text}


def test_the_answer_alone_is_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(result("confident", "7"))
    out, err = capsys.readouterr()
    assert out == "7\n"
    assert "confident" in err
    assert "overhead" not in err
