"""The seams of ponder, all in one place: what each part must be able to do, and nothing of how.

Backends live one per file; each protocol has one conformance suite under `tests/` that every backend passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from ponder.records import (
    Action,
    Best,
    Completion,
    CpuReading,
    Decision,
    ExecResult,
    Expansion,
    Features,
    Layers,
    Limits,
    Node,
    Observation,
    Prompt,
    SamplingParams,
    Spending,
    Standing,
    Task,
    Usage,
    Verdict,
)

OnUsage = Callable[[Usage], None]
"""Called exactly once per call with what it used, however the call ends (result, error, cancellation)."""


class ProcessGroup(Protocol):
    """A set of processes with one meter and one off switch: a cgroup where the machine has them, else less."""

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the argv to spawn so that the program and all its descendants are in the group from the start."""

    def attach(self, pid: int) -> None:
        """Tell the group the pid of what was spawned (groups without a cgroup follow its process tree)."""

    def limit(self, *, memory_bytes: int | None = None, pids: int | None = None) -> None:
        """Limit the whole group, as far as this kind of group can. Raises OSError, as when more is in use already."""

    def read(self) -> CpuReading:
        """Return the CPU used so far by everything that ever was in the group. Costs microseconds."""

    def kill(self) -> None:
        """SIGKILL every process in the group; returns when none is left, or after a second."""

    def close(self) -> None:
        """Kill what is left and remove the group. Safe to call twice."""


GroupFactory = Callable[[str], ProcessGroup]
"""Make a process group with a name for people (`core`, `browser`)."""


class Core(Protocol):
    """A language model that continues prompts."""

    name: str

    async def start(self) -> None:
        """Get ready to sample. Raises CoreError, ModelError."""

    async def sample(
        self,
        prompts: Sequence[Prompt],
        n: int,
        params: SamplingParams,
        on_done: Callable[[int, int, Completion], None] | None = None,
    ) -> list[list[Completion]]:
        """Sample `n` continuations of each prompt, sharing the work on common prefixes.

        Args:
            on_done: called as `(prompt index, sample index, completion)` as soon as each one ends. When the call is
                cancelled, it is called for every one that had not ended, with `finish_reason="cancelled"`, the text
                so far and the usage so far, before CancelledError is raised.

        Returns:
            `len(prompts)` lists of `n` completions, in order.

        Raises:
            CoreError: the engine died or cannot be reached. A prompt that the engine refuses is a completion
                with `finish_reason="error"`.
        """

    def read(self) -> CpuReading:
        """Return the engine's cumulative CPU, loading included; zero for a core that runs elsewhere."""

    def live(self) -> Usage:
        """Return the tokens of all samples in flight, as they would be charged if they ended now. Cheap."""

    async def halt(self) -> None:
        """End all computing within about two decode steps, after `sample` was cancelled; the next `sample` works.

        Cancelling is polite: an engine may finish the part of a prompt that it is at. A spent budget cannot wait.
        """

    def manifest(self) -> Mapping[str, str | int | float | bool]:
        """Return what identifies the core in a record: model, digest, engine and its version."""

    async def close(self) -> None:
        """Stop the engine. Safe to call twice."""


@runtime_checkable
class Witness(Protocol):
    """A core that also wants to know when a run looks at what has ended: one that records runs, or replays them."""

    def taken(self) -> None:
        """Learn that the run takes the samples that have ended by now."""

    def decides(self, spent: Spending) -> Spending:
        """Learn that the run decides whether to go on; return what it has spent: in a replay, what it had."""


@runtime_checkable
class Shared(Protocol):
    """A core that several agents of this process compute with at once: each is billed its part of the process too."""

    @property
    def agents(self) -> int:
        """How many they are."""


class Talk(Protocol):
    """The host's end of a conversation with a running program: whole messages, both ways."""

    def opened(self, send: Callable[[bytes], None]) -> None:
        """Take what sends a message to the program; called once, when the program is about to run."""

    def heard(self, message: bytes) -> None:
        """Take a message of the program: untrusted bytes, at most 4 MiB."""

    def ended(self) -> None:
        """Learn that the program has ended; no message follows."""


class Sandbox(Protocol):
    """A place where untrusted code runs. Calls may overlap; each has its own files, processes and bill."""

    name: str

    async def probe(self) -> Layers:
        """Try every layer, once, from inside; return what holds. Raises NoSandbox when one that must hold does not."""

    def layers(self) -> Layers:
        """Return which protections are active here, and why the others are not (after `probe` or a first `exec`)."""

    def packages(self) -> tuple[str, ...]:
        """Return the import names that programs may use besides the standard library."""

    async def exec(
        self,
        code: str,
        *,
        files: Mapping[str, bytes] | None = None,
        stdin: bytes = b"",
        limits: Limits | None = None,
        talk: Talk | None = None,
        on_usage: OnUsage | None = None,
    ) -> ExecResult:
        """Run a Python program in a fresh sandbox and return how it ended.

        Cancelling kills the program and clears it away before CancelledError is raised.

        Args:
            code: the program, run as `main.py` in a working directory that holds `files` and nothing else.
            files: by relative path. What the program changed is in the result's `files`: passing the changed set
                to the next call makes a workspace (`ponder.sandboxes.workspace`), keeping both forks it.
            talk: a conversation while the program runs: the program's end is file descriptor 3, a stream socket
                with messages behind their length (4 bytes, big-endian).
            on_usage: called exactly once with what the call used.

        Raises:
            NoSandbox: the sandbox itself cannot be set up. A program that fails is a result, not an error.
            UsageError: a file's path is absolute, leads outwards, or is `main.py`.
        """

    def read(self) -> CpuReading:
        """Return the cumulative CPU of all calls so far, those in flight and what waits for calls included."""

    def daemon(self) -> CpuReading | None:
        """Return the cumulative CPU of a service that runs sandboxes for us (a Docker daemon); None without one."""

    async def close(self) -> None:
        """End everything that still runs (outcome `killed`) and remove what was made. Safe to call twice."""


@runtime_checkable
class Tool(Protocol):
    """Something the core can call. Its failures are observations; only a broken machine raises."""

    name: str

    async def run(
        self, action: Action, *, session: str, limits: Limits, on_usage: OnUsage
    ) -> Observation:
        """Do what the action says.

        Args:
            session: names the branch: calls of one branch share state (a page, a workspace), others do not see it.
            limits: what this call may use; reaching one is an observation.
            on_usage: called exactly once, also when the call fails or is cancelled.

        Raises:
            MachineError: the tool cannot work on this machine.
        """

    def read(self) -> CpuReading:
        """Return the cumulative CPU of what the tool keeps running between calls (zero if nothing)."""

    async def close(self) -> None:
        """Stop what the tool keeps running. Safe to call twice."""


class TreeView(Protocol):
    """A search tree, to look at."""

    @property
    def task(self) -> Task: ...

    @property
    def nodes(self) -> Mapping[int, Node]: ...

    @property
    def rounds(self) -> int: ...

    def children(self, node: int) -> Sequence[Node]: ...

    def path(self, node: int) -> Sequence[Node]:
        """Return the nodes from the root's child down to `node`, both included."""


class Strategy(Protocol):
    """Where to search next: a stateless ask/tell object; all it knows is the tree it is shown."""

    name: str
    max_samples: int

    def ask(self, tree: TreeView) -> Sequence[Expansion]:
        """Return the steps to take next; empty when the strategy has nothing left to try."""

    def tell(self, tree: TreeView, judged: Sequence[int]) -> Mapping[int, float]:
        """Return the search values that follow from newly judged nodes, by node id (credit assignment)."""


class Judge(Protocol):
    """Turns evidence into scores, and names the best answer."""

    def judge(self, tree: TreeView, new: Sequence[int]) -> Mapping[int, Verdict]:
        """Return a verdict for each new node."""

    def best(self, tree: TreeView) -> Best | None:
        """Return the best answer so far, or None while no branch has one."""

    def standing(self, tree: TreeView) -> Standing:
        """Return where the search stands: what the stop policy sees of the answers."""

    def inputs(self, tree: TreeView) -> Sequence[str]:
        """Return calls to make of every candidate program, so that candidates can be compared by what they do."""

    def unclear(self, tree: TreeView, new: Sequence[int]) -> Sequence[int]:
        """Return those of the new nodes whose answers the core should give its opinion of (`Node.rubric`)."""


class StopPolicy(Protocol):
    """Decides after every round whether another one is worth it."""

    name: str

    def decide(self, features: Features) -> Decision:
        """Return stop or continue, with the reason."""


class Checker(Protocol):
    """Runs a candidate program against tests, in a sandbox."""

    async def check(
        self, program: str, tests: Sequence[str], *, calls: Sequence[str] = (), limits: Limits, on_usage: OnUsage
    ) -> Observation:
        """Return how many tests passed (`passed` of `total`), and which failed and how (`text`).

        Args:
            calls: expressions over the program's names; `outcomes` says what each came to, in a text that is the same
                for programs that tests could not tell apart there.
        """


class Approver(Protocol):
    """Asked before an action with outside effects (a new host, a form that is sent)."""

    async def approve(self, action: Action, why: str) -> bool:
        """Return whether the action may happen."""
