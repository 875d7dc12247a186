"""When two answers are the same answer, and how an answer is shown."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|[-+]?\.\d+")
_FLOAT = re.compile(r"[-+]?\d*\.\d+(?:[eE][-+]?\d+)?")
_SIGNIFICANT = 12
_LARGEST = 5000
"""Decimal exponent of the largest number, and of the smallest: written out, a larger one fills the memory."""
_YES_OR_NO = re.compile(r"\byes\b\W+(?:or\W+)?no\b", re.IGNORECASE)
_TRUE_OR_FALSE = re.compile(r"\b(?:true|false)\b", re.IGNORECASE)
TEXT_WORDS = 12
"""Longer answers are texts."""
_STATED = re.compile(r"^(.{0,200}?)(?:\bis|\bare|\bequals|(?<![<>!])=|(?<!\d):|:(?=\s))\s*(\S+)$", re.IGNORECASE)
"""A colon between digits is none that states: 12:47 is a time. Nor is `>=`, or `!=`."""
_AMONG_OTHERS = re.compile(
    r"[^\W\d]\w*\s*[=:]\s*[-+$€]?\d[\d.,]*%?\s*(?:[,;]|\band\b)|[^\W\d]\w*\s*[*^/+-][^=]*$", re.IGNORECASE
)
"""Before the last number: another one by name ("x = 2, y = 3"), or a sum of names (an equation states no number)."""
_FINAL = re.compile(r"\bfinal answer(?: is|:)\s*(\S+)$", re.IGNORECASE)


def number(text: str) -> Decimal | None:
    """Return the number that the text is (currency, percent and thousands signs aside), or None: also beyond 1e5000.

    Floats are rounded to 12 significant digits, so that 434.00000000000006 and 434 are one answer; whole
    numbers are kept exactly, however long.
    """
    bare = text.replace("\N{MINUS SIGN}", "-").strip().rstrip(".")
    bare = bare.removeprefix("$").removeprefix("€").removesuffix("%").strip()
    if not _NUMBER.fullmatch(bare):
        return None
    try:
        value = Decimal(bare.replace(",", ""))
    except InvalidOperation:  # pragma: no cover - the pattern admits only what Decimal reads
        return None
    if not value:
        return Decimal(0)  # without its exponent, which can be as large as one likes, and its sign
    if abs(value.adjusted()) > _LARGEST:
        return None
    if value == value.to_integral_value():
        return value
    return Decimal(f"{value:.{_SIGNIFICANT}g}")


def plain(value: Decimal) -> str:
    """Write a number without exponent and without trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def final_value(answer: str) -> str:
    """Return the number at the end of a sentence that states it ("The 10th prime is: 29."), else the answer itself.

    That is also what names several numbers ("x = 2, y = 3"), or is an equation.
    """
    bare = answer.strip().rstrip(".")
    said = _FINAL.search(bare[-200:])
    if said is None and ". " not in answer:
        said = _STATED.match(bare)
        said = None if said is not None and _AMONG_OTHERS.search(said.group(1)) else said
    last = said.groups()[-1] if said is not None else ""
    return last if number(last) is not None else answer.strip()


def is_text(answer: str) -> bool:
    """Return whether an answer is a text: so long that no two of them ever agree to the letter."""
    return len(answer.split()) > TEXT_WORDS


def normalise(answer: str) -> str:
    """Return the form in which answers are compared: numbers by value, words without case and punctuation."""
    answer = final_value(answer)
    value = number(answer)
    if value is not None:
        return plain(value)
    words = re.sub(r"[\s_]+", " ", answer.strip().strip("\"'`*").lower())
    words = re.sub(r"^(the|a|an) ", "", words)
    return words.rstrip(".!,; ")


def in_words_of(task: str, answer: str) -> str:
    """Return a program's bare `True` or `False` as the Yes or No that a task asks for, any other answer as it is."""
    told = {"true": "Yes", "false": "No"}.get(answer.strip().lower())
    return told if told and _YES_OR_NO.search(task) and not _TRUE_OR_FALSE.search(task) else answer


def shown(answer: str) -> str:
    """Return the answer as a person wants to see it: a float loses a `.0` that says nothing, and what is noise."""
    answer = final_value(answer)
    value = number(answer)
    if value is None or not _FLOAT.fullmatch(answer):
        return answer.strip()
    return plain(value) if value == value.to_integral_value() or value != Decimal(answer) else answer
