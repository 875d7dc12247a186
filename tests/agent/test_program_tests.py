"""Tests are read from text: what they call, what they expect, which function they are of."""

from __future__ import annotations

import pytest

from ponder.program_tests import calls_in, name_under_test, read_tests
from ponder.records import SuccessCriterion, Task


@pytest.mark.parametrize(
    ("test", "calls"),
    [
        ("assert f(1, [2, 3]) == 4", ["f(1, [2, 3])"]),
        ("assert sorted(f('a')) == ['b']", ["f('a')"]),
        ("assert abs(area(2, h=3.5) - 7) < 1e-6", ["area(2, h=3.5)"]),
        ("assert f(-1) == g(f(2))", ["f(-1)", "f(2)"]),
        ("def test():\n    for i in range(3):\n        assert f(i) == i", []),
        ("assert len('abc') == 3", []),
        ("assert f(", []),
        ("assert f(1) == 1\x00", []),
        ("x = [1]\nassert f(x) == 1 and f(x=[1]) == 1", ["f(x=[1])"]),
        ("assert f({'a': (1, None)}) is True and f({'a': (1, None)})", ["f({'a': (1, None)})"]),
    ],
)
def test_calls_with_literals_are_found(test: str, calls: list[str]) -> None:
    assert calls_in([test]) == calls


def test_lines_that_compare_a_call_with_a_literal_are_tests_of_the_core() -> None:
    text = """```python
assert f(1) == [2, -3]
  assert f( "a" )  is None
assert f(x) == 2
assert f(2) == g(3)
assert f(2) > 1
assert f(3) == 3, "words"
assert len(f(3)) == 3
print(f(1))
assert f(4) ==
"""
    found = [(test.call, test.comparison) for test in read_tests(text)]
    assert found == [("f(1)", "f(1) == [2, -3]"), ("f('a')", "f('a') is None"), ("f(3)", "f(3) == 3")]


def test_a_test_of_endless_length_is_passed_over() -> None:
    assert read_tests(f"assert f('{'a' * 400}') == 1") == ()
    assert read_tests("assert f(" + "(" * 250) == ()


@pytest.mark.parametrize(
    ("prompt", "visible", "name"),
    [
        ("Write it.", ("assert g(1) == 1", "assert f(2) == 1", "assert f(3) == 2"), "f"),
        ("def helper(x):\n    pass\n\ndef wanted(x):\n", (), "wanted"),
        ("def wanted(x):\n", ("assert other(1) == 1",), "other"),
        ("Write a function.", (), None),
    ],
)
def test_the_tested_function(prompt: str, visible: tuple[str, ...], name: str | None) -> None:
    assert name_under_test(Task(prompt=prompt, success=SuccessCriterion(kind="tests", visible=visible))) == name
