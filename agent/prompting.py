"""From a place in the tree to what the core is asked, and back from its words to an action.

A step's kind is set by the beginning of the core's own turn (the prefill), not by other instructions: all steps from
one node share the whole prompt before it, so that the engine computes it once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ponder.actions import Acts, conclusion, fault, parse, render
from ponder.cut_programs import without_its_end
from ponder.gbnf import act_grammar, answer_grammar, grammar_of_tests, one_of, without_chatter
from ponder.imports import with_imports
from ponder.instructions.reading import asks_for_text, unfollowed
from ponder.page_acts import page_acts, told
from ponder.program_grammar import program_grammar
from ponder.program_tests import has_tests, name_under_test
from ponder.prompts import PromptSet, load_prompts
from ponder.protocols import TreeView
from ponder.records import (
    Action,
    Answer,
    Browse,
    Completion,
    Message,
    Node,
    Prompt,
    Reason,
    Record,
    Repair,
    RunCode,
    SamplingParams,
    StepKind,
    Task,
)
from ponder.stubs import stub_of

_ALTERNATIVES = 12
_STRETCH = 3.0
"""Of 112 samples of seven tasks the longest right one had 1.6 times the tokens of the longest of three quarters of its
siblings; one went on up to the limit, for twice the CPU of all the others."""
_REPEATS = 100
"""Of sixteen answers to a cipher nine went up to the limit with a few words over and over: 370 of 392 CPU-s."""
_CONTROL = re.compile(
    r"<[|\uff5c][^<>\n]{0,80}[|\uff5c]>|</?s>|<(?:bos|eos|pad|unk|mask)>|</?(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
    r"|\[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]",
    re.IGNORECASE,
)
"""What chat models have as control tokens: ChatML's and its kin, Llama's, Mistral's, Gemma's, DeepSeek's."""
_SHOWN_CHARS = 800
"""Of what cannot be read, so much is shown to the core again."""
_FAILED_SHOWN = 2
"""Of programs that failed tests one after the other, what came of so many of the last ones is told."""


class StepRequest(Record):
    """What to sample for one step."""

    prompt: Prompt
    params: SamplingParams
    kind: StepKind = "free"
    acts: Acts = Acts()
    """What the step may do."""


class Reading(Record):
    """What the core's words are: an action, and what is wrong with it, if it is not one that the step may take."""

    action: Action
    wrong: str | None = None
    cut: bool = False
    """The words hit the bound of tokens."""


class Prompting:
    """Builds prompts for the tools that are allowed.

    Args:
        tools: names of the allowed tools (`python`, `browser`).
        packages: import names that programs may use besides the standard library.
        max_tokens: bound of one step.
    """

    def __init__(
        self,
        tools: Sequence[str],
        *,
        packages: Sequence[str] = (),
        prompts: PromptSet | None = None,
        max_tokens: int = 512,
    ) -> None:
        self.prompts = (prompts or load_prompts()).with_packages(packages)
        self._tools = frozenset(tools)
        self._max_tokens = max_tokens

    def kinds(self, tree: TreeView) -> list[StepKind]:
        """Return the kinds of step that the core may choose from, the likeliest first: for a value, and for a text.

        A value is worked out by a program, or in words where none can run. Where the task's words ask for what only a
        text has, nothing is left to choose.
        """
        if has_tests(tree.task):
            return ["code"]
        return ["answer"] if asks_for_text(tree.task) else [step_kinds(self._tools)[0], "answer"]

    def drop(self, tool: str) -> None:
        """Offer a tool no longer: its budget is spent."""
        self._tools -= {tool}

    def choose(self, tree: TreeView, parent: int) -> StepRequest:
        """Return the request whose one-token answer says what the task asks for. Read it with `chosen`."""
        grammar = one_of([*self.prompts.ways.values()])
        params = SamplingParams(temperature=0.0, max_tokens=4, grammar=grammar, alternatives=_ALTERNATIVES)
        return StepRequest(prompt=self._prompt(tree, parent, "choose"), params=params)

    def chosen(self, completion: Completion, kinds: Sequence[StepKind]) -> StepKind:
        """Return which of two kinds (for a value, for a text) the core picked; the first when its words name none.

        A program that prints a fact costs little, words where a computation is needed are wrong: so a value is worked
        out from a chance of `choose_value_at` on, where the core reports chances.
        """
        for_value, for_text = kinds
        value = self.chance_of_value(completion)
        if value is not None:
            return for_value if value >= self.prompts.choose_value_at else for_text
        return for_text if completion.text.strip().startswith(self.prompts.ways["text"].strip()) else for_value

    def chance_of_value(self, completion: Completion) -> float | None:
        """Return the chance that the core gives to a value, against a text; None where it reports no chances."""
        return _share(completion, self.prompts.ways["value"], self.prompts.ways["text"])

    def step(self, tree: TreeView, parent: int, kind: StepKind) -> StepRequest:
        """Return the request for a new step below `parent`: of this kind, if the tools allow it."""
        line = tree.path(parent)
        if kind == "code" and kind not in (kinds := self.kinds(tree)):
            kind = "answer" if line else kinds[0]
        elif kind == "reason" and has_tests(tree.task):
            kind = "code"
        params: dict[str, Any] = {"max_tokens": self._max_tokens, "stretch": _STRETCH, "repeats": _REPEATS}
        if kind == "check":
            name, acts = "checks", Acts(answer=False)
            params |= {"grammar": grammar_of_tests(name_under_test(tree.task) or ""), "stop": ("\n```",)}
        elif kind == "code":
            modules, tests, begun = self.prompts.programs.modules, has_tests(tree.task), stub_of(tree.task)
            name = "tests" if tests else "code"
            acts = Acts(answer=False, program=not tests, modules=modules, only_definitions=tests)
            grammar = program_grammar(modules, only_definitions=tests, in_function=begun is not None)
            params |= {"grammar": grammar, "stop": ("\n```",)}
        elif kind == "reason":
            # A core that makes up what its program prints is stopped: the program is run.
            name, acts = "reason", Acts(program="python" in self._tools, one_line=False)
            params |= {"stop": ("```output",)}
        elif kind == "browse" and line and line[-1].observation is not None:
            name, acts = "browse", page_acts(line, one_line=not _may_be_text(tree.task))
            params |= {"grammar": act_grammar(acts), "stop": ("\n",) if acts.one_line else ()}
        else:
            # After an observation the answer is one line; only a task without one may want a whole text.
            seen = any(node.observation is not None for node in line)
            name, acts = "answer", Acts(one_line=seen)
            params |= {"grammar": answer_grammar(one_line=acts.one_line), "stop": ("\n",) if acts.one_line else ()}
        params["temperature"] = self.prompts.temperature[name]
        prompt = self._prompt(tree, parent, name, acts)
        return StepRequest(prompt=prompt, params=SamplingParams(**params), kind=kind, acts=acts)

    def rate(self, tree: TreeView, node: int) -> StepRequest:
        """Return the request whose one-token answer says whether the core thinks a node's answer right: see `rated`."""
        prompts = self.prompts
        asked = prompts.turns.rubric.format(answer=tree.nodes[node].answer)
        params = SamplingParams(
            temperature=0.0, max_tokens=4, grammar=one_of([*prompts.verdicts.values()]), alternatives=_ALTERNATIVES
        )
        prompt = self._prompt(tree, 0, "rubric")
        *before, last = prompt.messages
        whole = last.model_copy(update={"content": f"{last.content}\n\n{asked}"})
        return StepRequest(prompt=prompt.model_copy(update={"messages": (*before, whole)}), params=params)

    def rated(self, completion: Completion) -> float | None:
        """Return the chance that the core gives to "yes", among yes and no; None where it reports no chances."""
        return _share(completion, self.prompts.verdicts["yes"], self.prompts.verdicts["no"])

    def read(self, tree: TreeView, request: StepRequest, text: str, *, cut: bool = False) -> Reading:
        """Return what the core's words are.

        Args:
            cut: they hit the bound of tokens. A program then loses its unfinished end, if the rest is of use.
        """
        tests, words = has_tests(tree.task), _words(tree.task, request.prompt.prefill, text)
        if request.kind == "check":
            return Reading(action=Reason(text=words), cut=cut)
        if request.kind == "reason":
            action = conclusion(words, program=request.acts.program)
        else:
            action = parse(words, code_is_answer=tests)
        if request.kind == "browse" and isinstance(action, Answer):
            action = action.model_copy(update={"text": without_chatter(action.text)})
        if cut and request.kind == "code":
            action = without_its_end(action)
        action = self._with_imports(action, tree.task)
        return Reading(action=action, wrong=fault(action, request.acts), cut=cut)

    def _with_imports(self, action: Action, task: Task) -> Action:
        modules = self.prompts.programs.modules
        if isinstance(action, RunCode):
            return action.model_copy(update={"code": with_imports(action.code, modules)})
        if isinstance(action, Answer) and task.success is not None and has_tests(task):
            return action.model_copy(update={"text": with_imports(action.text, modules, task.success.prelude)})
        return action

    def repair(self, tree: TreeView, parent: int, repair: Repair) -> StepRequest:
        """Return the request that shows the core, once, what was wrong with its words at a step of that kind."""
        request = self.step(tree, parent, repair.kind)
        said = repair.text if len(repair.text) <= _SHOWN_CHARS else repair.text[:_SHOWN_CHARS] + "\n..."
        asked = self.prompts.turns.repair.format(wrong=repair.wrong)
        turns = (Message(role="assistant", content=said or "(nothing)"), Message(role="user", content=asked))
        messages = (*request.prompt.messages, *map(_harmless, turns))
        prompt = request.prompt.model_copy(update={"messages": messages})
        return request.model_copy(update={"prompt": prompt})

    def _prompt(self, tree: TreeView, parent: int, name: str, acts: Acts | None = None) -> Prompt:
        system = self.prompts.system[name].strip()
        messages = [*(self._examples() if name == "choose" else ()), _user(self._question(tree.task))]
        if self.prompts.system_in_question:
            messages[0] = _user(f"{system}\n\n{messages[0].content}")
        else:
            messages.insert(0, Message(role="system", content=system))
        line = tree.path(parent)
        if name == "tests" and line and all(map(_failed_tests, line)):
            said = "\n".join(dict.fromkeys(node.observation.text for node in line[-_FAILED_SHOWN:] if node.observation))
            note = self.prompts.turns.failed_tests.format(text=said)
            messages[-1] = _user(f"{messages[-1].content}\n\n{note}")
            line = []
        for node in line:
            messages += self._turns(tree.task, node)
        if line and name in ("code", "tests", "reason", "answer") and _is_answered(line[-1]):
            seen = line[-1].observation
            again = self.prompts.turns.again.format(text=seen.text if seen is not None else "").strip()
            messages[-1] = _user(self._unfollowed(tree.task, line[-1]) or again)
        if acts is not None and (ways := told(acts)):
            possible = self.prompts.turns.page_acts.format(acts=", ".join(ways))
            messages[-1] = _user(f"{messages[-1].content}\n{possible}")
        prefill = self.prompts.prefill[name]
        if name == "checks":
            prefill = prefill.format(name=name_under_test(tree.task))
        elif name == "tests":
            prefill += stub_of(tree.task) or ""
        return Prompt(messages=tuple(map(_harmless, messages)), prefill=prefill)

    def _examples(self) -> Iterator[Message]:
        for example in self.prompts.examples:
            yield _user(example.task)
            yield Message(role="assistant", content=self.prompts.ways[example.way])

    def _question(self, task: Task) -> str:
        parts, success, turns = [*task.context, task.prompt], task.success, self.prompts.turns
        if success is not None and success.visible and not success.visible_in_prompt:
            if success.kind == "tests":
                parts.append(turns.tests.format(tests="\n".join(success.visible)))
            elif success.kind == "rubric":
                parts.append(turns.criteria.format(criteria="\n".join(success.visible)))
        return "\n\n".join(parts)

    def _turns(self, task: Task, node: Node) -> list[Message]:
        said, seen, turns = Message(role="assistant", content=_said(task, node)), node.observation, self.prompts.turns
        if seen is None:
            text = self._unfollowed(task, node) or turns.no_answer
        elif isinstance(node.action, Browse):
            text = turns.after_page.format(text=seen.text, task=task.prompt)
        elif seen.ok and isinstance(node.action, RunCode):
            text = turns.after_output.format(text=seen.text)
        else:
            text = turns.after_error.format(text=seen.text)
        return [said, Message(role="user", content=text)]


    def _unfollowed(self, task: Task, node: Node) -> str:
        """Return what an answer does not do of what the task's words ask; "" where it does all of it."""
        wrong = unfollowed(task, node.answer) if node.answer else ()
        lines = "\n".join(f"- {one.wrong(node.answer or '')}" for one in wrong)
        return self.prompts.turns.unfollowed.format(wrong=lines) if wrong else ""


def _harmless(message: Message) -> Message:
    """Return a message in which nothing is a control token of a chat: a page or a program could end its turn with one.

    Every tokenizer that reads a whole chat, here or behind an address, takes such words for its own marks.
    """
    text = _CONTROL.sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", message.content)
    return message if text == message.content else message.model_copy(update={"content": text})


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _words(task: Task, prefill: str, text: str) -> str:
    """Return the core's turn. Where it wrote again what was begun for it, its own words are all that counts."""
    begun = stub_of(task)
    if begun is None or not prefill.endswith(begun) or f"def {name_under_test(task)}(" not in text:
        return prefill + text
    return text if text.lstrip().startswith("```") else prefill.removesuffix(begun) + text


def _share(completion: Completion, mark: str, other: str) -> float | None:
    """Return the probability of one mark against another, at the last token that could be either of them."""
    for tokens in reversed(completion.alternatives):
        chance, rest = _chance(tokens, mark), _chance(tokens, other)
        if chance + rest > 0:
            return chance / (chance + rest)
    return None


def _chance(tokens: Mapping[str, float], mark: str) -> float:
    return sum(math.exp(logprob) for token, logprob in tokens.items() if token.strip() == mark.strip())


def step_kinds(tools: Collection[str]) -> list[StepKind]:
    """Return the kinds of step that these tools allow, the likeliest first: those that work a value out, then words."""
    return ["code", "reason", "answer"] if "python" in tools else ["reason", "answer"]


def _may_be_text(task: Task) -> bool:
    """Return whether the answer may be more than a line: nothing says that it is a number, or one of few words."""
    return task.success is None or task.success.kind not in ("exact", "numeric")


def _failed_tests(node: Node) -> bool:
    seen = node.observation
    return isinstance(node.action, Answer) and seen is not None and bool(seen.total) and not seen.ok


def _is_answered(node: Node) -> bool:
    """Return whether an attempt ended well with this node, so that a step below it tries once more."""
    return bool(node.answer) and (node.observation is None or node.observation.ok)


def _said(task: Task, node: Node) -> str:
    if node.action is None or isinstance(node.action, Reason):
        return node.text or "(nothing)"
    if isinstance(node.action, Answer) and not has_tests(task):
        return node.text or "(nothing)"
    return render(node.action, code_is_answer=has_tests(task))
