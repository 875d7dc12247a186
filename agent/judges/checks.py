"""Checks of an answer that need no sandbox: exact, regex, numeric, json_schema, and a trusted Python predicate."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ponder.answers import normalise, number
from ponder.errors import UsageError
from ponder.records import SuccessCriterion

if TYPE_CHECKING:
    from jsonschema.protocols import Validator


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
            return _says_so(check, answer)
    raise UsageError(f"{criterion.kind} checks run in a sandbox, not here")


def validate(criterion: SuccessCriterion) -> None:
    """Raise UsageError when a check of the criterion is broken."""
    if criterion.kind in ("tests", "rubric"):
        return
    for check in (*criterion.visible, *criterion.hidden):
        if criterion.kind == "python":
            _predicate(check)
        elif criterion.kind == "json_schema":
            _refuse_missing(_validator(check).schema)
        else:
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
    from referencing.exceptions import Unresolvable

    validator = _validator(check)
    try:
        return bool(validator.is_valid(json.loads(answer, parse_constant=_refuse)))
    except Unresolvable as error:
        raise UsageError(f"the JSON schema refers to what is not in it: {error}") from error
    except (ValueError, RecursionError, OverflowError):  # hostile answers nest deep, and hold numbers beyond all bounds
        return False


@lru_cache(maxsize=64)
def _validator(check: str) -> Validator:
    """Return the validator of a schema; it fetches nothing. Raises UsageError: the schema is broken."""
    from jsonschema import Draft202012Validator, SchemaError
    from referencing import Registry

    try:
        schema = json.loads(check)
        Draft202012Validator.check_schema(schema)
    except (ValueError, RecursionError, SchemaError) as error:
        raise UsageError(f"the JSON schema is broken: {str(error).splitlines()[0]}") from error
    return Draft202012Validator(schema, registry=Registry())


def _refuse_missing(schema: Any) -> None:
    """Raise UsageError where a schema refers to what is not in it: nothing is fetched."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    base = schema.get("$id", "") if isinstance(schema, dict) else ""
    resolver = Registry().with_resource(base, DRAFT202012.create_resource(schema)).crawl().resolver(base)
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except Unresolvable as error:
            raise UsageError(f"the JSON schema refers to {reference!r}, which is not in it") from error


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from _references(one)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _predicate(check: str) -> Callable[[str], object]:
    module, _, name = check.partition(":")
    try:
        found = getattr(import_module(module), name)
    except Exception as error:  # the module is the user's: whatever it raises
        wrong = f"cannot load the check {check!r}: {type(error).__name__}: {error}"
        raise UsageError(wrong, fix="write it as module:function") from error
    if not callable(found):
        raise UsageError(f"the check {check!r} is no function", fix="write it as module:function")
    return found  # type: ignore[no-any-return]


def _says_so(check: str, answer: str) -> bool:
    """Return what a predicate says of an answer. One that raises does not say yes: told once, as a warning."""
    says_so = _predicate(check)
    try:
        return bool(says_so(answer))
    except Exception as error:  # of a user's function: whatever it is, the search goes on
        warnings.warn(f"the check {check} raised {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2)
        return False
