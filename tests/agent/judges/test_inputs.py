"""Inputs to compare programs on: what the tests show, and near to it."""

from __future__ import annotations

import ast
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.judges.inputs import changed_calls


def test_changes_are_new_near_and_the_same_for_the_same_seed() -> None:
    calls = ["f([1, 2, 3], 'abc', k=2.5)"]
    changed = changed_calls(calls, 10)
    assert len(set(changed)) == 10
    assert not set(changed) & set(calls)
    assert changed == changed_calls(calls, 10)
    assert changed != changed_calls(calls, 10, seed=1)


def test_what_cannot_be_changed_gives_nothing() -> None:
    assert changed_calls(["f()"], 5) == []
    assert changed_calls([], 5) == []
    assert changed_calls(["f(None)"], 5) == []
    assert changed_calls(["f([])"], 5) == []
    assert "inf" not in "".join(changed_calls(["f(1e999)"], 5)), "an infinite number has no literal of its own"


VALUES = st.recursive(
    st.one_of(
        st.booleans(), st.integers(-1000, 1000), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None, database=None)
@given(VALUES)
def test_a_changed_argument_keeps_its_type(value: Any) -> None:
    for call in changed_calls([f"f({value!r})"], 4):
        tree = ast.parse(call, mode="eval").body
        assert isinstance(tree, ast.Call)
        assert type(ast.literal_eval(tree.args[0])) is type(value)
