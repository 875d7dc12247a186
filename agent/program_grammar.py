"""The grammar of programs: Python's syntax in GBNF, written out from the templates in `program.gbnf`."""

from __future__ import annotations

import json
import keyword
import re
import string
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files

DEPTH = 8
"""Blocks within blocks, at most."""

INDENT = "    "

_INSIDE = {"o": "i", "i": "i", "d": "d", "s": "s"}
"""The places of expressions, and what is inside their brackets."""
_LETTERS = string.ascii_letters + "_"
_VALUES = {"None", "True", "False"}


def program_grammar(modules: Sequence[str], *, only_definitions: bool = False, in_function: bool = False) -> str:
    """Return a grammar for the rest of a fenced program: it ends with its fence and imports only `modules`.

    Small cores import what they know from training (sympy, numpy) whatever the prompt says, and repeat it when told
    of the error; they leave brackets open, and fall into prose. A grammar makes that impossible and costs no token.

    Args:
        modules: import names that programs may use.
        only_definitions: no line of the top level runs anything: no examples of use, which small cores write up to
            the limit. Constants may stand before the first definition only: after it they would be uses of it. Eight
            definitions are more than any such task needs; small cores write variants of one up to the limit.
        in_function: the program goes on from the first line of a function's body; of use with `only_definitions`.
    """
    if only_definitions:
        begun = "block-f0" if in_function else "(end{0,8} (import | constant) end)* end{0,8} define-t0"
        root = f"root ::= {begun} further{{0,7}} blank* fence\n"
        root += "further ::= blank* (import end blank*)* define-t0\n"
        root += 'constant ::= target-o ws-o (":" ws-o test-o ws-o)? "=" ws-o list-o\n'
    else:
        root = "root ::= next-t0+ end{0,8} fence\n"
    allowed = " | ".join(json.dumps(name) for name in modules)
    return f'{root}fence ::= "```" "\\n"?\nmodule ::= {allowed}\n{_python()}'


@cache
def _python() -> str:
    """Return the rules of the language, the same for every step."""
    text = files("ponder").joinpath("program.gbnf").read_text("utf-8")
    sections = dict(re.findall(r"^# \[(\w+)\]\n(.*?)(?=^# \[|\Z)", text, re.MULTILINE | re.DOTALL))
    expressions = "".join(_in_place(sections["expressions"], place) for place in _INSIDE)
    statements = "".join(
        _at_depth(sections["statements"], context, depth) for context in "tf" for depth in range(DEPTH + 1)
    )
    parts = (expressions, sections["places"], sections["words"], sections["lines"], statements, *_names())
    return re.sub(r"\n{2,}", "\n", "\n".join(parts))


def _in_place(template: str, place: str) -> str:
    return template.replace("$", f"-{place}").replace("%", f"-{_INSIDE[place]}")


def _at_depth(template: str, context: str, depth: int) -> str:
    if depth == DEPTH:  # a line is all that can stand here
        indent = json.dumps(INDENT * depth)
        return f"next-{context}{depth} ::= gap{{0,8}} {indent} simple{context}\n"
    if depth + 1 == DEPTH:  # the blocks of a `match` are two levels deeper
        template = re.sub(r"^match.*\n| \| match\$", "", template, flags=re.MULTILINE)
    if depth == 0:  # outside of all blocks a comment stands where it likes
        template = template.replace("gap{", "end{")
    marks = {
        "in$": json.dumps(INDENT * depth) if depth else "", "in^": json.dumps(INDENT * (depth + 1)),
        "simple$": f"simple{context}",
        "$": f"-{context}{depth}", "^": f"-{context}{depth + 1}", "&": f"-f{depth}", "!": f"-t{depth}",
    }  # fmt: skip
    for mark, meaning in marks.items():
        template = template.replace(mark, meaning)
    return template


def _names() -> Iterator[str]:
    """Yield the rules of names that are no keywords: they follow the keywords letter by letter, and leave them."""
    words = [word for word in keyword.kwlist if word not in _VALUES]
    beginnings = sorted({word[:end] for word in words for end in range(len(word) + 1)})
    for at in beginnings:
        following = {word[len(at)] for word in words if word.startswith(at) and len(word) > len(at)}
        allowed = [c for c in _LETTERS + (string.digits if at else "") if c not in following]
        ways = [f"[{''.join(allowed)}] [a-zA-Z0-9_]*", *(f'"{c}" {_name(at + c)}' for c in sorted(following))]
        optional = "?" if at and at not in words else ""
        yield f"{_name(at)} ::= ({' | '.join(ways)}){optional}"


def _name(beginning: str) -> str:
    return f"name-{beginning}" if beginning else "name"
