"""Samples that are not worth going on with: they ramble on when their siblings are done, or repeat themselves.

Alone in its batch a sample costs about twice the CPU a token, and one that goes on for several times the length of all
its siblings mostly repeats itself up to the limit of tokens. A small core that was asked for what it cannot know falls
into a loop early, and several samples at once do (Holtzman et al. 2019, arXiv 1904.09751).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

from ponder.records import SamplingParams

_COPIES = 4
"""A text is said to repeat itself where its end is one piece so many times: fewer are a table's rows or a list."""
_MARK = 24
"""Characters at the end of a text: a copy ends where they stood before."""


def hopeless(
    tokens: Sequence[int], text: Callable[[int], str], ended: Collection[int], params: SamplingParams
) -> list[int]:
    """Return the places of the samples that are left, where none of these is worth going on with; else none.

    Args:
        tokens: that each sample of a prompt has written.
        text: what the sample at a place has written.
        ended: the places of those that ended by themselves.
    """
    left, own = [i for i in range(len(tokens)) if i not in ended], [tokens[i] for i in ended]
    return left if all(is_hopeless(tokens[i], partial(text, i), own, len(tokens), params) for i in left) else []


def is_hopeless(tokens: int, text: Callable[[], str], ended: Sequence[int], n: int, params: SamplingParams) -> bool:
    """Return whether a sample is to be ended as if it had met its limit.

    Args:
        tokens: that it has written.
        text: what it has written.
        ended: the tokens of its siblings that ended by themselves.
        n: how many samples there are, itself included.
    """
    return straggles(tokens, ended, n, params) or repeats(tokens, text, params)


def straggles(tokens: int, ended: Sequence[int], n: int, params: SamplingParams) -> bool:
    """Return whether a sample rambles on: see `SamplingParams.stretch`."""
    return params.stretch is not None and 4 * len(ended) >= 3 * n and tokens >= params.stretch * max(ended, default=0)


def repeats(tokens: int, text: Callable[[], str], params: SamplingParams) -> bool:
    """Return whether a sample repeats itself: see `SamplingParams.repeats`."""
    if params.repeats is None or tokens < params.repeats:
        return False
    whole = text()
    least = max(_MARK, len(whole) * params.repeats // tokens)  # characters, as many as so many tokens take
    mark, at = whole[-_MARK:], len(whole) - _MARK
    while (at := whole.rfind(mark, 0, at + _MARK - 1)) >= 0:
        period = len(whole) - _MARK - at
        end = whole[-max(least, _COPIES * period) :]
        if _COPIES * period <= len(whole) and end[period:] == end[:-period]:
            return True
    return False
