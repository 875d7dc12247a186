"""The examples in a HumanEval docstring, read as asserts: what a search may check candidates with.

Nothing of a docstring is ever run to find them: calls and values are parsed, and only literals are let through. What
cannot be read safely is left out. The forms, each with a task that has it:

    >>> f(x)                  and the value on the next lines (0), none at all for None (12), or in one line (116)
    f(x) == y                 = (102), => (66), ==> (77), -> (159), ➞ (92), returns (86), should return (95), # returns
                              (79), # => (141); also after `for`, `*`, `assert`, and with a sum before its value (67)
    For a = x, b = y the output should be z                                                                      (112)
    Input: a = x, b = y  Output: z                                                              (68, 115, 120, 147)
    a = x ... return z                                                                                           (105)

A name in a call that is not the function's own is read as the function's where no other example is found (149); bare
words as arguments are read as strings where they are no parameters (80).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ponder.bench.suites.literals import Text, balanced, literal, read_value

_RELATION = re.compile(
    r"[ \t]*(?:\#[ \t]*)?(?:==>|=>|==|=|->|\u279e|\u2192|(?:should[ \t\n]+)?(?:return|returns)\b)[ \t]*", re.IGNORECASE
)
_CALL = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\(")
_PROMPT = re.compile(r"^[ \t]*>>>[ \t]?(.*)$")
_ASSIGN = re.compile(r"([A-Za-z_]\w*)[ \t]*[=:][ \t]*(?!=)")
_FOR = re.compile(r"^[ \t]*For[ \t]+(?=[A-Za-z_]\w*[ \t]*=)", re.MULTILINE)
_SHOULD = re.compile(r"(?:output|result)[ \t]+should[ \t]+be[ \t]+")
_INPUT = re.compile(r"Input:[ \t]*")
_OUTPUT = re.compile(r"\bOutput:[ \t]*")
_RETURN = re.compile(r"^[ \t]*returns?[ \t]*=?[ \t]*", re.MULTILINE)
_BUILTINS = ("round", "sorted", "list", "tuple", "set", "len", "abs", "str", "int", "float")
"""What may stand around a call in a doctest: it is run in the sandbox, with the program."""


@dataclass(frozen=True)
class Signature:
    """The function that a docstring is of."""

    name: str
    parameters: tuple[str, ...]
    required: int

    def fits(self, call: ast.Call) -> bool:
        """Return whether the call's arguments can be bound."""
        keywords = [keyword.arg for keyword in call.keywords]
        given = len(call.args) + len(keywords)
        return self.required <= given <= len(self.parameters) and all(name in self.parameters for name in keywords)


def examples(prompt: str, entry_point: str) -> tuple[str, ...]:
    """Return the docstring's examples as asserts, in their order, without repeats.

    Args:
        prompt: Python source that ends with the function's head and its docstring.
        entry_point: the function's name.
    """
    signature, text = _docstring(prompt, entry_point)
    if signature is None:
        return ()
    told, rest = _doctests(text, signature)
    found = [*told, *_relations(rest, signature)]
    if not found:
        found = [*_relations(rest, signature, alias=True)]
    found = found or [*_stated(rest, signature)] or [*_inputs(rest, signature)] or [*_assigned(rest, signature)]
    return tuple(dict.fromkeys(found))


def _docstring(prompt: str, entry_point: str) -> tuple[Signature | None, str]:
    """Return the function's signature and its docstring as written, escapes and all: they are its strings' escapes."""
    try:
        tree = ast.parse(prompt + "\n    pass\n")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None, ""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == entry_point:
            # One task has an import before its docstring.
            texts = [s for s in node.body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)]
            names = tuple(argument.arg for argument in node.args.args)
            signature = Signature(entry_point, names, len(names) - len(node.args.defaults))
            source = ast.get_source_segment(prompt, texts[0]) if texts else ""
            return signature, (source or "").strip().strip("\"'")
    return None, ""


def _doctests(text: str, signature: Signature) -> tuple[list[str], str]:
    """Return the doctests' asserts, and the text without them."""
    lines, found, rest = text.split("\n"), [], []
    at = 0
    while at < len(lines):
        mark = _PROMPT.match(lines[at])
        at += 1
        if mark is None:
            rest.append(lines[at - 1])
            continue
        output = []
        while at < len(lines) and lines[at].strip() and not _PROMPT.match(lines[at]):
            output.append(lines[at].strip())
            at += 1
        check = _doctest(mark.group(1), output, signature)
        if check is not None:
            found.append(check)
        elif output or _RELATION.search(mark.group(1)):
            rest += [mark.group(1), *output]  # `>>> f(x) == y` is read like any other relation
    return found, "\n".join(rest)


def _doctest(source: str, output: list[str], signature: Signature) -> str | None:
    try:
        tree = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _side_by_side(source, signature)
    if isinstance(tree, ast.Subscript):  # `f(x) [1, 2]` is Python, too
        return _side_by_side(source, signature)
    if not _harmless(tree, signature):
        return None
    expression = ast.unparse(tree)
    if isinstance(tree, ast.Compare):
        return None if output and output != ["True"] else f"assert {expression}"
    if not output:
        return f"assert {expression} is None"
    value = read_value(_longest(output))
    return None if value is None else _assert(expression, value)


def _longest(output: list[str]) -> str:
    """Return as many output lines as make one literal: prose may follow without an empty line."""
    for end in range(len(output), 0, -1):
        if read_value("\n".join(output[:end])) is not None:
            return "\n".join(output[:end])
    return output[0]


def _side_by_side(source: str, signature: Signature) -> str | None:
    """Read `f(x) [1, 2]`: the sign between was forgotten."""
    mark = _CALL.match(source.strip())
    call = balanced(source.strip(), mark.end() - 1) if mark else None
    if mark is None or call is None:
        return None
    expression = _call(source.strip()[: call], signature, alias=False)
    value = read_value(source.strip()[call:].strip())
    return None if expression is None or value is None else _assert(expression, value)


def _harmless(tree: ast.expr, signature: Signature) -> bool:
    """Return whether an expression is literals, calls of the function that fit it, and of a few builtins."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    own = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == signature.name]
    others = [call for call in calls if call not in own]
    names = {id(call.func) for call in calls}
    allowed = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.UnaryOp, ast.USub, ast.Call, ast.keyword,
               ast.Compare, ast.cmpop, ast.expr_context)  # fmt: skip
    return (
        bool(own)
        and all(signature.fits(call) for call in own)
        and all(isinstance(call.func, ast.Name) and call.func.id in _BUILTINS for call in others)
        and all(isinstance(node, allowed) or id(node) in names for node in ast.walk(tree))
    )


def _relations(text: str, signature: Signature, *, alias: bool = False) -> Iterator[str]:
    """Yield the asserts of `f(x) == y` in all its spellings."""
    at = 0
    while (mark := _CALL.search(text, at)) is not None:
        at = mark.end()
        end = balanced(text, mark.end() - 1)
        if end is None or not (alias or mark.group(1) == signature.name):
            continue
        expression = _call(text[mark.start() : end], signature, alias=alias)
        relation = _RELATION.match(text, end)
        if expression is None or relation is None:
            continue
        value = Text(text, relation.end()).value()
        if value is not None:
            yield _assert(expression, value)


def _call(source: str, signature: Signature, *, alias: bool) -> str | None:
    """Return the call, written out, if its arguments are literals and fit; bare words are strings."""
    try:
        call = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(call, ast.Call) or not signature.fits(call):
        return None
    arguments = []
    for argument in call.args:
        if isinstance(argument, ast.Name) and argument.id not in signature.parameters and not alias:
            arguments.append(repr(argument.id))
        elif literal(argument):
            arguments.append(ast.unparse(argument))
        else:
            return None
    if not all(literal(keyword.value) for keyword in call.keywords):
        return None
    arguments += [f"{keyword.arg}={ast.unparse(keyword.value)}" for keyword in call.keywords]
    return f"{signature.name}({', '.join(arguments)})"


def _stated(text: str, signature: Signature) -> Iterator[str]:
    """Yield the asserts of `For a = x the output should be z`."""
    for mark in _FOR.finditer(text):
        line = text[mark.end() :].split("\n", 1)[0]
        should = _SHOULD.search(line)
        value = Text(line, should.end()).value() if should else None
        if value is not None and should is not None:
            yield from _bound(line[: should.start()], value, signature)


def _inputs(text: str, signature: Signature) -> Iterator[str]:
    """Yield the asserts of `Input: ... Output: z`; the input's values may have no names."""
    for mark in _INPUT.finditer(text):
        output = _OUTPUT.search(text, mark.end())
        value = Text(text, output.end()).value() if output else None
        if value is None or output is None or _INPUT.search(text, mark.end(), output.start()):
            continue
        given = text[mark.end() : output.start()].strip()
        if len(signature.parameters) == 1 and (only := read_value(given)) is not None:
            yield _assert(f"{signature.name}({only})", value)
        else:
            yield from _bound(given, value, signature)


def _assigned(text: str, signature: Signature) -> Iterator[str]:
    """Yield the asserts of `a = x`, lines of explanation, `return z`; for functions of one parameter."""
    marks = [mark for mark in _ASSIGN.finditer(text) if signature.parameters == (mark.group(1),)]
    for place, mark in enumerate(marks):
        until = marks[place + 1].start() if place + 1 < len(marks) else len(text)
        back = _RETURN.search(text, mark.end(), until)
        value = Text(text, back.end()).value() if back else None
        if value is not None:
            yield from _bound(text[mark.start() : until], value, signature)


def _bound(given: str, value: str, signature: Signature) -> Iterator[str]:
    """Yield the assert for values that are given by name; the names count where they are all the function's."""
    values: dict[str, str] = {}
    at = 0
    while (mark := _ASSIGN.search(given, at)) is not None:
        read = Text(given, mark.end())
        found = read.literal()
        at = read.at if found is not None else mark.end()
        if found is not None:
            values.setdefault(mark.group(1), found)
    if signature.required <= len(values) <= len(signature.parameters):
        named = set(values) == set(signature.parameters)
        ordered = [values[name] for name in signature.parameters] if named else list(values.values())
        yield _assert(f"{signature.name}({', '.join(ordered)})", value)


def _assert(expression: str, value: str) -> str:
    return f"assert {expression} {'is' if value == 'None' else '=='} {value}"
