"""A written answer as its parts: words, sentences, paragraphs, list items, headings, tables, JSON.

Tolerant of markdown and of how small models write it: emphasis is no part of a word, a list may be bulleted, numbered
or lettered, a heading may be a bold line. Everything is read by plain code in time linear in the text; English.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any, Literal, NamedTuple

Part = Literal["items", "sentences", "lines", "paragraphs"]

_FENCE = re.compile(r"^[ \t]*+(?:```|~~~)[ \t]*+([\w+-]*+)[ \t]*+$", re.MULTILINE)
_EMPHASIS = re.compile(r"\*\*|__|`|(?<=\S)\*|\*(?=\S)|(?<!\w)_(?=\w)|(?<=\w)_(?!\w)")
_MARKER = re.compile(r"(?P<number>\d{1,3}[.)]|[a-z][.)])\s+|(?P<bullet>[-*+\u2022\u2023\u25e6\u2043\u2013])\s+", re.I)
_HASHES = re.compile(r"#{1,6}\s+")
_RULE = re.compile(r"[-*_=]{3,}|(?:[-*_] ){2,}[-*_]")
_BOLD_LINE = re.compile(r"(\*\*|__)(?!\s)[^*_\n]+(\*\*|__):?")
_TABLE_RULE = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?")
_SENTENCE_END = re.compile(r"""(?<![.!?\u2026])[.!?\u2026]++["')\]\u201d\u2019]*+\s++(?=\S)""")
_ABBREVIATION = re.compile(r"\b(?:dr|mr|mrs|ms|prof|st|no|vs|e\.g|i\.e|approx|a\.m|p\.m|[a-z])\.$", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_HEADING_WORDS, _SIGNED_WORDS = 7, 5
_SAME = str.maketrans({
    "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2044": "/", "-": " ", "\u2010": " ", "\u2011": " ",
    "\u2012": " ", "\u2013": " ", "\u2014": " ", "\u2212": " ",
})  # fmt: skip


class Item(NamedTuple):
    """One item of a list: its first line without the marker, and the line's indentation in columns."""

    text: str
    numbered: bool
    indent: int


class Table(NamedTuple):
    """A markdown table: its header's cells, and its rows' cells without the header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Written:
    """An answer, read. Every part is found on first use."""

    text: str

    @cached_property
    def plain(self) -> str:
        """The text as phrases are looked for in it: see `plain`."""
        return plain(self.text)

    @cached_property
    def raw_lines(self) -> tuple[str, ...]:
        """Lines with words in them as they stand, fences and rules left out."""
        lines = _FENCE.sub("", self.text).splitlines()
        return tuple(line.rstrip() for line in lines if _has_words(line))

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """Lines with words in them, without list markers, heading marks, table edges and emphasis."""
        return tuple(_bare(line) for line in self.raw_lines)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """What stands between spaces and has a letter or a digit; list markers are no words."""
        spaced = (line.replace("\u2014", " ").replace("|", " ") for line in self.lines)
        return tuple(word for line in spaced for word in line.split() if _has_words(word))

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """List items of the outermost level, in order. A numbered heading counts as one."""
        return _outermost([item for line in self.raw_lines if (item := _item(line))])

    @cached_property
    def led_items(self) -> tuple[Item, ...]:
        """The same where items that end with a colon are read as headings of the lists below them."""
        return _outermost([item for line in self.raw_lines if (item := _item(line)) and not _leads(item)])

    @cached_property
    def headings(self) -> tuple[str, ...]:
        """Headings: `# text`, a bold line, or a short line that ends with a colon and is no list item."""
        return tuple(_bare(line).rstrip(":").strip() for line in self.raw_lines if _is_heading(line))

    @cached_property
    def led_headings(self) -> tuple[str, ...]:
        """Headings, list items that end with a colon among them."""
        lines = (line for line in self.raw_lines if _is_heading(line) or ((item := _item(line)) and _leads(item)))
        return tuple(_bare(line).rstrip(":").strip() for line in lines)

    @cached_property
    def paragraphs(self) -> tuple[str, ...]:
        """Blocks between blank lines; where there is no blank line, each line is one.

        Headings are none, nor are lists by themselves, and a letter's salutation and signature.
        """
        lines = ["" if _is_heading(line) else line.strip() for line in _FENCE.sub("", self.text).strip().splitlines()]
        text = "\n".join(lines).strip()
        blocks = re.split(r"\n\s*\n", text) if re.search(r"\n\s*\n", text) else text.splitlines()
        blocks = [block for block in blocks if _has_words(block)]
        prose = [block for block in blocks if not all(map(_item, block.splitlines()))] or blocks
        if len(prose) > 2 and _is_salutation(prose[0]):
            prose = prose[1:]
        return tuple(prose[:-1] if len(prose) > 1 and _is_signature(prose[-1]) else prose)

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """Sentences; a line ends one, headings and bare list numbers are none."""
        lower = not any(character.isupper() for character in self.text)
        lines = [_bare(line) for line in self.raw_lines if not _is_heading(line)]
        return tuple(sentence for line in lines for sentence in _sentences(line, lower=lower))

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """Markdown tables, each with its rule below the header."""
        lines, found, place = self.text.splitlines(), list[Table](), 1
        while place < len(lines):
            header, rule, place = lines[place - 1], lines[place], place + 1
            if "|" in rule and "|" in header and _TABLE_RULE.fullmatch(rule.strip()):
                rows = [_cells(line) for line in takewhile(lambda line: "|" in line, lines[place:])]
                found.append(Table(_cells(header), tuple(rows)))
                place += len(rows)
        return tuple(found)

    @cached_property
    def json(self) -> Any:
        """The JSON value that the whole text, or its first fenced block, is; `None` where there is none."""
        fences = list(_FENCE.finditer(self.text))
        block = self.text[fences[0].end() : fences[1].start()] if len(fences) > 1 else self.text
        try:
            return json.loads(block)
        except (ValueError, RecursionError):
            return None

    def parts(self, part: Part) -> tuple[str, ...]:
        """Return the parts of that name, as texts."""
        if part == "items":
            return tuple(item.text for item in self.items)
        return {"sentences": self.sentences, "lines": self.lines, "paragraphs": self.paragraphs}[part]


def plain(text: str) -> str:
    """Return the form in which phrases are looked for.

    Without case, markdown emphasis and typographic variants; hyphens and dashes are spaces, thousands' commas are
    gone, and white space is one space.
    """
    text = unicodedata.normalize("NFKC", _EMPHASIS.sub("", text)).translate(_SAME).casefold()
    return " ".join(_THOUSANDS.sub("", text).split())


def phrase(text: str) -> re.Pattern[str]:
    """Return the pattern of a phrase in a `plain` text: whole words; `*` at a word's end stands for any ending."""
    words = [re.escape(word).replace(r"\*", r"\w*") for word in plain_phrase(text).split()]
    if not words:
        return re.compile(r"(?!)")  # a dash alone, say: there is nothing to look for
    return re.compile(r"(?<!\w)(?<!\d[.,])" + r"\s".join(words) + r"(?!\w)(?![.,]\d)")


def plain_phrase(text: str) -> str:
    """Return a phrase as `plain` would write it, its stars kept."""
    return " ".join(_THOUSANDS.sub("", unicodedata.normalize("NFKC", text).translate(_SAME).casefold()).split())


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _bare(line: str) -> str:
    """Return a line without indentation, heading marks, list marker, table edges and emphasis."""
    line = _EMPHASIS.sub("", _HASHES.sub("", line.strip().lstrip("> "), count=1)).strip().strip("|").strip()
    marker = _MARKER.match(line)
    return line[marker.end() :].strip() if marker else line


def _item(line: str) -> Item | None:
    """Return the list item that the line is, also where marker or number stand inside emphasis or a heading."""
    text = _EMPHASIS.sub("", _HASHES.sub("", line.lstrip(), count=1)).lstrip()
    marker = _MARKER.match(text)
    if marker is None:
        return None
    indent = len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())
    return Item(text[marker.end() :].strip(), marker["number"] is not None, indent)


def _is_salutation(block: str) -> bool:
    """Return whether a block is a line such as "Dear Ms Holm,"."""
    return "\n" not in block and block.endswith((",", "!")) and len(block.split()) <= _SIGNED_WORDS


def _is_signature(block: str) -> bool:
    """Return whether a block is a closing such as "Kind regards," with a name below it, or a name alone."""
    first, *rest = block.splitlines()
    ends = first.rstrip().endswith(",") if rest else first.istitle() and first[-1].isalpha()
    return ends and len(rest) < 3 and all(len(line.split()) <= _SIGNED_WORDS for line in (first, *rest))


def _leads(item: Item) -> bool:
    return item.text.endswith(":")


def _outermost(items: Sequence[Item]) -> tuple[Item, ...]:
    least = min((item.indent for item in items), default=0)
    return tuple(item for item in items if item.indent <= least + 1)


def _is_heading(line: str) -> bool:
    text = line.strip()
    if _HASHES.match(text) or _BOLD_LINE.fullmatch(text):
        return True
    short = len(text.split()) <= _HEADING_WORDS
    return short and text.rstrip("*_").endswith(":") and _item(line) is None and not _RULE.fullmatch(text)


def _sentences(line: str, *, lower: bool) -> list[str]:
    found, start = [], 0
    for end in _SENTENCE_END.finditer(line):
        following = line[end.end()]
        if not (following.isupper() or following.isdigit() or following in "\"'([\u201c\u2018" or lower):
            continue
        if _ABBREVIATION.search(line[max(start, end.start() - 8) : end.start() + 1]):
            continue
        found.append(line[start : end.end()].strip())
        start = end.end()
    return [sentence for sentence in (*found, line[start:].strip()) if _has_words(sentence)]


def _cells(line: str) -> tuple[str, ...]:
    return tuple(_EMPHASIS.sub("", cell).strip() for cell in line.strip().strip("|").split("|"))
