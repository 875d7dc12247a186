"""`benchmarks/peers.py`: what other frameworks run goes into the sandbox, and ponder is held to the CPU they spend."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from ponder.bench.records.offline import Cost, Search
from ponder.bench.results import ResultRow
from ponder.errors import UsageError
from ponder.judges.candidates import Candidate

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def row(task: str, *, right: bool, cpu_s: float) -> ResultRow:
    return ResultRow(
        task=task, right=right, score=float(right), graded="right" if right else "wrong", answer="x", confidence=0.0,
        stop_reason="exhausted", nodes=1, run_id=None, visible=0, cpu_s=cpu_s, wall_s=1.0, cpu_by_tool={}, tokens_in=0,
        tokens_out=0, tokens_cached=0, warnings=(), load_cpu_s=None,
    )  # fmt: skip


def search(task: str) -> Search:
    """Return a search whose first answer is wrong and whose second and third are right, for 10 CPU seconds each."""
    found = [Candidate(node=place, answer=answer, key=answer) for place, answer in enumerate("baa", 1)]
    return Search(
        "s", task, independent=False, samples=tuple((one,) for one in found), tests=(), cost=Cost(total_s=30.0),
        right={one.node: one.answer == "a" for one in found}, spent={one.node: 10.0 * one.node for one in found},
    )  # fmt: skip


@pytest.mark.parametrize(("cpu_s", "ours", "spent"), [(10.0, 0.0, 10.0), (50.0, 1.0, 30.0)])
def test_ponder_has_the_cpu_that_the_peer_spent(script: Any, cpu_s: float, ours: float, spent: float) -> None:
    own = {task: search(task) for task in ("s/1", "s/2")}
    rows = [row("s/1", right=True, cpu_s=cpu_s), row("s/2", right=False, cpu_s=cpu_s)]
    rows.append(row("s/3", right=True, cpu_s=9.0))
    found = script("peers").compared(rows, own)
    assert (found["tasks"], found["right"].value, found["cpu_s"]) == (2, 0.5, cpu_s)
    assert (found["ponder"].value, pytest.approx(found["ponder_cpu_s"])) == (ours, spent)
    assert found["ahead"].value == ours - 0.5


def test_all_take_turns(script: Any) -> None:
    streams = {"a": iter([row("s/1", right=True, cpu_s=1.0)] * 2), "b": iter([row("s/2", right=True, cpu_s=1.0)])}
    assert [who for who, _ in script("peers").in_turn(streams)] == ["a", "b", "a"]


def test_a_framework_pays_for_its_own_process_and_not_for_ours(script: Any) -> None:
    cost = script("peers").cost_of
    bill = {"core": 5.0, "framework": 2.0, "overhead": 1.0}
    assert cost(row("s/1", right=True, cpu_s=8.0).model_copy(update={"cpu_by_tool": bill})) == 7.0
    assert cost(row("s/1", right=True, cpu_s=8.0).model_copy(update={"cpu_by_tool": {"overhead": 1.0}})) == 8.0


def test_what_is_packed_grows_and_is_of_one_setting(script: Any, tmp_path: Path) -> None:
    records = script("peer_records")
    assert records.parts_of(tmp_path / "none") == {}

    def part(*rows: ResultRow, samples: int = 8) -> Any:
        return records.Part(who="p", suite="s", settings={"samples": samples}, rows=rows)

    broke = row("s/3", right=False, cpu_s=1.0).model_copy(update={"stop_reason": "error"})
    assert records.add(tmp_path, [part(row("s/1", right=False, cpu_s=3.0), broke)]) == {"p": 1}
    again = [row("s/1", right=True, cpu_s=5.0), row("s/2", right=True, cpu_s=4.0)]
    assert records.add(tmp_path, [part(*again)]) == {"p": 2}
    found = records.parts_of(tmp_path)["p", "s"]
    assert [(one.task, one.right, one.answer) for one in found.rows] == [("s/1", True, None), ("s/2", True, None)]
    with pytest.raises(UsageError, match="other settings"):
        records.add(tmp_path, [part(samples=4)])
    (tmp_path / "results.jsonl").write_text("{}")
    with pytest.raises(UsageError, match="cannot be read"):
        records.parts_of(tmp_path)


@pytest.mark.parametrize(
    ("source", "program"),
    [
        ("def f(x):\n    return x\n\n# the answer: f\nfinal_answer(f(2))", "def f(x):\n    return x"),
        ("import math\nprint(1)\nPI = 3\ndef f():\n    return PI\nf()",
         "import math\nPI = 3\n\ndef f():\n    return PI"),
        ("42", None), ("", None), ("def f(:", None), ("The answer is f.", None), ("\x00", None),
    ],
)  # fmt: skip
def test_the_program_in_what_smolagents_ran(script: Any, source: str, program: str | None) -> None:
    assert script("peer_agents").program_in(source) == program


@pytest.mark.real
def test_snippets_keep_their_variables_in_the_sandbox(script: Any) -> None:
    agents = script("peer_agents")
    sandbox = agents.Sandboxed()
    try:
        snippets = agents.Snippets(sandbox.run)
        assert snippets.add("def f(x):\n    return x + 1\nprint('hi')\nf(1)") == ("hi\n", "2", False)
        with pytest.raises(RuntimeError, match="before\n\nCode execution failed at line 2 due to: ZeroDivisionError"):
            snippets.add("print('before')\n1 / 0")
        with pytest.raises(RuntimeError):
            snippets.add("y = 1\nexit()")
        assert snippets.add("final_answer(f(41))") == ("", "42", True), "who left the interpreter is not run again"
        assert agents.program_in(snippets.functions()) == "def f(x):\n    return x + 1"
        usage, programs = sandbox.take()
        assert (programs, usage.cpu_s > 0, sandbox.take()[1]) == (4, True, 0)
    finally:
        sandbox.close()
