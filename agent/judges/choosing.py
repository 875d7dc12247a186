"""Which candidate is best: by visible checks, what the task's words ask, behaviour, votes."""

from __future__ import annotations

from collections.abc import Sequence

from ponder.answers import shown
from ponder.judges.agreement import behaviour, dual_agreement, groups, kind_of, most_faithful
from ponder.judges.candidates import Candidate
from ponder.program_tests import OwnTest
from ponder.records import Best
from ponder.stats import chance_of_lead, laplace


def choose(found: Sequence[Candidate], tests: Sequence[OwnTest] = ()) -> Best | None:
    """Return the best of the candidates, or None where there are none.

    Args:
        tests: what the core wrote to test programs with, if it did.
    """
    if not found:
        return None
    kind = kind_of(found)
    if kind == "programs":
        return _best_program(found, tests)
    if kind == "texts":
        return _best_text(found)
    ranked = groups(most_faithful(found))
    leader = ranked[0]
    second = ranked[1].votes if len(ranked) > 1 else 0.0
    forms = [shown(candidate.answer) for candidate in leader.members]
    lead = chance_of_lead(leader.votes, second)
    return Best(
        answer=max(forms, key=lambda form: (forms.count(form), -len(form))),
        confidence=_with_checks(leader.members[0], lead),
        node=leader.members[0].node,
        votes=len(leader.members),
        total=len(found),
    )


def _best_program(found: Sequence[Candidate], tests: Sequence[OwnTest]) -> Best:
    top = max(candidate.share for candidate in found)
    most = [candidate for candidate in found if candidate.share == top]
    alike, dual = behaviour(most, tests), dual_agreement(most, tests)
    best = max(most, key=lambda c: (alike[c.node] + dual[c.node], -c.node))
    confidence = _with_checks(best, laplace(0, 0))
    return Best(answer=best.answer, confidence=confidence, node=best.node, votes=1, total=len(found))


def _best_text(found: Sequence[Candidate]) -> Best:
    best = max(most_faithful(found), key=lambda c: (c.rubric or 0.0, -c.node))
    lead = chance_of_lead(1.0, 1.0 if len(found) > 1 else 0.0)
    confidence = _with_checks(best, lead)
    return Best(answer=best.answer.strip(), confidence=confidence, node=best.node, votes=1, total=len(found))


def _with_checks(best: Candidate, otherwise: float) -> float:
    """Return the confidence in an answer: what it is otherwise, as far as its visible checks, if any, bear that out."""
    if not best.checks:
        return otherwise
    if best.passed < best.checks:
        return best.passed / (best.checks + 2)
    return max(laplace(best.passed, best.checks), otherwise)
