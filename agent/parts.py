"""Opening the parts of an agent by name: the core, the sandbox, the tools. Used by the composition root only."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ponder.core.llama.engine import EngineSettings
from ponder.errors import UnknownName, UsageError
from ponder.ledger import DAEMON, FETCH, IDLE, OVERHEAD, Ledger, Meter, Prices
from ponder.metering import Closing
from ponder.models import Model, Progress, Stoppable, digest, ensure, load_registry, resolve
from ponder.policies.checks_and_votes import ChecksAndVotes
from ponder.policies.hosts import HostRules
from ponder.policies.learned import FOLDER, VALUE, LearnedStop, Weights, load
from ponder.prompting import step_kinds
from ponder.protocols import Checker, Core, GroupFactory, Sandbox, Shared, StopPolicy, Strategy, Tool
from ponder.records import CpuReading
from ponder.search.attempts import SequentialRevision, TreeQuestSearch
from ponder.search.auto import Auto
from ponder.search.best_of_n import BestOfN
from ponder.search.own_tests import MARK, OwnTests
from ponder.search.self_consistency import SelfConsistency

if TYPE_CHECKING:
    from ponder.core.cassettes.cassette import ReplayingCore
    from ponder.core.cassettes.recorder import Recorder

DEFAULT_CORE = "qwen2.5-coder-1.5b"
TRANSFORMERS = "transformers:"
OTHER_CORES = ("openai:MODEL@URL", "cassette:FILE", f"{TRANSFORMERS}FOLDER")
TOOLS = ("python", "browser")
BILLED = ("core", *TOOLS, OVERHEAD, IDLE, DAEMON, FETCH)
"""Rows that a bill may have."""
CLOSING = {
    "core": Closing(0.06, 0.1),
    "python": Closing(0.02, 0.03),
    "browser": Closing(0.25, 0.5),
    DAEMON: Closing(0.2, 0.2),
}
"""What ending each takes when it was used, measured on two cores."""


def default_home() -> Path:
    """Return where runs are kept: PONDER_HOME, or the user's data folder."""
    if named := os.environ.get("PONDER_HOME"):
        return Path(named).expanduser()
    from platformdirs import user_data_dir

    return Path(user_data_dir("ponder"))


def check_tools(names: Sequence[str]) -> tuple[str, ...]:
    """Return the tool names without repeats. Raises UnknownName."""
    for name in names:
        if name not in TOOLS:
            raise UnknownName("tool", name, list(TOOLS))
    return tuple(dict.fromkeys(names))


def check_prices(prices: Prices) -> Prices:
    """Return the prices. Raises UnknownName: one is of what no bill has a row for."""
    for tool in prices.per_tool:
        if tool not in BILLED:
            raise UnknownName("tool in a price", tool, list(BILLED))
    return prices


def check_core(name: str) -> str:
    """Return the name if a core of that name can be opened. Raises UnknownName, UsageError, ModelError."""
    if (other := _other_core(name)) is not None:
        other()
        return name
    if name.startswith(TRANSFORMERS):
        from ponder.core.hf.transformers_core import check_name

        check_name(name.removeprefix(TRANSFORMERS))
        return name
    try:
        resolve(name)
    except UnknownName:
        raise UnknownName("core", name, [*load_registry(), "PATH.gguf", *OTHER_CORES]) from None
    return name


def model_of(core: str | Core) -> str:
    """Return the name by which what was learned about a core is known; of a cassette, that of the recorded core.

    Raises UsageError: there is no such cassette.
    """
    kind, _, path = core.partition(":") if isinstance(core, str) else ("", "", "")
    if kind == "cassette":
        from ponder.core.cassettes.tape import read_tape

        return str(read_tape(Path(path)).header.manifest.get("model", "cassette"))
    return core if isinstance(core, str) else core.name


def file_name_of(core: str) -> str:
    """Return a core's name as a part of file names: `openai:m@http://h` has characters that do not belong there."""
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in core)


def learned_for(model: str, home: Path) -> Weights | None:
    """Return what was learned about stopping with a core: the user's own first, then what ships. Raises UsageError."""
    name = f"{file_name_of(model)}.json"
    return load(home / "policies" / name, model) or load(FOLDER / name, model)


def make_policy(
    model: str, home: Path, strategy: Strategy, tools: Collection[str], *, value: float | None = None,
    risk: float | None = None,
) -> StopPolicy:
    """Return the stop policy that was learned for a core, the user's own first; a rule where there is none.

    Args:
        model: see `model_of`.
        home: where `ponder policy train` puts weights, in `policies/`.
        strategy: that searches: a risk is certified for searches of one strategy, with code that runs.
        tools: that it has.
        value: what a right answer is worth, in the units of the prices.
        risk: of the tasks that a full search gets right, the share that may be lost.

    Raises:
        UsageError: a value or a risk was named, and nothing was learned for this core or the risk is not certified for
            such searches.
    """
    weights = learned_for(model, home)
    if weights is not None:
        if risk is not None and "python" not in tools:
            raise UsageError("no risk was calibrated for searches that run no code", fix="give it the tool python")
        return LearnedStop(
            weights, value=VALUE if value is None else value, risk=risk, strategy=strategy.name,
            samples=strategy.max_samples,
        )
    if value is not None or risk is not None:
        wanted = "a risk" if risk is not None else "a value"
        raise UsageError(f"{wanted} needs a stop policy that was trained for {model}", fix="see `ponder policy train`")
    return ChecksAndVotes()


def _other_core(name: str) -> Callable[[], Core] | None:
    """Return what makes a core that needs no weights here; None when the name is not of such a one."""
    kind, colon, rest = name.partition(":")
    if colon and kind == "openai":
        from ponder.core.servers.openai_api import OpenAICore
        from ponder.core.servers.wire import parse_name

        return lambda: OpenAICore(parse_name(name))
    if colon and kind == "cassette":
        from ponder.core.cassettes.cassette import CassetteCore

        return lambda: CassetteCore.replay(rest)
    return None


STRATEGIES: dict[str, Callable[..., Strategy]] = {
    BestOfN.name: BestOfN,
    SelfConsistency.name: SelfConsistency,
    SequentialRevision.name: SequentialRevision,
    Auto.name: Auto,
    "mcts": partial(TreeQuestSearch, algorithm="mcts"),
    "ab-mcts": partial(TreeQuestSearch, algorithm="ab-mcts"),
}


DEFAULT_STRATEGY = Auto.name
"""What the shipped stop policy was learned from."""


def make_strategy(tools: Collection[str], name: str = DEFAULT_STRATEGY, samples: int | None = None) -> Strategy:
    """Return the strategy of that name for these tools, taking so many samples at most. Raises UnknownName.

    Args:
        samples: None: as many as the strategy takes by itself.
        name: one of `STRATEGIES`; with `+tests` behind it, the core also writes tests of its own for programs.
    """
    if name.endswith(MARK):
        return OwnTests(make_strategy(tools, name.removesuffix(MARK), samples))
    if name not in STRATEGIES:
        raise UnknownName("strategy", name, list(STRATEGIES))
    options: dict[str, Any] = {} if samples is None else {"max_samples": samples}
    if name in (Auto.name, BestOfN.name):
        options["kinds"] = step_kinds(tools)
    return STRATEGIES[name](**options)


async def open_core(
    name: str, groups: GroupFactory, progress: Progress | None, ledger: Ledger, *, branches: int | None = None
) -> Core:
    """Return the core of that name, not started; its weights are fetched first when they are not here.

    Args:
        ledger: gets what fetching and verifying took, in a row of its own.
        branches: that an engine of ours computes at once; None: as many as one search has.

    Raises:
        UnknownName: no model of that name and no such file.
        UsageError: no address of a server, or no cassette.
        ModelError: the weights are corrupt or cannot be fetched.
    """
    if (other := _other_core(name)) is not None:
        return other()
    if name.startswith(TRANSFORMERS):
        from ponder.core.hf.transformers_core import open_transformers

        with ledger.fetching():
            return await open_transformers(name.removeprefix(TRANSFORMERS), groups)
    return await _open_weights(name, groups, progress, ledger, branches)


def recorded(core: Core, box: Toolbox, path: Path) -> tuple[Core, Recorder]:
    """Return the core and who writes down all that it and the box's tools do. Raises UsageError: the file exists."""
    from ponder.core.cassettes.cassette import RecordingCore
    from ponder.core.cassettes.recorder import Recorder
    from ponder.core.cassettes.tools import RecordingChecker, RecordingTool

    recorder = Recorder(path, list(box.tools), box.packages)
    box.tools = {name: RecordingTool(tool, recorder) for name, tool in box.tools.items()}
    if box.checker is not None:
        box.checker = RecordingChecker(box.checker, recorder)
    return RecordingCore(core, recorder), recorder


def replayed(core: str | Core) -> ReplayingCore | None:
    """Return the core that replays recorded runs, if it is one. Raises UsageError: no cassette."""
    from ponder.core.cassettes.cassette import PREFIX, CassetteCore, ReplayingCore

    if isinstance(core, str):
        core = CassetteCore.replay(core.removeprefix(PREFIX)) if core.startswith(PREFIX) else core
    return core if isinstance(core, ReplayingCore) and core.run is not None else None


def replayed_tools(core: ReplayingCore) -> Toolbox:
    """Return the tools of recorded runs: they give back what they observed, and open nothing."""
    from ponder.core.cassettes.tools import ReplayingTool

    assert core.run is not None
    tools = {name: ReplayingTool(name, core.run) for name in core.header.tools}
    return Toolbox(tools=dict(tools), checker=tools.get("python"), packages=core.header.packages)


async def _open_weights(
    name: str, groups: GroupFactory, progress: Progress | None, ledger: Ledger, branches: int | None
) -> Core:
    from ponder.core.llama.llama_cpp import LlamaCppCore

    pulling = Stoppable(progress)
    try:
        with ledger.fetching():
            path = await asyncio.to_thread(ensure, name, progress=pulling)
            sha256 = await asyncio.to_thread(digest, name)
    finally:
        pulling.stop()  # a thread cannot be cancelled: it hears of it at the next piece, and keeps what it has
    model = resolve(name)
    identity = {"model": name, "sha256": sha256}
    if isinstance(model, Model):
        identity["license"] = model.license
    settings = EngineSettings(model=path)
    if branches is not None:
        settings = settings.model_copy(update={"n_parallel": branches})
    return LlamaCppCore(settings, groups, identity)


@dataclass
class Toolbox:
    """The tools that are open, and what they stand on."""

    tools: dict[str, Tool] = field(default_factory=dict)
    checker: Checker | None = None
    sandbox: Sandbox | None = None
    warnings: list[str] = field(default_factory=list)
    packages: tuple[str, ...] = ()
    """What programs may import besides the standard library."""

    def meters(self) -> list[Meter]:
        """Return what the tools' services run on; all of it began with this toolbox."""
        return [Meter(name, tool.read, closing=CLOSING[name]) for name, tool in self.tools.items()]

    def daemon(self) -> Meter | None:
        """Return the meter of the daemon that runs our sandboxes, and maybe others'; None if there is none."""
        if self.sandbox is None or (first := self.sandbox.daemon()) is None:
            return None
        sandbox, last = self.sandbox, [first]

        def read() -> CpuReading:
            last[0] = sandbox.daemon() or last[0]  # one that ended keeps its last figure
            return last[0]

        return Meter(DAEMON, read, rest=DAEMON, closing=CLOSING[DAEMON])

    async def close(self) -> None:
        """Close all of it. Safe to call twice."""
        for tool in self.tools.values():
            await tool.close()
        if self.sandbox is not None:
            await self.sandbox.close()


def agents_of(core: str | Core) -> int:
    """Return how many agents of this process compute with a core."""
    return core.agents if isinstance(core, Shared) else 1


def core_meter(core: Core) -> Meter:
    """Return the core's meter: what no sample used is loading, and overhead."""
    return Meter("core", core.read, rest=OVERHEAD, live=core.live, closing=CLOSING["core"])


async def open_tools(names: Sequence[str], groups: GroupFactory, hosts: HostRules) -> Toolbox:
    """Open the tools. Raises NoSandbox when `python` is wanted and no sandbox works here."""
    box = Toolbox()
    if "python" in names:
        from ponder.sandboxes import open_sandbox
        from ponder.tools.python import PythonTool

        box.sandbox = await open_sandbox()
        python = PythonTool(box.sandbox)
        box.tools["python"] = box.checker = python
        box.packages = box.sandbox.packages()
        missing = box.sandbox.layers().missing
        box.warnings += [f"sandbox {box.sandbox.name} works without {layer}: {why}" for layer, why in missing.items()]
    if "browser" in names:
        from ponder.tools.browser.tool import BrowserTool

        box.tools["browser"] = BrowserTool(groups, rules=hosts)
    return box
