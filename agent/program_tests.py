"""What tests of a program say, read from their text: which calls, and what these are to return. Nothing is run."""

from __future__ import annotations

import ast
import builtins
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

from ponder.records import Record, Task

LONGEST_CALL = 300
"""Characters of a call, or of a test."""
NO_LITERAL: Final = object()
_CPU = re.compile(r" did not end within [\d.]+ s of CPU time$", re.MULTILINE)
_WALL = re.compile(r" did not end within [\d.]+ s$", re.MULTILINE)
_DEFINED = re.compile(r"^[ \t]*def (\w+)\(", re.MULTILINE)


class OwnTest(Record):
    """A test that the core wrote: a call of the program, and the call compared with what the core thinks it returns."""

    call: str
    comparison: str


@lru_cache(maxsize=256)
def read_tests(text: str) -> tuple[OwnTest, ...]:
    """Return the tests of a text: its lines `assert CALL == LITERAL`. What else stands there is passed over."""
    found = (_read(line.strip()) for line in text.splitlines())
    return tuple(test for test in found if test is not None)


def calls_in(tests: Sequence[str]) -> list[str]:
    """Return the calls of the program in tests, in order, once each: those whose arguments are literals."""
    found: dict[str, None] = {}
    for test in tests:
        for node in _outermost(_parsed(test)):
            found[ast.unparse(node)] = None
    return [call for call in found if len(call) <= LONGEST_CALL]


def has_tests(task: Task) -> bool:
    """Return whether the task's answer is a program that visible tests check."""
    return task.success is not None and task.success.kind == "tests"


def stopped_by(report: str) -> Literal["cpu", "wall"] | None:
    """Return the limit that stopped a test, by the words of the check that ran it; None: all of them ended."""
    return "cpu" if _CPU.search(report) else "wall" if _WALL.search(report) else None


def name_under_test(task: Task) -> str | None:
    """Return the function that the task's visible tests call most, else the last one that its words define."""
    names = [call.partition("(")[0] for call in calls_in(task.success.visible if task.success else ())]
    defined = _DEFINED.findall(task.prompt)
    return Counter(names).most_common(1)[0][0] if names else defined[-1] if defined else None


def literal(node: ast.expr) -> Any:
    """Return the value of a literal, `NO_LITERAL` for what is none."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return NO_LITERAL


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module(body=[], type_ignores=[])


def _read(line: str) -> OwnTest | None:
    match _parsed(line if len(line) <= LONGEST_CALL else "").body:
        case [ast.Assert(test=ast.Compare(left=ast.Call() as call, ops=[ast.Eq() | ast.Is()]) as test)]:
            if _is_of_program(call) and literal(test.comparators[0]) is not NO_LITERAL:
                return OwnTest(call=ast.unparse(call), comparison=ast.unparse(test))
    return None


def _outermost(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield calls of the program, outside in; not those inside one that was taken."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.Call) and _is_of_program(node):
            yield node
        else:
            waiting[:0] = list(ast.iter_child_nodes(node))


def _is_of_program(call: ast.Call) -> bool:
    """Return whether a call is of a name that Python itself does not have, with literals only."""
    if not isinstance(call.func, ast.Name) or hasattr(builtins, call.func.id):
        return False
    parts = [*call.args, *(keyword.value for keyword in call.keywords)]
    return all(literal(part) is not NO_LITERAL for part in parts)
