"""A suite run on the scripted core: what is kept, what is skipped, what is refused, and how it ends."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ponder.bench.problems import Problem, Suite
from ponder.bench.report import remarks, tables, waiting
from ponder.bench.report import told as told_so_far
from ponder.bench.results import Results, ResultsFile, compare, read_results
from ponder.bench.rooms import GradingRooms
from ponder.bench.runner import Summary, run_suite
from ponder.bench.solvers import Solved, Solver, open_solver, read_plain, side_by_side
from ponder.bench.suites.registry import open_suite
from ponder.billing import Prices
from ponder.core.scripted import ScriptedCore
from ponder.errors import CoreError, UnknownName, UsageError
from ponder.policies.learned import Weights
from ponder.records import Budget, Prompt

from ..scripts import asks_how_to_begin

WriteRows = Callable[..., Path]


def says_its_number(prompt: Prompt, _: int) -> str:
    """Answer `What is 3 + 0?` with 3, but 4 with 7, and at once."""
    if asks_how_to_begin(prompt):
        return "text"
    number = prompt.messages[-1].content.split("What is ")[1].split()[0]
    return f" {'7' if number == '4' else number}\n"


@pytest.fixture
def rooms() -> Iterator[GradingRooms]:
    with GradingRooms() as made:
        yield made


def greedy(suite: Suite, out: Path, rooms: GradingRooms, *, limit: int | None = None, solver: Solver | None = None,
           core: ScriptedCore | None = None) -> Summary:  # fmt: skip
    solver = solver or open_solver(core or ScriptedCore(says_its_number), "greedy", 1)
    try:
        with ResultsFile(out, {"suite": suite.name, **suite.manifest, **solver.settings}) as file:
            return run_suite(suite, [solver], rooms, file, limit=limit)
    finally:
        solver.close()


def test_the_user_hears_of_tests_that_limits_stopped(gsm8k_file: Path, tmp_path: Path, rooms: GradingRooms) -> None:
    greedy(open_suite("gsm8k", data=gsm8k_file), tmp_path / "r.jsonl", rooms)
    rows = list(read_results(tmp_path / "r.jsonl").rows.values())
    assert remarks(rows) == []
    rows[1] = rows[1].model_copy(update={"graded": "wall"})
    rows[2] = rows[2].model_copy(update={"warnings": ("no page came",)})
    told = remarks(rows)
    assert told[0] == f"{rows[2].task}: no page came"
    assert rows[1].task in told[1]
    assert "(wall)" in told[1]
    assert len(told) == 2
    many = remarks([rows[1]] * 9, most=3)
    assert len(many) == 4
    assert many[-1].startswith("6 more")


def test_a_run_counts_what_is_right(gsm8k_file: Path, tmp_path: Path, rooms: GradingRooms) -> None:
    summary = greedy(open_suite("gsm8k", data=gsm8k_file), tmp_path / "r.jsonl", rooms)
    assert (summary.tasks, summary.right) == (5, 4)
    assert summary.accuracy.low < 0.8 < summary.accuracy.high
    told = summary.as_json()
    keys = {"suite", "core", "strategy", "tasks", "accuracy", "interval", "cpu_s_per_task", "manifest"}
    assert keys <= told.keys()
    assert (told["suite"], told["core"], told["strategy"], told["accuracy"]) == ("gsm8k", "scripted", "greedy", 0.8)
    assert told["manifest"]["data"] == "gsm8k.jsonl"
    assert told["manifest"]["run"]["core"] == "scripted"
    json.dumps(told)
    first, *rows = (tmp_path / "r.jsonl").read_text("utf-8").splitlines()
    assert json.loads(first)["manifest"] == told["manifest"]
    assert {json.loads(row)["task"] for row in rows} == {f"gsm8k/{i}" for i in range(5)}


def test_an_agent_searches_too(gsm8k_file: Path, tmp_path: Path, rooms: GradingRooms) -> None:
    solver = open_solver(ScriptedCore(says_its_number), "best-of-n", 3, home=tmp_path / "home", tools=())
    summary = greedy(open_suite("gsm8k", data=gsm8k_file), tmp_path / "r.jsonl", rooms, solver=solver, limit=3)
    assert summary.tasks == 3
    assert summary.manifest["run"]["strategy"] == "best-of-n"
    assert all(row.run_id and row.nodes > 1 for row in read_results(tmp_path / "r.jsonl").rows.values())


def test_what_is_done_is_not_done_again(gsm8k_file: Path, tmp_path: Path, rooms: GradingRooms) -> None:
    suite, out = open_suite("gsm8k", data=gsm8k_file), tmp_path / "r.jsonl"
    greedy(suite, out, rooms, limit=2)
    core = ScriptedCore(says_its_number)
    assert greedy(suite, out, rooms, core=core).tasks == 5
    assert len(core.prompts) == 3
    silent = ScriptedCore([])  # has no line to say: a task that it were asked would fail
    again = greedy(suite, out, rooms, core=silent)
    assert (again.tasks, again.right) == (5, 4)
    assert again.manifest["run"]["core"] == "scripted"
    assert greedy(suite, out, rooms, core=silent, limit=2).tasks == 2


def test_another_manifest_is_refused(gsm8k_file: Path, tmp_path: Path, rooms: GradingRooms) -> None:
    suite, out = open_suite("gsm8k", data=gsm8k_file), tmp_path / "r.jsonl"
    greedy(suite, out, rooms, limit=2)
    before = out.read_bytes()
    searching = open_solver(ScriptedCore(says_its_number), "best-of-n", 3, home=tmp_path / "home", tools=())
    with pytest.raises(UsageError, match='strategy is "greedy" there and "best-of-n" here'):
        greedy(suite, out, rooms, solver=searching)

    class Other(ScriptedCore):
        def manifest(self) -> dict[str, str | int | float | bool]:
            return {"core": "scripted", "sha256": "another"}

    with pytest.raises(UsageError, match=r"run\.sha256"):
        greedy(suite, out, rooms, core=Other(says_its_number))
    assert out.read_bytes() == before


def test_a_line_that_was_cut_off_is_done_again(gsm8k_file: Path, tmp_path: Path, rooms: GradingRooms) -> None:
    suite, out = open_suite("gsm8k", data=gsm8k_file), tmp_path / "r.jsonl"
    greedy(suite, out, rooms)
    whole = out.read_bytes()
    out.write_bytes(whole[:-40])
    assert len(read_results(out).rows) == 4
    assert greedy(suite, out, rooms).tasks == 5
    assert len(read_results(out).rows) == 5
    out.write_bytes(b'{"mani')
    assert greedy(suite, out, rooms).tasks == 5


@pytest.mark.parametrize(
    ("content", "told"),
    [("hello\n", "no manifest"), ("no line", "no results"), ('{"manifest": {"format": 99}}\n', "format 99"),
     ('{"manifest": {"format": 1}}\n{"task": 1}\n', "line 2")],
)  # fmt: skip
def test_a_file_that_holds_something_else(
    gsm8k_file: Path, tmp_path: Path, rooms: GradingRooms, content: str, told: str
) -> None:
    out = tmp_path / "r.jsonl"
    out.write_text(content, "utf-8")
    with pytest.raises(UsageError, match=told):
        greedy(open_suite("gsm8k", data=gsm8k_file), out, rooms)
    assert out.read_text("utf-8") == content


def test_two_runs_never_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with ResultsFile(path, {}) as first:
        with pytest.raises(UsageError, match="another run"):
            ResultsFile(path, {})
        first.begin({})
        assert path.stat().st_size, "the one that was refused leaves the other's file alone, also an empty one"


class Interrupted:
    """A solver that Ctrl-C meets at its third task, in one of two places."""

    settings = {"core": "scripted", "strategy": "greedy", "samples": 1, "max_tokens": 1024}  # noqa: RUF012

    def __init__(self, how: str) -> None:
        self._inner, self._how, self._count = open_solver(ScriptedCore(says_its_number), "greedy", 1), how, 0

    @property
    def circumstances(self) -> object:
        return self._inner.circumstances

    def start(self) -> float:
        return self._inner.start()

    def solve(self, problem: Problem) -> Solved:
        self._count += 1
        solved = self._inner.solve(problem)
        if self._count == 3 and self._how == "raised":
            raise KeyboardInterrupt
        return solved.model_copy(update={"stop_reason": "interrupted"}) if self._count == 3 else solved

    def interrupt(self) -> None:
        self._inner.interrupt()

    def close(self) -> None:
        self._inner.close()


class Heavy(ScriptedCore):
    """Burns CPU when it is started, as an engine does that loads weights."""

    def __init__(self, script: Callable[[Prompt, int], str]) -> None:
        super().__init__(script)
        self.starts = 0

    async def start(self) -> None:
        self.starts += 1
        until = time.thread_time() + (0.5 if self.starts == 1 else 0.0)
        while time.thread_time() < until:
            pass


def test_what_ends_a_search_is_among_the_settings(tmp_path: Path) -> None:
    """So that a results file is not gone on with by searches that end for other reasons."""
    weights = Weights(core="scripted", features=5, records=(), models=(), careful=())
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/scripted.json").write_text(weights.model_dump_json(), "utf-8")
    prices = Prices(per_tool={"python": Prices(cpu_second=10)})
    options: dict[str, Any] = {"home": tmp_path, "tools": ()}
    with closing(open_solver(ScriptedCore([]), "auto", 4, value=30.0, prices=prices, **options)) as solver:
        settings = solver.settings
    assert settings["value"] == 30.0
    assert settings["prices"] == {"per_tool": {"python": {"cpu_second": 10.0}}}
    assert "risk" not in settings


@pytest.mark.parametrize("strategy", ["greedy", "best-of-n"])
def test_no_task_pays_for_loading_the_core(
    gsm8k_file: Path, tmp_path: Path, rooms: GradingRooms, strategy: str
) -> None:
    suite, out = open_suite("gsm8k", data=gsm8k_file), tmp_path / "r.jsonl"
    options = {} if strategy == "greedy" else {"home": tmp_path / "home", "tools": ()}
    solver = open_solver(Heavy(says_its_number), strategy, 2, **options)
    summary = greedy(suite, out, rooms, solver=solver, limit=3)
    rows = [read_results(out).rows[name] for name in summary.names]
    assert [row.load_cpu_s is not None for row in rows] == [True, False, False]
    assert rows[0].load_cpu_s is not None
    assert 0.5 <= rows[0].load_cpu_s < 5.0
    assert max(row.cpu_s for row in rows) < 0.4
    assert summary.load_cpu_s == rows[0].load_cpu_s == summary.as_json()["load_cpu_s"]
    assert "load_cpu_s" not in json.dumps(summary.manifest), "it differs from run to run"


def test_nothing_is_loaded_where_nothing_is_left_to_do(gsm8k_file: Path, tmp_path: Path, rooms: GradingRooms) -> None:
    suite, out = open_suite("gsm8k", data=gsm8k_file), tmp_path / "r.jsonl"
    greedy(suite, out, rooms)
    core = Heavy(says_its_number)
    summary = greedy(suite, out, rooms, core=core)
    assert (summary.tasks, core.starts) == (5, 0)


def test_a_wait_is_named_once_it_is_long() -> None:
    told = io.StringIO()
    console = Console(file=told, width=100)
    with waiting(console, "loading the core", patience_s=30.0):
        pass
    with waiting(console, "nothing that is shown", quiet=True, patience_s=0.0):
        time.sleep(0.05)
    assert told.getvalue() == ""
    with waiting(console, "loading the core", patience_s=0.0):
        time.sleep(0.2)
    assert told.getvalue() == "ponder: loading the core ...\n"


def test_open_ended_answers_have_scores_between_wrong_and_right(tmp_path: Path, rooms: GradingRooms) -> None:
    """The mean score tells two runs apart of which neither has one answer that meets everything."""
    paths = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for path, words in zip(paths, ("I cannot say.", "First water, then time and rest. It is better so."), strict=True):
        with open_suite("open_ended", families=["compare", "plan"]) as suite:
            summary = greedy(suite, path, rooms, core=ScriptedCore(lambda *_, words=words: words), limit=12)
    told = summary.as_json()
    assert told["accuracy"] == 0.0
    assert 0.0 < told["score"] < 1.0
    assert told["score_interval"][0] <= told["score"] <= told["score_interval"][1]
    rows = list(read_results(paths[1]).rows.values())
    assert told["score"] == pytest.approx(sum(row.score for row in rows) / 12)
    found = compare(read_results(paths[1]), read_results(paths[0]))
    assert found.accuracy.value == 0.0
    assert found.score.low <= found.score.value <= found.score.high
    assert found.score.value > 0
    assert "mean score" in repr([column.header for column in tables(summary, rows)[0].columns])
    assert "mean score" in told_so_far(rows)
    with open_suite("open_ended", families=["compare", "plan"]) as suite:  # on another port
        again = greedy(suite, paths[0], rooms, core=ScriptedCore([]), limit=12)
    assert again.tasks == 12


@pytest.mark.real
def test_a_research_task_opens_its_pages(tmp_path: Path, rooms: GradingRooms) -> None:
    """With the real browser: the page's words reach the core, and only the pages' own address is permitted."""
    core = ScriptedCore(lambda *_: " Boil it for three minutes until 14 March.\n")
    with open_suite("open_ended", families=["research"]) as suite:
        (problem,) = [one for one in suite.problems(12) if one.id == "open/research/06"]
        solver = open_solver(
            core, "best-of-n", 2, home=tmp_path / "home", tools=("browser",), hosts=suite.hosts
        )  # fmt: skip
        try:
            solved = solver.solve(problem)
        finally:
            solver.close()
        assert rooms.grade(problem, solved.answer).right
    assert any("14 March" in message.content for prompt in core.prompts for message in prompt.messages)


@pytest.mark.parametrize("how", ["raised", "returned"])
def test_ctrl_c_keeps_what_is_done(gsm8k_file: Path, tmp_path: Path, rooms: GradingRooms, how: str) -> None:
    suite, out = open_suite("gsm8k", data=gsm8k_file), tmp_path / "r.jsonl"
    summary = greedy(suite, out, rooms, solver=Interrupted(how))  # type: ignore[arg-type]
    assert summary.interrupted
    assert summary.tasks == len(read_results(out).rows) == 2
    assert not greedy(suite, out, rooms).interrupted
    assert len(read_results(out).rows) == 5


@pytest.mark.parametrize("strategy", ["greedy", "best-of-n"])
def test_several_solvers_share_a_core_and_the_tasks(
    gsm8k_file: Path, tmp_path: Path, rooms: GradingRooms, strategy: str
) -> None:
    suite, out = open_suite("gsm8k", data=gsm8k_file), tmp_path / "r.jsonl"
    core = ScriptedCore(says_its_number, delay_s=0.02)
    make = partial(open_solver, strategy=strategy, samples=2, home=tmp_path / "home", tools=())
    with side_by_side(core, 3, make) as solvers, ResultsFile(out, {**solvers[0].settings}) as file:
        summary = run_suite(suite, solvers, rooms, file)
    assert (summary.tasks, summary.right, summary.core) == (5, 4, "scripted")
    assert sorted(summary.names) == sorted({problem.id for problem in suite.problems(5)})
    assert summary.manifest["run"]["agents"] == 3


@pytest.mark.parametrize("how", ["raised", "returned"])
def test_ctrl_c_ends_all_solvers_and_keeps_what_is_done(
    gsm8k_file: Path, tmp_path: Path, rooms: GradingRooms, how: str
) -> None:
    suite, out = open_suite("gsm8k", data=gsm8k_file), tmp_path / "r.jsonl"
    slow = open_solver(ScriptedCore(says_its_number, delay_s=30), "greedy", 1)
    quick: Any = Interrupted(how)
    with ResultsFile(out, {**slow.settings}) as file:
        summary = run_suite(suite, [quick, slow], rooms, file)
    assert summary.interrupted
    assert summary.tasks == len(read_results(out).rows) == 2, "the task that the slow one was at is left out"
    quick.close()
    slow.close()


def test_what_a_search_broke_off_with_counts_as_wrong(
    gsm8k_file: Path, tmp_path: Path, rooms: GradingRooms
) -> None:
    class Breaking(Interrupted):
        def solve(self, problem: Problem) -> Solved:
            solved = self._inner.solve(problem)
            self._count += 1
            return solved.model_copy(update={"stop_reason": "error"}) if self._count == 1 else solved

    out = tmp_path / "r.jsonl"
    summary = greedy(open_suite("gsm8k", data=gsm8k_file), out, rooms, solver=Breaking(""), limit=3)  # type: ignore[arg-type]
    first = read_results(out).rows[summary.names[0]]
    assert (first.right, first.graded, first.stop_reason) == (False, "no answer", "error")
    assert first.answer is not None


def test_searches_that_break_are_tried_again_and_end_a_run(
    gsm8k_file: Path, tmp_path: Path, rooms: GradingRooms
) -> None:
    suite, out = open_suite("gsm8k", data=gsm8k_file), tmp_path / "r.jsonl"
    broken = open_solver(ScriptedCore([]), "best-of-n", 2, home=tmp_path / "home", tools=())
    with pytest.raises(CoreError, match="no more lines"):
        greedy(suite, out, rooms, solver=broken)
    rows = read_results(out).rows
    assert len(rows) == 3
    assert not any(row.right for row in rows.values())
    mended = open_solver(ScriptedCore(says_its_number), "best-of-n", 2, home=tmp_path / "home", tools=())
    summary = greedy(suite, out, rooms, solver=mended)
    assert (summary.tasks, "error" in summary.by_stop_reason) == (5, False)


def test_unknown_names_and_a_budget_for_the_baseline() -> None:
    with pytest.raises(UnknownName, match="best-of-n"):
        open_solver(ScriptedCore([]), "luck", 3)
    with pytest.raises(UsageError, match="no budget"):
        open_solver(ScriptedCore([]), "greedy", 1, budget=Budget(cpu_seconds=1))


def test_compare_pairs_the_tasks_that_both_have(gsm8k_file: Path, tmp_path: Path, rooms: GradingRooms) -> None:
    suite = open_suite("gsm8k", data=gsm8k_file)
    greedy(suite, tmp_path / "a.jsonl", rooms)
    greedy(suite, tmp_path / "b.jsonl", rooms, core=ScriptedCore(lambda *_: "ANSWER: 0"), limit=4)
    first, second = read_results(tmp_path / "a.jsonl"), read_results(tmp_path / "b.jsonl")
    found = compare(first, second)
    assert (found.tasks, found.only_first, found.only_second) == (4, 1, 0)
    assert found.accuracy.value == (found.right[0] - found.right[1]) / 4
    assert found.accuracy.low <= found.accuracy.value <= found.accuracy.high
    with pytest.raises(UsageError, match="in common"):
        compare(first, Results(manifest={}, rows={}))
    others = Results(manifest=second.manifest | {"data_sha256": "another file's"}, rows=second.rows)
    with pytest.raises(UsageError, match="other tasks of the same names: data_sha256"):
        compare(first, others)


@pytest.mark.parametrize(
    ("text", "kind", "answer"),
    [
        ("Sure:\n```python\ndef f():\n    return 1\n```\nThat is it.", "program", "def f():\n    return 1"),
        ("I do not know.", "program", None),
        ("5 + 13 = 18 apples.\n**ANSWER: $18**", "number", "18"),
        ("So she has 1,200 left.", "number", "1200"),
        ("none", "number", None),
        ("First.\nANSWER: blue sky\n", "text", "blue sky"),
        ("The rest is\nsilence", "text", "silence"),
        ("", "text", None),
        ("\nFirst line.\nANSWER: last line.\n", "whole", "First line.\nANSWER: last line."),
        (" \n", "whole", None),
    ],
)  # fmt: skip
def test_plain_replies(text: str, kind: str, answer: str | None) -> None:
    assert read_plain(text, kind) == answer  # type: ignore[arg-type]
