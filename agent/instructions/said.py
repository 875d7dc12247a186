"""A task's text as the rules see it: its sentences, what is asked for in them, quotes, lists of words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ponder.instructions.constraints import Constraint

Found = Iterator[tuple[int, Constraint]]
"""Constraints, each with the place in the text that says it."""

ASKS = re.compile(
    r"\b(?:write|answer|explain|describe|reply|respond|give|(?<!\ba\s)(?<!\bthe\s)list|summari[sz]e|tell|say|make|"
    r"compose|create|draft|produce|plan|compare|show|generate|use|name|provide|rewrite|please|must|should|shall|limit|keep|need|want|state|"
    r"present|format|structure|outline|separate|contain|include|discuss|define|identify|recommend|suggest|propose|"
    r"translate|convert|paraphrase|analy[sz]e|evaluate|illustrate|elaborate|prepare|introduce|praise|invent|imagine|"
    r"advertise|shorten|can you|could you|do not|don't|only(?!\s+(?:ha[sd]|have|is|was|gets?|takes?)))\b",
    re.IGNORECASE,
)
"""What stands in a sentence that asks for something."""
QUOTED = r"""(?:"([^"\n]+)"|\u201c([^\u201d\n]+)\u201d|(?<!\w)'([^'\n]+)'(?!\w)|\u2018([^\u2019\n]+)\u2019)"""
"""Something in quotes, with four groups, one of which has it."""
_POLITE = re.compile(r"\b(?:can|could|would|will)\s+you\b|please", re.IGNORECASE)
_TOLD_OF = re.compile(
    r"\b(?:explain|describe|discuss|tell|say|show|know|understand|learn|define|wonder)\b[^.,;:!?\n]*"
    r"\b(?:how|why|what|when|where|whether|which|that)\b[^.,;:!?\n]*$",
    re.IGNORECASE,
)
_OF_A_PROGRAM = re.compile(
    r"(?:\b(?:function|script|quer(?:y|ies)|regex|regular\s+expression|algorithm|parser)\b[^.!?\n]*?\b(?:that|which|to|for|"
    r"returning)\b|\b(?:write|implement|create|define)\s+(?:\w+\s+){0,3}(?:program|method|class|code)\b[^.!?\n]*?"
    r"\b(?:that|which)\b)[^.!?\n]*$",
    re.IGNORECASE,
)
_LONG_QUOTE = re.compile(r'"[^"\n]{25,}"|\u201c[^\u201d]{25,}\u201d|```.*?```', re.DOTALL)
_SAYS_CHARS = 160


def without_quotes(text: str) -> str:
    """Return the text with spaces for long quotes and code: what is quoted asks for nothing."""
    return _LONG_QUOTE.sub(lambda quote: " " * len(quote[0]), text)


def sentence_at(text: str, place: int) -> tuple[int, str]:
    """Return where the sentence that a place is in begins, and the sentence."""
    start = max((end.end() for end in re.finditer(r"(?<=[.!?])\s+|\n+", text[:place])), default=0)
    stop = re.search(r"[.!?](?=\s|$)|\n", text[place:])
    return start, text[start : place + stop.end() if stop else len(text)]


def is_about(text: str, place: int, *, manner: bool = False) -> bool:
    """Return whether what stands at a place is only talked about, and no answer's form.

    In a question ("What are the two largest numbers in this list?"), of what a program works on ("a function that
    returns the keys as a list"), or of what is to be explained ("why constants are in upper case").

    Args:
        manner: what stands there says how to answer ("as a list"): then it may stand behind what is to be explained.
    """
    start, sentence = sentence_at(text, place)
    before = sentence[: place - start]
    is_question = sentence.rstrip().endswith("?") and not _POLITE.search(sentence) and ":" not in sentence
    return is_question or bool(_OF_A_PROGRAM.search(before) or (not manner and _TOLD_OF.search(before)))


def shown(sentence: str) -> str:
    """Return a sentence as it is quoted to the core and to people, a long one cut."""
    bare = sentence.strip()
    return bare if len(bare) <= _SAYS_CHARS else bare[: _SAYS_CHARS - 3] + "..."


def of_quote(match: re.Match[str]) -> str:
    """Return what stands in the quotes, where a pattern ends with `QUOTED`."""
    return str(next(group for group in match.groups()[-4:] if group)).strip()


_STOPS = frozenset(
    "a an and appear appears are at be but by comes each end every exactly for in is it its least may most must no not "  # noqa: SIM905
    "occurs of on once one or should that the times to twice which with without your".split()
)
"""No list of words goes on with these, where they are not quoted."""
_GAP = re.compile(
    r"\s*(?:,\s*(?:(?:and|or|nor)\s+)?|\s(?:and|or|nor|&)\s+|\s*/\s*)\s*(?:the\s+words?\s+)?", re.IGNORECASE
)
_QUOTED_ITEM, _ITEM = re.compile(QUOTED), re.compile(rf"{QUOTED}|(?<![\w'])\w[\w'\u2019-]*")


def listed(text: str, *, names: bool = False, only_quoted: bool = False, single: bool = False) -> tuple[str, ...]:
    """Return the words that a list begins with here, up to the end of the list: in quotes, or as they stand.

    Args:
        names: what stands without quotes begins with a capital ("Sign, Ripe and Unripe").
        only_quoted: words without quotes end the list.
        single: there is one word only, unless it is in quotes.
    """
    found: list[str] = []
    at, is_last = 0, False
    while one := (_QUOTED_ITEM if only_quoted else _ITEM).match(text, at):
        quoted = next((group for group in one.groups() if group), None)
        word = quoted or one[0]
        if quoted is None and (word.lower() in _STOPS or (names and not found and not word[0].isupper())):
            break
        found.append(word.strip().rstrip(".,") or word)
        following = _GAP.match(text, one.end())
        if following is None or is_last or (single and quoted is None):
            break
        is_last, at = bool(re.search(r"\b(?:and|or|nor)\b", following[0], re.IGNORECASE)), following.end()
    return tuple(dict.fromkeys(found))
