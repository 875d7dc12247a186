"""Where a search stands: what it would answer now, how likely that is right, and what bears it out.

Made of candidates alone, by the same functions in a live search and over records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import takewhile

from ponder.judges.agreement import groups, most_faithful, same_answer, told_apart_by
from ponder.judges.calibration import UNCALIBRATED, Calibration, Signals, signals
from ponder.judges.candidates import Candidate
from ponder.judges.choosing import choose
from ponder.program_tests import OwnTest
from ponder.records import Best, Standing


def assessed(
    found: Sequence[Candidate], tests: Sequence[OwnTest] = (), calibration: Calibration = UNCALIBRATED
) -> Best | None:
    """Return the best of the candidates, with the calibrated chance that it is right where there is a model for it."""
    seen = _assessed(found, tests, calibration)
    return None if seen is None else seen[0]


def _assessed(
    found: Sequence[Candidate], tests: Sequence[OwnTest], calibration: Calibration
) -> tuple[Best, Signals] | None:
    """Return the best of the candidates, and the signals that its confidence rests on."""
    best = choose(found, tests)
    if best is None:
        return None
    seen = signals(found, tests, best)
    if any(one.checks and not one.tested for one in found):
        return best, seen  # no record has checks of an answer: no model knows what they are worth
    chance = calibration.probability(seen)
    return (best if chance is None else best.model_copy(update={"confidence": chance})), seen


def standing(
    found: Sequence[Candidate], tests: Sequence[OwnTest] = (), calibration: Calibration = UNCALIBRATED
) -> Standing:
    """Return where a search with these candidates stands.

    Args:
        found: in the order in which they were asked for.
        tests: what the core wrote to test programs with.
        calibration: of the core that searched.
    """
    whole = _assessed(found, tests, calibration)
    if whole is None:
        return Standing()
    best, seen = whole
    nodes = {candidate.node: candidate for candidate in found}
    half = assessed(found[: len(found) // 2], tests, calibration)
    answers = [told_apart_by(candidate) for candidate in found]
    return Standing(
        best=best,
        votes=tuple(group.votes for group in groups(most_faithful(found))),
        counts=tuple(sorted(Counter(answers).values(), reverse=True)),
        stale=_stale(answers),
        same_in_a_row=sum(1 for _ in takewhile(lambda answer: answer == answers[-1], reversed(answers))),
        best_passed=max((candidate.share for candidate in found if candidate.checks), default=None),
        best_followed=max(candidate.obeys for candidate in found),
        kind=seen.kind,
        signals=seen.model_dump(exclude={"kind"}, exclude_none=True),
        steady=None if half is None else float(same_answer(nodes[half.node], nodes[best.node])),
        gain=None if half is None else best.confidence - half.confidence,
    )


def _stale(answers: Sequence[Hashable]) -> int:
    first = {answer: place for place, answer in reversed(list(enumerate(answers)))}
    return len(answers) - 1 - max(first.values())
