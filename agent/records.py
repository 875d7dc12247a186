"""The records that travel between ponder's parts: frozen, validated, without behaviour.

Units: seconds (`_s`), bytes (`_bytes`), tokens as the core's tokenizer counts them, probabilities in [0, 1].
A changed record is a new record (`model_copy(update=...)`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Method = Literal["cgroup", "rusage", "process-tree", "estimate"]
"""How a figure was measured; `rusage` and `process-tree` are lower bounds when processes hide."""

Outcome = Literal["ok", "error", "cpu", "wall", "memory", "output", "killed"]
"""How a sandboxed program ended: by itself (`ok`, `error`), or by the limit that stopped it."""

StopReason = Literal["confident", "not_worth_it", "hopeless", "budget", "exhausted", "interrupted", "error"]

StepKind = Literal["free", "code", "reason", "browse", "answer", "check"]
"""What a strategy asks of the core's next step: any action, one kind of it, or tests for what other steps write."""


class Record(BaseModel):
    """Base of all records: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- tasks ------------------------------------------------------------------------------------------------


class Budget(Record):
    """What a task (or one tool, in `per_tool`) may spend; `None` means no limit. All limits are enforced."""

    cpu_seconds: float | None = Field(default=None, gt=0)
    wall_seconds: float | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, gt=0)
    cost: float | None = Field(default=None, gt=0)
    per_tool: dict[str, Budget] = Field(default_factory=dict)


class SuccessCriterion(Record):
    """How an answer is checked.

    `visible` checks may guide the search; `hidden` ones only grade the result, and are never shown to a prompt,
    a judge or a policy. Each check is one string, read by `kind`: a Python assert (`tests`), the expected text
    (`exact`), a pattern that must match somewhere (`regex`), a number (`numeric`, within `tolerance`), a JSON
    schema (`json_schema`), the `module:function` of a trusted predicate over the answer (`python`), or words that
    say what a good answer does, which the core judges (`rubric`: an opinion, no check).
    """

    kind: Literal["tests", "exact", "regex", "numeric", "json_schema", "python", "rubric"]
    visible: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    visible_in_prompt: bool = False
    """The task's own words say what `visible` checks (examples in a docstring): prompts do not repeat it."""
    tolerance: float = Field(default=0.0, ge=0)
    prelude: str = ""
    """Code that the task gives (`tests` only): it stands before a program that is checked, which need not repeat it."""


class Task(Record):
    """One open-ended question or job."""

    prompt: str
    context: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    """Pages that the answer may stand on; the browser tool starts there."""
    success: SuccessCriterion | None = None
    budget: Budget | None = None
    id: str | None = None

    @field_validator("prompt")
    @classmethod
    def _not_empty(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("the question is empty")
        return prompt


# --- what the core says, and what comes back ---------------------------------------------------------------


class Message(Record):
    """One chat turn."""

    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(Record):
    """A chat that the core continues; `prefill` is the beginning of its own turn, already written for it."""

    messages: tuple[Message, ...]
    prefill: str = ""


class SamplingParams(Record):
    """How to sample; `grammar` is GBNF, ignored by cores that cannot enforce one."""

    temperature: float = Field(default=0.8, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(default=512, gt=0)
    stop: tuple[str, ...] = ()
    grammar: str | None = None
    alternatives: int = Field(default=0, ge=0, le=20)
    """How many alternatives per token to report with their log-probabilities (before the grammar)."""
    seed: int | None = None
    stretch: float | None = Field(default=None, ge=1)
    """Where three quarters of the samples of one prompt have ended, the limit of tokens of the others is so many times
    what the longest of these wrote, if that is less than `max_tokens`."""
    repeats: int | None = Field(default=None, gt=0)
    """A sample ends, as if it had met `max_tokens`, where its last so many tokens or more are one piece four times."""


class Reason(Record):
    """Thinking without an act: the branch goes on."""

    type: Literal["reason"] = "reason"
    text: str


class Answer(Record):
    """The branch's final answer. For a task with tests it is the program."""

    type: Literal["answer"] = "answer"
    text: str
    thought: str = ""


class RunCode(Record):
    """Run a Python program in the sandbox; what it prints after `ANSWER:` is the branch's answer."""

    type: Literal["run_code"] = "run_code"
    code: str
    thought: str = ""


class Browse(Record):
    """One browser operation. `ref` names an element of the page's last snapshot (`e12`)."""

    type: Literal["browse"] = "browse"
    op: Literal["goto", "read", "click", "type", "back"]
    url: str | None = None
    ref: str | None = None
    text: str | None = None
    thought: str = ""


class CallTool(Record):
    """Call a further tool (MCP, Python function) by name."""

    type: Literal["call_tool"] = "call_tool"
    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    thought: str = ""


Action = Annotated[Answer | RunCode | Browse | CallTool | Reason, Field(discriminator="type")]


class Observation(Record):
    """What a tool gave back. A failure is an observation too: `ok` is false and `text` says what happened."""

    tool: str
    ok: bool
    text: str
    outcome: Outcome = "ok"
    answer: str | None = None
    """The answer that the tool's output states by itself (the program printed `ANSWER: ...`)."""
    passed: int | None = None
    """Visible checks passed, of `total`, when the step was checked."""
    total: int | None = None
    outcomes: dict[str, str] = Field(default_factory=dict)
    """What calls of a candidate program came to, by call: the judge compares candidates by them."""
    truncated: bool = False


class Verdict(Record):
    """A judge's view of a node: a score, and the evidence it rests on (name -> figure or word)."""

    score: float = Field(ge=0, le=1)
    evidence: dict[str, float | int | str | bool] = Field(default_factory=dict)


# --- measurement ------------------------------------------------------------------------------------------


class Usage(Record):
    """What one call used. Every figure is this call's own; `shared` marks a share of a common meter."""

    cpu_user_s: float = Field(default=0.0, ge=0)
    cpu_system_s: float = Field(default=0.0, ge=0)
    wall_s: float = Field(default=0.0, ge=0)
    peak_rss_bytes: int = Field(default=0, ge=0)
    tokens_in: int = Field(default=0, ge=0)
    """Prompt tokens, the cached ones included."""
    tokens_out: int = Field(default=0, ge=0)
    tokens_cached: int = Field(default=0, ge=0)
    bytes: int = Field(default=0, ge=0)
    """Bytes moved: over the network by the browser, of output by a program."""
    method: Method = "estimate"
    shared: bool = False

    @property
    def cpu_s(self) -> float:
        """User and system CPU seconds together."""
        return self.cpu_user_s + self.cpu_system_s


class Charge(Record):
    """One line of the bill: who used what, for which tree node (`None`: for the run as a whole)."""

    tool: str
    node: int | None
    usage: Usage
    cost: float = Field(ge=0)


class Spending(Record):
    """What a run has spent when it decides whether to go on, work in flight included."""

    cpu_s: float
    wall_s: float
    tokens: int
    cost_by_tool: Mapping[str, float] = {}
    """What the steps have cost, by tool, in the ledger's prices: without starting and this process's own work."""


class CpuReading(Record):
    """A cumulative reading of a process group since it was made."""

    user_s: float = 0.0
    system_s: float = 0.0
    peak_rss_bytes: int = 0
    method: Method

    @property
    def cpu_s(self) -> float:
        """User and system CPU seconds together."""
        return self.user_s + self.system_s

    def plus(self, other: CpuReading) -> CpuReading:
        """Return the sum of two meters: the larger peak, and the other's method unless it has used nothing."""
        return CpuReading(
            user_s=self.user_s + other.user_s,
            system_s=self.system_s + other.system_s,
            peak_rss_bytes=max(self.peak_rss_bytes, other.peak_rss_bytes),
            method=other.method if other.cpu_s else self.method,
        )


class Completion(Record):
    """One sampled continuation. `usage` holds its tokens and its share of the core's CPU."""

    text: str
    finish_reason: Literal["stop", "length", "cancelled", "error"]
    logprobs: tuple[float, ...] = ()
    alternatives: tuple[dict[str, float], ...] = ()
    """Per token, the likeliest tokens and their log-probabilities; empty unless asked for."""
    usage: Usage = Usage()
    error: str | None = None
    """What went wrong, when `finish_reason` is `error`."""


class Limits(Record):
    """Bounds of one sandboxed program; each is enforced, and each has its own `Outcome`."""

    cpu_s: float = Field(default=10.0, gt=0)
    wall_s: float = Field(default=20.0, gt=0)
    memory_bytes: int = Field(default=512 * 2**20, gt=0)
    pids: int = Field(default=64, gt=0)
    output_bytes: int = Field(default=64 * 1024, gt=0)
    disk_bytes: int = Field(default=64 * 2**20, gt=0)


class Layers(Record):
    """What protects a sandbox on this machine: layer names that are active, and `name -> why` for the missing."""

    active: tuple[str, ...]
    missing: dict[str, str] = Field(default_factory=dict)


class ExecResult(Record):
    """What came of one sandboxed program."""

    outcome: Outcome
    exit_code: int | None
    """The program's exit status; negative is a signal; `None` when it never started."""
    stdout: str
    stderr: str
    truncated: bool
    usage: Usage
    backend: str
    layers: Layers
    files: dict[str, bytes | None] = Field(default_factory=dict)
    """Files of the working directory that the program wrote or changed, by relative path; `None`: it removed it.
    Empty when the program was stopped: its working directory went with it."""
    left_out: tuple[str, ...] = ()
    """Files that are not returned: links, devices, too many or too large."""


# --- search -----------------------------------------------------------------------------------------------


class Expansion(Record):
    """A strategy's wish: one new child of `parent`, made by a step of this kind."""

    parent: int
    kind: StepKind = "free"
    action: Action | None = None
    """What to do there, when no core needs to be asked (opening the task's page)."""


class Repair(Record):
    """A step whose words could not be read as an act that it may take: the core was told so, once."""

    kind: StepKind
    text: str
    """The words."""
    wrong: str


class Node(Record):
    """One step of the search: what the core did there and what came of it.

    Node 0 is the root (the task). `branch` is the id of the root's child that this node descends from, so that
    nodes of one branch share a browser page. Ids count the order in which steps were asked for; decisions follow
    that order, never the order in which steps finish.
    """

    id: int
    parent: int | None
    branch: int
    depth: int
    kind: StepKind = "free"
    status: Literal["asked", "thought", "observed", "judged", "cancelled", "failed"] = "asked"
    text: str = ""
    action: Action | None = None
    observation: Observation | None = None
    verdict: Verdict | None = None
    rubric: float | None = None
    """Chance that the core gives to its answer meeting the task, where it was asked: one token's probability."""
    mean_logprob: float | None = None
    tokens_out: int = 0
    """Tokens that the core wrote for it, a repair's not counted twice."""
    repair: Repair | None = None
    """What the core wrote first, when it had to be asked again."""
    costs: Mapping[str, float] = Field(default_factory=dict)
    """What its calls cost so far, by tool, in the ledger's prices."""

    @property
    def answer(self) -> str | None:
        """The answer that this node proposes, if it proposes one."""
        if isinstance(self.action, Answer):
            return self.action.text
        if self.observation is not None:
            return self.observation.answer
        return None

    @property
    def worked(self) -> StepKind:
        """The kind of step that it was: where the core chose, by what it did; `free` while that is open."""
        if self.kind in ("code", "reason", "answer") or self.action is None:
            return self.kind
        if isinstance(self.action, Browse):
            return "browse"
        return "code" if isinstance(self.action, RunCode) else "answer"


class Best(Record):
    """The best answer so far."""

    answer: str
    confidence: float = Field(ge=0, le=1)
    node: int
    votes: int
    total: int


class Standing(Record):
    """Where a search stands, as the judge sees it: what it would answer now, and what bears that out."""

    best: Best | None = None
    votes: tuple[float, ...] = ()
    """Weighted votes of the distinct answers, largest first."""
    counts: tuple[int, ...] = ()
    """How many answers are the same, largest first; of programs: how many did the same."""
    stale: int = 0
    """Answers at the end, in a row, none of which was new."""
    same_in_a_row: int = 0
    """Answers at the end, in a row, that are all the same one."""
    best_passed: float | None = None
    """Largest share of visible checks passed by one candidate; None while none was checked."""
    best_followed: float = 0.0
    """Largest share of what the task's words ask that one answer does; 1 where they ask for nothing."""
    kind: Literal["programs", "answers", "texts"] | None = None
    """What decides among the answers."""
    signals: Mapping[str, float] = {}
    """The judge's figures of the best answer, by name (`ponder.judges.calibration.Signals`); those that there are."""
    steady: float | None = None
    """1 where the first half of the candidates led to the same answer, 0 where to another; None: to none."""
    gain: float | None = None
    """The confidence in the best answer less that in the one of the first half; None where that had none."""


class Features(Record):
    """What a stop policy may look at: figures of the tree and the ledger, nothing hidden."""

    version: Literal[5] = 5
    rounds: int
    samples: int
    """Branches that ended, with an answer or without."""
    answered: int
    pending: int
    max_samples: int
    width: int = 0
    """Lines of the tree: its last steps."""
    depth: int = 0
    """Steps of the longest line that is settled."""
    counts: tuple[int, ...] = ()
    """How many answers are the same, largest first: see `Standing`."""
    stale: int = 0
    """Answers at the end, in a row, none of which was new: see `Standing`."""
    same_in_a_row: int = 0
    """Answers at the end, in a row, that are all the same one: see `Standing`."""
    votes: tuple[float, ...]
    """Weighted votes of the distinct answers, largest first."""
    answer_words: float
    """Median length of the answers, in words: long texts never agree to the letter."""
    checks: int
    """Visible checks that the task has."""
    best_passed: float | None
    """Largest share of visible checks passed by one candidate; None while none was checked."""
    best_followed: float = 1.0
    """Largest share of what the task's words ask that one answer does; 1 where they ask for nothing."""
    kind: Literal["programs", "answers", "texts"] | None = None
    """What decides among the answers; None while there is none."""
    confidence: float = 0.0
    """The judge's chance that the best answer is right."""
    signals: Mapping[str, float] = {}
    """The judge's figures of the best answer, by name; those that there are."""
    steady: float | None = None
    """Whether half of the candidates led to the same answer, as 0 or 1: see `Standing`."""
    gain: float | None = None
    """What the other half has added to the confidence: see `Standing`."""
    failed_steps: int
    cpu_spent_s: float
    wall_spent_s: float
    tokens_spent: int
    cost_by_tool: Mapping[str, float] = {}
    """What the steps have cost, by tool, in the ledger's prices: see `Spending`."""
    next_steps: int = 0
    """Steps that the strategy would take next, those on their way included."""
    next_cost_by_tool: Mapping[str, float] = {}
    """What these are still expected to cost, by tool: as the steps so far, those of the same kind before all."""
    next_other: float = 0.0
    """How far these work in another way than the steps so far: 1 where none of those ran code and all of these will."""

    @property
    def next_cost(self) -> float:
        """What the next steps are still expected to cost, in the ledger's prices."""
        return sum(self.next_cost_by_tool.values())


class Decision(Record):
    """What the stop policy said after a round, and why."""

    stop: bool
    reason: StopReason | None = None
    confidence: float = Field(default=0.0, ge=0, le=1)
    why: str = ""


# --- results ----------------------------------------------------------------------------------------------


class ToolBill(Record):
    """One tool's line of the bill, in the keys of `--json`."""

    calls: int = 0
    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0
    wall_s: float = 0.0
    peak_rss_bytes: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    bytes: int = 0
    cost: float = 0.0
    method: str = ""
    shared: bool = False

    @property
    def cpu_s(self) -> float:
        """User and system CPU seconds together."""
        return self.cpu_user_s + self.cpu_system_s


class Bill(Record):
    """The ledger's summary: `by_tool` (with `overhead`) sums to `total`."""

    total: ToolBill
    by_tool: Mapping[str, ToolBill]


class Result(Record):
    """What a run gives back, always: also after Ctrl-C, a spent budget or an error."""

    answer: str | None
    confidence: float = Field(ge=0, le=1)
    stop_reason: StopReason
    run_id: str
    nodes: int
    ledger: Bill
    elapsed_s: float = 0.0
    """Wall seconds from start to end; `ledger.total.wall_s` instead adds up the calls', which overlap."""
    warnings: tuple[str, ...] = ()

    @property
    def tree_size(self) -> int:
        """Nodes in the search tree, the root not counted."""
        return self.nodes
