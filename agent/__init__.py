"""ponder: a small reasoning core inside a search that knows its own price.

    from ponder import Agent
    print(Agent().run("What is the 2000th prime number?").answer)

Importing this package is cheap: everything heavy is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ponder.agent import Agent as Agent
    from ponder.errors import PonderError as PonderError
    from ponder.records import Budget as Budget
    from ponder.records import Result as Result
    from ponder.records import SuccessCriterion as SuccessCriterion
    from ponder.records import Task as Task

_HOME = {
    "Agent": "ponder.agent",
    "Budget": "ponder.records",
    "PonderError": "ponder.errors",
    "Result": "ponder.records",
    "SuccessCriterion": "ponder.records",
    "Task": "ponder.records",
}

__all__ = ["Agent", "Budget", "PonderError", "Result", "SuccessCriterion", "Task"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ponder' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
