"""Samples that ramble on when their siblings are done.

Alone in its batch a sample costs about twice the CPU a token, and one that goes on for several times the length of all
its siblings mostly repeats itself up to the limit of tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ponder.records import SamplingParams


def straggles(tokens: int, ended: Sequence[int], n: int, params: SamplingParams) -> bool:
    """Return whether a sample is to be ended as if it had met its limit: see `SamplingParams.stretch`.

    Args:
        tokens: that it has written.
        ended: the tokens of its siblings that ended by themselves.
        n: how many samples there are, itself included.
    """
    return params.stretch is not None and 4 * len(ended) >= 3 * n and tokens >= params.stretch * max(ended, default=0)


def stragglers(tokens: Sequence[int], ended: Collection[int], params: SamplingParams) -> list[int]:
    """Return the places of the samples that are left, where all of these straggle; else none.

    Args:
        tokens: that each sample of a prompt has written.
        ended: the places of those that ended by themselves.
    """
    left, own = [i for i in range(len(tokens)) if i not in ended], [tokens[i] for i in ended]
    return left if all(straggles(tokens[i], own, len(tokens), params) for i in left) else []
