"""Prompts are data: one TOML file per version. The store records which version a run used."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

from ponder.records import Record

CURRENT = "v1"


class PromptSet(Record):
    """The texts of one prompt version. `{tools}`-like fields are filled by `ponder.prompting`."""

    version: str
    system: str
    system_tests: str
    choose: str
    ways: dict[str, str]
    code_prefill: str
    tests_prefill: str
    answer_prefill: str
    after_output: str
    after_error: str
    after_page: str
    no_answer: str
    page: str
    modules: tuple[str, ...]


@cache
def load_prompts(version: str = CURRENT) -> PromptSet:
    """Return the prompt set of that version (a file of this package)."""
    text = files(__package__).joinpath(f"{version}.toml").read_text("utf-8")
    return PromptSet.model_validate({"version": version, **tomllib.loads(text)})
