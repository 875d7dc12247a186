"""Imports that a program needs and does not have: small cores forget them, and more so inside a function."""

from __future__ import annotations

import ast
import builtins
import importlib
from collections.abc import Iterator, Sequence
from functools import cache

_NAMED_IN = ("collections", "itertools", "functools", "math", "heapq", "bisect", "fractions", "decimal", "typing")
"""Where a name is looked for that is no module's, in this order. All of them are harmless to import."""


def with_imports(code: str, modules: Sequence[str], given: str = "") -> str:
    """Return a program with the imports that it lacks before it: of modules, and of well-known names in some of them.

    Only what the program uses and nowhere binds is looked for, so that nothing that works is changed.

    Args:
        modules: what programs may import.
        given: code that runs before the program.
    """
    try:
        tree, before = ast.parse(code), ast.parse(given)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code
    if "__future__" in code:  # its import has to be the first
        return code
    missing = sorted(_used(tree) - _bound(tree) - _bound(before) - set(dir(builtins)))
    lines = [line for name in missing if (line := _import(name, modules)) is not None]
    return "\n".join([*lines, "", code]) if lines else code


def _used(tree: ast.Module) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _bound(tree: ast.Module) -> set[str]:
    return {name for node in ast.walk(tree) for name in _binds(node)}


def _binds(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.alias):
        yield (node.asname or node.name).partition(".")[0]
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        yield node.name


def _import(name: str, modules: Sequence[str]) -> str | None:
    if name in modules:
        return f"import {name}"
    place = next((module for module in _NAMED_IN if module in modules and name in _public(module)), None)
    return f"from {place} import {name}" if place else None


@cache
def _public(module: str) -> frozenset[str]:
    return frozenset(name for name in dir(importlib.import_module(module)) if not name.startswith("_"))
