"""Coverage of recorded samples, how it grows with their number, and pictures of that and of calibration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ponder.bench.records.offline import Search
from ponder.bench.records.reliability import Bin
from ponder.bench.stats import LogLinear, coverage, log_linear, pass_at_k
from ponder.records import Record
from ponder.stats import Interval, wilson

SHOWN = (1, 2, 4, 8, 16)
"""Numbers of samples that tables show, with intervals."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, which all eyes tell apart."""
_MARKS = "osD^vP"
_INK, _FAINT = "#333333", "#999999"


class PowerLaw(Record):
    """Coverage as an exponentiated power law: `exp(a * k**b)`, a and b below zero.

    Brown et al. 2024 (arXiv 2407.21787) fit it over orders of magnitude of k, where a line in log k leaves [0, 1].
    """

    a: float
    b: float
    r_squared: float
    """Share of the variance of coverage that it explains; 1 where there is none."""

    def at(self, k: float) -> float:
        """Return the coverage at k."""
        return math.exp(self.a * k**self.b)


class Curve(Record):
    """How a suite's coverage grows with the number of samples."""

    suite: str
    tasks: int
    short: int
    """Tasks that were left out, since they have fewer samples."""
    at: Mapping[int, float]
    """pass@k for each k, the unbiased estimate, averaged over tasks."""
    intervals: Mapping[int, Interval]
    """With 95% bootstrap intervals over tasks, for the k of `SHOWN`."""
    line: LogLinear
    law: PowerLaw | None
    """None where coverage is 0 or 1 somewhere: its logarithm's logarithm does not exist."""


def curve(suite: str, found: Sequence[Search], k: int = 16) -> Curve:
    """Return the coverage curve of independent samples up to k.

    Raises:
        ValueError: no task has k samples, or k is below 2.
    """
    outcomes = [one.outcomes for one in found if len(one.samples) >= k]
    if not outcomes:
        raise ValueError(f"no task of {suite} has {k} samples")
    at = {n: sum(pass_at_k(len(one), sum(one), n) for one in outcomes) / len(outcomes) for n in range(1, k + 1)}
    return Curve(
        suite=suite,
        tasks=len(outcomes),
        short=len(found) - len(outcomes),
        at=at,
        intervals=coverage(outcomes, [n for n in SHOWN if n <= k]),
        line=log_linear(at),
        law=power_law(at),
    )


def power_law(at: Mapping[int, float]) -> PowerLaw | None:
    """Return the exponentiated power law through a coverage curve (k -> pass@k); None: coverage is 0 or 1 somewhere.

    It is the least-squares line of log(-log coverage) over log k.

    Raises:
        ValueError: fewer than two values of k.
    """
    if any(not 0 < value < 1 for value in at.values()):
        return None
    # In log k it is a line: log(-log c) = log(-a) + b log k. `log_linear` counts k in powers of two.
    bent = log_linear({k: math.log(-math.log(value)) for k, value in at.items()})
    law = PowerLaw(a=-math.exp(bent.start), b=bent.slope / math.log(2), r_squared=1.0)
    mean = sum(at.values()) / len(at)
    total = sum((value - mean) ** 2 for value in at.values())
    left = sum((value - law.at(k)) ** 2 for k, value in at.items())
    return law.model_copy(update={"r_squared": 1 - left / total if total else 1.0})


def draw_coverage(curves: Sequence[Curve], file: Path) -> None:
    """Draw coverage over the number of samples as SVG: points with intervals, and the line in log k, dashed.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with _picture(file, 6.4, 4.0) as axes:
        most = max(max(one.at) for one in curves)
        for number, one in enumerate(curves):
            colour, mark = COLOURS[number % len(COLOURS)], _MARKS[number % len(_MARKS)]
            ks = list(one.at)
            shown = list(one.intervals.values())
            errors = [[i.value - i.low for i in shown], [i.high - i.value for i in shown]]
            axes.plot(ks, [one.line.at(k) for k in ks], "--", color=colour, lw=1, alpha=0.6)
            axes.plot(ks, list(one.at.values()), mark, color=colour, ms=4, label=f"{one.suite} ({one.tasks} tasks)")
            middles = [i.value for i in shown]
            axes.errorbar(list(one.intervals), middles, errors, fmt="none", ecolor=colour, elinewidth=1)
        axes.set_xscale("log", base=2)
        ticks = [2**power for power in range(int(math.log2(most)) + 1)]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xlabel("samples a task (k)")
        axes.set_ylabel("coverage: pass@k")
        axes.set_ylim(0, 1)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def draw_reliability(rows: Mapping[str, Sequence[Bin]], file: Path) -> None:
    """Draw the share that is right over what was said as SVG, a line for each name, with Wilson intervals.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with _picture(file, 4.6, 4.4) as axes:
        axes.plot([0, 1], [0, 1], ":", color=_FAINT, lw=1)
        for number, (name, bins) in enumerate(rows.items()):
            colour, mark = COLOURS[number % len(COLOURS)], _MARKS[number % len(_MARKS)]
            came = [wilson(round(one.right * one.size), one.size) for one in bins]
            errors = [[one.value - one.low for one in came], [one.high - one.value for one in came]]
            said, shares = [one.said for one in bins], [one.value for one in came]
            axes.errorbar(said, shares, errors, fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.5)
            axes.plot(said, shares, f"-{mark}", color=colour, ms=4, lw=1, label=name)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.set_xlabel("probability that the judge gave")
        axes.set_ylabel("share that was right")
        axes.legend(frameon=False, loc="upper left")


def draw_frontier(points: Mapping[str, Sequence[tuple[float, float]]], file: Path) -> None:
    """Draw accuracy over cost as SVG: of each policy one point, or a line through several.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with _picture(file, 6.4, 4.0) as axes:
        for number, (name, own) in enumerate(points.items()):
            colour, mark = COLOURS[number % len(COLOURS)], _MARKS[number % len(_MARKS)]
            costs, shares = zip(*sorted(own), strict=True)
            axes.plot(costs, shares, f"-{mark}", color=colour, ms=5, lw=1.2, label=name)
        axes.set_xlabel("cost of a task (by default CPU seconds)")
        axes.set_ylabel("accuracy")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


@contextmanager
def _picture(file: Path, width: float, height: float) -> Iterator[Any]:
    """Yield axes, and write them as SVG at the end: the same figures give the same file, so that changes are seen."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.hashsalt": "ponder", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9,
        "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": _FAINT, "text.color": _INK,
        "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "axes.grid": True, "grid.alpha": 0.25,
    }  # fmt: skip
    with rc_context(settings):
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        yield figure.add_subplot()
        file.parent.mkdir(parents=True, exist_ok=True)
        metadata: dict[str, Any] = {"Date": None, "Creator": None}
        figure.savefig(file, format="svg", bbox_inches="tight", metadata=metadata)
