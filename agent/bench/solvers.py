"""Who answers problems: the agent with a strategy, or the baseline, one plain greedy sample."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

from ponder.actions import parse
from ponder.agent import Agent
from ponder.background import BackgroundLoop
from ponder.bench.grading import last_number
from ponder.bench.problems import Problem, ReplyKind
from ponder.billing import Prices
from ponder.core.shared import SharedCore
from ponder.errors import CoreError, UsageError
from ponder.ledger import FETCH, Ledger
from ponder.manifest import with_circumstances
from ponder.models import Progress
from ponder.parts import agents_of, check_core, core_meter, make_strategy, open_core
from ponder.protocols import Core, Strategy
from ponder.records import Answer, Bill, Budget, Message, Prompt, Record, SamplingParams, StopReason
from ponder.sandboxes.groups import group_factory
from ponder.tree import Event

GREEDY = "greedy"
GREEDY_TOKENS = 1024
"""Bound of a plain greedy reply."""

WIDEST = 32
"""Branches that an engine computes for several solvers at once, at most."""

STOPS = ("value", "risk")
"""What the default policy weighs by."""

TOOLS = ("python",)
"""What the agent may use, unless others are named."""

_T = TypeVar("_T")
_ANSWER = re.compile(r"^[ \t*_#>-]*(?:final[ \t]+)?answer[*_]*[ \t]*:[*_]*[ \t]*(.+)$", re.MULTILINE | re.IGNORECASE)


class Solved(Record):
    """An answer, and what it took."""

    answer: str | None
    confidence: float
    stop_reason: StopReason
    run_id: str | None
    """In the store of runs; None: the baseline is no run."""
    nodes: int
    wall_s: float
    bill: Bill
    warnings: tuple[str, ...] = ()

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the task; fetching weights is none of it."""
        return without_fetching(self.bill)


class Solver(Protocol):
    """Answers problems, one at a time."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for: known before anything is opened."""

    @property
    def circumstances(self) -> Mapping[str, Any]:
        """What it was done with (core, engine, versions): known from the first answer on."""

    def start(self) -> float:
        """Load the core, so that no task pays for it; return the CPU seconds that it took.

        Raises:
            MachineError: something that solving needs is missing.
        """

    def solve(self, problem: Problem) -> Solved:
        """Return an answer; `interrupted` after Ctrl-C. Only `problem.task` or `problem.plain` is looked at."""

    def interrupt(self) -> None:
        """End what is being solved soon, from another thread: `solve` says `interrupted`, or raises KeyboardInterrupt.

        Nothing happens where nothing is being solved.
        """

    def close(self) -> None:
        """Stop what is open. Safe to call twice."""


@contextmanager
def side_by_side(
    core: str | Core, jobs: int, make: Callable[[str | Core], Solver], *, branches: int = 1,
    progress: Progress | None = None,
) -> Iterator[list[Solver]]:
    """Open so many solvers that solve at once; several share one core, whose batches they fill together.

    Args:
        make: opens a solver of a core.
        branches: that each has at once, at most.
        progress: hears of a model's download.
    """
    with ExitStack() as stack:
        cores: Sequence[str | Core] = [core]
        if jobs > 1:
            name = check_core(core) if isinstance(core, str) else core.name
            # Who checks a program meanwhile needs no place in the engine.
            places = max(branches, min(WIDEST, branches * max(1, jobs - (branches > 1))))
            shared = stack.enter_context(closing(SharedCore(partial(_open_wide, core, places, progress), name)))
            cores = [shared.share() for _ in range(jobs)]
        yield [stack.enter_context(closing(make(one))) for one in cores]


async def _open_wide(core: str | Core, places: int, progress: Progress | None) -> Core:
    if not isinstance(core, str):
        return core
    return await open_core(core, group_factory(), progress, Ledger(), branches=places)


def open_solver(
    core: str | Core, strategy: str | Strategy, samples: int | None = None, *, budget: Budget | None = None,
    progress: Progress | None = None, **options: Any,
) -> Solver:
    """Return the solver of that strategy: `greedy`, or any that an agent knows.

    Args:
        strategy: a name, or a strategy that was made for it.
        samples: branches at most; None: as many as the strategy takes by itself. Of `greedy`, one.
        budget: of each task; the baseline has none.
        options: further arguments of `Agent` (tools, hosts...); the baseline has no use for them.

    Raises:
        UnknownName: there is no such core or strategy.
        UsageError: the baseline was given a budget, a price, a value or a risk; or the agent refuses an option.
    """
    if strategy == GREEDY:
        given = ["budget"] * (budget is not None and budget != Budget()) + list(_ending(options))
        if given:
            raise UsageError(f"greedy is one sample: it takes no {given[0]}")
        return GreedySolver(core, progress)
    return AgentSolver(core, strategy, samples, budget or Budget(), progress, options)


def _ending(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to end a search, where somebody said so, as a manifest has it."""
    asked = {name: options[name] for name in STOPS if options.get(name) is not None}
    prices = options.get("prices", Prices())
    if prices != Prices():
        asked["prices"] = prices.model_dump(mode="json", exclude_defaults=True)
    return asked


class AgentSolver:
    """Searches with an agent; see `open_solver`."""

    def __init__(
        self, core: str | Core, strategy: str | Strategy, samples: int | None, budget: Budget,
        progress: Progress | None, options: Mapping[str, Any],
    ) -> None:
        tools = options.get("tools", TOOLS)
        made = make_strategy(tools, strategy, samples) if isinstance(strategy, str) else strategy
        self._agent = Agent(
            core, **{"tools": tools, "strategy": made, "budget": budget, "progress": progress, **options}
        )
        self.settings = {
            "core": core if isinstance(core, str) else core.name,
            "strategy": made.name,
            "samples": made.max_samples,
            "tools": ",".join(tools),
            "budget": budget.model_dump(mode="json", exclude_none=True, exclude_defaults=True),
            **_ending(options),
        }
        self.circumstances: Mapping[str, Any] = {}

    def start(self) -> float:
        """See `Solver.start`. The sandbox is opened, too; the browser starts with the first page that is opened."""
        return without_fetching(self._agent.start())

    def solve(self, problem: Problem) -> Solved:
        """See `Solver.solve`. Raises MachineError: something that the search needs is missing."""
        result = self._agent.run(problem.task, on_event=self._hear)
        return Solved(
            answer=result.answer,
            confidence=result.confidence,
            stop_reason=result.stop_reason,
            run_id=result.run_id,
            nodes=result.nodes,
            wall_s=result.elapsed_s,
            bill=result.ledger,
            warnings=result.warnings,
        )

    def _hear(self, event: Event) -> None:
        if event.kind == "started":
            self.circumstances = event.data["manifest"]

    def interrupt(self) -> None:
        """See `Solver.interrupt`."""
        self._agent.interrupt()

    def close(self) -> None:
        """See `Solver.close`."""
        self._agent.close()


class GreedySolver:
    """Takes one greedy sample of a plain prompt: no system text, no grammar, no tools, no search."""

    def __init__(self, core: str | Core, progress: Progress | None = None) -> None:
        self._spec = check_core(core) if isinstance(core, str) else core.name
        self._given = core
        self._progress = progress
        self._loop = BackgroundLoop("ponder-greedy")
        self._core: Core | None = None
        self._work: Future[Any] | None = None
        self.settings = {"core": self._spec, "strategy": GREEDY, "samples": 1, "max_tokens": GREEDY_TOKENS}
        self.circumstances: Mapping[str, Any] = {}

    def start(self) -> float:
        """See `Solver.start`. Raises CoreError, ModelError."""
        return self._wait(self._start())

    def solve(self, problem: Problem) -> Solved:
        """See `Solver.solve`. Raises CoreError, ModelError."""
        return self._wait(self._solve(problem))

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        future = self._loop.submit(work)
        self._work = future
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise
        except CancelledError:
            raise KeyboardInterrupt from None

    def interrupt(self) -> None:
        """See `Solver.interrupt`."""
        if self._work is not None:
            self._work.cancel()

    async def _solve(self, problem: Problem) -> Solved:
        await self._start()
        core = self._core
        assert core is not None
        ledger = Ledger([core_meter(core)], agents=agents_of(core))
        prompt = Prompt(messages=(Message(role="user", content=problem.plain),))
        with ledger.scope("core", 1) as call:
            ((said,),) = await core.sample([prompt], 1, SamplingParams(temperature=0.0, max_tokens=GREEDY_TOKENS))
            call.report(said.usage)
        failed = said.finish_reason == "error"
        return Solved(
            answer=None if failed else read_plain(said.text, problem.reply),
            confidence=0.0,
            stop_reason="error" if failed else "exhausted",
            run_id=None,
            nodes=1,
            wall_s=ledger.elapsed_s,
            bill=ledger.bill(),
            warnings=(said.error or "the core failed",) if failed else (),
        )

    async def _start(self) -> float:
        """Start the core, if it does not run; return the CPU seconds that it took."""
        ledger = Ledger()
        if self._core is None:
            made = self._given
            if isinstance(made, str):
                made = await open_core(made, group_factory(), self._progress, ledger)
            self._core = made
        ledger.attach(core_meter(self._core), from_zero=not self.circumstances and isinstance(self._given, str))
        await self._core.start()
        settings = {"prompts": "plain", "temperature": 0.0, "max_tokens": GREEDY_TOKENS}
        self.circumstances = {**with_circumstances(self._core.manifest(), self._spec), **settings}
        return without_fetching(ledger.bill())

    def close(self) -> None:
        """See `Solver.close`."""
        core, self._core = self._core, None
        if core is not None:
            self._loop.submit(core.close()).result(timeout=30)
        self._loop.close()


def without_fetching(bill: Bill) -> float:
    """Return a bill's CPU seconds without those of fetching weights."""
    return bill.total.cpu_s - sum(row.cpu_s for tool, row in bill.by_tool.items() if tool == FETCH)


def read_plain(text: str, kind: ReplyKind) -> str | None:
    """Return the answer in a plain reply: its first program, its last number, what follows its last `ANSWER:`, or all.

    Where the mark is missing, a text's last line that says anything is taken.
    """
    if kind == "whole":
        return text.strip() or None
    if kind == "program":
        action = parse(text, code_is_answer=True)
        return action.text if isinstance(action, Answer) else None
    marked = _ANSWER.findall(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = marked[-1] if marked else lines[-1] if lines else ""
    if kind == "number":
        value = last_number(said.strip("*_` "))
        value = value if value is not None else last_number(text)
        return None if value is None else str(value)
    return said.strip("*_` ") or None


def raise_if_broken(solved: Solved) -> None:
    """Raise CoreError for an answer that a broken machine gave."""
    if solved.stop_reason == "error":
        raise CoreError("; ".join(solved.warnings) or "the search broke")
