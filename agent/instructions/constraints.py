"""Constraints that plain code checks in a written answer, so that better and worse can be told without an opinion.

The manner is IFEval's (Zhou et al. 2023, "Instruction-Following Evaluation for Large Language Models",
arXiv:2311.07911; github.com/google-research/google-research, folder instruction_following_eval): its kinds of length,
keywords, format, start and end, case and punctuation, and its rule that an empty answer meets nothing. Like its loose
reading, ours looks through markdown. Not in IFEval: synonyms, `covers`, `near`, `order`, `each`, tables, `no_repeats`.

Phrases are matched as whole words without case; `*` at a word's end stands for any ending (`rain*`). A hyphen is a
space, and thousands' commas do not count.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ponder.instructions.counted import Checked, Counted, Headings, Items, Parts, TableRows, Words
from ponder.instructions.written import Part, Written, phrase

Phrases = Annotated[tuple[str, ...], Field(min_length=1)]
"""Words or phrases that mean the same here: one of them is enough."""

_REPEATED_WORDS = 4
"""Sentences and items shorter than this may stand there more than once ("Yes.", "Rest day"), but not without end."""
_REPEATED_TIMES = 5
_NAME_WORDS = 4
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+$")


class Json(Checked):
    """The answer, or its first fenced block, is JSON that fits a schema (draft 2020-12)."""

    kind: Literal["json"] = "json"
    fits: dict[str, Any]

    @field_validator("fits")
    @classmethod
    def _is_schema(cls, fits: dict[str, Any]) -> dict[str, Any]:
        from jsonschema import Draft202012Validator, SchemaError

        try:
            Draft202012Validator.check_schema(fits)
        except SchemaError as error:
            raise ValueError(f"no JSON schema: {error.message}") from error
        return fits

    def holds(self, written: Written) -> bool:
        from jsonschema import Draft202012Validator

        return written.json is not None and Draft202012Validator(self.fits).is_valid(written.json)


class Mention(Checked):
    """One of the phrases stands there, at least `times` and at most `most_times` times in all."""

    kind: Literal["mention"] = "mention"
    any_of: Phrases
    times: int = Field(default=1, ge=1)
    most_times: int | None = Field(default=None, ge=1)

    def holds(self, written: Written) -> bool:
        count = times_in(written, self.any_of)
        return self.times <= count and (self.most_times is None or count <= self.most_times)


class Covers(Checked):
    """At least `least` of the groups are mentioned; of each group, one phrase is enough."""

    kind: Literal["covers"] = "covers"
    of: tuple[Phrases, ...] = Field(min_length=1)
    least: int = Field(ge=1)

    def holds(self, written: Written) -> bool:
        return sum(bool(_places(group, written.plain)) for group in self.of) >= self.least


class Avoid(Checked):
    """None of the phrases stands there."""

    kind: Literal["avoid"] = "avoid"
    any_of: Phrases

    def holds(self, written: Written) -> bool:
        return not _places(self.any_of, written.plain)


class Order(Checked):
    """The steps can be read one after the other: of each, some phrase stands behind one of the step before."""

    kind: Literal["order"] = "order"
    steps: tuple[Phrases, ...] = Field(min_length=2)

    def holds(self, written: Written) -> bool:
        at = 0
        for step in self.steps:
            ends = [end for start, end in _places(step, written.plain) if start >= at]
            if not ends:
                return False
            at = min(ends)
        return True


class Near(Checked):
    """A phrase of `any_of` and one of `with_any` stand at most `within` words apart, whichever is first."""

    kind: Literal["near"] = "near"
    any_of: Phrases
    with_any: Phrases
    within: int = Field(default=25, ge=0)

    def holds(self, written: Written) -> bool:
        text = written.plain
        ones = [(place, True) for place in _places(self.any_of, text)]
        others = [(place, False) for place in _places(self.with_any, text)]
        # Of the closest pair nothing stands between, so that neighbours are enough.
        pairs = pairwise(sorted((*ones, *others)))
        return any(
            left is not right and len(text[end:start].split()) <= self.within
            for ((_, end), left), ((start, _), right) in pairs
        )


class LinesBegin(Checked):
    """Lines begin with a text: any of `any_of`, these in turn, or what `pattern` matches. `others` lines may not."""

    kind: Literal["lines_begin"] = "lines_begin"
    any_of: tuple[str, ...] = ()
    in_turn: tuple[str, ...] = ()
    pattern: str = r"(?!)"
    others: int = Field(default=0, ge=0)

    def holds(self, written: Written) -> bool:
        wrong = 0
        for place, line in enumerate(line.casefold() for line in written.lines):
            wanted = self.any_of or (self.in_turn[place % len(self.in_turn)],) if self.in_turn else self.any_of
            begins = any(line.startswith(text.casefold()) for text in wanted)
            wrong += not (begins or re.match(self.pattern, line))
        return wrong <= self.others and wrong < len(written.lines)


class Each(Checked):
    """Every item, sentence, line or paragraph has so many words, and one of the phrases (at its beginning)."""

    kind: Literal["each"] = "each"
    part: Part
    any_of: tuple[str, ...] = ()
    at_its_start: bool = False
    least_words: int = Field(default=1, ge=1)
    most_words: int | None = Field(default=None, ge=1)

    def holds(self, written: Written) -> bool:
        parts = [Written(part) for part in written.parts(self.part)]
        return bool(parts) and all(self._fits(part) for part in parts)

    def _fits(self, part: Written) -> bool:
        places = _places(self.any_of, part.plain)
        found = not self.any_of or any(start == 0 or not self.at_its_start for start, _ in places)
        return found and self.least_words <= len(part.words) <= (self.most_words or len(part.words))


class Ends(Checked):
    """The answer's last characters are one of these, closing quotes and emphasis aside.

    Of those that end with a letter the case does not count, nor what mark ends the answer's last sentence.
    """

    kind: Literal["ends"] = "ends"
    any_of: Phrases

    def holds(self, written: Written) -> bool:
        last = written.text.rstrip().rstrip("*_`\"'\u201d\u2019").rstrip()
        said = last.rstrip(".!?,;\u2026 *_`\"'\u201d\u2019").casefold()
        words = tuple(one.casefold() for one in self.any_of if one[-1].isalnum())
        return last.endswith(self.any_of) or said.endswith(words)


class Letters(Checked):
    """All letters are lower case, or all are capitals."""

    kind: Literal["letters"] = "letters"
    case: Literal["lower", "upper"]

    def holds(self, written: Written) -> bool:
        text = written.text
        return text == (text.lower() if self.case == "lower" else text.upper())


class Without(Checked):
    """None of these characters or strings stands there, as it is written."""

    kind: Literal["without"] = "without"
    any_of: Phrases

    def holds(self, written: Written) -> bool:
        return not any(text in written.text for text in self.any_of)


class Matches(Counted):
    """So many matches of a regular expression (without case, `^` at each line) in the answer without emphasis."""

    kind: Literal["matches"] = "matches"
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        return pattern

    def holds(self, written: Written) -> bool:
        text = re.sub(r"\*\*|__|`", "", written.text.strip())
        return self.allows(sum(1 for _ in re.finditer(self.pattern, text, re.IGNORECASE | re.MULTILINE)))


class NoRepeats(Checked):
    """No sentence or list item of four words or more stands there twice, and no shorter one more than five times."""

    kind: Literal["no_repeats"] = "no_repeats"

    def holds(self, written: Written) -> bool:
        said = Counter(Written(part).plain.rstrip(".!?") for part in written.sentences)
        return all(times == 1 or self._short(part, times) for part, times in said.items())

    def _short(self, part: str, times: int) -> bool:
        return times <= _REPEATED_TIMES and len(part.split()) < _REPEATED_WORDS


class Finished(Checked):
    """The last line is not cut off.

    It ends like a sentence, a block of code, an address or a smiley, or is a list item, a table row, or the name below
    a letter's closing.
    """

    kind: Literal["finished"] = "finished"

    def holds(self, written: Written) -> bool:
        last, lines = written.text.rstrip().rstrip("*_`").rstrip(), written.raw_lines
        if last.endswith((".", "!", "?", "\u2026", ")", "]", "}", ">", '"', "'", "\u201d", "\u2019", "|", "~")):
            return True
        if written.text.rstrip().endswith(("```", "~~~")) or unicodedata.category(last[-1]) in ("So", "Sk", "Mn"):
            return True
        if _ADDRESS.search(last) or (len(lines) > 1 and _is_signed(*lines[-2:])):
            return True
        whole = Written(lines[-1])
        return bool(whole.items) and not last.endswith((",", ":", ";", "-"))


Constraint = Annotated[
    Words | Parts | Items | Headings | TableRows | Json | Mention | Covers | Avoid | Order | Near | LinesBegin | Each
    | Ends | Letters | Without | Matches | NoRepeats | Finished,
    Field(discriminator="kind"),
]  # fmt: skip


def _is_signed(closing: str, name: str) -> bool:
    """Return whether two lines are a letter's closing and a name: "Kind regards," and "Anna Berg"."""
    words = name.split()
    return closing.rstrip().endswith(",") and len(words) <= _NAME_WORDS and words[0][:1].isupper()


def times_in(written: Written, phrases: tuple[str, ...]) -> int:
    """Return how often one of the phrases stands there."""
    return len(_places(phrases, written.plain))


def _places(phrases: tuple[str, ...], text: str) -> list[tuple[int, int]]:
    """Return where one of the phrases stands in a plain text, as (start, end); overlapping ones count once."""
    found = sorted({match.span() for text_of in phrases for match in phrase(text_of).finditer(text)})
    kept: list[tuple[int, int]] = []
    for start, end in found:
        if not kept or start >= kept[-1][1]:
            kept.append((start, end))
    return kept
