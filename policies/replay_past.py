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
from ponder.policies.replay_rates import Rates
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
        self._options, self._samples = options, samples
        visible = int(about["visible"])
        success = SuccessCriterion(kind="tests", visible=("",) * visible) if visible else None
        self._task = Task(prompt=str(about["task"]), success=success)
        self._nodes = {node: _node(row, self._tool_s[node]) for node, row in self._rows.items()}
        batches: dict[int, list[int]] = defaultdict(list)
        for node, row in self._rows.items():
            batches[row["decisions_before"]].append(node)
        self._batch = {node: batch for batch in batches.values() for node in batch}
        """The steps that are computed together with each: those of its round."""
        self._number(sorted(self._rows))
        self._most = min(options.step, samples) if independent else samples

    def search(self, taken: int) -> Search:
        """Return it whole, with the CPU seconds by which each step was done: those of a round go on side by side.

        Args:
            taken: decisions.
        """
        spent, done, before = dict[int, float](), dict[int, int](), 0.0
        for place in range(taken):
            asked, settled = self._at(place)
            wrote = {node: self._wrote(node, settled) - done.get(node, 0) for node in asked if node not in spent}
            before += sum(self._core_s(node, self._read[node], 0) for node in wrote if node not in done)
            for node in (ended := settled - spent.keys()):
                tokens = sum(self._core_s(one, 0, min(wrote[one], wrote[node])) for one in wrote)
                tools = sum(self._tool_s[one] for one in ended if wrote[one] <= wrote[node])
                spent[node] = before + tokens + tools
            before += sum(self._core_s(one, 0, wrote[one]) for one in wrote) + sum(self._tool_s[one] for one in ended)
            done |= {node: done.get(node, 0) + more for node, more in wrote.items()}
        spent |= dict.fromkeys(self._rows.keys() - spent.keys(), before)
        return dataclasses.replace(self._search, spent=spent, cost=Cost(total_s=before))

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
        for place in range(taken):
            asked, settled = self._at(place)
            wished = [
                Expansion(parent=row["parent"], kind=row["kind"])
                for row in self._rows.values()
                if row["decisions_before"] == place + 1
            ]
            yield self._prefix(asked, settled, wished, rounds=place)

    def by_samples(self) -> Iterator[tuple[Prefix, ...]]:
        """Yield independent samples as if they had been taken a few at a time: in each order, the prefixes."""
        heads = list(heads_of(self._rows))
        of_sample: dict[int | None, list[int]] = defaultdict(list)
        for node in sorted(self._rows):
            of_sample[head_of(node, self._rows, heads)].append(node)
        draw = random.Random(self._task.prompt)
        for order in (heads, *(draw.sample(heads, len(heads)) for _ in range(self._options.orders - 1))):
            # Whichever comes first reads the prompt that all share.
            self._read |= {head: _read(self._rows[first]) for head, first in zip(order, heads, strict=True)}
            yield tuple(self._in_order([of_sample[None], *(of_sample[head] for head in order)]))

    def first_sample(self) -> Prefix:
        """Return the search as its first sample alone would have left it, at its first answer."""
        heads = list(heads_of(self._rows))
        own = [node for node in sorted(self._rows) if head_of(node, self._rows, heads) in (None, *heads[:1])]
        answered = next((at for at, node in enumerate(own, 1) if node in self._candidates), len(own))
        return self._prefix(own[:answered], set(own[:answered]), [], rounds=0)

    def _in_order(self, samples: Sequence[Sequence[int]]) -> Iterator[Prefix]:
        """Yield samples of such nodes a few at a time; the first of them are nobody's, and there from the start."""
        step, number = self._options.step, len(samples) - 1
        self._number([node for sample in samples for node in sample])
        for place, count in enumerate(range(step, number + step, step)):
            asked = [node for sample in samples[: count + 1] for node in sample]
            wished = [Expansion(parent=0)] * len(samples[count + 1 : count + 1 + step])
            yield self._prefix(asked, set(asked), wished, rounds=place)

    def _prefix(
        self, asked: Sequence[int], settled: Collection[int], wished: Sequence[Expansion], *, rounds: int
    ) -> Prefix:
        nodes = (self._nodes[node] if node in settled else _asked(self._nodes[node]) for node in asked)
        found = [self._candidates[node] for node in asked if node in settled and node in self._candidates]
        cost, cpu_s, tokens = self._spent(asked, settled)
        spent = Spending(cpu_s=cpu_s, wall_s=0.0, tokens=tokens, cost_by_tool=cost)
        tree = Tree.of(self._task, nodes, rounds=rounds)
        began = time.process_time()
        stands = standing(found, (), self._options.calibration)
        features = extract(tree, standing=stands, max_samples=self._samples, wished=wished, spent=spent)
        seen_s = time.process_time() - began
        best = self._rows[self._order[stands.best.node]] if stands.best is not None else {}
        right, score = float(best.get("right") or 0.0), float(best.get("score") or 0.0)
        return Prefix(features, right, score, cpu_s, sum(cost.values()), seen_s)

    def _spent(self, asked: Sequence[int], settled: Collection[int]) -> tuple[dict[str, float], float, int]:
        """Return what the steps so far cost, by tool in prices, in CPU seconds, and in tokens.

        A step on its way has written about as much as the longest settled one of its batch.
        """
        cpu: dict[str, float] = defaultdict(float)
        tokens = 0
        for node in asked:
            read, wrote = self._read[node], self._wrote(node, settled)
            if node in settled:
                cpu[_tool_of(self._rows[node])] += self._tool_s[node]
            cpu["core"] += self._core_s(node, read, wrote)
            tokens += read + wrote
        prices = self._options.prices or {}
        return {tool: own * prices.get(tool, 1.0) for tool, own in cpu.items()}, sum(cpu.values()), tokens

    def _wrote(self, node: int, settled: Collection[int]) -> int:
        """Return the tokens that a step has written by then."""
        if node in settled:
            return self._out[node]
        return min(self._out[node], max((self._out[one] for one in self._batch[node] if one in settled), default=0))

    def _core_s(self, node: int, read: int, wrote: int) -> float:
        """Return the CPU seconds of so many tokens of a step, at the width of its batch."""
        rates, width = self._options.rates, min(len(self._batch[node]), self._most)
        return read * rates.prompt_token_s + wrote * rates.token(width)


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
        mean_logprob=row["mean_logprob"], tokens_out=row["tokens_out"], costs={_tool_of(row): tool_s},
    )  # fmt: skip
