"""Programs that met the limit of tokens: what can be kept of them."""

from __future__ import annotations

import io
import tokenize

from ponder.actions import compile_error
from ponder.records import Action, Answer, RunCode

_ENDINGS = 60
"""Lines, or tokens, that are left off a program, at most, to find where it can end."""

_CLOSING = {"(": ")", "[": "]", "{": "}"}


def without_its_end(action: Action) -> Action:
    """Return a program that was cut, ended where it can be, if it then does or defines something.

    Such a program may print nothing. To run it costs milliseconds, and the search goes on by its rules; to ask a core
    again that wrote up to the limit costs as much once more.
    """
    code = action.code if isinstance(action, RunCode) else action.text if isinstance(action, Answer) else ""
    for part in (whole_part, closed_part):
        rest = part(code)
        if rest is None:
            continue
        lines = [line for line in rest.split("\n") if line.strip() and not line.startswith(("#", "import ", "from "))]
        if isinstance(action, RunCode) and lines:
            return action.model_copy(update={"code": rest})
        if isinstance(action, Answer) and any(line.startswith(("def ", "async def ", "class ")) for line in lines):
            return action.model_copy(update={"text": rest})
    return action


def whole_part(code: str) -> str | None:
    """Return a program that was cut off without its last, unfinished statement; None when nothing useful is left.

    What small cores write up to the limit is mostly a program and then endless examples of its use.
    """
    lines = code.split("\n")[:-1]
    for _ in range(_ENDINGS):
        while lines and not lines[-1].strip():
            lines.pop()
        if not lines:
            return None
        rest = "\n".join(lines)
        if compile_error(rest) is None:
            return rest
        lines.pop()
    return None


def closed_part(code: str) -> str | None:
    """Return a program that was cut off in its first statement, with that statement closed; None when it cannot be.

    What a core of 0.1B repeats up to the limit (`max(x, max(x, max(`, numbers of a list) is not worth a second try:
    that repeats it. Closed at its last whole part it can be run, and the search goes on by its rules.
    """
    tokens = _tokens(code)
    for left in range(min(len(tokens), _ENDINGS)):
        kept = tokens[: len(tokens) - left - 1]  # the last one may be half of itself
        open_ones: list[str] = []
        for token in kept:
            if token.string in _CLOSING:
                open_ones.append(_CLOSING[token.string])
            elif token.string in _CLOSING.values() and open_ones:
                open_ones.pop()
        row, column = kept[-1].end if kept else (1, 0)
        lines = code.split("\n")[:row]
        closed = "\n".join([*lines[:-1], lines[-1][:column].rstrip(" ,") + "".join(reversed(open_ones))])
        if closed.strip() and compile_error(closed) is None:
            return closed
    return None


def _tokens(code: str) -> list[tokenize.TokenInfo]:
    """Return the tokens up to where the text cannot be read any more."""
    found: list[tokenize.TokenInfo] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type == tokenize.ERRORTOKEN:
                break
            if token.string.strip():
                found.append(token)
    except (tokenize.TokenError, SyntaxError):  # it ends in the middle
        pass
    return found
