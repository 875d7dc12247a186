"""What a task asks of its answer in so many words, found by rules: length, lists, format, words to use or to avoid.

Only what is said plainly is read, and what is said of a part ("each sentence", "a verdict in one sentence at the end")
is read as that or not at all: an instruction that nobody gave would turn right answers away. English.

The kinds are those of IFEval (Zhou et al. 2023, arXiv 2311.07911), where the instructions are known beforehand; here
they are read from the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from ponder.answers import TEXT_WORDS, is_text
from ponder.instructions import formats, lengths, lists, wording
from ponder.instructions.constraints import (
    Avoid,
    Constraint,
    Finished,
    Json,
    Letters,
    Mention,
    NoRepeats,
    Without,
    times_in,
)
from ponder.instructions.counted import Counted, Headings, Items, Parts, TableRows, Words
from ponder.instructions.said import sentence_at, shown, without_quotes
from ponder.instructions.written import Written
from ponder.records import Record, Task

_RULES = (*lengths.RULES, *lists.RULES, *formats.RULES, *wording.RULES)


class Instruction(Record):
    """One thing that a task asks of its answer."""

    says: str
    """The sentence of the task that says so."""
    check: Constraint

    def followed(self, answer: str) -> bool:
        """Return whether the answer does it; an answer without a word does nothing."""
        return self.check.met(answer)

    def wrong(self, answer: str) -> str:
        """Return a line on what an answer that does not follow it does instead."""
        does = _does(self.check, Written(answer))
        return f"{self.says} ({does})" if does else self.says


def _does(check: Constraint, written: Written) -> str:
    """Return what an answer does where it is to do something else, in a sentence; "" where there is nothing to add."""
    match check:
        case Words():
            return f"It has {len(written.words)} words."
        case Parts(kind=kind):
            return f"It has {len(written.parts(kind))} {kind}."
        case Items():
            return f"It has {len(written.items)} list items."
        case Headings():
            return f"It has {len(written.headings)} headings on lines of their own."
        case TableRows():
            return "It has such a table not yet." if written.tables else "It has no table."
        case Json():
            return "It is other JSON." if written.json is not None else "It is no JSON."
        case Avoid(any_of=phrases):
            used = [one for one in phrases if not Avoid(any_of=(one,)).holds(written)]
            return f"It has {', '.join(map(repr, used))}."
        case Without(any_of=strings):
            return f"It has {', '.join(repr(one) for one in strings if one in written.text)}."
        case Letters(case=case):
            return f"It has {'small' if case == 'upper' else 'capital'} letters."
        case Mention(any_of=phrases):
            return f"It has {' or '.join(map(repr, phrases))} {times_in(written, phrases)} times."
    return ""


_OF_TEXTS = (
    Instruction(says="It breaks off at its end.", check=Finished()),
    Instruction(says="It says the same more than once.", check=NoRepeats()),
)
"""What nobody asks for in words, as every text is meant to be so."""


@lru_cache(maxsize=256)
def instructions_in(text: str) -> tuple[Instruction, ...]:
    """Return what a task's text asks of its answer, in the order in which it is said; nothing twice."""
    bare = without_quotes(text)
    found = sorted((pair for rule in _RULES for pair in rule(text, bare)), key=lambda pair: pair[0])
    once: dict[str, tuple[int, Constraint]] = {}
    for place, check in found:
        once.setdefault(check.model_dump_json(), (place, check))
    kept = list(once.values())
    against = _excluding([check for _, check in kept])
    return tuple(
        Instruction(says=shown(sentence_at(text, place)[1]), check=check)
        for place, check in kept
        if not any(check is other for other in against)
    )


def instructions_of(task: Task) -> tuple[Instruction, ...]:
    """Return what a task's words ask of its answer, and that a text be whole; none where the task has checks."""
    return () if _has_checks(task) else (*instructions_in(task.prompt), *_OF_TEXTS)


def asks_for_text(task: Task) -> bool:
    """Return whether the task's words ask for what only a text has: sentences, a list, words to use, not a few words.

    JSON, a sentence or a few words may as well say what a program has worked out.
    """
    return not _has_checks(task) and any(map(_only_of_texts, instructions_in(task.prompt)))


def _only_of_texts(one: Instruction) -> bool:
    match one.check:
        case Json():
            return False
        case Words() as words:
            return max(words.low, words.high or 0) > TEXT_WORDS
        case Parts() as parts:
            return max(parts.low, parts.high or 0) > 1
    return True


def unfollowed(task: Task, answer: str) -> tuple[Instruction, ...]:
    """Return those of a task's instructions that an answer does not follow."""
    return () if _has_checks(task) else _unfollowed(task.prompt, answer)


def _has_checks(task: Task) -> bool:
    return task.success is not None and task.success.kind != "rubric"


@lru_cache(maxsize=1024)
def _unfollowed(prompt: str, answer: str) -> tuple[Instruction, ...]:
    asked = (*instructions_in(prompt), *(_OF_TEXTS if is_text(answer) else ()))
    return tuple(one for one in asked if not one.followed(answer))


def _excluding(checks: Sequence[Constraint]) -> list[Counted]:
    """Return counts of the same thing that exclude each other: they are said of different parts of the answer."""
    by_unit: dict[str, list[Counted]] = {}
    for check in checks:
        if isinstance(check, Words | Parts | Items):
            by_unit.setdefault(check.kind, []).append(check)
    return [check for same in by_unit.values() if _exclude_each_other(same) for check in same]


def _exclude_each_other(same: Sequence[Counted]) -> bool:
    low = max(one.low for one in same)
    return any(one.high is not None and one.high < low for one in same)
