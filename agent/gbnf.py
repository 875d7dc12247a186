"""Grammars of the action language (GBNF), one for each step of a task: what is not allowed cannot be written.

llama.cpp enforces them as they are, `ponder.core.hf.grammars` in our own engine, vLLM and SGLang in theirs. They are
kept readable character by character: an engine decides with them on every token.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence

from ponder.actions import Acts

LINE_CHARS = 400
"""Longest answer or typed text of one line: the end of the line is forced there, and so the end of the act."""


SHORT_CHARS = 60
"""A first line of an answer that is longer may be followed by any. A shorter one is a fact, or the first of a list of
such: a long line after it is chatter, unless it announced more (it ends with a colon, it is an item of a list)."""
_OPENING = re.compile(rf"(?:[-*#]|\d\d?[.)]) .+|.+:|.{{{SHORT_CHARS + 1},}}")
FEWEST_TESTS, TESTS = 3, 6
"""Tests that a core writes for itself: small cores end after one, or go on up to the limit of tokens."""


def one_of(options: Sequence[str]) -> str:
    """Return a grammar that allows exactly one of the options."""
    return "root ::= " + " | ".join(json.dumps(option) for option in options)


def answer_grammar(*, one_line: bool) -> str:
    """Return a grammar for the rest of an answer after its mark: never empty, and one line if so asked."""
    if one_line:
        return f'root ::= " "? [^ \\t\\r\\n] [^\\r\\n]{{0,{LINE_CHARS}}}'
    return 'root ::= [ \\n]{0,2} [^ \\t\\r\\n] ([^\\r] | "\\r\\n")*'


def without_chatter(answer: str) -> str:
    """Return an answer as the grammar of a step after a page would have it, for cores that enforce none."""
    lines = answer.strip().split("\n")
    if _OPENING.fullmatch(lines[0].strip()):
        return answer
    return "\n".join(itertools.takewhile(lambda line: 0 < len(line.strip()) <= SHORT_CHARS, lines)) or lines[0]


def act_grammar(acts: Acts) -> str:
    """Return a grammar for one whole act: an answer, or on a line of its own a browser operation or a tool call."""
    ways, rules = [], {"line": f"[^ \\t\\r\\n] [^\\r\\n]{{0,{LINE_CHARS}}}"}
    if acts.answer and acts.one_line:
        ways.append('"ANSWER: " line')
    elif acts.answer:
        ways.append('"ANSWER: " (line | short ("\\n" short){1,40} | opening ("\\n" "\\n"? line)+)')
        rules["short"] = f"[^ \\t\\r\\n] [^\\r\\n]{{0,{SHORT_CHARS - 1}}}"
        rest, listed = f"[^\\r\\n]{{1,{LINE_CHARS}}}", '([-*#] | [0-9] [0-9]? [.)])'
        rules["opening"] = f'{listed} " " {rest} | {rest} ":" | [^\\r\\n]{{{SHORT_CHARS + 1},{LINE_CHARS}}}'
    if acts.click:
        ways.append('"BROWSE click " clicked')
        rules["clicked"] = _names(acts.click)
    if acts.type:
        ways.append('"BROWSE type " filled " " line')
        rules["filled"] = _names(acts.type)
    if acts.goto:
        ways.append('"BROWSE goto " address')
        rules["address"] = _names(acts.goto)
    ways += ['"BROWSE read more"'] * acts.more + ['"BROWSE back"'] * acts.back
    if acts.calls:
        ways.append('"CALL " tool " " object')
        rules |= {"tool": _names(acts.calls), **_JSON}
    return "\n".join(["root ::= " + " | ".join(ways), *(f"{name} ::= {rule}" for name, rule in rules.items())])


def grammar_of_tests(name: str) -> str:
    """Return a grammar for tests of a function, from behind `assert NAME` on: calls and results are literals.

    The bracket is the core's to write: where it had to stand before its own words, `([1, 2])` became `(1, 2)`, since
    `([` is one token.
    """
    again = json.dumps(f"\nassert {name}")
    return f'root ::= test ({again} test){{{FEWEST_TESTS - 1},{TESTS - 1}}} "\\n```" "\\n"?\n{_LITERALS}'


def _names(names: Sequence[str]) -> str:
    return " | ".join(json.dumps(name) for name in names)


# On one line: the end of the line is the end of the act.
_JSON = {
    "object": '"{" (pair (", " pair)*)? "}"',
    "pair": 'string ": " value',
    "value": 'object | list | string | number | "true" | "false" | "null"',
    "list": '"[" (value (", " value)*)? "]"',
    "string": '"\\"" ([^"\\\\\\x00-\\x1f] | "\\\\" ["\\\\/bfnrt])* "\\""',
    "number": '"-"? ("0" | [1-9] [0-9]{0,14}) ("." [0-9]{1,15})?',
}

# Short ones: a core that repeats itself comes to an end.
_LITERALS = r"""
test ::= "(" (arg (", " arg){0,5})? ")" " == " value
arg ::= ([a-z_] [a-z_0-9]{0,30} "=")? value
value ::= number | text | "True" | "False" | "None" | "set()" | several
several ::= "[" values? "]" | "(" (value ", " values | value ",")? ")" | "{" (values | pairs)? "}"
values ::= value (", " value){0,11}
pairs ::= pair (", " pair){0,9}
pair ::= value ": " value
number ::= "-"? ("0" | [1-9] [0-9]{0,18}) ("." [0-9]{1,12})?
text ::= "\"" ([^"\\\r\n] | "\\" [^\r\n]){0,80} "\"" | "'" ([^'\\\r\n] | "\\" [^\r\n]){0,80} "'"
""".strip()
