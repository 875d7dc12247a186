"""The core's opinion where a rubric is given: one token each, kept in the tree; a search goes on without it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ponder.agent import Agent
from ponder.core.scripted import ScriptedCore
from ponder.errors import CoreError
from ponder.records import Completion, Prompt, Result, SamplingParams, SuccessCriterion, Task
from ponder.search.best_of_n import BestOfN
from ponder.store import open_store
from ponder.tree import Tree

CHANCES = {"first": 0.2, "second": 0.9, "third": 0.4}
TEXTS = [f" This is the {n} text, which has rather more than a dozen words, so that no two agree." for n in CHANCES]


class Critic(ScriptedCore):
    """Writes three texts, and has an opinion of each."""

    def __init__(self, *, broken: bool = False, mute: bool = False) -> None:
        texts = iter(TEXTS)
        super().__init__(lambda prompt, _: " no" if _asks(prompt) else next(texts))
        self.broken, self.mute = broken, mute
        self.asked: list[str] = []

    async def sample(
        self, prompts: Sequence[Prompt], n: int, params: SamplingParams, on_done: Any = None
    ) -> list[list[Completion]]:
        if not _asks(prompts[0]):
            return await super().sample(prompts, n, params, on_done)
        if self.broken:
            raise CoreError("gone")
        questions = [prompt.messages[-1].content for prompt in prompts]
        self.asked += questions
        came = await super().sample(prompts, n, params, on_done)
        if self.mute:
            return came
        return [[_with(done, question)] for (done,), question in zip(came, questions, strict=True)]


def _asks(prompt: Prompt) -> bool:
    return prompt.prefill.startswith("The verdict")


def _with(done: Completion, question: str) -> Completion:
    chance = next(chance for word, chance in CHANCES.items() if f"the {word} text" in question)
    return done.model_copy(update={"alternatives": ({" yes": math.log(chance), " no": math.log(1 - chance)},)})


def search(core: Critic, home: Path, task: Task) -> tuple[Result, Tree]:
    with Agent(core, tools=(), strategy=BestOfN(kinds=("answer",)), home=home) as agent:
        result = agent.run(task)
    return result, Tree.from_events(open_store(home / "runs.sqlite").events(result.run_id))


RUBRIC = Task(prompt="Describe it.", success=SuccessCriterion(kind="rubric", visible=("is green",)))


def test_texts_are_rated_and_the_best_rated_is_the_answer(tmp_path: Path) -> None:
    core = Critic()
    result, tree = search(core, tmp_path, RUBRIC)
    assert result.answer == TEXTS[1].strip()
    assert [node.rubric for node in tree.nodes.values() if node.answer] == list(CHANCES.values())
    assert len(core.asked) == 3
    assert all(question.startswith("Describe it.") for question in core.asked)
    assert result.ledger.by_tool["core"].calls == 6
    assert all("A good answer:\nis green" in prompt.messages[-1].content for prompt in core.prompts)


def test_without_a_rubric_no_opinion_is_asked_for(tmp_path: Path) -> None:
    core = Critic()
    result, _ = search(core, tmp_path, Task(prompt="Describe it."))
    assert (core.asked, result.answer) == ([], TEXTS[0].strip())


def test_without_an_opinion_the_search_goes_on(tmp_path: Path) -> None:
    for core in (Critic(broken=True), Critic(mute=True)):
        result, tree = search(core, tmp_path, RUBRIC)
        assert result.answer in [text.strip() for text in TEXTS]
        assert result.stop_reason == "not_worth_it"
        assert all(node.rubric is None for node in tree.nodes.values())
