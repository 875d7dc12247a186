"""Checks of an answer that need no sandbox: exact, regex, numeric, json_schema, and a trusted Python predicate."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from importlib import import_module

from ponder.answers import normalise, number
from ponder.errors import UsageError
from ponder.records import SuccessCriterion


def passes(criterion: SuccessCriterion, check: str, answer: str) -> bool:
    """Return whether the answer meets one check of the criterion.

    Raises:
        UsageError: the check itself is broken (a bad pattern, schema, number or function name).
    """
    match criterion.kind:
        case "exact":
            return normalise(answer) == normalise(check)
        case "regex":
            return _pattern(check).search(answer) is not None
        case "numeric":
            return _close(check, answer, criterion.tolerance)
        case "json_schema":
            return _fits(check, answer)
        case "python":
            return bool(_predicate(check)(answer))
    raise UsageError(f"{criterion.kind} checks run in a sandbox, not here")


def validate(criterion: SuccessCriterion) -> None:
    """Raise UsageError when a check of the criterion is broken."""
    if criterion.kind not in ("tests", "rubric"):
        for check in (*criterion.visible, *criterion.hidden):
            passes(criterion, check, "")


def _pattern(check: str) -> re.Pattern[str]:
    try:
        return re.compile(check)
    except re.error as error:
        raise UsageError(f"the pattern {check!r} is broken: {error}") from error


def _close(check: str, answer: str, tolerance: float) -> bool:
    expected = number(check)
    if expected is None:
        raise UsageError(f"{check!r} is no number to compare with")
    given = number(answer)
    return given is not None and abs(given - expected) <= Decimal(str(tolerance))


def _fits(check: str, answer: str) -> bool:
    import jsonschema

    try:
        schema = json.loads(check)
        jsonschema.Draft202012Validator.check_schema(schema)
    except (ValueError, jsonschema.SchemaError) as error:
        raise UsageError(f"the JSON schema is broken: {str(error).splitlines()[0]}") from error
    try:
        return bool(jsonschema.Draft202012Validator(schema).is_valid(json.loads(answer)))
    except ValueError:
        return False


def _predicate(check: str):  # type: ignore[no-untyped-def]  # a user's function of any type
    module, _, name = check.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"cannot load the check {check!r}: {error}", fix="write it as module:function") from error
