"""Replay: recorded searches, seen again at each place where a live one asks its policy.

A policy can only stop a recorded search earlier: how each stood there, and what it had cost, `past` works out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ponder.bench.records.offline import Row, Search, made_of_each
from ponder.bench.records.recording import read_table, strategy_of
from ponder.errors import UsageError
from ponder.policies.replay.past import Past, Prefix, ReplayOptions
from ponder.protocols import StopPolicy
from ponder.records import Decision, Features

ORDERS = 6
"""In how many orders independent samples are seen, for training and for measuring."""


@dataclass(frozen=True)
class Trace:
    """A recorded search at full depth, as prefixes that grow; the last one is the whole search."""

    suite: str
    task: str
    prefixes: tuple[Prefix, ...]
    weight: float = 1.0
    """What it counts for beside others of the same search: all orders of its samples together count 1."""
    recorded: bool = True
    """Whether this is the order that it had."""
    strategy: str = ""

    @property
    def full(self) -> Prefix:
        """The whole search."""
        return self.prefixes[-1]


@dataclass(frozen=True)
class Stopped:
    """Where a policy stopped a trace, and how."""

    at: Prefix
    decision: Decision | None
    """None: it never did."""


def as_recorded(traces: Sequence[Trace]) -> list[Trace]:
    """Return the searches in the order that they had, each once."""
    return [trace for trace in traces if trace.recorded]


def replayed(trace: Trace, policy: StopPolicy) -> Stopped:
    """Return where the policy stops a search. A search that has nothing left to try ends whatever it says."""
    for prefix in trace.prefixes:
        decision = policy.decide(prefix.features)
        if decision.stop:
            return Stopped(prefix, decision)
    return Stopped(trace.full, None)


@dataclass(frozen=True)
class Replay(ReplayOptions):
    """Sees recorded searches again."""

    def traces(self, folder: Path) -> list[Trace]:
        """Return the searches of a packed folder.

        Raises:
            UsageError: there are no records, or records that lack what this needs.
            ImportError: pyarrow is not installed.
        """
        def seen(about: Row, nodes: Sequence[Row], settings: Row) -> list[Trace]:
            past = Past(about, nodes, settings, self)
            found = list(past.by_samples()) if past.independent else [tuple(past.by_decisions(int(about["rounds"])))]
            return [
                Trace(
                    about["suite"], about["task"], prefixes, weight=1 / len(found), recorded=place == 0,
                    strategy=strategy_of(settings),
                )
                for place, prefixes in enumerate(found)
                if prefixes  # a search that ended before its first decision shows nothing
            ]

        refuse_newer(folder)
        return [trace for own in made_of_each(folder, seen) for trace in own]

    def first_samples(self, folder: Path) -> list[Trace]:
        """Return each search of a packed folder as if it had ended with its first sample's first answer.

        Raises: as `traces`.
        """
        def seen(about: Row, nodes: Sequence[Row], settings: Row) -> Trace:
            alone = Past(about, nodes, {**settings, "samples": 1}, self)
            return Trace(about["suite"], about["task"], (alone.first_sample(),))

        return made_of_each(folder, seen)

    def searches(self, folder: Path) -> list[Search]:
        """Return the searches of a packed folder as they are, but for what they cost: that is worked out from tokens.

        Raises: as `traces`.
        """
        return made_of_each(folder, self.search)

    def search(self, about: Row, nodes: Sequence[Row], settings: Row) -> Search:
        """Return one search of its row of the tasks table, its rows of the nodes table, and its suite's settings."""
        return Past(about, nodes, settings, self).search(int(about["rounds"]))


def refuse_newer(folder: Path) -> None:
    """Raise UsageError where records are of features of a later version; those of earlier ones are made anew."""
    own = int(Features.model_fields["version"].default)
    if not (folder / "decisions.parquet").exists():
        return  # what lacks is said where it is read
    try:
        rows = read_table(folder, "decisions", ["feature_version"])
        found = max((int(row["feature_version"] or 1) for row in rows), default=own)
    except (ValueError, TypeError, OSError) as error:
        told, _, _ = str(error).partition("\n")
        wrong = f"{folder}/decisions.parquet names no version of its features: {told}"
        raise UsageError(wrong, fix="pack it with benchmarks/record.py again") from error
    if found > own:
        wrong = f"{folder} was recorded with features of version {found}, and these are {own}"
        raise UsageError(wrong, fix="use the ponder that recorded it, or a later one")
