"""Instructions on the form of an answer: JSON, capitals, marks to avoid, how it and its lines begin and end."""

from __future__ import annotations

import re
from typing import Any

from ponder.instructions.constraints import Ends, Json, Letters, LinesBegin, Matches, Without
from ponder.instructions.said import ASKS, QUOTED, Found, is_about, listed, of_quote, sentence_at

_JSON = re.compile(
    r"(?:\b(?:as|in|with|return|output|give|reply|respond|write|produce|only|wrapped in|valid)(?:\s+\w+){0,3}?\s+JSON\b"
    r"|\bJSON\s+(?:only|please|format|output)\b|\bonly\s+the\s+JSON\b)"
    # A JSON parser, a JSON file: these are not the answer's form.
    r"(?!\s+(?!arrays?\b|lists?\b|objects?\b|format|output|only|please|with|and|that|strings?\b|of\b|in\b|for\b|where|"
    r"whose|containing|value|by\b|using|without|to\b|document|response|answer|so\b)\w)",
    re.IGNORECASE,
)
_NO_JSON = re.compile(r"\b(?:not|no|without|than|between)\b[^.]{0,20}JSON", re.IGNORECASE)
_ARRAY = re.compile(r"\bJSON\s+(?:array|list)\b", re.IGNORECASE)
_OBJECT = re.compile(r"\bJSON\s+object\b|\bJSON\b[^.]{0,20}\ban object\b", re.IGNORECASE)
_KEYS = re.compile(r"\bkeys?\s*(?:called|named|:)?\s+", re.IGNORECASE)

_LOWER = re.compile(
    r"\b(?:all|only|entirely|everything)\b(?:\s+\w+){0,2}?\s+lower[\s-]?case\b|\bin\s+lower[\s-]?case\b"
    r"|\ball[\s-]lower[\s-]?case\b|\b(?:no|without|not use|without using|don't use)(?:\s+any)?\s+"
    r"(?:capital|upper[\s-]?case)\s+letters\b",
    re.IGNORECASE,
)
_UPPER = re.compile(
    r"(?P<of>\bwords?\s+(?:with\s+|in\s+)?)?\b(?:(?:all|only|entirely)(?:\s+in)?\s+(?:caps|capitals|capital\s+letters|"
    r"upper[\s-]?case)|in\s+(?:capital\s+letters|upper[\s-]?case|capitals))\b",
    re.IGNORECASE,
)

_MARKS = {
    r"commas?": (",",),
    r"exclamation\s+(?:marks?|points?)": ("!",),
    r"question\s+marks?": ("?",),
    r"semi-?colons?": (";",),
    r"hash-?tags?": ("#",),
    r"code": ("```",),
    r"placeholders?": ("[", "]"),
    r"markdown": ("**", "##", "```"),
}
_NO_MARK = (
    r"\b(?:no|without|avoid|(?:do\s+not|don't|not|never)\s+(?:use|include|contain|show|write|put|add)"
    r"|not\s+allowed\s+to\s+use|refrain\s+from)(?:\s+using)?(?:\s+any)?\s+(?:\w+\s+(?:or|and)\s+)?"
)

_WHOLE = (
    r"(?:\s+(?:it|your|the|this|whole|entire|answer|response|reply|text|e?-?mail|letter|poem|story|note|post|message|"
    r"essay))*"
)
"""What an instruction on the whole answer may call it."""
_ENDS = re.compile(rf"\b(?:end|ends|ending|finish|finishes|conclude|close){_WHOLE}\s+(?:with|by)\s+", re.IGNORECASE)
_A_QUESTION = re.compile(r"(?:a|one|the)\s+(?:\w+\s+)?question\b(?!\s+mark)", re.IGNORECASE)
_A_STOP = re.compile(r"a\s+(?:full\s+stop|period)\b", re.IGNORECASE)
_A_QUOTE = re.compile(
    rf"(?:(?:the|this|these|exact|following|phrase|words?|sentence|line|of)[\s:]+)*{QUOTED}", re.IGNORECASE
)
_BEGINS = re.compile(
    rf"(?<!\bthat\s)\b(?:begin|begins|start|starts|open){_WHOLE}\s+with\s+"
    rf"(?:(?:the|this|exact|phrase|words?|sentence)[\s:]+)*{QUOTED}",
    re.IGNORECASE,
)
_LAST = re.compile(
    rf"\blast\s+(?:sentence|line|words?)\b[^.\n]{{0,40}}?\b(?:should|must)\s+be:?\s+{QUOTED}", re.IGNORECASE
)
_A_PART = re.compile(r"\b(?:each|every|(?:line|sentence|paragraph|step|bullet)s?)\b", re.IGNORECASE)
_LINES_BEGIN = re.compile(
    r"\blines?\b[^.\n]{0,30}?\b(?:begins?|starts?)\s+(?P<turn>in\s+turn\s+)?with\s+", re.IGNORECASE
)
_EVERY = re.compile(r"\b(?:each|every|all)\b", re.IGNORECASE)
_SPELL = re.compile(
    r"\bfirst\s+letters\s+(?:of\s+\w+\s+)?spell\s+(?:out\s+)?(?:the\s+word\s+)?[\"'\u201c\u2018]?([A-Za-z]{2,12})\b",
    re.IGNORECASE,
)


def _json(text: str, bare: str) -> Found:
    said = _JSON.search(bare)
    if said is None:
        return
    _, sentence = sentence_at(text, said.start())
    if is_about(text, said.start()) or _NO_JSON.search(sentence):
        return
    fits: dict[str, Any] = {}
    if _ARRAY.search(bare):
        fits = {"type": "array"}
    elif _OBJECT.search(bare):
        fits = {"type": "object"}
        keys = _KEYS.search(sentence)
        if keys is not None and (names := listed(sentence[keys.end() :])):
            fits["required"] = list(names)
    yield said.start(), Json(fits=fits)


def _letters(text: str, bare: str) -> Found:
    lower, upper = (
        None if found is None or is_about(text, found.start()) else found
        for found in (_LOWER.search(bare), _UPPER.search(bare))
    )
    if lower is not None and upper is None:
        yield lower.start(), Letters(case="lower")
    elif upper is not None and lower is None and not upper["of"]:
        yield upper.start(), Letters(case="upper")


def _marks(text: str, bare: str) -> Found:
    for words, strings in _MARKS.items():
        found = re.search(rf"{_NO_MARK}{words}\b", bare, re.IGNORECASE)
        if found is not None and not is_about(text, found.start(), manner=not found[0].lower().startswith("no ")):
            yield found.start(), Without(any_of=strings)


def _begins_and_ends(text: str, bare: str) -> Found:
    for found in _ENDS.finditer(bare):
        rest = text[found.end() :]
        if _A_QUESTION.match(rest):
            yield found.start(), Ends(any_of=("?",))
        elif _A_STOP.match(rest):
            yield found.start(), Ends(any_of=(".",))
        elif quoted := _A_QUOTE.match(rest):
            yield found.start(), _ends_with(of_quote(quoted))
    yield from ((last.start(), _ends_with(of_quote(last))) for last in _LAST.finditer(text))
    for quote in _BEGINS.finditer(text):
        if not _A_PART.search(sentence_at(text, quote.start())[1]):
            yield quote.start(), Matches(pattern=r"\A\W*" + re.escape(of_quote(quote)), exactly=1)


def _ends_with(phrase: str) -> Ends:
    return Ends(any_of=tuple(dict.fromkeys((phrase, phrase.rstrip(".,")))))


def _lines(text: str, bare: str) -> Found:
    for found in _LINES_BEGIN.finditer(bare):
        quoted = listed(text[found.end() :], only_quoted=True)
        if quoted and found["turn"]:
            yield found.start(), LinesBegin(in_turn=quoted)
        elif quoted and _EVERY.search(sentence_at(text, found.start())[1]):
            yield found.start(), LinesBegin(any_of=quoted)
    if (spelt := _SPELL.search(bare)) and ASKS.search(bare):
        yield spelt.start(), LinesBegin(in_turn=tuple(spelt[1].lower()))


RULES = (_json, _letters, _marks, _begins_and_ends, _lines)
