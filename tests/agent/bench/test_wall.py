"""The wall: nothing that grades an answer reaches a prompt, a judge, a policy, a strategy or the store of a run.

Canaries stand in everything that is hidden: hidden tests, reference solutions, worked answers. The whole agent runs
over each suite with a scripted core while everything that its parts are shown is written down.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from ponder.bench.grading import PuzzleGrader
from ponder.bench.open_ended.tasks import ConstraintsGrader
from ponder.bench.problems import Problem
from ponder.bench.solvers import AgentSolver, GreedySolver
from ponder.bench.suites.registry import open_suite
from ponder.core.scripted import ScriptedCore
from ponder.instructions.constraints import Constraint
from ponder.judges.evidence import EvidenceJudge
from ponder.parts import make_strategy
from ponder.policies.checks_and_votes import ChecksAndVotes
from ponder.protocols import TreeView
from ponder.records import (
    Best,
    Budget,
    Decision,
    Expansion,
    Features,
    Prompt,
    SamplingParams,
    SuccessCriterion,
    Task,
    Verdict,
)
from ponder.store import open_store

CANARY, NUMBER = "canary_of_the_hidden_part", "918273645"


class Shown:
    """Everything that the parts of an agent are shown."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def tree(self, tree: TreeView) -> None:
        self.texts.append(tree.task.model_dump_json())
        self.texts += [node.model_dump_json() for node in tree.nodes.values()]


class WatchedCore(ScriptedCore):
    def __init__(self, shown: Shown, script: Callable[[Prompt, int], str]) -> None:
        super().__init__(script)
        self._shown = shown

    async def sample(self, prompts: Sequence[Prompt], n: int, params: SamplingParams, on_done: Any = None) -> Any:
        self._shown.texts += [prompt.model_dump_json() for prompt in prompts] + [params.model_dump_json()]
        return await super().sample(prompts, n, params, on_done)


class WatchedJudge(EvidenceJudge):
    def __init__(self, shown: Shown) -> None:
        super().__init__()
        self._shown = shown

    def judge(self, tree: TreeView, new: Sequence[int]) -> Mapping[int, Verdict]:
        self._shown.tree(tree)
        return super().judge(tree, new)

    def best(self, tree: TreeView) -> Best | None:
        self._shown.tree(tree)
        return super().best(tree)


class WatchedPolicy(ChecksAndVotes):
    def __init__(self, shown: Shown) -> None:
        super().__init__()
        self._shown = shown

    def decide(self, features: Features) -> Decision:
        self._shown.texts.append(features.model_dump_json())
        return super().decide(features)


class WatchedStrategy:
    """Any strategy, watched."""

    def __init__(self, shown: Shown, tools: Sequence[str]) -> None:
        self._shown, self._inner = shown, make_strategy(tools, samples=4)
        self.name, self.max_samples = self._inner.name, self._inner.max_samples

    def ask(self, tree: TreeView) -> Sequence[Expansion]:
        self._shown.tree(tree)
        return self._inner.ask(tree)

    def tell(self, tree: TreeView, judged: Sequence[int]) -> Mapping[int, float]:
        return self._inner.tell(tree, judged)


def words(prompt: Prompt, sample: int) -> str:
    """Answer as a core would: a program that fails its test at first, or a number."""
    if "python" in prompt.prefill:
        return f"def added(a, b):\n    return a + b + {sample % 2}\n```"
    return f" {sample}\n"


def write(path: Path, row: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(row) + "\n", "utf-8")
    return path


def humaneval(tmp: Path) -> Problem:
    row = {
        "task_id": "HumanEval/0",
        "prompt": 'def added(a, b):\n    """Add.\n    >>> added(1, 2)\n    3\n    """\n',
        "entry_point": "added",
        "canonical_solution": f"    {CANARY} = a + b\n    return {CANARY}\n",
        "test": f"def check(candidate):\n    {CANARY} = candidate({NUMBER}, 0)\n    assert {CANARY} == {NUMBER}\n",
    }
    return open_suite("humaneval", data=write(tmp / "h.jsonl", row)).problems(1)[0]


def mbpp(tmp: Path) -> Problem:
    row = {
        "task_id": 7,
        "text": "Write a function to add.",
        "code": f"def added(a, b):\n    {CANARY} = a + b\n    return {CANARY}",
        "test_setup_code": "",
        "test_list": ["assert added(1, 2) == 3", f"assert added({NUMBER}, 0) == {NUMBER}", f"{CANARY} = added"],
        "challenge_test_list": [f"{CANARY} = 1\nassert added({NUMBER}, 1) == {NUMBER} + 1"],
    }
    return open_suite("mbpp", data=write(tmp / "m.jsonl", row)).problems(1)[0]


def gsm8k(tmp: Path) -> Problem:
    row = {"question": "How many are many?", "answer": f"They are {CANARY}: <<1+1={NUMBER}>>.\n#### {NUMBER}"}
    return open_suite("gsm8k", data=write(tmp / "g.jsonl", row)).problems(1)[0]


def run(problem: Problem, home: Path, tools: tuple[str, ...]) -> str:
    """Search the problem with everything watched; return all that was shown and stored, as one text."""
    shown = Shown()
    solver = AgentSolver(
        WatchedCore(shown, words), "best-of-n", 4, Budget(), None,
        {"tools": tools, "home": home, "judge": WatchedJudge(shown), "policy": WatchedPolicy(shown),
         "strategy": WatchedStrategy(shown, tools)},
    )  # fmt: skip
    try:
        solved = solver.solve(problem)
    finally:
        solver.close()
    store = open_store(home / "runs.sqlite")
    assert solved.run_id is not None
    events = store.events(solved.run_id)
    store.close()
    assert solved.nodes > 0
    assert any(event.kind == "judged" for event in events)
    assert len(shown.texts) > 4
    return "\n".join([*shown.texts, *(event.model_dump_json() for event in events), solved.model_dump_json()])


@pytest.mark.parametrize("make", [humaneval, mbpp, gsm8k])
def test_no_hidden_part_reaches_a_search(make: Callable[[Path], Problem], tmp_path: Path) -> None:
    seen = run(make(tmp_path), tmp_path / "home", ())
    assert CANARY not in seen
    assert NUMBER not in seen


@pytest.mark.real
@pytest.mark.parametrize("make", [humaneval, mbpp, gsm8k])
def test_nor_one_that_runs_programs_and_tests(make: Callable[[Path], Problem], tmp_path: Path) -> None:
    seen = run(make(tmp_path), tmp_path / "home", ("python",))
    assert CANARY not in seen
    assert NUMBER not in seen


def test_a_leak_would_be_seen(tmp_path: Path) -> None:
    """A net that catches nothing proves nothing: with a hidden check in the task, the canary is found."""
    problem = mbpp(tmp_path)
    object.__setattr__(problem, "task", Task(
        prompt="Add.", id="mbpp/7",
        success=SuccessCriterion(kind="tests", visible=("assert added(1, 2) == 3",), hidden=(f"{CANARY} = 1",)),
    ))  # fmt: skip
    assert CANARY in run(problem, tmp_path / "home", ())


@pytest.mark.parametrize("make", [humaneval, mbpp, gsm8k])
def test_the_baseline_sees_no_hidden_part(make: Callable[[Path], Problem], tmp_path: Path) -> None:
    shown = Shown()
    solver = GreedySolver(WatchedCore(shown, lambda *_: "ANSWER: 1"))
    solver.solve(make(tmp_path))
    solver.close()
    assert shown.texts
    assert CANARY not in "".join(shown.texts)
    assert NUMBER not in "".join(shown.texts)


@pytest.mark.parametrize("make", [humaneval, mbpp, gsm8k])
def test_a_problem_shows_nothing_when_it_is_printed(make: Callable[[Path], Problem], tmp_path: Path) -> None:
    problem = make(tmp_path)
    printed = f"{problem} {problem!r} {problem.grader} {problem.grader!r} {problem.task!r}"
    assert CANARY not in printed
    assert NUMBER not in printed


def test_a_task_with_hidden_checks_makes_no_problem(tmp_path: Path) -> None:
    problem = gsm8k(tmp_path)
    task = Task(prompt="q", id="x/1", success=SuccessCriterion(kind="numeric", hidden=("4",)))
    with pytest.raises(ValueError, match="grader"):
        Problem(task=task, grader=problem.grader, plain="q", reply="number")


def test_a_puzzles_answer_stays_in_the_process_that_made_it(tmp_path: Path) -> None:
    reasoning_gym = pytest.importorskip("reasoning_gym")
    with open_suite("reasoning_gym", families=["products"], seed=5) as suite:
        problem = suite.problems(1)[0]
        entry = reasoning_gym.create_dataset("products", size=1, seed=5)[0]
        assert entry["question"] == problem.task.prompt
        answer = str(entry["answer"])
        assert len(answer) > 2
        assert f'"{answer}"' not in run(problem, tmp_path / "home", ())
        assert isinstance(problem.grader, PuzzleGrader)
        talk = problem.grader.talk
        assert answer not in f"{problem!r} {vars(problem.grader)} {talk.question('products', 5, 0)} {vars(talk)}"


def test_no_constraint_of_an_open_ended_task_reaches_a_search_or_the_baseline(tmp_path: Path) -> None:
    """A constraint is planted: the words of the others are words that any answer may have."""
    with open_suite("open_ended", families=["explain"]) as suite:
        problem = suite.problems(1)[0]
        assert isinstance(problem.grader, ConstraintsGrader)
        task = problem.grader.task
        planted = TypeAdapter(Constraint).validate_python({"kind": "mention", "any_of": [CANARY]})
        grader = ConstraintsGrader(task.model_copy(update={"constraints": (planted, *task.constraints)}))
        planted_in = dataclasses.replace(problem, grader=grader)
        assert CANARY not in run(planted_in, tmp_path / "home", ())
        assert CANARY not in f"{planted_in!r} {planted_in.plain}"
