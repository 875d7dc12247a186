"""How many of something a text asks for: "at most 80 words", "4 to 6 steps", "two paragraphs", "50 words or fewer"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_NAMED = {name: value for value, name in enumerate(_SMALL.split())} | {
    "a": 1, "an": 1, "single": 1, "a single": 1, "dozen": 12, "a dozen": 12, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100, "a hundred": 100, "one hundred": 100,
}  # fmt: skip
_DIGITS = r"\d{1,3}(?:,\d{3})+(?!\d)|\d{1,9}(?![\d.,]*\d)"
NUMBER = f"(?:{_DIGITS}|{'|'.join(sorted(_NAMED, key=len, reverse=True))})"
"""A number in digits or in words."""

_BOUNDS = {
    "exactly": r"exactly|precisely|only|just",
    "most": r"at (?:the (?:very )?)?most|(?:no|not) (?:more|longer) than|up to|within|limited to|(?:a )?max(?:imum)?"
    r"(?: of)?|(?:not|don't|never) (?:exceed|go (?:over|beyond)|\w+ more than)",
    "below": r"under|below|(?:fewer|less|shorter) than",
    "least": r"at (?:the (?:very )?)?least|(?:no|not) (?:fewer|less|shorter) than|(?:a )?min(?:imum)?(?: of)?",
    "above": r"(?:more|longer) than|over|above",
    "about": r"about|around|approximately|roughly",
}
"""Words before a number, by what they make of it."""
_OPPOSITE = {"above": "most", "below": "least"}
"""What a negation before them makes of bounds: "must not be longer than", "without going over"."""
_NEGATION = re.compile(
    r"(?:\b(?:not|never|cannot|without|avoid|no)|n[\u2019']t)(?:\s+(?!and\b|but\b|or\b)[\w\u2019'-]+){0,4}\s+$",
    re.IGNORECASE,
)
_FAR = 60
"""Characters before a bound in which a negation of it may stand."""
_BEHIND = {
    "most": r"or (?:fewer|less)|at (?:the )?most|max(?:imum)?",
    "least": r"or more|at (?:the )?least|min(?:imum)?",
}
"""The same behind the number or what is counted."""
_SORTS = (
    "short|brief|long|clear|simple|full|separate|different|whole|complete|numbered|bulleted|bullet|distinct|concise|"
    "main|key|markdown|rhyming|non empty|of the"
)
"""What may stand between a number and what is counted."""
_ABOUT = 0.2
"""How far off an answer may be where a number is not meant exactly, as a share of it."""


@dataclass(frozen=True)
class Amount:
    """So many of a unit. `exactly` excludes `least` and `most`; a number without words such as "at least" is `bare`."""

    start: int
    end: int
    unit: str
    least: int | None = None
    most: int | None = None
    exactly: int | None = None
    bare: bool = False

    @property
    def low(self) -> int:
        """The fewest that are meant."""
        return self.exactly if self.exactly is not None else self.least or 0

    @property
    def high(self) -> int | None:
        """The most that are meant; None: there is no bound."""
        return self.exactly if self.exactly is not None else self.most

    @property
    def bounds(self) -> dict[str, Any]:
        """The numbers that there are, by their names, as fields of `Counted`."""
        named = {"least": self.least, "most": self.most, "exactly": self.exactly}
        return {name: value for name, value in named.items() if value is not None}


def amounts(text: str, units: str) -> Iterator[Amount]:
    """Yield what the text says of a number of these units, in its order.

    Args:
        units: alternatives of a regular expression.
    """
    for found in _pattern(units).finditer(text):
        yield _amount(found)


@cache
def _pattern(units: str) -> re.Pattern[str]:
    before, behind, sorts = map(_spaced, ("|".join(_BOUNDS.values()), "|".join(_BEHIND.values()), _SORTS))
    return re.compile(
        rf"""(?<![\w.,-])
        (?: between\s+(?P<low>{NUMBER})\s+and\s+(?P<high>{NUMBER})
          | (?: (?P<before>{before}) \s+ )? (?:the\s+)? (?P<number>{NUMBER})
            (?: \s*(?:-|\u2013|\bto\b|\bor\b)\s* (?P<to>{NUMBER}) )?
        )
        (?P<more> \s?\+ | \s+(?:{behind})\b )?
        (?: [\s-]+ (?:{sorts})\b )*
        [\s-]+ (?P<unit>{units})\b
        (?P<behind> ,?\s+(?:{behind})\b )?""",
        re.IGNORECASE | re.VERBOSE,
    )


def _spaced(words: str) -> str:
    """Return alternatives for a pattern in which spaces count for nothing."""
    return words.replace(" ", r"\s+")


def number(text: str) -> int:
    """Return the whole number that digits or words are, as `NUMBER` matches them."""
    words = " ".join(text.lower().split())
    return _NAMED[words] if words in _NAMED else int(words.replace(",", ""))


def _amount(found: re.Match[str]) -> Amount:
    unit = " ".join(found["unit"].lower().split())
    low, high = found["low"] or found["number"], found["high"] or found["to"]
    if high is not None:
        first, last = sorted((number(low), number(high)))
        return Amount(*found.span(), unit, least=first, most=last)
    count = number(low)
    said = bound(found["before"], found["more"] or found["behind"])
    if said in _OPPOSITE and _NEGATION.search(found.string, max(0, found.start() - _FAR), found.start()):
        said = _OPPOSITE[said]
    match said:
        case "most":
            return Amount(*found.span(), unit, most=count)
        case "below":
            return Amount(*found.span(), unit, most=max(0, count - 1))
        case "least":
            return Amount(*found.span(), unit, least=count)
        case "above":
            return Amount(*found.span(), unit, least=count + 1)
        case "about":
            return Amount(*found.span(), unit, least=round(count * (1 - _ABOUT)), most=round(count * (1 + _ABOUT)))
        case "exactly":
            return Amount(*found.span(), unit, exactly=count)
    return Amount(*found.span(), unit, exactly=count, bare=True)


def bound(before: str | None, behind: str | None = None) -> str | None:
    """Return what the words around a number make of it: a name of `_BOUNDS`, or None where there are none."""
    after = " ".join((behind or "").replace(",", " ").lower().split())
    if after == "+":
        return "least"
    named = next((name for name, words in _BEHIND.items() if after and re.fullmatch(words, after)), None)
    words = " ".join((before or "").lower().split())
    return named or next((name for name, known in _BOUNDS.items() if words and re.fullmatch(known, words)), None)
