"""How far probabilities can be believed: what was said against what came true."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

from ponder.records import Record

BINS = 15
WIDE_BINS = 10


class Bin(Record):
    """Probabilities near to each other, and what came of them."""

    size: int
    said: float
    """Their mean."""
    right: float
    """The share of them that came true."""


class Reliability(Record):
    """How far probabilities can be believed."""

    number: int
    right: float
    """The share of them that came true."""
    said: float
    """Their mean."""
    ece: float
    """Expected calibration error over 15 bins that hold as many each (Nguyen and O'Connor 2015, arXiv 1508.05154)."""
    ece_wide: float
    """The same over 10 bins of equal width (Guo et al. 2017, arXiv 1706.04599)."""
    brier: float
    floor: float
    """What `ece` would be of perfectly calibrated probabilities, by chance alone: the mean over draws of the outcomes
    from these very probabilities, each drawn for itself."""


def bins_of_equal_size(said: Sequence[float], right: Sequence[bool], number: int = BINS) -> list[Bin]:
    """Return bins that hold as many probabilities each, the smallest first."""
    order = sorted(range(len(said)), key=lambda at: said[at])
    cuts = [round(at * len(order) / number) for at in range(number + 1)]
    return [_bin(order[a:b], said, right) for a, b in pairwise(cuts) if b > a]


def bins_of_equal_width(said: Sequence[float], right: Sequence[bool], number: int = WIDE_BINS) -> list[Bin]:
    """Return bins of equal width over [0, 1], those that hold any."""
    inside: dict[int, list[int]] = {}
    for at, chance in enumerate(said):
        inside.setdefault(min(number - 1, int(chance * number)), []).append(at)
    return [_bin(inside[place], said, right) for place in sorted(inside)]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: how far bins are off, weighed by their size; 0 without bins."""
    total = sum(one.size for one in bins)
    return sum(one.size * abs(one.said - one.right) for one in bins) / total if total else 0.0


def reliability(said: Sequence[float], right: Sequence[bool], *, draws: int = 200, seed: int = 2026) -> Reliability:
    """Return the figures of probabilities and of what came true. Raises ValueError: there are none, or not as many."""
    if not said or len(said) != len(right):
        raise ValueError(f"{len(said)} probabilities cannot be held against {len(right)} outcomes")
    draw, n = random.Random(seed), len(said)
    chance = [calibration_error(bins_of_equal_size(said, [draw.random() < p for p in said])) for _ in range(draws)]
    return Reliability(
        number=n,
        right=sum(right) / n,
        said=sum(said) / n,
        ece=calibration_error(bins_of_equal_size(said, right)),
        ece_wide=calibration_error(bins_of_equal_width(said, right)),
        brier=sum((p - r) ** 2 for p, r in zip(said, right, strict=True)) / n,
        floor=sum(chance) / draws,
    )


def _bin(members: Sequence[int], said: Sequence[float], right: Sequence[bool]) -> Bin:
    n = len(members)
    return Bin(size=n, said=sum(said[at] for at in members) / n, right=sum(right[at] for at in members) / n)
