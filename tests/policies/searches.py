"""Searches that were made up, to train policies on and to stop."""

from __future__ import annotations

import random
from typing import Any

from ponder.policies.replay.past import Prefix
from ponder.policies.replay.traces import Trace
from ponder.records import Features
from ponder.stats import laplace


def features(samples: int, counts: tuple[int, ...], cost: float) -> Features:
    values: dict[str, Any] = {
        "rounds": samples // 4, "samples": samples, "answered": samples, "pending": 0, "max_samples": 16,
        "votes": tuple(map(float, counts)), "confidence": laplace(counts[0], samples),
        "answer_words": 1.0, "checks": 0, "best_passed": None, "failed_steps": 0, "cpu_spent_s": cost,
        "wall_spent_s": 0.0, "tokens_spent": 0, "kind": "answers", "counts": counts, "cost_by_tool": {"core": cost},
        "next_steps": 4, "next_cost_by_tool": {"core": 10.0},
    }  # fmt: skip
    return Features(**values)


def made(task: int, draw: random.Random) -> Trace:
    """Return a search of an easy task, that agrees from the first, or of a hard one, that finds out by and by."""
    easy = draw.random() < 0.6
    found = []
    for samples in (4, 8, 12, 16):
        agree = samples - int(easy is False) * draw.randint(1, 3) * samples // 4
        right = float(draw.random() < (0.97 if easy else 0.1 + 0.05 * samples))
        counts = (agree, *(1,) * (samples - agree))
        found.append(Prefix(features(samples, counts, 2.5 * samples), right, right, 2.5 * samples, 2.5 * samples))
    return Trace("s", f"s/{task}", tuple(found), strategy="auto")
