"""How well the judge picks among recorded answers: against one sample, the oracle, votes, and itself with less."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

from ponder.bench.records.offline import PIECES, Search
from ponder.bench.stats import pass_at_k
from ponder.judges.candidates import Candidate
from ponder.judges.choosing import choose
from ponder.records import Record
from ponder.stats import Interval, paired_bootstrap

DRAWS = 2_000
"""Bootstrap draws of the share of the gap: a ratio has no faster way."""


class Picks(Record):
    """What each way of picking gives on one task, as the chance of a right answer: 0 or 1, between for ties."""

    suite: str
    task: str
    one: float
    """pass@1: the mean of its samples."""
    oracle: float
    """pass@k: a right sample is always found."""
    judge: float
    vote: float
    """The answer that most samples give; ties are drawn."""
    alike: float
    """The program whose outcomes, all of them, most samples share; ties are drawn. Of answers: `vote`."""


class Selection(Record):
    """Accuracy of each way of picking on a set of tasks, with 95% bootstrap intervals over tasks."""

    tasks: int
    one: Interval
    oracle: Interval
    judge: Interval
    vote: Interval
    alike: Interval
    gap_closed: Interval | None
    """(judge - pass@1) / (pass@k - pass@1), sums over tasks; None where there is no gap to close."""
    over_vote: Interval
    """Judge less vote, task by task."""
    over_alike: Interval


class Without(Record):
    """What taking one piece of evidence away does."""

    piece: str
    accuracy: Interval
    change: Interval
    """Accuracy without it less accuracy with all, task by task."""
    saved_cpu_s: float
    """CPU seconds a task that the piece costs."""
    share_of_cpu: float
    """These as a share of what the search spent."""


def picks(search: Search, k: int, *, trees: Search | None = None) -> Picks:
    """Return what each way of picking gives on a task's first k samples.

    Args:
        trees: another record of the same task: the judge picks among all of its candidates instead.

    Raises:
        ValueError: there are fewer than k samples.
    """
    outcomes = search.outcomes[:k]
    if len(outcomes) < k:
        raise ValueError(f"{search.task} has {len(outcomes)} samples, not {k}")
    found, right = search.first(k), search.right
    vote = _voted(found, right, lambda one: one.key)
    programs = any(candidate.outcomes for candidate in found)
    return Picks(
        suite=search.suite,
        task=search.task,
        one=pass_at_k(k, sum(outcomes), 1),
        oracle=pass_at_k(k, sum(outcomes), k),
        judge=picked(search, k) if trees is None else picked(trees, None),
        vote=vote,
        alike=_voted(found, right, lambda one: tuple(sorted(one.outcomes.items()))) if programs else vote,
    )


def picked(search: Search, k: int | None, without: str | None = None) -> float:
    """Return 1 where the judge picks a right answer, else 0.

    Args:
        k: the samples it sees; None: all.
        without: the piece of evidence that it does not see, a name in `PIECES`.
    """
    found, tests = search.first(k or len(search.right) + len(search.samples)), search.tests
    if without is not None:
        found, tests = PIECES[without][0](found, tests)
    best = choose(found, tests)
    return float(best is not None and search.right[best.node])


def select(rows: Sequence[Picks]) -> Selection:
    """Return the figures of a set of tasks. Raises ValueError: there are none."""
    return Selection(
        tasks=len(rows),
        one=paired_bootstrap([row.one for row in rows]),
        oracle=paired_bootstrap([row.oracle for row in rows]),
        judge=paired_bootstrap([row.judge for row in rows]),
        vote=paired_bootstrap([row.vote for row in rows]),
        alike=paired_bootstrap([row.alike for row in rows]),
        gap_closed=gap_closed(rows),
        over_vote=paired_bootstrap([row.judge - row.vote for row in rows]),
        over_alike=paired_bootstrap([row.judge - row.alike for row in rows]),
    )


def gap_closed(rows: Sequence[Picks], *, level: float = 0.95, draws: int = DRAWS, seed: int = 2026) -> Interval | None:
    """Return the share of the gap between pass@1 and pass@k that the judge closes; None: there is no gap.

    The interval is of a bootstrap over tasks; draws in which there is no gap are left out.
    """
    pairs = [(row.judge - row.one, row.oracle - row.one) for row in rows]
    share = _ratio(pairs)
    if share is None:
        return None
    draw = random.Random(seed)
    came = (_ratio(draw.choices(pairs, k=len(pairs))) for _ in range(draws))
    shares = sorted(one for one in came if one is not None)
    tail = (1 - level) / 2
    return Interval(value=share, low=shares[int(tail * len(shares))], high=shares[int((1 - tail) * len(shares))])


def ablate(found: Sequence[Search], k: int | None) -> list[Without]:
    """Return what each piece of evidence is worth on these tasks, pieces that none of them has left out.

    Args:
        k: the samples of each; None: all, of trees too.

    Raises:
        ValueError: there are no searches.
    """
    full = [picked(search, k) for search in found]
    spent = sum(search.cost.total_s for search in found)
    rows = []
    for piece, (take, cost) in PIECES.items():
        if all(take(search.first(10**6), search.tests) == (search.first(10**6), search.tests) for search in found):
            continue
        less = [picked(search, k, piece) for search in found]
        saved = sum(cost(search.cost) for search in found)
        rows.append(Without(
            piece=piece,
            accuracy=paired_bootstrap(less),
            change=paired_bootstrap([a - b for a, b in zip(less, full, strict=True)]),
            saved_cpu_s=saved / len(found),
            share_of_cpu=saved / spent if spent else 0.0,
        ))  # fmt: skip
    return rows


def _voted(found: Sequence[Candidate], right: Mapping[int, bool], key: Callable[[Candidate], Hashable]) -> float:
    """Return the chance that a vote by this key gives a right answer: the mean over the candidates that lead."""
    votes = Counter(map(key, found))
    most = max(votes.values(), default=0)
    leaders = [right[one.node] for one in found if votes[key(one)] == most]
    return sum(leaders) / len(leaders) if leaders else 0.0


def _ratio(pairs: Sequence[tuple[float, float]]) -> float | None:
    gap = sum(pair[1] for pair in pairs)
    return sum(pair[0] for pair in pairs) / gap if gap > 0 else None
