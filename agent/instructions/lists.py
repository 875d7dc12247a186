"""Instructions on lists, tables and headings: how many items, numbered or not, which columns, which headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from ponder.instructions.amounts import NUMBER, Amount, amounts, bound, number
from ponder.instructions.counted import Headings, Items, TableRows
from ponder.instructions.lengths import around
from ponder.instructions.said import ASKS, Found, is_about, listed, sentence_at

_NO_LIST = re.compile(
    r"\b(?:no|(?:without|don't use|do not use|avoid)(?:\s+any)?)\s+"
    r"(?:bullets?(?:\s+points?)?|(?:bullet(?:ed)?\s+|numbered\s+)?lists?)\b",
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    r"\bnumbered\s+(?:list|steps|points|instructions)\b|\bnumber\s+(?:the|each|your)\s+\w+", re.IGNORECASE
)
_LIST = re.compile(
    r"\b(?:bullets|bullet\s+points?|bulleted|bullet\s+list|as\s+a\s+(?:\w+\s+)?list"
    r"|(?:present|put|arrange|answer|reply|respond|organi[sz]e|format)\b[^.\n]{0,40}\b(?:in|into)\s+a\s+list)\b",
    re.IGNORECASE,
)
_LISTED = re.compile(r"\b(?:lists?|bullet\w*|number\w*|steps)\b", re.IGNORECASE)
_ITEMS = r"bullets|bullet\s+points?|bulleted\s+\w+|items|steps|points"
_BOUND = r"(?:\b(?P<before>at\s+least|at\s+most|no\s+more\s+than|not\s+more\s+than|exactly|up\s+to|maximum)\s+)"
_COUNTS = (
    # "three reasons as a numbered list"
    re.compile(
        rf"{_BOUND}?\b(?P<number>{NUMBER})\s+(?:\w+\s+){{1,3}}?(?:as|in)\s+(?:a\s+)?(?:(?!the\b)\w+\s+)?(?:list|bullets)\b",
        re.IGNORECASE,
    ),
    # "a bulleted list of exactly five cities"; "of 4 to 6 steps" is an amount of items
    re.compile(
        rf"\b(?:numbered|bulleted|bullet|bullet\s+point)\s+list\s+(?:of|with)\s+{_BOUND}?(?P<number>{NUMBER})\b"
        rf"(?!\s*(?:to|-|or)\s*{NUMBER}|\s+(?:steps|items|points|bullets))",
        re.IGNORECASE,
    ),
    # "bullets, please, and not more than 15"
    re.compile(rf"{_BOUND}(?P<number>\d+)(?=\s*(?:[.,;!?]|$))", re.IGNORECASE),
)

_TABLE = re.compile(
    r"\b(?:as|in|into|use|using|make|draw|write|with|me)\s+(?:a|an)\s+(?:\w+\s+)?table\b"
    r"|\b(?:a|an)\s+(?:markdown\s+|comparison\s+)?table\s+(?:with|of|comparing|showing)\b|\btable\s+form\b",
    re.IGNORECASE,
)
_COLUMNS = re.compile(r"\bcolumns?\s*(?:called|named|headed|are|:|should\s+be)?\s*", re.IGNORECASE)
_HEADINGS = re.compile(
    rf"\b(?i:use|with|under|has|have)\s+(?:the\s+)?(?:{NUMBER}\s+)?(?i:headings?)\s*(?:called|named|:)?\s+"
    r"(?=[A-Z\"'\u201c\u2018])"
)


def _items(text: str, bare: str) -> Found:
    if no := _NO_LIST.search(bare):
        yield no.start(), Items(most=0)
        return
    numbered, any_list = _NUMBERED.search(bare), _LIST.search(bare)
    style: Literal["numbered", "any"] = "numbered" if numbered is not None else "any"
    counted = list(_amounts(text, bare))
    yield from ((place, Items(style=style, **amount.bounds)) for place, amount in counted)
    said = numbered or any_list
    if not counted and said is not None and _is_asked(text, said.start()):
        yield said.start(), Items(style=style, least=2)


def _is_asked(text: str, place: int) -> bool:
    return bool(ASKS.search(sentence_at(text, place)[1])) and not is_about(text, place, manner=True)


def _amounts(text: str, bare: str) -> Iterator[tuple[int, Amount]]:
    for amount in amounts(bare, _ITEMS):
        seen = around(text, bare, amount)
        is_list = amount.unit not in ("items", "points") or _LISTED.search(seen.sentence)
        wanted = is_list and not seen.of_a_part and amount.exactly != 1 and seen.is_asked(amount)
        if wanted and not is_about(text, amount.start, manner=True):
            yield amount.start, amount
    for pattern in _COUNTS:
        for found in pattern.finditer(bare):
            count = number(found["number"])
            if count > 1 and _is_asked(text, found.start()) and _LISTED.search(sentence_at(text, found.start())[1]):
                bounds: dict[str, Any] = {bound(found["before"]) or "exactly": count}
                yield found.start(), Amount(*found.span(), "items", **bounds)


def _table(text: str, bare: str) -> Found:
    said = _TABLE.search(bare)
    if said is None or not _is_asked(text, said.start()):
        return
    named = _COLUMNS.search(bare, said.start())
    columns = listed(text[named.end() :], names=True) if named is not None else ()
    rows = (amount.bounds for amount in amounts(bare, "rows") if amount.exactly != 1)
    yield said.start(), TableRows(kind="table", columns=columns, **next(rows, {"least": 1}))


def _headings(text: str, bare: str) -> Found:
    for found in _HEADINGS.finditer(bare):
        names = listed(text[found.end() :], names=True)
        if len(names) > 1:
            yield found.start(), Headings(named=names, least=len(names))


RULES = (_items, _table, _headings)
