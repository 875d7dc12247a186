"""Samples that ramble on when their siblings are done.

Alone in its batch a sample costs about twice the CPU a token, and one that goes on for several times the length of all
its siblings mostly repeats itself up to the limit of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from ponder.records import SamplingParams


def straggles(tokens: int, ended: Sequence[int], n: int, params: SamplingParams) -> bool:
    """Return whether a sample is to be ended as if it had met its limit: see `SamplingParams.stretch`.

    Args:
        tokens: that it has written.
        ended: the tokens of its siblings that ended by themselves.
        n: how many samples there are, itself included.
    """
    return params.stretch is not None and 4 * len(ended) >= 3 * n and tokens >= params.stretch * max(ended, default=0)
