"""How far candidates agree: by the answer, by what programs do, by the tests that they pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

from ponder.answers import is_text
from ponder.judges.candidates import Candidate
from ponder.program_tests import OwnTest

Kind = Literal["programs", "answers", "texts"]
"""What decides: checks and what programs do; short answers that can agree; texts, no two of which ever do."""
_BROKEN = ("!load", "~time", "~gone")
_PASSED = "=1"
"""What a comparison that holds comes to: `True` as a number."""


def kind_of(found: Sequence[Candidate]) -> Kind:
    """Return what decides among these candidates."""
    if any(candidate.checks or candidate.outcomes for candidate in found):
        return "programs"
    distinct = len({candidate.key for candidate in found}) == len(found)
    return "texts" if distinct and all(is_text(candidate.answer) for candidate in found) else "answers"


def most_faithful(found: Sequence[Candidate]) -> list[Candidate]:
    """Return those candidates that do most of what the task's words ask: all of them where they ask for nothing."""
    most = max((candidate.obeys for candidate in found), default=1.0)
    return [candidate for candidate in found if candidate.obeys == most]


def same_answer(one: Candidate, other: Candidate) -> bool:
    """Return whether two candidates say the same, or are programs that do the same on all calls."""
    return told_apart_by(one) == told_apart_by(other)


def groups(found: Sequence[Candidate]) -> list[list[Candidate]]:
    """Group equal answers; the heaviest group first, ties by the core's own log-probability, then by order."""
    by_key: dict[Hashable, list[Candidate]] = {}
    for candidate in found:
        by_key.setdefault(told_apart_by(candidate), []).append(candidate)
    return sorted(by_key.values(), key=lambda g: (-weight(g), -max(c.mean_logprob for c in g), g[0].node))


def told_apart_by(candidate: Candidate) -> Hashable:
    """Return what a candidate is told from others by: programs by what they do, where some call of them comes to it."""
    does = frozenset(candidate.outcomes.items())
    return does if any(outcome not in _BROKEN for _, outcome in does) else candidate.key


def weight(group: Sequence[Candidate]) -> float:
    """Return the votes of a group."""
    return sum(candidate.weight for candidate in group)


def behaves_like(candidate: Candidate, others: Sequence[Candidate], tests: Sequence[OwnTest] = ()) -> float:
    """Return how many of the others do the same, on average over the calls: 0 to 1.

    What the core's own tests say of a call is left out: that is for `dual_agreement`.

    Minimum Bayes risk by execution (Shi et al. 2022, arXiv 2204.11454): a call on which right programs differ, as the
    task does not say what it means, costs them little. Where a program breaks off, it does the same as none.
    """
    rest = [other for other in others if other.node != candidate.node]
    compared = {test.comparison for test in tests}
    every = {call: outcome for call, outcome in candidate.outcomes.items() if call not in compared}
    came = {call: outcome for call, outcome in every.items() if outcome not in _BROKEN}
    if not rest or not came:
        return 0.0
    same = sum(other.outcomes.get(call) == outcome for other in rest for call, outcome in came.items())
    return same / (len(rest) * len(every))


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
