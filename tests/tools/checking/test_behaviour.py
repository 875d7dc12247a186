"""What a program does when it is called: outcomes that are the same where tests would see no difference."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from fractions import Fraction
from typing import Any

import pytest

from ponder.records import Limits, Usage
from ponder.tools.checking.behaviour import LONGEST, shape
from ponder.tools.python import PythonTool, read_outcomes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (True, 1),
        (0.1 + 0.2, 0.3),
        ({1: 2, 3: 4}, {3: 4, 1: 2}),
        ({3, 1, 2}, {1, 2, 3}),
        ({1}, frozenset({1})),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=[1.0]), {"a": [True]}),
        (float("nan"), float("nan")),
        (lambda: 0, lambda: 1),
    ],
)
def test_what_tests_find_equal_has_one_shape(one: Any, other: Any) -> None:
    assert shape(one) == shape(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"),
        (1, 2),
        ([1], (1,)),
        ((1,), 1),
        ("a", b"a"),
        (None, "None"),
        (0.1, 0.2),
        (10**30, 10**30 + 1),
        ({1: 2}, {1: 3}),
        ([1, 2], [12]),
        (Fraction(1, 3), Fraction(1, 4)),
    ],
)
def test_what_tests_find_different_has_two(one: Any, other: Any) -> None:
    assert shape(one) != shape(other)


def test_values_without_end_and_too_large_ones() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(RecursionError):
        shape(loop)
    with pytest.raises(OverflowError):
        shape(list(range(30_000)))
    assert "bits" in shape(1 << 20_000)


@pytest.mark.parametrize(
    "data", [None, b"", b"nonsense", b'["=1"]', b"[1, 2]", b'{"a": 1}', b"[" * 5000, b"[" + b"[]," * 99_999]
)
def test_a_program_that_writes_no_outcomes_is_gone(data: bytes | None) -> None:
    assert read_outcomes(data, 2) == ["~gone", "~gone"]


def test_outcomes_of_any_letters_are_read() -> None:
    longest = ["=" + "\N{GRINNING FACE}" * (LONGEST - 1)] * 2
    assert read_outcomes(json.dumps(longest).encode(), 2) == longest


PROGRAM = """
import os
state = []

def f(x):
    if x == "raise":
        raise ValueError("no")
    if x == "loop":
        while True:
            pass
    if x == "exit":
        os._exit(0)
    if x == "deep":
        return f(x)
    state.append(x)
    return state

if __name__ == "__main__":
    raise SystemExit("never run")
"""


@pytest.mark.real
async def test_every_call_has_a_program_of_its_own(code_tool: PythonTool) -> None:
    calls = ["f(1)", "f('raise')", "f('loop')", "f('exit')", "f('deep')", "f(2)", "g(1)", "f(", "'x' * 1000"]
    bills: list[Usage] = []
    outcomes = await code_tool.outcomes(PROGRAM, calls, limits=Limits(cpu_s=3), on_usage=bills.append)
    assert outcomes[:5] == ["=[1]", "!ValueError", "~time", "~gone", "!RecursionError"]
    assert outcomes[5:8] == ["=[2]", "!NameError", "!SyntaxError"]
    assert LONGEST < len(outcomes[8]) < LONGEST + 30
    assert len(bills) == 1
    assert 0 < bills[0].cpu_s < 3.5


@pytest.mark.real
@pytest.mark.parametrize(
    ("program", "outcome"),
    [
        ("def f(x:", "!load"),
        ("raise SystemExit", "!load"),
        ("import os, signal; os.kill(os.getppid(), signal.SIGKILL); f = 1", "~gone"),
        ("open('outcomes.json', 'w').write('[7, 8]')\nimport os\nos.kill(os.getppid(), 9)", "~gone"),
        ("while True: pass", "~time"),
    ],
)
async def test_programs_that_do_not_get_to_the_call(code_tool: PythonTool, program: str, outcome: str) -> None:
    found = await code_tool.outcomes(program, ["f(1)", "f(2)"], limits=Limits(cpu_s=1), on_usage=lambda _usage: None)
    assert found == [outcome, outcome]


@pytest.mark.real
async def test_a_check_also_says_what_calls_come_to_on_one_bill(code_tool: PythonTool) -> None:
    bills: list[Usage] = []
    seen = await code_tool.check(
        "def f(x):\n    return x + 1",
        ["assert f(1) == 2", "assert f(2) == 2"],
        calls=["f(5)", "f('a')"],
        limits=Limits(),
        on_usage=bills.append,
    )
    assert (seen.passed, seen.total) == (1, 2)
    assert seen.outcomes == {"f(5)": "=6", "f('a')": "!TypeError"}
    assert len(bills) == 1
