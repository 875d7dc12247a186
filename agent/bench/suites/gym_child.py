"""The child process that holds reasoning-gym: a line of JSON in, a line of JSON out.

    {"families": true}                                  -> {"families": [...], "version": "0.1.25"}
    {"family": F, "seed": S, "index": I}                -> {"question": "..."}
    {"family": F, "seed": S, "index": I, "answer": A}   -> {"score": 0.0 to 1.0}

A request that fails gives {"error": "..."}. What a right answer is never leaves this process. Its parent ends it when
a verifier takes too long; it bounds its own memory, for numbers such as 1e999999999.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from functools import cache
from importlib.metadata import version
from typing import Any

MEMORY_BYTES = 4 * 2**30
SIZE = 1_000_000
"""Of the data sets: puzzles are made on demand, each from the seed and its own index."""


@cache
def _dataset(family: str, seed: int) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(family, size=SIZE, seed=seed)


def _reply(request: dict[str, Any]) -> dict[str, Any]:
    if request.get("families"):
        from reasoning_gym.factory import DATASETS

        return {"families": sorted(DATASETS), "version": version("reasoning-gym")}
    dataset = _dataset(request["family"], request["seed"])
    entry = dataset[request["index"]]
    if "answer" not in request:
        return {"question": str(entry["question"])}
    try:
        # A verifier that trips over an answer has not found it right.
        return {"score": float(dataset.score_answer(answer=request["answer"], entry=entry))}
    except Exception:
        return {"score": 0.0}


def main() -> None:
    """Answer until the standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    # Families print at times: what they say must not be taken for a reply.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                reply = _reply(json.loads(line))
        except ImportError as error:
            reply = {"error": f"{error}", "missing": True}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
