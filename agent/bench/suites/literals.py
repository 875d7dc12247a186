"""Reading Python literals out of prose, without running anything."""

from __future__ import annotations

import ast
import re

_OPEN, _CLOSE = "([{", ")]}"
_QUOTED = re.compile(r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"")
_NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w])")
_WORD = re.compile(r"(?:True|False|None|true|false)\b")
_SUM = re.compile(r"[ \t]*[-+*/][^=\n]*=[ \t]*")
_AFTER = re.compile(r"[ \t]*(?:$|\n|[.,;](?:\s|$)|\#|\(|and\b|\"\"\")")
"""What may follow a value: its end, a full stop, a remark. Anything else makes it part of something longer."""
_WORDS = {"true": "True", "false": "False"}


class Text:
    """A place in a text, from which values are read."""

    def __init__(self, text: str, at: int = 0) -> None:
        self._text = text
        self.at = at
        """Where the value that was read last ends."""

    def value(self) -> str | None:
        """Return the value here, written out as Python does; of `19 - 5 - 6 = 8` the 8. None: no plain value."""
        found = self.literal()
        sum_of = _SUM.match(self._text, self.at) if found is not None else None
        if sum_of is not None:
            self.at = sum_of.end()
            found = self.literal()
        return found if found is not None and _AFTER.match(self._text, self.at) else None

    def literal(self) -> str | None:
        """Return the literal that begins here, whatever follows it."""
        end = self._end()
        value = None if end is None else read_value(self._text[self.at : end])
        if value is not None and end is not None:
            self.at = end
        return value

    def _end(self) -> int | None:
        if self._text[self.at : self.at + 1] in tuple(_OPEN):
            return balanced(self._text, self.at)
        for kind in (_QUOTED, _NUMBER, _WORD):
            if (mark := kind.match(self._text, self.at)) is not None:
                return mark.end()
        return None


def balanced(text: str, at: int) -> int | None:
    """Return where the bracket at `at` is closed (behind it), brackets in strings not counted; None if nowhere."""
    closers: list[str] = []
    while at < len(text):
        sign = text[at]
        if sign in _OPEN:
            closers.append(_CLOSE[_OPEN.index(sign)])
        elif sign in _CLOSE:
            if not closers or closers.pop() != sign:
                return None
            if not closers:
                return at + 1
        elif sign in "'\"":
            quoted = _QUOTED.match(text, at)
            if quoted is None:
                return None
            at = quoted.end()
            continue
        at += 1
    return None


def read_value(source: str) -> str | None:
    """Return a literal as Python writes it, `true` and `false` as their Python words; None: it is none."""
    source = _WORDS.get(source.strip(), source.strip())
    try:
        tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return ast.unparse(tree) if literal(tree) else None


def literal(tree: ast.expr) -> bool:
    """Return whether an expression is a plain literal."""
    try:
        ast.literal_eval(tree)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return False
    return True
