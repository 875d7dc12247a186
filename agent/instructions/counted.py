"""The base of all constraints, and those that count: words, sentences, list items, headings, a table's rows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ponder.instructions.written import Item, Written
from ponder.records import Record


class Checked(Record):
    """A constraint. `met` is the whole of its use."""

    def met(self, answer: str) -> bool:
        """Return whether the answer meets it. An answer without a word meets nothing."""
        written = Written(answer)
        return bool(written.words) and self.holds(written)

    def holds(self, written: Written) -> bool:
        """Return whether an answer that is not empty meets it."""
        raise NotImplementedError


class Counted(Checked):
    """How many there may be: `exactly`, or between `least` and `most`, both included."""

    least: int | None = Field(default=None, ge=0)
    most: int | None = Field(default=None, ge=0)
    exactly: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _bounded(self) -> Counted:
        if self.exactly is None and self.least is None and self.most is None:
            raise ValueError("a count needs least, most or exactly")
        if self.exactly is not None and (self.least is not None or self.most is not None):
            raise ValueError("exactly excludes least and most")
        return self

    @property
    def low(self) -> int:
        """The fewest that are right."""
        return self.exactly if self.exactly is not None else self.least or 0

    @property
    def high(self) -> int | None:
        """The most that are right; None: there is no bound."""
        return self.exactly if self.exactly is not None else self.most

    def allows(self, count: int) -> bool:
        """Return whether that many are right."""
        return self.low <= count and (self.high is None or count <= self.high)


class Words(Counted):
    """Number of words."""

    kind: Literal["words"] = "words"

    def holds(self, written: Written) -> bool:
        return self.allows(len(written.words))


class Parts(Counted):
    """Number of sentences, paragraphs or lines (headings are lines, and neither of the others)."""

    kind: Literal["sentences", "paragraphs", "lines"]

    def holds(self, written: Written) -> bool:
        return self.allows(len(written.parts(self.kind)))


class Items(Counted):
    """Number of outermost list items of a style, `any` by default; `multiple_of` 2 asks for an even number.

    Items that end with a colon, with lists below them, may be what is counted, or these lists' headings.
    """

    kind: Literal["items"] = "items"
    style: Literal["any", "numbered", "bulleted"] = "any"
    multiple_of: int = Field(default=1, ge=1)

    def holds(self, written: Written) -> bool:
        return self._fit(written.items) or self._fit(written.led_items)

    def _fit(self, items: tuple[Item, ...]) -> bool:
        count = sum(self.style in ("any", "numbered" if item.numbered else "bulleted") for item in items)
        return self.allows(count) and count % self.multiple_of == 0


class Headings(Counted):
    """Number of headings; each of `named` must begin or end one, in this order."""

    kind: Literal["headings"] = "headings"
    named: tuple[str, ...] = ()

    def holds(self, written: Written) -> bool:
        return self._fit(written.headings) or self._fit(written.led_headings)

    def _fit(self, headings: tuple[str, ...]) -> bool:
        texts = iter(heading.casefold() for heading in headings)
        named = all(any(_at_an_end(name.casefold(), text) for text in texts) for name in self.named)
        return named and self.allows(len(headings))


class TableRows(Counted):
    """A markdown table with so many rows, the header not counted; each of `columns` is in its header."""

    kind: Literal["table"] = "table"
    columns: tuple[str, ...] = ()

    def holds(self, written: Written) -> bool:
        for table in written.tables:
            header = " | ".join(table.header).casefold()
            rows = [row for row in table.rows if any(cell for cell in row)]
            if all(name.casefold() in header for name in self.columns) and self.allows(len(rows)):
                return True
        return False


def _at_an_end(name: str, text: str) -> bool:
    return text.startswith(name) or text.endswith(name)
