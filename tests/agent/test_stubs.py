"""Functions that a task gives without their bodies, and what the core is asked for then."""

from __future__ import annotations

import pytest

from ponder.prompting import Prompting
from ponder.records import Answer, SuccessCriterion, Task
from ponder.stubs import stub_of

HEAD = '''from typing import List


def f(x: List[int]) -> int:
    """Add them up.

    >>> f([1, 2])
    3
    """
'''
PROMPTING = Prompting(["python"])


def task(prompt: str) -> Task:
    return Task(prompt=prompt, success=SuccessCriterion(kind="tests", visible=("assert f([1, 2]) == 3",)))


@pytest.mark.parametrize(
    ("prompt", "stub"),
    [
        (f"Complete this.\n\n```python\n{HEAD}```", HEAD),
        (f"Complete this.\n\n```\n{HEAD}    pass\n```\n\nBe quick.", HEAD),
        (f"Complete this.\n{HEAD}", HEAD),
        ("def g(x):\n    return 1\n\ndef f(x):", "def g(x):\n    return 1\n\ndef f(x):\n"),
        ("def f(\n    x,\n):\n    ...", "def f(\n    x,\n):\n"),
        ("def f(x):\n    raise NotImplementedError", "def f(x):\n"),
        ("def f(x):\n    # TODO\n    pass", "def f(x):\n    # TODO\n"),
        ("def f(x):\n    return 2", None),
        ("def f(x):\n    import math\n    'words'", None),
        ("def f(x): pass", None),
        ("def f(x):\n  'two spaces'", None),
        ("class A:\n    def f(self):\n        'a method'", None),
        ("def f(x):\n    '''```'''", None),
        ("def other(x):", None),
        ("Write f.", None),
        ("def f(x)\n  broken", None),
    ],
)
def test_what_there_is_to_complete(prompt: str, stub: str | None) -> None:
    assert stub_of(task(prompt)) == stub


def test_only_where_the_answer_is_a_program() -> None:
    assert stub_of(Task(prompt=HEAD)) is None


@pytest.mark.parametrize(
    ("said", "program"),
    [
        ("    return sum(x)\n```", f"{HEAD}    return sum(x)"),
        ("```python\ndef f(x):\n    return sum(x)\n```", "def f(x):\n    return sum(x)"),
        ("def f(x):\n    return sum(x)\n", "def f(x):\n    return sum(x)"),
    ],
)
def test_the_core_goes_on_from_it_or_begins_anew(grow, said: str, program: str) -> None:  # type: ignore[no-untyped-def]
    tree = grow(task(f"```python\n{HEAD}```")).tree
    request = PROMPTING.step(tree, 0, "code")
    assert request.prompt.prefill == f"```python\n{HEAD}"
    assert request.params.grammar is not None
    assert request.params.grammar.startswith("root ::= block-f0 ")
    assert PROMPTING.read(tree, request, said).action == Answer(text=program)
