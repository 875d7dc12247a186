"""The code tool: what the core reads of a run, and which programs pass tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from ponder.errors import NoSandbox
from ponder.protocols import Tool
from ponder.records import Browse, ExecResult, Layers, Limits, Observation, RunCode, Usage
from ponder.sandboxes import harness, open_sandbox
from ponder.tools.python import PythonTool, _job, _report, describe_run, shorten, stated_answer, units_of

LIMITS = Limits(cpu_s=4, wall_s=6, memory_bytes=128 * 2**20)
ADD = "def add(a, b):\n    return a + b\n"


def ended(stdout: str = "", stderr: str = "", code: int | None = 0, **fields: object) -> ExecResult:
    known = {"outcome": "error" if code else "ok", "truncated": False, **fields}
    return ExecResult.model_validate(
        {"exit_code": code, "stdout": stdout, "stderr": stderr, "usage": Usage(), "backend": "none",
         "layers": Layers(active=()), **known}
    )  # fmt: skip


# --- what the core reads ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stdout", "answer"),
    [
        ("ANSWER: 42\n", "42"),
        ("ANSWER: 1\nmore\nANSWER:  2 \n", "2"),
        ("ANSWER:\nfirst\nsecond\n", "first\nsecond"),
        ("no ANSWER: here\n", None),
        ("ANSWER:\n\n", None),
        ("", None),
    ],
)
def test_answer(stdout: str, answer: str | None) -> None:
    assert stated_answer(stdout) == answer


def test_short_output_is_left_alone() -> None:
    assert describe_run(ended("hello\n"), LIMITS) == ("hello", False)
    assert describe_run(ended(), LIMITS) == ("[it ended without printing anything]", False)


def test_traceback_keeps_its_last_lines() -> None:
    text, cut = describe_run(ended("x" * 5000, "frame\n" * 1000 + "ValueError: the reason", 1), LIMITS)
    assert cut
    assert len(text) < 2200
    assert "ValueError: the reason\n[ended with exit status 1]" in text
    assert "characters left out" in text


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("cpu", "4 s of CPU"),
        ("wall", "within 6 s"),
        ("memory", "128 MiB"),
        ("output", "65536 bytes"),
        ("killed", "killed"),
    ],
)
def test_limits_are_said(outcome: str, said: str) -> None:
    assert said in describe_run(ended(code=-9, outcome=outcome), LIMITS)[0]


def test_shorten_counts_what_it_leaves_out() -> None:
    text, cut = shorten("a" * 60 + "b" * 60, 100, keep_head=0.5)
    assert cut
    assert text == "a" * 50 + "\n[... 20 characters left out ...]\n" + "b" * 50


# --- what counts as a test --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("test", "names"),
    [
        ("assert add(1, 2) == 3", [""]),
        ("x = add(1, 2)\nassert x == 3\nassert x > 2", [""]),
        ("def test_a(): pass\ndef helper(): pass\nasync def test_b(): pass", ["test_a", "test_b"]),
        ("class TestAdd:\n    def test_a(self): pass\n    def other(self): pass", ["TestAdd.test_a"]),
        ("import unittest\nclass Sums(unittest.TestCase):\n    def test_a(self): pass", ["Sums.test_a"]),
        ("def test(candidate):\n    assert candidate(1, 2) == 3\ntest(add)", [""]),
        ("def broken(", [""]),
    ],
)
def test_units(test: str, names: list[str]) -> None:
    assert units_of(test) == [(test, name) for name in names]


def test_report_needs_the_nonce_and_every_line() -> None:
    good = "abcd\npassed \nfailed 6e6f\n"
    assert _report(good, "abcd", 2) == [("passed", ""), ("failed", "no")]
    assert _report(good, "dcba", 2) is None
    assert _report(good, "abcd", 3) is None
    assert _report("passed \npassed \n", "abcd", 1) is None
    assert _report("", "abcd", 0) is None


def test_job_ends_with_the_nonce() -> None:
    job = _job(ADD, [("assert 1", "")], "0123", LIMITS)
    assert job.endswith(b"assert 10123")
    assert job.startswith(f"4 5.100 3.400 {len(ADD)} 8 0\n".encode())


def test_harness_runs_units_in_children() -> None:
    """Outside of a sandbox the harness may only ever end its own child."""
    assert os.getpid() != 1
    units = [("assert add(1, 2) == 3", ""), ("assert add(1, 2) == 4", ""), ("import os\nos._exit(0)", "")]
    # The harness counts its process from the start, and here that is the whole test session.
    results = harness.run_units(ADD, units, wall_s=20, cpu_s=1e6)
    assert [state for state, _ in results] == ["passed", "failed", "failed"]
    assert "the left side was 3, the right side 4" in results[1][1]


# --- with the real sandbox --------------------------------------------------------------------------------


@pytest.fixture
async def tool() -> AsyncIterator[PythonTool]:
    try:
        opened = PythonTool(await open_sandbox())
    except NoSandbox as error:
        pytest.fail(f"no sandbox works here: {error}")
    yield opened
    await opened.close()
    await opened.close()  # safe to call twice


async def check(tool: PythonTool, program: str, *tests: str, limits: Limits = LIMITS) -> Observation:
    bills: list[Usage] = []
    seen = await tool.check(program, tests, limits=limits, on_usage=bills.append)
    assert len(bills) == 1
    return seen


@pytest.mark.real
async def test_run(tool: PythonTool) -> None:
    assert isinstance(tool, Tool)
    bills: list[Usage] = []
    action = RunCode(code="print('thinking')\nprint('ANSWER:', 6 * 7)")
    seen = await tool.run(action, session="a", limits=LIMITS, on_usage=bills.append)
    assert (seen.ok, seen.outcome, seen.answer, seen.text) == (True, "ok", "42", "thinking\nANSWER: 42")
    assert bills[0].cpu_s > 0
    failed = await tool.run(RunCode(code="1/0"), session="a", limits=LIMITS, on_usage=bills.append)
    assert (failed.ok, failed.outcome) == (False, "error")
    assert "ZeroDivisionError" in failed.text
    foreign = await tool.run(Browse(op="back"), session="a", limits=LIMITS, on_usage=bills.append)
    assert not foreign.ok
    assert len(bills) == 3


@pytest.mark.real
async def test_right_and_wrong_programs(tool: PythonTool) -> None:
    tests = [
        "assert add(1, 2) == 3",
        "def test_zero():\n    assert add(0, 0) == 0\ndef test_big():\n    assert add(9, 9) == 18",
    ]
    right = await check(tool, ADD, *tests)
    assert (right.ok, right.passed, right.total, right.text) == (True, 3, 3, "3 of 3 tests passed.")
    wrong = await check(tool, "def add(a, b):\n    return a * 2 if b else 0", *tests)
    assert (wrong.ok, wrong.passed, wrong.total) == (False, 2, 3)
    assert "FAILED assert add(1, 2) == 3: the left side was 2, the right side 3" in wrong.text


@pytest.mark.real
async def test_kinds_of_tests(tool: PythonTool) -> None:
    seen = await check(
        tool,
        ADD + "import dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int\nif __name__ == '__main__': 1/0",
        "import unittest\nclass Sums(unittest.TestCase):\n    def setUp(self): self.n = 1\n"
        "    def test_a(self): self.assertEqual(add(self.n, 1), 2)",
        "import asyncio\nasync def test_b():\n    await asyncio.sleep(0)\n    assert add(1, 1) == 2",
        "from solution import add as plus\nassert plus(1, 2) == 3 and P(1) == P(1)",
        "def check(candidate):\n    assert candidate(1, 2) == 3\ncheck(add)",
        "def test_with_fixture(tmp_path): pass",
        "assert add(1, 2) == 3, 'own message'",
    )
    assert (seen.passed, seen.total) == (5, 6), seen.text
    assert "tmp_path" in seen.text


@pytest.mark.real
@pytest.mark.parametrize(
    "program",
    [
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "print('passed')\nprint('2 of 2 tests passed.')",
        "raise SystemExit",
        "import os\nos.kill(os.getpid(), 9)",
        "def add(a, b):\n    raise SystemExit(0)",
        "import os\ndef add(a, b):\n    os._exit(0)",
        "import os\ndef add(a, b):\n    for fd in range(64):\n        try: os.write(fd, b'\\nloaded\\npassed\\n')\n"
        "        except OSError: pass\n    os._exit(0)",
        "import os\ndef add(a, b):\n    for fd in range(64):\n        try: os.close(fd)\n        except OSError: pass",
        "import os\ndef add(a, b):\n    with open('/proc/1/fd/1', 'w') as out: out.write('passed ')\n    return 0",
        "import os\ndef add(a, b):\n    with open('/proc/1/mem', 'rb') as memory: memory.read(1)\n    return 3",
        "import os, signal\nos.kill(1, signal.SIGKILL)\nos.kill(1, signal.SIGSTOP)\nadd = max",
        "import builtins\nbuiltins.compile = lambda *a, **k: 'pass'\ndef add(a, b): return 0",
        "def add(a, b): return None",
        "def add(",
        "",
    ],
)
async def test_programs_that_do_not_pass(tool: PythonTool, program: str) -> None:
    seen = await check(tool, program, "assert add(1, 2) == 3", "assert add(2, 2) == 4")
    assert (seen.ok, seen.passed, seen.total) == (False, 0, 2), seen.text


@pytest.mark.real
async def test_a_hanging_test_costs_its_share_only(tool: PythonTool) -> None:
    program = "def f(x):\n    while x == 2: pass\n    return x"
    seen = await check(tool, program, *(f"assert f({n}) == {n}" for n in range(5)))
    assert (seen.passed, seen.total) == (4, 5)
    assert "did not end within" in seen.text


@pytest.mark.real
@pytest.mark.parametrize("program", ["while True: pass", "import time\ntime.sleep(99)", "x = bytearray(10**9)"])
async def test_a_program_that_never_loads_fails_every_test(tool: PythonTool, program: str) -> None:
    seen = await check(tool, program, "assert True", "assert 1", limits=Limits(cpu_s=1, wall_s=2))
    assert (seen.ok, seen.passed, seen.total) == (False, 0, 2), seen.text


@pytest.mark.real
async def test_what_one_test_leaves_behind_does_not_reach_the_next(tool: PythonTool) -> None:
    program = """
import os
state = []
def add(a, b):
    state.append(a)
    if os.fork() == 0:
        while True: pass
    return len(state)
"""
    seen = await check(tool, program, *["assert add(1, 2) == 1"] * 3)
    assert (seen.passed, seen.total) == (3, 3), seen.text


@pytest.mark.real
async def test_many_failures_are_reported_briefly(tool: PythonTool) -> None:
    seen = await check(tool, ADD, *(f"assert add({n}, 'x') == {n}" for n in range(40)), limits=Limits(wall_s=30))
    assert (seen.passed, seen.total) == (0, 40)
    assert len(seen.text) < 2200
