"""How likely the best answer is right: a small logistic model for each kind of evidence, fitted on recorded searches.

The models are plain numbers in `calibration.json`; without that file there are none, and nothing is calibrated. What
they look at is computed here, by the same function in a live search and over records (`ponder.bench.records`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from ponder.errors import UsageError
from ponder.judges.agreement import Kind, behaviour, groups, kind_of, same_answer
from ponder.judges.candidates import Candidate
from ponder.program_tests import OwnTest
from ponder.records import Best, Record
from ponder.stats import chance_of_lead, logistic

FILE = Path(__file__).with_name("calibration.json")


class Signals(Record):
    """What the probability rests on. `None`: this search does not have that signal. Shares are in [0, 1]."""

    kind: Kind
    log_candidates: float
    """log2 of the number of candidates."""
    alone: float
    """1 where there is one candidate only, which can agree with nothing; else 0."""
    distinct: float
    """Distinct answers as a share of the candidates."""
    lead_share: float
    """The share of the votes that the best answer has."""
    log_lead: float
    """log2 of 1 + these votes."""
    margin: float
    """Its votes less those of the strongest other answer, as a share of all."""
    lead_chance: float
    """Chance that it is the core's most likely answer: `ponder.stats.chance_of_lead` of both."""
    mean_logprob: float
    """Mean log-probability of a token of the best candidate's."""
    executed: float
    """1 where a program computed it or a page says it, else 0."""
    passed: float | None = None
    """The share of the visible checks that the best candidate passed."""
    log_checks: float | None = None
    """log2 of 1 + the number of visible checks."""
    passing: float | None = None
    """The share of the candidates that pass all visible checks."""
    behaves: float | None = None
    """How many of those that pass as many checks do the same: `agreement.behaviour`."""
    log_alike: float | None = None
    """log2 of 1 + how many these are."""
    obeys: float | None = None
    """Of a text: the share of what the task's words ask that it does."""
    obeying: float | None = None
    """The share of the candidates that do all of it."""
    rubric: float | None = None
    """Chance that the core itself gives to the answer meeting the task."""


def signals(found: Sequence[Candidate], tests: Sequence[OwnTest], best: Best) -> Signals:
    """Return the signals of the best answer.

    Args:
        found: all candidates so far.
        tests: what the core wrote to test programs with: what these say of a candidate is left out, since it told right
            from wrong no better than the rest (docs/judge.md).
        best: which of them was chosen.

    Raises:
        ValueError: the best answer is none of the candidates.
    """
    leader = next((candidate for candidate in found if candidate.node == best.node), None)
    if leader is None:
        raise ValueError(f"node {best.node} is no candidate")
    ranked, n = groups(found), len(found)
    own = next(group.votes for group in ranked if same_answer(group.members[0], leader))
    other = max((group.votes for group in ranked if not same_answer(group.members[0], leader)), default=0.0)
    total = sum(group.votes for group in ranked)
    kind = kind_of(found)
    base = Signals(
        kind=kind,
        log_candidates=math.log2(n),
        alone=float(n == 1),
        distinct=len(ranked) / n,
        lead_share=own / total,
        log_lead=math.log2(1 + own),
        margin=(own - other) / total,
        lead_chance=chance_of_lead(own, other),
        mean_logprob=leader.mean_logprob,
        executed=float(leader.executed),
        rubric=leader.rubric,
    )
    if kind == "programs":
        return base.model_copy(update=_of_program(leader, found, tests))
    return base.model_copy(update=_of_text(leader, found)) if kind == "texts" else base


def _of_text(leader: Candidate, found: Sequence[Candidate]) -> dict[str, float]:
    """Return the signals that only texts have."""
    obeying = sum(candidate.obeys == 1 for candidate in found) / len(found)
    return {"obeys": leader.obeys, "obeying": obeying}


def _of_program(leader: Candidate, found: Sequence[Candidate], tests: Sequence[OwnTest]) -> dict[str, float]:
    """Return the signals that only what is checked and run has, those of them that are there."""
    came: dict[str, float] = {}
    most = [candidate for candidate in found if candidate.share == leader.share]
    if leader.checks:
        full = sum(candidate.checks > 0 and candidate.passed == candidate.checks for candidate in found)
        came |= {"passed": leader.share, "log_checks": math.log2(1 + leader.checks), "passing": full / len(found)}
    if any(candidate.outcomes for candidate in found):
        same = behaviour(most, tests)[leader.node]
        came |= {"behaves": same, "log_alike": math.log2(1 + same * (len(most) - 1))}
    return came


class Term(Record):
    """One signal's part in a model: `weight * (value - mean) / scale`, the value held within what training saw."""

    name: str
    weight: float
    mean: float
    scale: float = Field(gt=0)
    low: float
    high: float

    @field_validator("name")
    @classmethod
    def _is_a_signal(cls, name: str) -> str:
        if name == "kind" or name not in Signals.model_fields:
            raise ValueError(f"no signal is called {name!r}")
        return name


class FittedOn(Record):
    """Where a model comes from, and how well it did on tasks that it had not seen (cross-fitting over tasks)."""

    core: str
    records: tuple[str, ...]
    suites: tuple[str, ...]
    tasks: int
    snapshots: int
    """Searches, each seen after 1, 2, 4... samples."""
    right: float
    """The share of the snapshots whose best answer is right."""
    ece: float
    """Expected calibration error over 15 bins that hold as many snapshots each."""
    brier: float


class Model(Record):
    """A logistic model for one kind of evidence."""

    kind: Kind
    bias: float
    terms: tuple[Term, ...]
    fitted_on: FittedOn | None = None
    """None while a model is only tried out."""

    def probability(self, seen: Signals) -> float | None:
        """Return the chance that the best answer is right; None where a signal is missing."""
        total = self.bias
        for term in self.terms:
            value: float | None = getattr(seen, term.name)
            if value is None:
                return None
            total += term.weight * (min(max(value, term.low), term.high) - term.mean) / term.scale
        return logistic(total)


class Calibration(Record):
    """Models, of each core and kind those with more signals first."""

    version: Literal[1] = 1
    models: tuple[Model, ...] = ()
    tasks: Mapping[str, tuple[str, ...]] = {}
    """By core, the tasks that its models were fitted on: nothing is measured on these."""

    def of(self, core: str | None) -> Calibration:
        """Return the models that were fitted on searches of this core: log-probabilities and agreement are its own."""
        own = tuple(model for model in self.models if model.fitted_on is not None and model.fitted_on.core == core)
        return Calibration(models=own, tasks={name: ids for name, ids in self.tasks.items() if name == core})

    def probability(self, seen: Signals) -> float | None:
        """Return the chance that the best answer is right, by the first model of its kind that misses no signal.

        None where there is no such model: the caller keeps the confidence that it has.
        """
        own = (model.probability(seen) for model in self.models if model.kind == seen.kind)
        return next((chance for chance in own if chance is not None), None)


UNCALIBRATED = Calibration()


def load(path: Path = FILE) -> Calibration:
    """Return the calibration in a file, an empty one where there is no such file.

    Raises:
        UsageError: the file is no calibration.
    """
    try:
        return Calibration.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Calibration()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the whole"
        wrong = f"{path.name} is no calibration: {where}: {first['msg']}"
        raise UsageError(wrong, fix="benchmarks/judge_report.py fit makes it anew") from error
