"""The fit of the judge's calibration on recorded searches, and what it says of tasks that it has not seen."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any

from ponder.bench.records.offline import Search
from ponder.bench.records.reliability import reliability
from ponder.errors import UsageError
from ponder.judges.agreement import Kind
from ponder.judges.calibration import Calibration, FittedOn, Model, Signals, Term, signals
from ponder.judges.choosing import choose
from ponder.records import Record

DEPTHS = (1, 2, 4, 8, 16)
"""Samples after which a search is looked at."""
FOLDS = 5
FEWEST = 30
"""Snapshots that a model takes at least."""
DIGITS = 6
"""Significant digits of a model's numbers."""

Form = tuple[Kind, tuple[str, ...]]
"""A model to be: its kind of evidence, and its signals."""

_ALWAYS = ("log_candidates", "alone", "distinct", "lead_share", "mean_logprob")
_RUN = (*_ALWAYS, "behaves", "log_alike")
_CHECKED = (*_RUN, "passed", "log_checks", "passing")
_AGREED = (*_ALWAYS, "log_lead", "margin", "lead_chance", "executed")
_TEXTS = ("log_candidates", "alone", "mean_logprob", "obeys", "obeying")
FORMS: tuple[Form, ...] = (
    ("programs", _CHECKED),
    ("programs", _RUN),
    ("answers", (*_AGREED, "rubric")),
    ("answers", _AGREED),
    ("texts", (*_TEXTS, "rubric")),
    ("texts", _TEXTS),
)
"""The models, of each kind those with more signals first."""


class Snapshot(Record):
    """A search after some samples: the best answer's signals, and whether it is right."""

    suite: str
    task: str
    depth: int
    seen: Signals
    right: bool
    said: float
    """The confidence that the uncalibrated judge gives."""


def snapshots(search: Search, depths: Sequence[int] = DEPTHS) -> list[Snapshot]:
    """Return a search as it was after each of these numbers of samples (of a tree: candidates), and at its end.

    Where there is no answer yet, there is nothing to tell the probability of.
    """
    whole = len(search.samples) if search.independent else len(search.right)
    taken = []
    for depth in sorted({*(depth for depth in depths if depth < whole), whole}):
        found = search.first(depth)
        best = choose(found, search.tests)
        if best is not None:
            taken.append(
                Snapshot(
                    suite=search.suite,
                    task=search.task,
                    depth=depth,
                    seen=signals(found, search.tests, best),
                    right=search.right[best.node],
                    said=best.confidence,
                )
            )
    return taken


def probabilities(calibration: Calibration, found: Sequence[Snapshot]) -> list[float]:
    """Return what a calibration says of each; where it has no model, what the uncalibrated judge says."""
    said = [calibration.probability(one.seen) for one in found]
    return [one.said if chance is None else chance for one, chance in zip(found, said, strict=True)]


def cross_fitted(found: Sequence[Snapshot], forms: Sequence[Form] = FORMS, *, folds: int = FOLDS) -> list[float]:
    """Return, for each snapshot, what models say that were fitted without any snapshot of its task.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    fold = _folds(found, folds)
    said = [0.0] * len(found)
    for turn in range(folds):
        rest = [one for one, own in zip(found, fold, strict=True) if own != turn]
        held = [at for at, own in enumerate(fold) if own == turn]
        models = [model for form in forms if (model := _model(rest, form)) is not None]
        chances = probabilities(Calibration(models=tuple(models)), [found[at] for at in held])
        for at, chance in zip(held, chances, strict=True):
            said[at] = chance
    return said


def fit(found: Sequence[Snapshot], *, core: str, records: Sequence[str]) -> Calibration:
    """Return the models, each with what cross-fitting says of it; forms with too few snapshots are left out.

    Args:
        core: whose searches these are.
        records: the names of their folders.

    Raises:
        UsageError: no form has enough snapshots.
        ImportError: scikit-learn is not installed.
    """
    models = []
    for form in FORMS:
        own = [one for one in found if _fits(one.seen, form)]
        model = _model(own, form)
        if model is None:
            continue
        figures = reliability(cross_fitted(own, [form]), [one.right for one in own], draws=1)
        about = FittedOn(
            core=core,
            records=tuple(records),
            suites=tuple(sorted({one.suite for one in own})),
            tasks=len({(one.suite, one.task) for one in own}),
            snapshots=len(own),
            right=_short(figures.right),
            ece=_short(figures.ece),
            brier=_short(figures.brier),
        )
        models.append(model.model_copy(update={"fitted_on": about}))
    if not models:
        raise UsageError(f"{len(found)} snapshots are too few to fit a model", fix=f"each takes at least {FEWEST}")
    return Calibration(models=tuple(models), tasks={core: tuple(sorted({one.task for one in found}))})


def _folds(found: Sequence[Snapshot], folds: int) -> list[int]:
    """Return the fold of each snapshot: all of a task's are in one."""
    tasks = sorted({(one.suite, one.task) for one in found})
    random.Random(2026).shuffle(tasks)
    fold = {task: at % folds for at, task in enumerate(tasks)}
    return [fold[one.suite, one.task] for one in found]


def _fits(seen: Signals, form: Form) -> bool:
    kind, names = form
    return seen.kind == kind and all(getattr(seen, name) is not None for name in names)


def _model(found: Sequence[Snapshot], form: Form) -> Model | None:
    """Return a fitted model: L2-regularised logistic regression on standardised signals; None: too few snapshots.

    A signal that never changed says nothing and is left out.
    """
    kind, names = form
    rows = [one for one in found if _fits(one.seen, form)]
    if len(rows) < FEWEST:
        return None
    right = [one.right for one in rows]
    terms = [term for name in names if (term := _term(name, [getattr(one.seen, name) for one in rows])) is not None]
    if len(set(right)) < 2 or not terms:  # nothing tells right from wrong: their rate (by the rule of succession)
        odds = (sum(right) + 1) / (len(right) - sum(right) + 1)
        return Model(kind=kind, bias=_short(math.log(odds)), terms=())
    table = [[(getattr(one.seen, term.name) - term.mean) / term.scale for term in terms] for one in rows]
    bias, weights = _logistic(table, right)
    weighed = (term.model_copy(update={"weight": _short(w)}) for term, w in zip(terms, weights, strict=True))
    return Model(kind=kind, bias=_short(bias), terms=tuple(weighed))


def _term(name: str, values: Sequence[float]) -> Term | None:
    # Rounded, so that the model that is tried out is the one that is written.
    mean, scale, low, high = map(_short, (fmean(values), pstdev(values), min(values), max(values)))
    return Term(name=name, weight=0.0, mean=mean, scale=scale, low=low, high=high) if scale > 1e-9 else None


def _logistic(table: Sequence[Sequence[float]], right: Sequence[bool]) -> tuple[float, list[float]]:
    from sklearn.linear_model import LogisticRegression

    fitted: Any = LogisticRegression(max_iter=2000).fit(table, right)
    return float(fitted.intercept_[0]), [float(weight) for weight in fitted.coef_[0]]


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
