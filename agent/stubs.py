"""A function that a task gives without its body: what a core need not write again."""

from __future__ import annotations

import ast
import re
from functools import lru_cache

from ponder.program_tests import has_tests, name_under_test
from ponder.records import Task

_FENCED = re.compile(r"^```(?:python|py)?[ \t]*\n(.*?)^```", re.MULTILINE | re.DOTALL | re.IGNORECASE)
_CODE = re.compile(r"^(?:from|import|def) .*\Z", re.MULTILINE | re.DOTALL)
_INDENT = 4


def stub_of(task: Task) -> str | None:
    """Return the code that a task gives up to where the body of its function is to begin, or None.

    It is the last fenced code of the prompt, or the prompt from its first line of code on, and ends with the heading of
    the function under test and its docstring, where it has one: the next line is the body's first, four spaces deep.
    Where the function does something already, there is nothing to complete.
    """
    name = name_under_test(task) if has_tests(task) else None
    return _stub(task.prompt, name) if name is not None else None


@lru_cache(maxsize=64)
def _stub(prompt: str, name: str) -> str | None:
    fenced = _FENCED.findall(prompt)
    code = fenced[-1] if fenced else found.group() if (found := _CODE.search(prompt)) else ""
    try:
        last = ast.parse(f"{code.rstrip()}\n    pass\n").body[-1]
    except (SyntaxError, ValueError, IndexError, RecursionError, MemoryError):
        return None
    if not isinstance(last, ast.FunctionDef) or last.name != name or last.col_offset:
        return None
    body = list(last.body)
    told = body.pop(0) if _is_text(body[0]) else None
    if not all(_is_nothing(statement) for statement in body):
        return None
    first = last.body[0]
    if first.col_offset != _INDENT or first.lineno <= last.lineno:
        return None
    end = told.end_lineno if told is not None else first.lineno - 1
    begun = "\n".join(code.split("\n")[:end]) + "\n"
    return None if "```" in begun else begun


def _is_text(statement: ast.stmt) -> bool:
    constant = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(constant, ast.Constant) and isinstance(constant.value, str)


def _is_nothing(statement: ast.stmt) -> bool:
    """Return whether a statement only holds the place of a body: `pass`, `...`, `raise NotImplementedError`."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant) and statement.value.value is ...
    if isinstance(statement, ast.Raise):
        return statement.exc is not None and ast.unparse(statement.exc).startswith("NotImplementedError")
    return isinstance(statement, ast.Pass)
