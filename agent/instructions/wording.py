"""Instructions on words: which ones to use, how often, and which ones to avoid."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ponder.instructions.amounts import amounts
from ponder.instructions.constraints import Avoid, Constraint, Each, Mention, Without
from ponder.instructions.lengths import PARTS
from ponder.instructions.said import QUOTED, Found, is_about, listed

_NOT = r"\b(?:do\s+not|don't|does\s+not|never|not|without|avoid|cannot|can't|mustn't|shouldn't|no)"
_USES = (
    r"(?:use|uses|using|includ(?:e|es|ing)|contain(?:s|ing)?|mention(?:s|ing)?|say(?:s|ing)?|writ(?:e|ing)|"
    r"employ(?:ing)?|have|has|having|with|add)"
)
_THE_WORDS = re.compile(
    rf"(?P<no>{_NOT}\s+(?:to\s+)?(?:(?!the\b)\w+\s+)?)?\b(?:(?P<uses>{_USES})\s+)?(?:any\s+of\s+)?(?P<the>the\s+)?"
    r"(?:following\s+)?(?:exact\s+)?(?P<what>key\s?words?|words?|phrases?|terms?)\b(?!\s+(?:count|limit|order|length))"
    r"(?P<colon>\s*:)?\s*",
    re.IGNORECASE,
)
_SHOULD_NOT = re.compile(r"\b(?:should|must|may|can|does|do)\s*(?:not|n't|never)\b|\bcannot\b", re.IGNORECASE)
_EACH = re.compile(r"\b(?:each|every)\s+(\w+)\s+(?:\w+\s+){0,2}$", re.IGNORECASE)
_AT_AN_END = re.compile(r"\b(?:end|begin|start|finish|open|clos|conclud)(?:e|s|es|ing)?\b[^.\n]*$", re.IGNORECASE)
"""How a text begins and ends is read elsewhere."""
_OR_THE_WORD = re.compile(rf"\bor\s+the\s+(?:word|phrase|term)\s+{QUOTED}", re.IGNORECASE)
_WITHOUT = re.compile(r"\bwithout\s+(?:using\s+|saying\s+)?(?=[\"'\u201c\u2018])", re.IGNORECASE)
_OFTEN = re.compile(r"\b(?:(?P<bound>at least|exactly|only)\s+)?(?P<times>once|twice|thrice)\b", re.IGNORECASE)
_IN_ANOTHER_FORM = re.compile(r"\s*[\"'\u201d\u2019]?\s*(?:in\s+(?:[A-Z]\w|all\b)|backwards?\b|as\b|upside|with\b)")
"""Behind a word that is to be written otherwise: "write the word 'hello' in French"."""
_FAR = 120
"""Characters behind a word in which something may be said of how often it is to stand there."""


def _phrases(text: str, bare: str) -> Found:  # noqa: ARG001 - rules see both
    for found in _THE_WORDS.finditer(text):
        is_one, names_them = not found["what"].lower().endswith("s"), found["the"] or found["colon"]
        phrases = listed(text[found.end() :], single=is_one, only_quoted=not names_them)
        if not phrases or not (found["the"] or found["uses"]) or _AT_AN_END.search(text[: found.start()]):
            continue
        if is_about(text, found.start("what")):
            continue
        rest = text[found.end() : found.end() + _FAR].split(". ", maxsplit=1)[0]
        each, often = _EACH.search(text[: found.start()]), _times(rest)
        avoided = bool(found["no"]) or (not found["uses"] and bool(_SHOULD_NOT.search(rest)))
        if avoided:
            yield from ((found.start(), check) for check in _without(phrases))
        elif each is not None:
            if each[1].lower() in PARTS:
                yield found.start(), Each(part=PARTS[each[1].lower()], any_of=_with_others(phrases, rest))
        elif _is_written(found["uses"]) and is_one and _IN_ANOTHER_FORM.search(rest):
            continue
        elif found["uses"] or often:  # "the word X" by itself asks for nothing
            yield from ((found.start(), Mention(any_of=(one,), **(often or {}))) for one in phrases)
    for found in _WITHOUT.finditer(text):
        if (phrases := listed(text[found.end() :], only_quoted=True)) and not is_about(text, found.start()):
            yield from ((found.start(), check) for check in _without(phrases))


def _is_written(uses: str | None) -> bool:
    return (uses or "").lower() in ("write", "writing", "writes", "say", "saying", "says")


def _without(phrases: Sequence[str]) -> Iterator[Constraint]:
    """Yield what avoids phrases: words as words, marks as they are."""
    marks = tuple(one for one in phrases if not any(map(str.isalnum, one)))
    if marks:
        yield Without(any_of=marks)
    if words := tuple(one for one in phrases if one not in marks):
        yield Avoid(any_of=words)


def _with_others(phrases: Sequence[str], rest: str) -> tuple[str, ...]:
    others = (next(filter(None, groups)) for groups in _OR_THE_WORD.findall(rest))
    return tuple(dict.fromkeys((*phrases, *others)))


def _times(text: str) -> dict[str, Any] | None:
    """Return how often something is to stand there, as fields of `Mention`; None where nothing is said of it."""
    for amount in amounts(text, "times?"):
        return {"times": max(1, amount.low)} | ({"most_times": max(1, amount.high)} if amount.high is not None else {})
    if found := _OFTEN.search(text):
        count = {"once": 1, "twice": 2, "thrice": 3}[found["times"].lower()]
        is_exact = (found["bound"] or "").lower() in ("exactly", "only")
        return {"times": count} | ({"most_times": count} if is_exact else {})
    return None


RULES = (_phrases,)
