"""What a core's tokens cost on one machine: what replay prices recorded searches with."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt

from ponder.errors import UsageError
from ponder.records import Record

RATES = Path(__file__).parents[1] / "weights" / "rates.json"


class Rates(Record):
    """CPU seconds that a core takes on one machine, measured there (benchmarks/rates.py)."""

    core: str
    machine: str = ""
    prompt_token_s: float = Field(gt=0)
    """A prompt token that is not cached."""
    token_s: Mapping[PositiveInt, PositiveFloat] = Field(min_length=1)
    """A token that is written, by the number of branches that are computed together."""

    def token(self, width: int) -> float:
        """Return CPU seconds of a written token at that width: between measured widths by the reciprocal of width."""
        known = sorted(self.token_s)
        at = bisect_left(known, width)
        if at == 0 or at == len(known):
            return self.token_s[known[min(at, len(known) - 1)]]
        low, high = known[at - 1], known[at]
        part = (1 / low - 1 / width) / (1 / low - 1 / high)
        return self.token_s[low] + part * (self.token_s[high] - self.token_s[low])

    def side_by_side(self, lengths: Iterable[int], until: float = math.inf) -> float:
        """Return CPU seconds of texts that are written together: as some end, fewer share the batch.

        Args:
            lengths: tokens of each.
            until: of each only so many.
        """
        spent, done, left = 0.0, 0.0, sorted(lengths)
        for place, length in enumerate(left):
            width, end = len(left) - place, min(length, until)
            spent += (end - done) * width * self.token(width)
            done = end
        return spent


def rates_of(core: str, file: Path = RATES) -> Rates:
    """Return what a core's tokens cost, from a file of `benchmarks/rates.py`.

    Raises:
        UsageError: the file has no rates of this core, or is none.
    """
    measure = f"benchmarks/rates.py --core {core} --write FILE measures them, --rates FILE names them"
    try:
        return Rates.model_validate(json.loads(file.read_text("utf-8"))[core])
    except (KeyError, FileNotFoundError):
        raise UsageError(f"{file.name} has no rates of {core}", fix=measure) from None
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{file} holds no rates: {str(error).splitlines()[0]}", fix=measure) from error
