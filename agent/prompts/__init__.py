"""Prompts are data: one TOML file per version. The store records which version a run used."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

from pydantic import Field

from ponder.records import Record

CURRENT = "v4"
LIBRARY = "{library}"
"""In a system text: what programs may import."""


class Turns(Record):
    """What the user's side says after a step; fields in braces are filled in."""

    after_output: str
    after_error: str
    after_page: str
    again: str
    """After an attempt that answered, before one that is to better it."""
    failed_tests: str
    """Before another program where earlier ones failed visible tests: what came of those, without the programs."""
    unfollowed: str
    """After a text that does not do all that the task's words ask."""
    no_answer: str
    tests: str
    page_acts: str
    rubric: str
    criteria: str
    repair: str


class Programs(Record):
    """What programs may use; `library` names it in the system texts, `packages` where there are some."""

    modules: tuple[str, ...]
    library: str
    packages: str


class Example(Record):
    """A task, and what it asks for: one of the `ways`."""

    task: str
    way: str


class Family(Record):
    """What models of one family need otherwise. Their chat template itself is the engine's business."""

    names: tuple[str, ...]
    """Parts of model or file names, in lower case."""
    system_in_question: bool = False
    """Its template knows no system role, or its models follow the user's turn better."""
    system: dict[str, str] = Field(default_factory=dict)
    temperature: dict[str, float] = Field(default_factory=dict)


class PromptSet(Record):
    """The texts of one prompt version; `system`, `prefill`, `temperature` are by kind of step."""

    version: str
    system: dict[str, str]
    prefill: dict[str, str]
    temperature: dict[str, float]
    turns: Turns
    programs: Programs
    ways: dict[str, str]
    """How the core says what a task asks for (`value`, `text`): a token each."""
    examples: tuple[Example, ...] = ()
    """What it is shown before it chooses."""
    verdicts: dict[str, str]
    """How the core says of an answer that it is right, and that it is not: a token each."""
    choose_value_at: float
    families: dict[str, Family] = Field(default_factory=dict)
    system_in_question: bool = False

    def for_model(self, name: str) -> PromptSet:
        """Return the set for a model of that name (or file): its family's variant, named in the version."""
        for family, variant in self.families.items():
            if any(part in name.lower() for part in variant.names):
                return self.model_copy(
                    update={
                        "version": f"{self.version}/{family}",
                        "system": {**self.system, **variant.system},
                        "temperature": {**self.temperature, **variant.temperature},
                        "system_in_question": variant.system_in_question,
                    }
                )
        return self

    def with_packages(self, packages: Sequence[str]) -> PromptSet:
        """Return the set for programs that may import these packages, too; their texts then name them."""
        programs = self.programs
        if packages:
            library = programs.packages.format(packages=", ".join(packages))
            programs = programs.model_copy(update={"modules": (*programs.modules, *packages), "library": library})
        system = {kind: text.replace(LIBRARY, programs.library) for kind, text in self.system.items()}
        return self.model_copy(update={"programs": programs, "system": system})


@cache
def load_prompts(version: str = CURRENT) -> PromptSet:
    """Return the prompt set of that version (a file of this package)."""
    text = files(__package__).joinpath(f"{version}.toml").read_text("utf-8")
    return PromptSet.model_validate({"version": version, **tomllib.loads(text)})


def prompts_for(manifest: Mapping[str, object]) -> PromptSet:
    """Return the current prompts for the core that this manifest describes."""
    return load_prompts().for_model(" ".join(str(manifest.get(key, "")) for key in ("model", "file")))
