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
    [
        ("regex", "("), ("numeric", "many"), ("json_schema", "{"),
        ("json_schema", '{"type": 3}'), ("python", "nowhere"),
        ("json_schema", '{"properties": {"a": {"$ref": "#/$defs/missing"}}}'),
        ("json_schema", '{"$ref": "https://example.org/schema.json"}'),
        ("python", "keyword:kwlist"),
    ],
)
def test_a_broken_check_is_the_callers_mistake(kind: str, check: str) -> None:
    with pytest.raises(UsageError):
        validate(SuccessCriterion(kind=kind, hidden=(check,)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ('{"type": "array"}', 100_000 * "["),
        ('{"multipleOf": 0.5}', "1" + 400 * "0"),
        ('{"type": "number"}', "NaN"),
        ('{"type": "number"}', "Infinity"),
        ('{"type": "number"}', 5000 * "1"),
    ],
)
def test_a_hostile_answer_does_not_fit_a_schema(schema: str, answer: str) -> None:
    criterion = SuccessCriterion(kind="json_schema", visible=(schema,))
    validate(criterion)
    assert not passes(criterion, schema, answer)


def test_a_schema_may_refer_to_its_own_parts() -> None:
    schema = '{"$id": "https://example.org/a", "$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}}'
    criterion = SuccessCriterion(kind="json_schema", visible=(schema,))
    validate(criterion)
    assert passes(criterion, schema, "[1, 2]")
    assert not passes(criterion, schema, '["a"]')


def test_a_predicate_that_raises_does_not_say_yes() -> None:
    criterion = SuccessCriterion(kind="python", visible=("math:sqrt",))
    validate(criterion)
    with pytest.warns(RuntimeWarning, match="math:sqrt raised TypeError"):
        assert not passes(criterion, "math:sqrt", "about 4")
