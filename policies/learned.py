"""The learned stop: another round is taken while what it is expected to gain is worth more than what it costs.

From a search's features, small logistic models say how likely the best answer is right now and, where it is wrong, how
likely a right one is found by one more round, and by all that are left. A right answer is worth `value`, in the units
of the ledger's prices; the next round costs what the steps so far say. The search stops when neither one more round nor
all that are left are expected to pay: so `value` and prices change what it does, without training.

With a `risk` the search stops on how likely the full search is right where the answer now is wrong, at a threshold that
was certified on recorded searches (`ponder.policies.risk`).

What lies outside of what training saw is said, and not judged: the search then goes on until its budget, or its
strategy, ends it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from ponder.errors import UsageError
from ponder.policies.checks_and_votes import ChecksAndVotes
from ponder.policies.features import STILL_TO_COME
from ponder.policies.risk import Certificate
from ponder.records import Decision, Features, Record, StopReason
from ponder.stats import chance_of_lead, logistic

FOLDER = Path(__file__).with_name("weights")
VALUE = 1000.0
"""What a right answer is worth, where nobody says: so many CPU seconds."""

Kind = Literal["programs", "answers", "texts", "none"]
"""What decides among the answers; `none` while there is none."""
Head = Literal["now", "found_next", "found_end"]
"""What is asked: whether the best answer is right now; where it is wrong, whether it is right after one more round, and
at full depth. (Where it is right, more samples may spoil it: that is chance, and a search that counted on it stopped
where answers were open, and lost more than it saved.)"""
HEADS: tuple[Head, ...] = ("now", "found_next", "found_end")
_SURE, _LEAST_DOUBT, _FAR = 0.001, -10.0, 3.0
_OUTSIDE = 0.25
"""An input may lie outside of its range in training by this share of it."""
_ROUNDED = 1e-4
"""Ranges are written with so many digits."""
_HOPELESS = 0.05


def kind_of(features: Features) -> Kind:
    """Return which model a search is judged by."""
    return features.kind or "none"


def inputs(features: Features) -> Mapping[str, float]:
    """Return what the models look at, by name. All are figures of the tree: none is a price or a machine's speed.

    - `odds`: of the judge's confidence, as their logarithm.
    - `lead`: the chance that the leading answer is the core's most likely one; `doubt` what it lacks of 1, in halvings.
    - `followed`: of what the task's words ask, the share that the best answer does.
    - `other_open`: how far the next steps work in another way than those so far, the more the less certain the lead is.
    """
    lead = chance_of_lead(*(*features.votes, 0.0, 0.0)[:2]) if features.answered else 0.0
    confidence = min(max(features.confidence, _SURE), 1 - _SURE)
    return {
        "samples": math.log2(1 + features.samples),
        "left": math.log2(1 + max(0, features.max_samples - features.samples)),
        "followed": features.best_followed,
        "failed": features.failed_steps / max(1, features.samples),
        "confidence": features.confidence,
        "odds": math.log(confidence / (1 - confidence)),
        "lead": lead,
        "doubt": max(_LEAST_DOUBT, math.log2(max(1 - lead, 2.0**_LEAST_DOUBT))),
        "other_open": 2 * (1 - lead) * features.next_other,
    }


def at_this_rate(features: Features) -> float:
    """Return what the samples that are left would cost if each cost what those so far did, in the ledger's prices."""
    done = features.samples + (1 - STILL_TO_COME) * features.pending
    return sum(features.cost_by_tool.values()) / max(1.0, done) * max(0.0, features.max_samples - done)


_NO_SEARCH = Features(
    rounds=0, samples=0, answered=0, pending=0, max_samples=0, votes=(), answer_words=0.0, checks=0, best_passed=None,
    failed_steps=0, cpu_spent_s=0.0, wall_spent_s=0.0, tokens_spent=0,
)
KNOWN = frozenset(inputs(_NO_SEARCH))
"""The names of all inputs."""


class Input(Record):
    """One input of a model, and what training saw of it."""

    model_config = ConfigDict(allow_inf_nan=False)

    name: str
    mean: float
    scale: float = Field(gt=0)
    low: float
    high: float

    def scaled(self, value: float) -> float:
        """Return a value in standard deviations: held within what training saw, and what is rare there within a few."""
        return min(max((min(max(value, self.low), self.high) - self.mean) / self.scale, -_FAR), _FAR)

    def is_outside(self, value: float) -> bool:
        """Return whether a value is well outside of what training saw."""
        slack = _OUTSIDE * (self.high - self.low) + _ROUNDED * max(1.0, abs(self.low), abs(self.high))
        return not self.low - slack <= value <= self.high + slack


class Chances(NamedTuple):
    """How likely the best answer is right, and what there is to gain."""

    now: float
    soon: float
    """That it is wrong now, and right after one more round."""
    late: float
    """That it is wrong now, and right at full depth: stopping loses it."""


class Model(Record):
    """Logistic models of one kind of search."""

    model_config = ConfigDict(allow_inf_nan=False)

    kind: Kind
    inputs: tuple[Input, ...]
    bias: Mapping[Head, float]
    weights: Mapping[Head, Mapping[str, float]]
    """By input; a head leaves out what tells it nothing."""
    cost_left: float = Field(default=1.0, gt=0)
    """What a full search costs after this, as a share of what its samples that are left would by those so far."""
    snapshots: int = 0
    tasks: int = 0

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        """Refuse what could not be evaluated: a head that is missing, a weight of what is no input."""
        names = {one.name for one in self.inputs}
        if unknown := sorted(names - KNOWN):
            raise ValueError(f"{unknown[0]} is no input of this version")
        for head in HEADS:
            if head not in self.bias or head not in self.weights:
                raise ValueError(f"the head {head} is missing")
            if unknown := sorted(self.weights[head].keys() - names):
                raise ValueError(f"{head} weighs {unknown[0]}, which is none of its inputs")
        return self

    def chances(self, values: Mapping[str, float]) -> Chances:
        """Return how likely the best answer is right, now and later. Raises KeyError: an input is missing."""
        scaled = {one.name: one.scaled(values[one.name]) for one in self.inputs}
        said = {
            head: logistic(self.bias[head] + sum(weight * scaled[name] for name, weight in self.weights[head].items()))
            for head in HEADS
        }
        now, late = said["now"], said["found_end"]
        # The models do not know of each other: one more round finds no more than all that are left.
        return Chances(now=now, soon=(1 - now) * min(said["found_next"], late), late=(1 - now) * late)

    def cost_of_rest(self, features: Features) -> float:
        """Return what the search is expected to cost until its strategy has nothing left, in the ledger's prices."""
        return max(features.next_cost, at_this_rate(features) * self.cost_left)

    def outside(self, values: Mapping[str, float]) -> list[str]:
        """Return the names of the inputs that lie well outside of what training saw."""
        return [one.name for one in self.inputs if one.is_outside(values[one.name])]


class Weights(Record):
    """A trained policy: plain numbers, and where they come from."""

    version: Literal[3] = 3
    features: int
    """The version of the features that it looks at."""
    core: str
    records: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    """That it was trained on: nothing is measured on these."""
    models: tuple[Model, ...]
    """Fitted on all tasks: what a value is weighed by."""
    careful: tuple[Model, ...]
    """Fitted on those tasks only that no certificate rests on: what a risk is judged by."""
    certificates: tuple[Certificate, ...] = ()

    def of(self, kind: Kind, *, careful: bool = False) -> Model | None:
        """Return the model for a kind of search."""
        return next((model for model in (self.careful if careful else self.models) if model.kind == kind), None)

    def certified(self, risk: float, strategy: str, samples: int) -> Certificate:
        """Return the certificate that holds for a risk: that of the largest risk which is no larger.

        Args:
            strategy: whose full searches the loss is against.
            samples: that these take at most.

        Raises:
            UsageError: no risk is so small, this one cannot be certified, or not for such searches.
        """
        if not 0 < risk < 1:
            raise UsageError(f"a risk is between 0 and 1 (5% is 0.05), not {risk:g}")
        every = dict.fromkeys((one.strategy, one.samples) for one in self.certificates)
        own = [one for one in self.certificates if (one.strategy, one.samples) == (strategy, samples)]
        if every and not own:
            known = " or ".join(f"--strategy {name} -n {most}" for name, most in every)
            wrong = f"no risk was calibrated for searches of {strategy} that take {samples} samples at most"
            raise UsageError(wrong, fix=f"there are for {known}")
        fitting = [one for one in own if one.risk <= risk + 1e-12]
        if not fitting:
            known = ", ".join(f"{one.risk:g}" for one in own)
            raise UsageError(f"no risk of {risk:.1%} was calibrated", fix=f"there is: {known or 'none'}")
        best = max(fitting, key=lambda one: one.risk)
        if best.threshold is None:
            raise UsageError(best.why, fix="allow a larger risk, or train on more records (`ponder policy train`)")
        return best


class LearnedStop:
    """Stops when neither another round nor all that are left are expected to be worth their cost.

    Args:
        weights: see `load`.
        value: what a right answer is worth, in the units of the ledger's prices (by default CPU seconds).
        risk: of the tasks that a full search gets right, the share that stopping may lose, with 95% confidence; then
            `value` does not count.
        strategy: that searches, by name, and
        samples: that it takes at most: a risk is certified for such searches.

    Raises:
        UsageError: the weights are for other features, `value` is not positive, or the risk is not certified.
    """

    name = "learned"

    def __init__(
        self, weights: Weights, *, value: float = VALUE, risk: float | None = None, strategy: str = "auto",
        samples: int = 16,
    ) -> None:
        if not value > 0 or not math.isfinite(value):
            raise UsageError(f"a right answer is worth a positive number, not {value:g}")
        version = Features.model_fields["version"].default
        if weights.features != version:
            wrong = f"the stop policy's weights are for features of version {weights.features}, and these are {version}"
            raise UsageError(wrong, fix="train it again: `ponder policy train`")
        self.weights, self.value = weights, value
        self._by_checks = ChecksAndVotes()  # no record has checks of anything but programs
        self.certificate = None if risk is None else weights.certified(risk, strategy, samples)

    def decide(self, features: Features) -> Decision:
        """See `StopPolicy.decide`."""
        kind = kind_of(features)
        if features.best_passed is not None and kind != "programs":
            if self.certificate is None:
                return self._by_checks.decide(features)
            why = "no record has visible checks of such answers: no risk is certified for them"
            return Decision(stop=False, confidence=features.confidence, why=why)
        model, values = self._model(kind), inputs(features)
        if model is None or (unknown := self._unknown(model, values)):
            why = f"nothing was learned about {kind}" if model is None else unknown
            return Decision(stop=False, confidence=features.confidence, why=why)
        chances = model.chances(values)
        confidence = features.confidence if features.kind else 0.0
        if self.certificate is not None and self.certificate.threshold is not None:
            return self._by_risk(chances, self.certificate.threshold, confidence)
        return self._by_value(features, chances, confidence, model.cost_of_rest(features))

    def judges(self, features: Features) -> bool:
        """Return whether it decides by what it learned: else nothing was learned of such a search, and it goes on."""
        model = self._model(kind_of(features))
        return model is not None and not self._unknown(model, inputs(features))

    def _model(self, kind: Kind) -> Model | None:
        return self.weights.of(kind, careful=self.certificate is not None)

    @staticmethod
    def _unknown(model: Model, values: Mapping[str, float]) -> str:
        outside = ", ".join(f"{name} {values[name]:.3g}" for name in model.outside(values))
        return f"outside of what training saw: {outside}" if outside else ""

    def _by_value(
        self, features: Features, chances: Chances, confidence: float, cost_left: float
    ) -> Decision:
        now = "expected score now" if features.kind == "texts" else "right now"  # of a text, the share that it meets
        told = (
            f"{now} {chances.now:.2f}; one more round +{chances.soon:.3f} for {features.next_cost:.0f}, all that "
            f"are left +{chances.late:.3f} for {cost_left:.0f}; a right answer is worth {self.value:.0f}"
        )
        if chances.soon * self.value >= features.next_cost or chances.late * self.value >= cost_left:
            return Decision(stop=False, confidence=confidence, why=told)
        return Decision(stop=True, reason=_reason(chances), confidence=confidence, why=told)

    def _by_risk(self, chances: Chances, threshold: float, confidence: float) -> Decision:
        assert self.certificate is not None
        told = f"only the full search is right: {chances.late:.3f}, at most {threshold:.3f}; {self.certificate.why}"
        if chances.late > threshold:
            return Decision(stop=False, confidence=confidence, why=told)
        return Decision(stop=True, reason=_reason(chances), confidence=confidence, why=told)


def _reason(chances: Chances) -> StopReason:
    if chances.now + chances.late < _HOPELESS:
        return "hopeless"
    return "confident" if chances.now >= 0.5 else "not_worth_it"


def read(path: Path) -> Weights:
    """Return the weights in a file. Raises UsageError: there are none."""
    try:
        return Weights.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", fix="`ponder policy train` makes one") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the whole"
        wrong = f"{path} is no stop policy of this version: {where}: {first['msg']}"
        raise UsageError(wrong, fix="`ponder policy train` makes one; without the file the rule is used") from error


def load(path: Path, core: str) -> Weights | None:
    """Return the weights in a core's file; None where there is no such file.

    Raises:
        UsageError: it holds no weights, or those of another core.
    """
    if not path.exists():
        return None
    weights = read(path)
    if weights.core != core:
        raise UsageError(f"{path} is a stop policy for {weights.core}, not for {core}", fix="move it away")
    return weights
