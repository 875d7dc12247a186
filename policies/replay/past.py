"""One recorded search, and how it stood at each place where its policy was asked.

What was known there is made by the functions that make it in a run (`ponder.judges.standing`,
`ponder.policies.features`); what was spent is worked out from tokens, since a token costs the more the fewer branches
share a batch, and records may come from other batches.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from ponder.bench.records.offline import (
    INDEPENDENT,
    Cost,
    Row,
    Search,
    as_shipped,
    core_share_as_shipped,
    head_of,
    heads_of,
    rebuilt,
    tool_s_as_shipped,
)
from ponder.bench.records.recording import strategy_of
from ponder.judges.calibration import UNCALIBRATED, Calibration
from ponder.judges.standing import standing
from ponder.policies.features import extract
from ponder.policies.replay.rates import Rates
from ponder.records import (
    Answer,
    Browse,
    Expansion,
    Features,
    Node,
    Observation,
    Reason,
    RunCode,
    Spending,
    SuccessCriterion,
    Task,
    Verdict,
)
from ponder.tree import Tree


@dataclass(frozen=True)
class ReplayOptions:
    """How recorded searches are seen again.

    Attributes:
        rates: what tokens cost.
        calibration: of the core that searched.
        prices: by tool, what a CPU second counts; 1 where nothing is said.
        step: of independent samples, how many a live search would take at once, and be asked after.
        orders: of independent samples, in how many orders they are seen: as recorded, then shuffled. One order is as
            good as another, so that the same tasks teach more, and chance plays less of a part in what is measured.
    """

    rates: Rates
    calibration: Calibration = UNCALIBRATED
    prices: Mapping[str, float] | None = None
    step: int = 4
    orders: int = 1


@dataclass(frozen=True)
class Prefix:
    """A recorded search as it stood when its policy was asked."""

    features: Features
    right: float
    """Whether the best answer there is right; 0 where there is none."""
    score: float
    """Its score: of the hidden checks or constraints the share that it meets."""
    cpu_s: float
    """CPU seconds by then."""
    cost: float
    """The same in prices."""
    seen_s: float = field(default=0.0, compare=False)
    """CPU seconds that it took here to see where it stands and to make its features."""


@dataclass(frozen=True)
class _Turn:
    """What a search did between one decision and the next.

    Attributes:
        asked: the steps that are there at its end.
        settled: those of them that are done.
        texts: what was written meanwhile, side by side: of each text its steps, one after the other, and how many
            tokens each of them wrote.
        read: tokens that new steps read and that were not cached.
    """

    asked: list[int]
    settled: set[int]
    texts: list[dict[int, int]]
    read: int

    @property
    def lengths(self) -> list[int]:
        """The tokens of each text."""
        return [sum(text.values()) for text in self.texts]

    def core_s(self, rates: Rates) -> float:
        """Return the CPU seconds of reading and writing."""
        return rates.prompt_token_s * self.read + rates.side_by_side(self.lengths)

    def until(self) -> Iterator[tuple[int, int]]:
        """Yield each step, and how much its text had of tokens when it was written."""
        for text in self.texts:
            yield from zip(text, accumulate(text.values()), strict=True)


class Past:
    """One recorded search, and how it stood earlier.

    Args:
        about: its row of the tasks table.
        rows: its rows of the nodes table.
        settings: its suite's, of the manifest.

    Raises:
        KeyError: a column is missing.
    """

    def __init__(self, about: Row, rows: Sequence[Row], settings: Row, options: ReplayOptions) -> None:
        samples, independent = int(settings["samples"]), strategy_of(settings) == INDEPENDENT
        self.independent = independent
        whole = rebuilt(about, rows, independent=independent)
        self._search = as_shipped(whole)
        self._rows = {int(row["node"]): row for row in rows if row["kind"] != "check"}
        self._settled = {node: _settled_after(row, independent=independent) for node, row in self._rows.items()}
        self._read = {node: _read(row) for node, row in self._rows.items()}
        self._out = {
            node: round(int(row["tokens_out"]) * core_share_as_shipped(row)) for node, row in self._rows.items()
        }
        self._tool_s = {node: tool_s_as_shipped(row, whole.tests) for node, row in self._rows.items()}
        self._options, self._most = options, samples
        visible = int(about["visible"])
        success = SuccessCriterion(kind="tests", visible=("",) * visible) if visible else None
        self._task = Task(prompt=str(about["task"]), success=success)
        self._nodes = {node: _node(row, self._tool_s[node]) for node, row in self._rows.items()}
        batches: dict[int, list[int]] = defaultdict(list)
        for node, row in self._rows.items():
            batches[row["decisions_before"]].append(node)
        self._batch = {node: batch for batch in batches.values() for node in batch}
        """The steps that were asked for together with each: those of its round."""
        self._number(sorted(self._rows))

    def search(self, taken: int) -> Search:
        """Return it whole, with the CPU seconds by which each step was done: those of a round go on side by side.

        Args:
            taken: decisions.
        """
        spent, before, rates = dict[int, float](), 0.0, self._options.rates
        for turn in self._turns_of_samples(self._samples()) if self.independent else self._turns(taken):
            lengths = turn.lengths
            before += rates.prompt_token_s * turn.read
            ended = {node: end for node, end in turn.until() if node in turn.settled}
            for node, end in ended.items():
                tools = sum(self._tool_s[one] for one, its_end in ended.items() if its_end <= end)
                spent[node] = before + rates.side_by_side(lengths, end) + tools
            before += rates.side_by_side(lengths) + sum(self._tool_s[one] for one in ended)
        spent |= dict.fromkeys(self._rows.keys() - spent.keys(), before)
        return dataclasses.replace(self._search, spent=spent, cost=Cost(total_s=before))

    def _turns(self, taken: int) -> Iterator[_Turn]:
        """Yield what a tree did up to each decision, after the one before it."""
        done, over = dict[int, int](), set[int]()
        for place in range(taken):
            asked, settled = self._at(place)
            wrote = {node: self._wrote(node, settled) - done.get(node, 0) for node in asked if node not in over}
            read = sum(self._read[node] for node in wrote if node not in done)
            yield _Turn(asked, settled, [{node: more} for node, more in wrote.items()], read)
            done |= {node: done.get(node, 0) + more for node, more in wrote.items()}
            over |= settled

    def _turns_of_samples(self, samples: Sequence[Sequence[int]]) -> Iterator[_Turn]:
        """Yield what was done for a few samples at a time; the first of them is nobody's, written beside these."""
        step, there = self._options.step, list[int]()
        for start in range(1, len(samples), step):
            new = samples[(start if there else 0) : start + step]
            there = [*there, *(node for sample in new for node in sample)]
            texts = [{node: self._out[node] for node in sample} for sample in new if sample]
            yield _Turn(there, set(there), texts, read=sum(self._read[node] for text in texts for node in text))

    def _number(self, order: Sequence[int]) -> None:
        """Number the candidates in the order that their steps were asked for: of two as good, the first is taken."""
        self._order = list(order)
        place = {node: at for at, node in enumerate(self._order)}
        every = (one for sample in self._search.samples for one in sample)
        self._candidates = {one.node: one.model_copy(update={"node": place[one.node]}) for one in every}

    def _at(self, place: int) -> tuple[list[int], set[int]]:
        """Return the steps that were there at a decision, and those of them that were settled."""
        asked = [node for node, row in self._rows.items() if row["decisions_before"] <= place]
        return asked, {node for node in asked if self._settled[node] <= place}

    def by_decisions(self, taken: int) -> Iterator[Prefix]:
        """Yield a tree as it stood at each decision."""
        core_s, rates = 0.0, self._options.rates
        for place, turn in enumerate(self._turns(taken)):
            core_s += turn.core_s(rates)
            wished = [
                Expansion(parent=row["parent"], kind=row["kind"])
                for row in self._rows.values()
                if row["decisions_before"] == place + 1
            ]
            yield self._prefix(turn.asked, turn.settled, wished, core_s=core_s, rounds=place)

    def by_samples(self) -> Iterator[tuple[Prefix, ...]]:
        """Yield independent samples as if they had been taken a few at a time: in each order, the prefixes."""
        nobodys, *samples = self._samples()
        draw = random.Random(self._task.prompt)
        for order in (samples, *(draw.sample(samples, len(samples)) for _ in range(self._options.orders - 1))):
            # Whichever comes first reads the prompt that all share.
            self._read |= {own[0]: _read(self._rows[first[0]]) for own, first in zip(order, samples, strict=True)}
            yield tuple(self._in_order([nobodys, *order]))

    def _samples(self) -> list[list[int]]:
        """Return the steps of each independent sample, after those that are nobody's."""
        heads = list(heads_of(self._rows))
        found: dict[int | None, list[int]] = {None: [], **{head: [] for head in heads}}
        for node in sorted(self._rows):
            found[head_of(node, self._rows, heads)].append(node)
        return list(found.values())

    def first_sample(self) -> Prefix:
        """Return the search as its first sample alone would have left it, at its first answer."""
        own = sorted(node for sample in self._samples()[:2] for node in sample)
        answered = next((at for at, node in enumerate(own, 1) if node in self._candidates), len(own))
        there = own[:answered]
        read = sum(self._read[node] for node in there)
        alone = _Turn(there, set(there), [{node: self._out[node] for node in there}], read)
        return self._prefix(there, set(there), [], core_s=alone.core_s(self._options.rates), rounds=0)

    def _in_order(self, samples: Sequence[Sequence[int]]) -> Iterator[Prefix]:
        """Yield samples of such nodes a few at a time; the first of them are nobody's, and there from the start."""
        self._number([node for sample in samples for node in sample])
        core_s, step, left = 0.0, self._options.step, len(samples) - 1
        for place, turn in enumerate(self._turns_of_samples(samples)):
            core_s, left = core_s + turn.core_s(self._options.rates), max(0, left - step)
            wished = [Expansion(parent=0)] * min(step, left)
            yield self._prefix(turn.asked, turn.settled, wished, core_s=core_s, rounds=place)

    def _prefix(
        self, asked: Sequence[int], settled: Collection[int], wished: Sequence[Expansion], *, core_s: float, rounds: int
    ) -> Prefix:
        nodes = (self._nodes[node] if node in settled else _asked(self._nodes[node]) for node in asked)
        found = [self._candidates[node] for node in asked if node in settled and node in self._candidates]
        cost, cpu_s = self._spent(asked, settled, core_s)
        tokens = sum(self._read[node] + self._wrote(node, settled) for node in asked)
        spent = Spending(cpu_s=cpu_s, wall_s=0.0, tokens=tokens, cost_by_tool=cost)
        tree = Tree.of(self._task, nodes, rounds=rounds)
        began = time.process_time()
        stands = standing(found, (), self._options.calibration)
        features = extract(tree, standing=stands, max_samples=self._most, wished=wished, spent=spent)
        seen_s = time.process_time() - began
        best = self._rows[self._order[stands.best.node]] if stands.best is not None else {}
        right, score = float(best.get("right") or 0.0), float(best.get("score") or 0.0)
        return Prefix(features, right, score, cpu_s, sum(cost.values()), seen_s)

    def _spent(
        self, asked: Sequence[int], settled: Collection[int], core_s: float
    ) -> tuple[dict[str, float], float]:
        """Return what the steps so far cost, by tool in prices, and in CPU seconds."""
        cpu: dict[str, float] = defaultdict(float, core=core_s)
        for node in asked:
            if node in settled:
                cpu[_tool_of(self._rows[node])] += self._tool_s[node]
        prices = self._options.prices or {}
        return {tool: own * prices.get(tool, 1.0) for tool, own in cpu.items()}, sum(cpu.values())

    def _wrote(self, node: int, settled: Collection[int]) -> int:
        """Return the tokens that a step has written by then: on its way, as many as the longest that came with it."""
        if node in settled:
            return self._out[node]
        return min(self._out[node], max((self._out[one] for one in self._batch[node] if one in settled), default=0))



def _tool_of(row: Row) -> str:
    return "browser" if row["act"] == "browse" else "python"


def _read(row: Row) -> int:
    """Return how many tokens a step read that were not cached."""
    return round((int(row["tokens_in"]) - int(row["tokens_cached"])) * core_share_as_shipped(row))


def _settled_after(row: Row, *, independent: bool) -> float:
    """Return after how many decisions a step was settled; infinite: it never was.

    Earlier records of independent samples lack it: they are settled with the round that they were asked in.

    Raises:
        KeyError: of a tree it cannot be told.
    """
    settled = row.get("settled_after")
    if settled is not None:
        return float(settled)
    if independent:
        return float(row["decisions_before"])
    if "settled_after" not in row or row["status"] in ("judged", "failed"):
        raise KeyError("settled_after")
    return math.inf


def _asked(node: Node) -> Node:
    return Node(id=node.id, parent=node.parent, branch=node.branch, depth=node.depth, kind=node.kind)


def _node(row: Row, tool_s: float) -> Node:
    """Return the step of a row; its tool took so many CPU seconds."""
    answer, act = row["answer"], row["act"]
    seen = None
    if row["ok"] is not None:
        seen = Observation(
            tool="browser" if act == "browse" else "python", ok=row["ok"], text="", outcome=row["outcome"],
            answer=answer if act != "answer" else None, passed=row["passed"], total=row["total"],
            outcomes=json.loads(row["outcomes"]) if row["outcomes"] else {},
        )  # fmt: skip
    action: Answer | RunCode | Browse | Reason | None = None
    if act == "answer":
        action = Answer(text=answer or "")
    elif act == "run_code":
        action = RunCode(code=row["text"] or "")
    elif act == "browse":
        action = Browse(op="read")
    elif act is not None:
        action = Reason(text=row["text"] or "")
    return Node(
        id=row["node"], parent=row["parent"], branch=row["branch"], depth=row["depth"], kind=row["kind"],
        status=row["status"], text=row["text"] or "", action=action, observation=seen, rubric=row["rubric"],
        verdict=Verdict(score=row["verdict"]) if row["verdict"] is not None else None,
        mean_logprob=row["mean_logprob"], tokens_out=_step_tokens(row), costs={_tool_of(row): tool_s},
    )  # fmt: skip


def _step_tokens(row: Row) -> int:
    """Return the tokens of a step's last writing, as its node has them; earlier records only know all that it took."""
    own = row.get("step_tokens_out")
    return int(row["tokens_out"] if own is None else own)
