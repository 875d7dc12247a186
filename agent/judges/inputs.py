"""Inputs to compare candidate programs on: small changes of the arguments of calls that a task's visible tests make.

Changes keep types and stay near to what the task shows, so that they seldom leave what the task allows: the type-aware
mutation of EvalPlus (Liu et al. 2023, arXiv 2305.01210), without its reference solution. Nothing is evaluated here.
"""

from __future__ import annotations

import ast
import copy
import math
import random
from collections.abc import Sequence
from typing import Any

from ponder.program_tests import LONGEST_CALL, NO_LITERAL, literal

_TRIES = 12
"""Changes tried for each call that is wanted: many change nothing, or come twice."""

def changed_calls(calls: Sequence[str], wanted: int, *, seed: int = 0) -> list[str]:
    """Return up to `wanted` new calls, each one of `calls` with one or two small changes; the same for a seed."""
    draw = random.Random(repr((seed, list(calls))))
    found: dict[str, None] = {}
    trees = [tree for call in calls if (tree := _call(call)) is not None and (tree.args or tree.keywords)]
    for number in range(wanted * _TRIES if trees else 0):
        if len(found) == wanted:
            break
        tree = copy.deepcopy(trees[number % len(trees)])
        for _ in range(draw.choice((1, 1, 2))):
            _change(tree, draw)
        text = ast.unparse(tree)
        if text not in calls and len(text) <= LONGEST_CALL:
            found[text] = None
    return list(found)


def _call(text: str) -> ast.Call | None:
    tree = ast.parse(text, mode="eval").body
    return tree if isinstance(tree, ast.Call) else None


def _change(call: ast.Call, draw: random.Random) -> None:
    """Change one argument a little, in place."""
    slots: list[tuple[Any, Any]] = [(call.args, place) for place in range(len(call.args))]
    slots += [(keyword, "value") for keyword in call.keywords]
    holder, place = draw.choice(slots)
    node = holder[place] if isinstance(holder, list) else holder.value
    value = literal(node)
    if value is NO_LITERAL:
        return
    new = ast.parse(repr(_changed(value, draw)), mode="eval").body
    if literal(new) is NO_LITERAL:  # an infinite float is written as a name
        return
    if isinstance(holder, list):
        holder[place] = new
    else:
        holder.value = new


def _changed(value: Any, draw: random.Random) -> Any:
    """Return a value of the same type, near to this one."""
    match value:
        case bool():
            return not value
        case int():
            near = (value + 1, value - 1, value * 2, value + draw.randint(2, 9))
            return draw.choice(near) if value > 0 else draw.choice((*near, -value))
        case float():
            if not math.isfinite(value):
                return value
            new = draw.choice((value + 1, value - 0.5, value * 2, value / 2, float(round(value))))
            return new if math.isfinite(new) else value
        case str():
            return _changed_text(value, draw)
        case bytes():
            return _changed_text(value.decode("latin1"), draw).encode("latin1", "ignore")
        case list():
            return _changed_items(value, draw)
        case tuple():
            # Of a short tuple the length is part of its type.
            return tuple(_changed_items(list(value), draw, same_length=len(value) <= 3))
        case set() | frozenset():
            return type(value)(_changed_items(sorted(value, key=repr), draw))
        case dict():
            return _changed_dict(value, draw)
    return value


def _changed_text(text: str, draw: random.Random) -> str:
    if not text:
        return draw.choice(("a", " ", "1"))
    at, other = draw.randrange(len(text)), draw.randrange(len(text))
    swapped = list(text)
    swapped[at], swapped[other] = swapped[other], swapped[at]
    return draw.choice((
        text[:at] + text[at + 1 :], text[:at] + text[at] + text[at:], "".join(swapped), text[::-1], text.swapcase(),
        text + text[other], text[: at + 1],
    ))  # fmt: skip


def _changed_items(items: list[Any], draw: random.Random, *, same_length: bool = False) -> list[Any]:
    if not items:
        return items
    new, at, other = list(items), draw.randrange(len(items)), draw.randrange(len(items))
    ways = ["change", "swap"] if same_length else ["change", "change", "swap", "drop", "double", "reverse"]
    match draw.choice(ways):
        case "change":
            new[at] = _changed(new[at], draw)
        case "swap":
            new[at], new[other] = new[other], new[at]
        case "drop":
            del new[at]
        case "double":
            new.insert(other, new[at])
        case "reverse":
            new.reverse()
    return new


def _changed_dict(value: dict[Any, Any], draw: random.Random) -> dict[Any, Any]:
    if not value:
        return value
    new, key = dict(value), draw.choice(list(value))
    if draw.random() < 0.3 and len(new) > 1:
        del new[key]
    else:
        new[key] = _changed(new[key], draw)
    return new
