"""Suites: their tasks, their order, and one clear line for each way in which a file can be broken."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest

from ponder.bench.grading import ProgramGrader
from ponder.bench.suites import gym
from ponder.bench.suites.gym_talk import GymTalk
from ponder.bench.suites.humaneval import before
from ponder.bench.suites.registry import open_suite
from ponder.errors import MachineError, UnknownName, UsageError
from ponder.prompting import Prompting
from ponder.tree import Tree

WriteRows = Callable[..., Path]

MBPP = {
    "task_id": 1, "text": "Write a function to add.", "code": "", "test_setup_code": "",
    "test_list": ["assert added(1, 2) == 3", "assert added(2, 2) == 4", "assert added(0, 0) == 0"],
    "challenge_test_list": ["assert added(5, 5) == 10"],
}  # fmt: skip
GSM8K = {"question": "What is 2 + 2?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}


def without(row: dict[str, Any], field: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != field}


def test_mbpp_shows_the_first_test_and_hides_the_others(write_rows: WriteRows) -> None:
    (problem,) = open_suite("mbpp", data=write_rows([MBPP])).problems(9)
    assert problem.id == "mbpp/1"
    assert problem.task.success is not None
    assert problem.task.success.visible == ("assert added(1, 2) == 3",)
    assert problem.task.success.hidden == ()
    assert isinstance(problem.grader, ProgramGrader)
    assert problem.grader.tests == ("assert added(2, 2) == 4", "assert added(0, 0) == 0", "assert added(5, 5) == 10")
    assert "added(1, 2)" in problem.plain
    assert "added(2, 2)" not in problem.plain


def test_mbpps_visible_test_does_not_grade_where_the_file_has_it_twice(write_rows: WriteRows) -> None:
    twice = MBPP | {"test_list": [MBPP["test_list"][0], MBPP["test_list"][1], MBPP["test_list"][0] + "\r"]}
    (problem,) = open_suite("mbpp", data=write_rows([twice])).problems(1)
    assert isinstance(problem.grader, ProgramGrader)
    assert problem.grader.tests == ("assert added(2, 2) == 4", "assert added(5, 5) == 10")
    with pytest.raises(UsageError, match="two different ones"):
        open_suite("mbpp", data=write_rows([MBPP | {"test_list": ["assert 1"] * 2}]))


def test_mbpp_sets_up_every_test(write_rows: WriteRows) -> None:
    row = MBPP | {"test_setup_code": "root = Node(1) \r\nroot.left = Node(2)"}
    (problem,) = open_suite("mbpp", data=write_rows([row])).problems(1)
    assert problem.task.success is not None
    assert isinstance(problem.grader, ProgramGrader)
    setup = "root = Node(1)\nroot.left = Node(2)\n"
    assert all(test.startswith(setup) for test in (*problem.task.success.visible, *problem.grader.tests))


def test_humaneval_gives_the_grader_what_stands_before_the_function() -> None:
    prompt = 'import math\n\n\ndef helper(x):\n    """Help."""\n    return x\n\n\ndef f(x):\n    """Do."""\n'
    assert "import math" in before(prompt, "f")
    assert "def helper" in before(prompt, "f")
    assert "def f" not in before(prompt, "f")


def test_humanevals_prompt_holds_each_example_once(tmp_path: Path) -> None:
    """The docstring has them: they are not told again as tests to pass."""
    row = {
        "task_id": "HumanEval/0", "entry_point": "added", "test": "def check(candidate):\n    pass\n",
        "prompt": 'def added(a, b):\n    """Add.\n    >>> added(1, 2)\n    3\n    >>> added(40, 2)\n    42\n    """\n',
    }  # fmt: skip
    path = tmp_path / "h.jsonl"
    path.write_text(json.dumps(row) + "\n", "utf-8")
    (problem,) = open_suite("humaneval", data=path).problems(1)
    assert problem.task.success is not None
    assert problem.task.success.visible == ("assert added(1, 2) == 3", "assert added(40, 2) == 42")
    prompting = Prompting(["python"], packages=())
    tree = Tree(problem.task)
    for kind in ("code", "answer", "check"):
        said = "\n".join(message.content for message in prompting.step(tree, 0, kind).prompt.messages)
        assert [said.count(f"added({call})") for call in ("1, 2", "40, 2")] == [1, 1], said
    told_apart = problem.task.model_copy(update={
        "success": problem.task.success.model_copy(update={"visible_in_prompt": False})
    })  # fmt: skip
    twice = prompting.step(Tree(told_apart), 0, "code").prompt.messages[-1].content
    assert twice.count("added(1, 2)") == 2


@pytest.mark.parametrize(("text", "value"), [("4", "4"), ("1,200", "1200"), ("-3.5", "-3.5")])
def test_gsm8k_knows_its_number(write_rows: WriteRows, text: str, value: str) -> None:
    row = GSM8K | {"answer": f"Words.\n#### {text}"}
    (problem,) = open_suite("gsm8k", data=write_rows([row])).problems(1)
    assert problem.id == "gsm8k/0"
    assert problem.task.success is None
    assert problem.grader.expected == Decimal(value)  # type: ignore[attr-defined]


def test_the_seed_orders_tasks_and_a_limit_takes_the_first(write_rows: WriteRows) -> None:
    file = write_rows([GSM8K | {"question": f"q{i}"} for i in range(50)])
    names = {seed: [p.id for p in open_suite("gsm8k", data=file, seed=seed).problems(50)] for seed in (1, 2)}
    assert names[1] != names[2]
    assert sorted(names[1]) == sorted(names[2])
    assert names[1] != sorted(names[1])
    assert [p.id for p in open_suite("gsm8k", data=file, seed=1).problems(7)] == names[1][:7]


def test_a_gzipped_file_and_lines_that_only_look_like_two(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl.gz"
    row = json.dumps(GSM8K | {"question": "one\u2028line\x85still"}, ensure_ascii=False)
    path.write_bytes(gzip.compress((row + "\n\n" + json.dumps(GSM8K)).encode()))
    assert open_suite("gsm8k", data=path).size == 2


def test_a_prompt_that_python_cannot_parse_has_no_examples(write_rows: WriteRows) -> None:
    row = {"task_id": "H/1", "prompt": "x = " + 50_000 * "-" + "1", "entry_point": "f", "test": "def check(f): pass"}
    (problem,) = open_suite("humaneval", data=write_rows([row])).problems(1)
    assert problem.task.success is not None
    assert problem.task.success.visible == ()


@pytest.mark.parametrize(
    ("suite", "rows", "told"),
    [
        ("mbpp", [MBPP, "{broken"], "line 2: no JSON"),
        ("mbpp", [MBPP, "[]"], "line 2"),
        ("mbpp", [MBPP, "7"], "line 2"),
        ("mbpp", [without(MBPP, "test_list")], "line 1: the field 'test_list' is missing"),
        ("mbpp", [without(MBPP, "text")], "line 1: the field 'text' is missing"),
        ("mbpp", [MBPP | {"test_list": ["assert 1"]}], "line 1: test_list: one test is visible"),
        ("mbpp", [MBPP | {"test_list": ["assert 1", "assert 1 "]}], "line 1: test_list: one test is visible"),
        ("mbpp", [MBPP | {"test_list": ["assert 1", "  "]}], "line 1: test_list: one test is visible"),
        ("mbpp", [MBPP | {"test_list": "assert 1"}], "line 1: test_list"),
        ("mbpp", [MBPP | {"test_list": ["assert 1", 2]}], "line 1: test_list.1"),
        ("mbpp", [MBPP | {"task_id": "seven"}], "line 1: task_id"),
        ("mbpp", [MBPP, MBPP], "two rows have the id mbpp/1"),
        ("mbpp", [MBPP | {"text": ""}], "line 1: text"),
        ("gsm8k", [], "is empty"),
        ("gsm8k", ["", "  "], "is empty"),
        ("gsm8k", [GSM8K | {"answer": "no number"}], "line 1: answer: it does not end with ####"),
        ("gsm8k", [GSM8K | {"answer": "#### many"}], "line 1: answer"),
        ("gsm8k", [GSM8K, without(GSM8K, "question")], "line 2: the field 'question' is missing"),
        ("gsm8k", ["[" * 100_000], "line 1: no JSON"),
        ("gsm8k", ['{"question": ' + 5000 * "1" + "}"], "line 1: no JSON"),
        ("humaneval", [{"task_id": "H/1", "prompt": "def f():", "entry_point": "f()", "test": "x"}],
         "no function's name"),
        ("humaneval", [GSM8K], "line 1: the field 'task_id' is missing"),
    ],
)  # fmt: skip
def test_a_broken_file_is_told_in_one_line(
    write_rows: WriteRows, suite: str, rows: list[dict[str, Any] | str], told: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(told)) as raised:
        open_suite(suite, data=write_rows(rows))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [("a.jsonl", b"\xff\xfe\x00", "not text"), ("a.jsonl.gz", b"no gzip", "unzipped"),
     ("a.jsonl.gz", gzip.compress(b"{}" * 1000, mtime=0)[:-20], "unzipped")],
)  # fmt: skip
def test_a_file_that_is_no_text(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=told):
        open_suite("gsm8k", data=tmp_path / name)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="humaneval"):
        open_suite("luck")
    with pytest.raises(UsageError, match="--data"):
        open_suite("mbpp")
    with pytest.raises(UsageError, match="cannot read"):
        open_suite("mbpp", data=tmp_path / "nowhere.jsonl")
    with pytest.raises(UsageError, match="families"):
        open_suite("gsm8k", families=["lcm"])


@pytest.fixture(scope="module")
def talk() -> Iterator[GymTalk]:
    pytest.importorskip("reasoning_gym")
    made = GymTalk()
    yield made
    made.close()


def test_puzzles_come_family_by_family_from_a_process_that_ends_with_the_suite() -> None:
    pytest.importorskip("reasoning_gym")
    us = psutil.Process()
    before = set(us.children())
    with open_suite("reasoning_gym", families=["lcm", "gcd", "lcm"], seed=3) as suite:
        assert suite.size == 2 * gym.ROUNDS
        names = [problem.id for problem in suite.problems(5)]
        assert sorted(names[:2]) == ["gym/gcd/3/0", "gym/lcm/3/0"]
        assert sorted(names[2:4]) == ["gym/gcd/3/1", "gym/lcm/3/1"]
        assert [p.task.prompt for p in suite.problems(3)] == [p.task.prompt for p in suite.problems(5)][:3]
        (child,) = set(us.children()) - before
    assert not child.is_running()


def test_every_default_family_makes_puzzles(talk: GymTalk) -> None:
    assert len(gym.problems(talk, gym.FAMILIES, 2026, len(gym.FAMILIES))) == len(gym.FAMILIES) >= 20
    assert not gym.EVALUATES & set(gym.FAMILIES)


def test_families_that_run_what_they_are_told_are_refused(talk: GymTalk) -> None:
    known, _ = talk.families()
    with pytest.raises(UsageError, match="evaluates answers"):
        gym.check_families(["countdown"], known)
    with pytest.raises(UnknownName, match="leg_counting"):
        gym.check_families(["luck"], known)


def test_the_list_of_those_is_complete() -> None:
    """Every family whose verifier calls eval or sympy's parser, itself or by a method, is on the list."""
    pytest.importorskip("reasoning_gym")
    import inspect

    from reasoning_gym.factory import DATASETS

    risky = re.compile(r"\b(?:eval|exec|sympify|parse_latex|(?:sp|sympy)\.parse_expr|parse_expr)\((?!self\b)")
    # These do so with what they made themselves, or have a parser of that name of their own.
    own = {"basic_arithmetic", "bitwise_arithmetic", "codeio", "number_sorting", "propositional_logic"}
    found = {name for name, (kind, _) in DATASETS.items() if risky.search(inspect.getsource(inspect.getmodule(kind)))}
    assert found - own == gym.EVALUATES


def test_scores_and_verifiers_that_take_too_long(talk: GymTalk, monkeypatch: pytest.MonkeyPatch) -> None:
    import reasoning_gym

    entry = reasoning_gym.create_dataset("lcm", size=1, seed=4)[0]
    assert talk.score("lcm", 4, 0, entry["answer"]).right
    assert not talk.score("lcm", 4, 0, "nonsense").right
    assert talk.score("lcm", 4, 0, "9" * 30_000).outcome == "wrong"
    hasty = GymTalk(score_s=0.2)

    def held_up(request: dict[str, Any]) -> dict[str, Any]:
        reply = GymTalk._asked(hasty, request)
        assert hasty._child is not None
        os.kill(hasty._child.pid, signal.SIGSTOP)
        return reply

    monkeypatch.setattr(hasty, "_asked", held_up)
    assert hasty.score("lcm", 4, 0, entry["answer"]).outcome == "wall"
    monkeypatch.undo()
    hasty._score_s = 60.0
    assert hasty.score("lcm", 4, 0, entry["answer"]).right  # a fresh process serves the next one
    hasty.close()


def test_a_family_that_makes_nothing_is_a_clear_error(talk: GymTalk) -> None:
    with pytest.raises(MachineError, match="reasoning-gym failed"):
        talk.question("no_such_family", 1, 0)
