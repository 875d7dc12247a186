"""Scripts for the scripted core, of cores that are asked how to begin."""

from __future__ import annotations

from collections.abc import Iterable

from ponder.core.scripted import Script
from ponder.prompts import load_prompts
from ponder.records import Prompt


def asks_how_to_begin(prompt: Prompt) -> bool:
    """Return whether the core is to say if the task asks for a value or a text."""
    return prompt.messages[0].content == load_prompts().system["choose"].strip()


def at_once(script: Iterable[str] | Script) -> Script:
    """Return the script of a core that says "text" there, so that it just answers, and else what the script says."""
    lines = None if callable(script) else iter(script)

    def say(prompt: Prompt, sample: int) -> str:
        if asks_how_to_begin(prompt):
            return "text"
        return next(lines) if lines is not None else script(prompt, sample)

    return say
