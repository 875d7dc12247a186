"""From a place in the tree to what the core is asked, and back from its words to an action.

A step's kind is set by the beginning of the core's own turn (the prefill), not by other instructions: all steps from
one node share the whole prompt before it, so that the engine computes it once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ponder.actions import one_of, page_grammar, parse, program_grammar
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
    Record,
    RunCode,
    SamplingParams,
    StepKind,
    Task,
)

# How the browser tool writes what can be clicked, and that there is more of the page.
_REF = re.compile(r"\[((?:f\d+)?e\d+) ")
_MORE = 'Read "more"'
_ALTERNATIVES = 12


class StepRequest(Record):
    """What to sample for one step."""

    prompt: Prompt
    params: SamplingParams


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
        """Return the kinds of step that the core may choose from, the likeliest first."""
        return ["code"] if has_tests(tree.task) else step_kinds(self._tools)

    def drop(self, tool: str) -> None:
        """Offer a tool no longer: its budget is spent."""
        self._tools -= {tool}

    def choose(self, tree: TreeView, parent: int, kinds: Sequence[StepKind]) -> StepRequest:
        """Return the request whose one-token answer picks among `kinds`. Read it with `chosen`."""
        grammar = one_of([self.prompts.ways[kind] for kind in kinds])
        params = SamplingParams(temperature=0.0, max_tokens=4, grammar=grammar, alternatives=_ALTERNATIVES)
        return StepRequest(prompt=self._prompt(tree, parent, "choose"), params=params)

    def chosen(self, completion: Completion, kinds: Sequence[StepKind]) -> StepKind:
        """Return the kind that the core picked; the first one when its words name none.

        A program that prints a fact costs little, words where a computation is needed are wrong: so `code` is taken
        from a chance of `choose_code_at` on, where the core reports chances.
        """
        marks = {kind: self.prompts.ways[kind].strip() for kind in kinds}
        for tokens in reversed(completion.alternatives):
            chances = {kind: _chance(tokens, mark) for kind, mark in marks.items()}
            if (total := sum(chances.values())) > 0:
                code = chances.get("code", 0.0) / total
                return "code" if code >= self.prompts.choose_code_at else max(chances, key=chances.__getitem__)
        said = completion.text.strip()
        return next((kind for kind, mark in marks.items() if said.startswith(mark)), kinds[0])

    def step(self, tree: TreeView, parent: int, kind: StepKind) -> StepRequest:
        """Return the request for a new step below `parent`: of this kind, if the tools allow it."""
        if kind == "code" and kind not in self.kinds(tree):
            kind = "answer"
        line = tree.path(parent)
        params: dict[str, Any] = {"max_tokens": self._max_tokens}
        if kind == "code":
            name = "tests" if has_tests(tree.task) else "code"
            params |= {"grammar": program_grammar(self.prompts.programs.modules), "stop": ("\n```",)}
        elif kind == "browse" and line and line[-1].observation is not None:
            name, page = "browse", line[-1].observation.text
            params |= {"grammar": page_grammar(_refs(page), more=_MORE in page), "stop": ("\n",)}
        else:
            name = "answer"
            if line:  # after an observation the answer is one line; only a task without one may want a whole text
                params["stop"] = ("\n",)
        params["temperature"] = self.prompts.temperature[name]
        return StepRequest(prompt=self._prompt(tree, parent, name), params=SamplingParams(**params))

    def read(self, tree: TreeView, request: StepRequest, text: str) -> Action:
        """Return the action that the core's words are."""
        return parse(request.prompt.prefill + text, code_is_answer=has_tests(tree.task))

    def _prompt(self, tree: TreeView, parent: int, name: str) -> Prompt:
        messages = [
            Message(role="system", content=self.prompts.system[name].strip()),
            Message(role="user", content=self._question(tree.task)),
        ]
        for node in tree.path(parent):
            messages += self._turns(tree.task, node)
        return Prompt(messages=tuple(messages), prefill=self.prompts.prefill[name])

    def _question(self, task: Task) -> str:
        parts = [*task.context, task.prompt]
        if has_tests(task) and task.success is not None and task.success.visible:
            parts.append(self.prompts.turns.tests.format(tests="\n".join(task.success.visible)))
        return "\n\n".join(parts)

    def _turns(self, task: Task, node: Node) -> list[Message]:
        said, seen, turns = Message(role="assistant", content=_said(task, node)), node.observation, self.prompts.turns
        if seen is None:
            text = turns.no_answer
        elif isinstance(node.action, Browse):
            text = turns.after_page.format(text=seen.text, task=task.prompt)
        elif seen.ok and isinstance(node.action, RunCode):
            text = turns.after_output.format(text=seen.text)
        else:
            text = turns.after_error.format(text=seen.text)
        return [said, Message(role="user", content=text)]


def _chance(tokens: Mapping[str, float], mark: str) -> float:
    return sum(math.exp(logprob) for token, logprob in tokens.items() if token.strip() == mark)


def step_kinds(tools: Collection[str]) -> list[StepKind]:
    """Return the kinds of step that these tools allow, the likeliest first."""
    return ["code", "answer"] if "python" in tools else ["answer"]


def has_tests(task: Task) -> bool:
    """Return whether the task's answer is a program that visible tests check."""
    return task.success is not None and task.success.kind == "tests"


def _refs(page: str) -> list[str]:
    return list(dict.fromkeys(_REF.findall(page)))


def _said(task: Task, node: Node) -> str:
    match node.action:
        case RunCode(code=code):
            return f"```python\n{code}\n```"
        case Browse(op=op, url=url, ref=ref, text=text):
            return " ".join(["BROWSE", op, *(part for part in (url, ref, text) if part)])
    if isinstance(node.action, Answer) and has_tests(task):
        return f"```python\n{node.action.text}\n```"
    return node.text or "(nothing)"
