"""Instructions on how long an answer is: words, sentences, paragraphs, lines, of all of it or of each part."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ponder.instructions.amounts import Amount, amounts
from ponder.instructions.constraints import Constraint, Each
from ponder.instructions.counted import Parts, Words
from ponder.instructions.said import ASKS, Found, sentence_at
from ponder.instructions.written import Part

PARTS: dict[str, Part] = {
    "sentence": "sentences",
    "line": "lines",
    "paragraph": "paragraphs",
    "item": "items",
    "bullet": "items",
    "step": "items",
    "point": "items",
}
_EACH = re.compile(r"\b(?:each|every)\s+(?:of\s+the\s+)?(?:\w+\s+)?(\w+)", re.IGNORECASE)
_PER = re.compile(r"\s*(?:each|apiece|(?:per|(?:for|in|on)\s+(?:each|every))\s+(\w+))\b", re.IGNORECASE)
_UNITS_OF = re.compile(r"\b(\w+)\s+(?:of|with|having)\s+$", re.IGNORECASE)
_OF_A_PART = re.compile(
    r",?\s*(?:at\s+the\s+(?:very\s+)?(?:end|start|beginning|top|bottom)\b|(?:on|per|about)\s+(?:each|every|the|one|both)\b"
    r"|(?:for|each|apart|apiece|later|below|above|per)\b|of\s+(?:the|this|that|code|these|your)\b)",
    re.IGNORECASE,
)
_PART_OF = re.compile(
    r"\b(?:first|last|next|following|previous|these|those|this|(?:verdict|conclusion)\s+in|skip|every|per"
    r"|(?:clos|end|finish|begin|start|open|follow)(?:e|s|es|ing|ed)?(?:\s+up)?(?:\s+(?:it|your\s+\w+|the\s+\w+))?"
    r"\s+(?:with|by)|then\s+with)\s+(?:(?:a|the|exactly|only)\s+)?$",
    re.IGNORECASE,
)
_INTRODUCED = re.compile(
    r"(?:^|[.:;,!?(]\s*|\b(?:in|into|to|of|with|using|use|write|give|me|us|only|just|exactly|answer|produce|compose|make|"
    r"create|contain|containing|include|including|a|an|your|the|show|name|list|please|(?:should|must|shall|to)\s+"
    r"(?:have|be))\s+)$",
    re.IGNORECASE,
)
_IS_TOLD = re.compile(r"\b(?:has|had|have|contains|contained|is|was|were|wrote|reads?)\s+$", re.IGNORECASE)
"""What a number stands behind where a fact is told: "the essay has exactly 500 words"."""
_OF_SOMEBODY = re.compile(
    r"\b(?:he|she|they|(?-i:(?!Answers?|It|Each|Every|You|Your|This|That|Lines?|Sentences?|Paragraphs?|Words?|Items?|Points?)"
    r"[A-Z][a-z]+))\s+(?:must|should|shall|ha[sd]\s+to|have\s+to|needs?\s+to|needed\s+to|wants?\s+to|wanted\s+to)\b",
    re.IGNORECASE,
)
"""Somebody in the task has to write so much: "Mary must write an essay of at least 500 words"."""
_SAID_OF_ONE = re.compile(r"\s*(?:that|which|with|saying|where|in which)\b", re.IGNORECASE)
_AT_ONCE = re.compile(r"\s*in\s+", re.IGNORECASE)
_TEXT = re.compile(
    r"\s+(?:\w+\s+)?(?:summar(?:y|ies)|essay|stor(?:y|ies)|text|paragraph|answer|explanation|description|poem|article|"
    r"post|letter|e-?mail|report|review|speech|note|message|response|reply|abstract|overview|introduction|biography|"
    r"bio|tweet|pitch|slogan|caption|definition|critique|announcement|notice|paper|blurb|headline|title|name|dialogue|"
    r"script|haiku|verdict)\b",
    re.IGNORECASE,
)
_ABOUT, _FEW_WORDS = 0.2, 10
"""How far off "a 300-word essay" may be, as a share of it; up to so many words a number is meant exactly."""


@dataclass(frozen=True)
class Around:
    """The sentence that an amount stands in, what stands before it there, and the text behind it."""

    sentence: str
    before: str
    after: str

    @property
    def of_a_part(self) -> bool:
        """Whether the amount is said of a part of the answer only."""
        return bool(self.of_each is not None or _OF_A_PART.match(self.after) or _PART_OF.search(self.before))

    @property
    def of_each(self) -> str | None:
        """What the amount is said of each of ("sentence"), "" where that is unclear; None: not of each of anything."""
        if per := _PER.match(self.after):
            of = per if per[1] else _UNITS_OF.search(self.before)  # "two lines of at most eight words each"
            return str(of[1]).lower().removesuffix("s") if of else ""
        if each := _EACH.search(re.split(r"[;:]", self.before)[-1]):
            words = re.findall(r"\w+", each[0].lower())
            return next((word for word in words if word in PARTS), str(words[-1]))
        return None

    def is_asked(self, amount: Amount) -> bool:
        """Return whether the amount is an instruction: "write four lines", "at most four lines", not "in 4 lines"."""
        of_somebody = bool(_OF_SOMEBODY.search(self.sentence))
        asks = not of_somebody and bool(ASKS.search(self.sentence))
        if amount.bare:
            return bool(_INTRODUCED.search(self.before) and (asks or _AT_ONCE.fullmatch(self.before)))
        return asks or not (of_somebody or _IS_TOLD.search(self.before))


def around(text: str, bare: str, amount: Amount) -> Around:
    """Return what stands around an amount."""
    start, sentence = sentence_at(text, amount.start)
    return Around(sentence, sentence[: max(0, amount.start - start)], bare[amount.end :])


def _words(text: str, bare: str) -> Found:
    for amount in amounts(bare, "words?"):
        seen = around(text, bare, amount)
        if seen.of_each is not None:
            if seen.of_each in PARTS and (not amount.bare or ASKS.search(seen.sentence)):
                yield amount.start, _each(PARTS[seen.of_each], amount)
        elif not amount.bare:
            if seen.is_asked(amount):
                yield amount.start, Words(**amount.bounds)
        elif (count := amount.exactly or 0) > 1:
            yield from ((amount.start, check) for check in _number_of_words(count, amount, seen))


def _number_of_words(count: int, amount: Amount, seen: Around) -> list[Constraint]:
    about = Words(least=round(count * (1 - _ABOUT)), most=round(count * (1 + _ABOUT)))
    if amount.unit == "word":  # "a 300-word essay"
        return [about] if re.search(r"\b(?:a|an|one)\s+$", seen.before) and _TEXT.match(seen.after) else []
    if not re.search(r"\b(?:in|to|of|with|using)\s+$", seen.before) or not ASKS.search(seen.sentence):
        return []
    return [about if count > _FEW_WORDS else Words(exactly=count)]


def _each(part: Part, amount: Amount) -> Constraint:
    count = amount.exactly or 0
    if amount.bare and count > _FEW_WORDS:  # "100 words each" is no more exact than "a 300-word essay"
        return Each(part=part, least_words=round(count * (1 - _ABOUT)), most_words=round(count * (1 + _ABOUT)))
    return Each(part=part, least_words=max(1, amount.low), most_words=amount.high)


def _parts(text: str, bare: str) -> Found:
    for amount in amounts(bare, "sentences?|paragraphs?|lines?"):
        seen = around(text, bare, amount)
        one = amount.exactly == 1
        # "a line" is hardly ever meant exactly, "one sentence that says" is one among others
        if seen.of_a_part or (one and (amount.unit == "line" or _SAID_OF_ONE.match(seen.after))):
            continue
        if seen.is_asked(amount):
            kind = PARTS[amount.unit.removesuffix("s")]
            assert kind != "items"
            yield amount.start, Parts(kind=kind, **amount.bounds)


RULES = (_words, _parts)
