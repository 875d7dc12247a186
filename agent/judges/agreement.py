"""How far candidates agree: by the answer, by what programs do, by the tests that they pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from statistics import median
from typing import Literal, NamedTuple

from ponder.answers import is_text
from ponder.judges.candidates import Candidate, Way
from ponder.program_tests import OwnTest

Kind = Literal["programs", "answers", "texts"]
"""What decides: tests and what programs do; short answers that can agree; texts, no two of which ever do."""
_VOTE: Mapping[Way, float] = {"executed": 2.0, "reasoned": 2.0, "said": 1.0}
"""Votes of one answer: one that was worked out is right more often than one that was just said."""
_CORRELATION: Mapping[Way, float] = {"executed": 0.5, "reasoned": 0.2, "said": 0.0}
"""How often two wrong answers of one way are the same one: of the default core's, on recorded training tasks (pairs of
programs 45% to 65%, of answers that were worked out in words 19%, of those that were just said 0% to 5%)."""
_BROKEN = ("!load", "~time", "~gone")
_PASSED = "=1"
"""What a comparison that holds comes to: `True` as a number."""
_FEW_WORDS = 3
"""An answer of so many may agree with others, in whatever form it is asked for."""


def kind_of(found: Sequence[Candidate]) -> Kind:
    """Return what decides among these candidates."""
    if any(candidate.tested or candidate.outcomes for candidate in found):
        return "programs"
    return "texts" if _never_agree(found) else "answers"


def _never_agree(found: Sequence[Candidate]) -> bool:
    """Return whether answers are texts: all long and different; or, where a text is asked for, most of them different.

    "Which river, in capital letters?" is answered in a word or two, and these do agree.
    """
    counts = Counter(candidate.key for candidate in found)
    if len(counts) == len(found) and all(is_text(candidate.answer) for candidate in found):
        return True
    asked = any(candidate.text_asked for candidate in found)
    alone = sum(count == 1 for count in counts.values())
    return asked and 2 * alone > len(found) and median(len(one.answer.split()) for one in found) > _FEW_WORDS


def most_faithful(found: Sequence[Candidate]) -> list[Candidate]:
    """Return those candidates that do most of what is asked: all of them where nothing is.

    First what visible checks of an answer ask (tests of programs are another matter), then what the task's words do.
    """
    def does(one: Candidate) -> tuple[float, float]:
        return 0.0 if one.tested else one.share, one.obeys

    most = max(map(does, found), default=None)
    return [candidate for candidate in found if does(candidate) == most]


def same_answer(one: Candidate, other: Candidate) -> bool:
    """Return whether two candidates say the same, or are programs that do the same on all calls."""
    return told_apart_by(one) == told_apart_by(other)


class Group(NamedTuple):
    """Equal answers."""

    votes: float
    members: list[Candidate]


def votes(found: Sequence[Candidate]) -> Mapping[int, float]:
    """Return the votes of each candidate, by node: shares of what all would have if each were counted by itself.

    Answers that came about in the same way go wrong together: n of them are worth `n / (1 + (n - 1) * correlation)`
    that do not (the design effect: Kish 1965, Survey Sampling), so that twelve programs do not outvote four answers
    that were worked out in words.
    """
    together = Counter(candidate.way for candidate in found)
    own = {one.node: _VOTE[one.way] / (1 + (together[one.way] - 1) * _CORRELATION[one.way]) for one in found}
    whole = sum(_VOTE[one.way] for one in found) / (sum(own.values()) or 1.0)
    return {node: each * whole for node, each in own.items()}


def groups(found: Sequence[Candidate]) -> list[Group]:
    """Group equal answers; the heaviest group first, ties in the order in which they came.

    The core's own log-probability decided ties once, and did so no better than the order, on no set of recorded tasks.
    """
    own = votes(found)
    by_key: dict[Hashable, list[Candidate]] = {}
    for candidate in found:
        by_key.setdefault(told_apart_by(candidate), []).append(candidate)
    every = [Group(sum(own[one.node] for one in members), members) for members in by_key.values()]
    return sorted(every, key=lambda group: (-group.votes, group.members[0].node))


def told_apart_by(candidate: Candidate) -> Hashable:
    """Return what a candidate is told from others by: programs by what they do, where some call of them comes to it."""
    does = frozenset(candidate.outcomes.items())
    return does if any(outcome not in _BROKEN for _, outcome in does) else candidate.key


def behaviour(found: Sequence[Candidate], tests: Sequence[OwnTest] = ()) -> Mapping[int, float]:
    """Return, by node, how many of the others do the same, on average over the calls: 0 to 1.

    What the core's own tests say of a call is left out: that is for `dual_agreement`.

    Minimum Bayes risk by execution (Shi et al. 2022, arXiv 2204.11454): a call on which right programs differ, as the
    task does not say what it means, costs them little. Where a program breaks off, it does the same as none.
    """
    compared = {test.comparison for test in tests}
    calls = {one.node: [pair for pair in one.outcomes.items() if pair[0] not in compared] for one in found}
    doing = Counter(pair for own in calls.values() for pair in own if pair[1] not in _BROKEN)
    scores = {}
    for node, own in calls.items():
        alike = sum(doing[pair] - 1 for pair in own if pair in doing)
        scores[node] = alike / ((len(found) - 1) * len(own)) if alike else 0.0
    return scores


def dual_agreement(found: Sequence[Candidate], tests: Sequence[OwnTest]) -> Mapping[int, float]:
    """Return, by node, how well a candidate and the core's own tests agree: 0 to 1, the best of them 1.

    Candidates that pass the same tests stand by each other: the score is the root of their number times the number of
    tests that they pass (CodeT: Chen et al. 2022, arXiv 2207.10397). All are 0 where none passes any.
    """
    passed = {c.node: frozenset(t.comparison for t in tests if c.outcomes.get(t.comparison) == _PASSED) for c in found}
    size = Counter(passed.values())
    scores = {node: math.sqrt(size[own]) * len(own) for node, own in passed.items()}
    top = max(scores.values(), default=0.0)
    return {node: score / top if top else 0.0 for node, score in scores.items()}
