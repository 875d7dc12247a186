"""Checks without a sandbox."""

from __future__ import annotations

import pytest

from ponder.errors import UsageError
from ponder.judges.checks import passes, validate
from ponder.records import SuccessCriterion


@pytest.mark.parametrize(
    ("kind", "check", "good", "bad"),
    [
        ("exact", "Paris", "paris.", "Rome"),
        ("regex", r"\b19\d\d\b", "in 1911", "in 2011"),
        ("numeric", "3.14", "3.1415", "three"),
        ("json_schema", '{"type": "object", "required": ["a"]}', '{"a": 1}', "[1"),
        ("python", "keyword:iskeyword", "for", "four"),
    ],
)
def test_passes(kind: str, check: str, good: str, bad: str) -> None:
    criterion = SuccessCriterion(kind=kind, visible=(check,), tolerance=0.01)  # type: ignore[arg-type]
    assert passes(criterion, check, good)
    assert not passes(criterion, check, bad)


@pytest.mark.parametrize(
    ("kind", "check"),
    [("regex", "("), ("numeric", "many"), ("json_schema", "{"), ("json_schema", '{"type": 3}'), ("python", "nowhere")],
)
def test_a_broken_check_is_the_callers_mistake(kind: str, check: str) -> None:
    with pytest.raises(UsageError):
        validate(SuccessCriterion(kind=kind, hidden=(check,)))  # type: ignore[arg-type]
