"""Budgets: watched while things run, shrunk into each call's limits, a tool's own apart from the task's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from ponder import Agent, Budget, Result
from ponder.budgets import BudgetWatch
from ponder.control import Control, ToolStopped
from ponder.core.scripted import ScriptedCore
from ponder.errors import UnknownName
from ponder.ledger import Ledger, Meter, Prices
from ponder.protocols import TreeView
from ponder.records import (
    Answer,
    CpuReading,
    Decision,
    Expansion,
    Features,
    Limits,
    Message,
    Prompt,
    RunCode,
    SamplingParams,
    Usage,
)
from ponder.search.best_of_n import BestOfN
from ponder.store import open_store

OVERSHOOT_S = 0.3


class Burner:
    """A meter that grows with the clock: so many CPU seconds a second."""

    def __init__(self, rate: float) -> None:
        self._rate, self._began = rate, time.monotonic()

    def read(self) -> CpuReading:
        used = (time.monotonic() - self._began) * self._rate
        return CpuReading(user_s=used, system_s=0.0, peak_rss_bytes=1, method="cgroup")


class Programs:
    """A strategy that runs given programs, so many a round, whatever comes of them; or lets the core answer (None)."""

    name = "programs"

    def __init__(self, *programs: str | None, width: int = 1) -> None:
        self.max_samples = len(programs)
        self._programs, self._width = programs, width

    def ask(self, tree: TreeView) -> Sequence[Expansion]:
        asked = len(tree.nodes) - 1
        wanted = self._programs[asked : asked + self._width]
        return [
            Expansion(parent=0, kind="answer") if code is None
            else Expansion(parent=0, kind="code", action=RunCode(code=code))
            for code in wanted
        ]  # fmt: skip

    def tell(self, tree: TreeView, judged: Sequence[int]) -> Mapping[int, float]:  # noqa: ARG002
        return {}


class Onward:
    """A policy that never stops by itself."""

    name = "onward"

    def decide(self, features: Features) -> Decision:  # noqa: ARG002
        return Decision(stop=False)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(cpu_seconds=1), "CPU seconds are spent"),
        (Budget(wall_seconds=0.5), "wall seconds are spent"),
        (Budget(cost=2), "cost are spent"),
        (Budget(per_tool={"core": Budget(cpu_seconds=1)}), "CPU seconds of core are spent"),
    ],
)
async def test_a_limit_that_work_in_flight_reaches_ends_the_run(budget: Budget, words: str) -> None:
    ledger, control = Ledger(prices=Prices(cpu_second=2)), Control()
    ledger.attach(Meter("core", Burner(2.0).read))
    began = time.monotonic()
    with ledger.scope("core", 1):
        async with BudgetWatch(budget, ledger, control).watching():
            await asyncio.wait_for(control.told(), 3)
    assert (control.reason, control.why.endswith(words)) == ("budget", True)
    assert time.monotonic() - began == pytest.approx(0.5, abs=0.15)


async def test_tokens_in_flight_count() -> None:
    core = ScriptedCore(["word " * 100], delay_s=1.0)
    ledger, control = Ledger(), Control()
    ledger.attach(Meter("core", core.read, live=core.live))
    prompt = Prompt(messages=(Message(role="user", content="five words and no more"),))
    async with BudgetWatch(Budget(tokens=30), ledger, control).watching():
        with ledger.scope("core", 1) as call:
            sampling = asyncio.create_task(
                core.sample([prompt], 1, SamplingParams(), lambda _p, _s, done: call.report(done.usage))
            )
            await asyncio.wait_for(control.told(), 2)
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
    assert 30 <= ledger.tokens <= 36
    assert "tokens are spent" in control.why


async def test_a_tools_budget_stops_the_tool_and_not_the_run() -> None:
    ledger, control = Ledger(), Control()
    ledger.attach(Meter("python", Burner(2.0).read))
    watch = BudgetWatch(Budget(per_tool={"python": Budget(cpu_seconds=0.3)}), ledger, control)
    async with watch.watching():
        with ledger.scope("python", 1), pytest.raises(ToolStopped, match="of python are spent"):
            await control.race(asyncio.sleep(3), tool="python")
    assert control.reason is None
    assert "of python are spent" in (watch.tool_spent("python") or "")
    assert watch.tool_spent("browser") is None


def test_a_calls_limits_shrink_to_what_is_left() -> None:
    ledger = Ledger(prices=Prices(per_tool={"python": Prices(cpu_second=10.0)}))
    with ledger.scope("python", 1) as call:
        call.report(Usage(cpu_user_s=2.0, wall_s=3.0))
    own = Budget(cpu_seconds=2.5, wall_seconds=4)
    for budget, cpu_s, wall_s in [
        (Budget(), 10, 20),
        (Budget(cpu_seconds=5), 3, 20),
        (Budget(cost=25), 0.5, 20),
        (Budget(wall_seconds=5), 10, 5),
        (Budget(per_tool={"python": own}), 0.5, 1),
        (Budget(cpu_seconds=2.2, per_tool={"python": own}), 0.2, 1),
        (Budget(cpu_seconds=1), 0, 20),
    ]:
        limits = BudgetWatch(budget, ledger, Control()).limits("python", Limits())
        assert limits.cpu_s == pytest.approx(cpu_s, abs=0.15)
        assert limits.wall_s == pytest.approx(wall_s, abs=0.15)


async def test_what_closing_takes_is_kept_back_where_the_bill_holds_it() -> None:
    from ponder.metering import Closing

    ledger = Ledger()
    ledger.attach(Meter("browser", Burner(1.0).read, closing=Closing(2.0, 2.0)), from_zero=True)
    await asyncio.sleep(0.01)
    budget = Budget(cpu_seconds=2)
    assert BudgetWatch(budget, ledger, Control()).spent() is None
    assert BudgetWatch(budget, ledger, Control(), closing=True).spent() is not None


def test_a_budget_that_is_spent_before_the_search_begins(make_agent, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    class Slow(ScriptedCore):
        async def start(self) -> None:
            await asyncio.sleep(5)

    result = make_agent([], core=Slow([])).run("q", budget=Budget(wall_seconds=0.4))
    assert (result.answer, result.stop_reason, result.nodes) == (None, "budget", 0)
    assert result.elapsed_s < 0.4 + OVERSHOOT_S
    events = open_store(tmp_path / "runs.sqlite").events(result.run_id)
    assert [event.kind for event in events] == ["started", "ended"]


def test_tokens_end_a_run_in_the_middle_of_a_sample(make_agent) -> None:  # type: ignore[no-untyped-def]
    agent = make_agent(lambda _p, _s: "word " * 200, delay_s=4.0, strategy=BestOfN(3, kinds=("answer",)))
    result = agent.run("q", budget=Budget(tokens=120))
    total = result.ledger.total
    assert result.stop_reason == "budget"
    assert 120 <= total.tokens_in + total.tokens_out <= 130
    assert result.ledger.by_tool["core"].calls == 3, "each is one line, cut off or never begun"


def test_a_budget_for_a_tool_that_is_not_there_is_refused(make_agent) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UnknownName, match="hammer"):
        make_agent(["x"]).run("q", budget=Budget(per_tool={"hammer": Budget(cpu_seconds=1)}))


BURN = "while True: pass"
BURN_TWICE = "import os\nos.fork()\nwhile True: pass"


@pytest.fixture
def sandboxed(tmp_path: Path) -> Iterator[object]:
    agents: list[Agent] = []

    def make(*programs: str | None, width: int = 1, prices: Prices | None = None) -> Agent:
        core, strategy = ScriptedCore(lambda _p, _s: " from the core"), Programs(*programs, width=width)
        agents.append(
            Agent(core, tools=("python",), strategy=strategy, policy=Onward(), home=tmp_path, prices=prices)
        )
        return agents[-1]

    yield make
    for agent in agents:
        agent.close()


def python_cpu(result: Result) -> float:
    row = result.ledger.by_tool["python"]
    return row.cpu_s


@pytest.mark.real
@pytest.mark.parametrize("program", [BURN, BURN_TWICE])
def test_a_runaway_program_does_not_overshoot_the_tasks_budget(sandboxed, program: str) -> None:  # type: ignore[no-untyped-def]
    agent = sandboxed("print('ANSWER: 1')", program)
    result = agent.run("q", budget=Budget(cpu_seconds=1.5))
    assert (result.answer, result.stop_reason) == ("1", "budget")
    assert 1.2 < result.ledger.total.cpu_s < 1.5 + OVERSHOOT_S


@pytest.mark.real
def test_a_wall_budget_ends_a_sleeping_program(sandboxed) -> None:  # type: ignore[no-untyped-def]
    result = sandboxed("print('ANSWER: 1')", "import time; time.sleep(60)").run("q", budget=Budget(wall_seconds=1.5))
    assert (result.answer, result.stop_reason) == ("1", "budget")
    assert result.elapsed_s < 1.5 + OVERSHOOT_S


@pytest.mark.real
def test_a_spent_tool_budget_is_an_observation_and_the_search_goes_on(sandboxed) -> None:  # type: ignore[no-untyped-def]
    agent = sandboxed(BURN, BURN, "print('ANSWER: 1')", None)
    seen = []
    result = agent.run(
        "q", budget=Budget(per_tool={"python": Budget(cpu_seconds=1)}),
        on_event=lambda event: seen.append(event.data) if event.kind == "observed" else None,
    )  # fmt: skip
    assert (result.answer, result.stop_reason) == (Answer(text="from the core").text, "exhausted")
    assert python_cpu(result) < 1 + OVERSHOOT_S
    assert result.ledger.by_tool["python"].calls <= 2, "what is refused is no call"
    assert "budget of python is spent" in seen[-1]["text"]


@pytest.mark.real
def test_programs_side_by_side_share_their_tools_budget(sandboxed) -> None:  # type: ignore[no-untyped-def]
    result = sandboxed(BURN, BURN, None, width=3).run("q", budget=Budget(per_tool={"python": Budget(cpu_seconds=1.5)}))
    assert python_cpu(result) < 1.5 + OVERSHOOT_S
    assert result.stop_reason != "budget"


@pytest.mark.real
def test_a_price_makes_programs_dearer_than_thought(sandboxed) -> None:  # type: ignore[no-untyped-def]
    prices = Prices(per_tool={"python": Prices(cpu_second=10.0)})
    result = sandboxed("print('ANSWER: 1')", BURN, prices=prices).run("q", budget=Budget(cost=10))
    assert (result.answer, result.stop_reason) == ("1", "budget")
    assert result.ledger.total.cost < 10 + 10 * OVERSHOOT_S
    assert python_cpu(result) < 1.3


@pytest.mark.real
async def test_an_engine_in_the_middle_of_a_prompt_is_halted_and_starts_again() -> None:
    from ponder.core.llama.engine import EngineSettings
    from ponder.core.llama.llama_cpp import LlamaCppCore
    from ponder.models import ensure
    from ponder.sandboxes.groups import group_factory

    core = LlamaCppCore(EngineSettings(model=ensure("smollm2-135m")), group_factory())
    text = " ".join(f"{i} sheep jumped over the fence." for i in range(600))
    prompt = Prompt(messages=(Message(role="user", content=text),))
    try:
        await core.start()
        charged: list[Usage] = []
        sampling = asyncio.create_task(
            core.sample([prompt], 1, SamplingParams(), lambda _p, _s, done: charged.append(done.usage))
        )
        await asyncio.sleep(0.5)
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
        await core.halt()
        used = core.read().cpu_s
        await asyncio.sleep(0.5)
        assert core.read().cpu_s - used < 0.05
        assert len(charged) == 1
        assert core.live() == core.live().model_copy(update={"tokens_in": 0, "tokens_out": 0, "tokens_cached": 0})
        short = Prompt(messages=(Message(role="user", content="Hello"),))
        assert (await core.sample([short], 1, SamplingParams(max_tokens=3)))[0][0].usage.tokens_out > 0
    finally:
        await core.close()
