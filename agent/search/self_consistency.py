"""Self-consistency: independent samples at once, and the answer that most of them give."""

from __future__ import annotations

from collections.abc import Sequence

from ponder.protocols import TreeView
from ponder.search.attempts import Attempt, AttemptSearch


class SelfConsistency(AttemptSearch):
    """Takes all `max_samples` samples in one round (Wang et al. 2022, arXiv 2203.11171); nothing is revised.

    A program's output is read, a page is answered from: that belongs to its sample. How samples begin is the core's
    choice, the same for all of them.
    """

    name = "self-consistency"

    def __init__(self, max_samples: int = 8) -> None:
        super().__init__(max_samples, width=max_samples)

    def choose(self, tree: TreeView, attempts: Sequence[Attempt], width: int) -> Sequence[Attempt | None]:
        """See `AttemptSearch.choose`."""
        del tree
        return [] if attempts else [None] * width
