"""The action language: what a small core writes is read, whatever it writes."""

from __future__ import annotations

import re

import pytest

from ponder.actions import one_of, page_grammar, parse, program_grammar
from ponder.records import Answer, Browse, CallTool, Reason, RunCode


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("```python\nprint(1)\n```", RunCode(code="print(1)")),
        ("Let me see.\n```py\nprint(1)\n```\nThis prints 1.", RunCode(code="print(1)", thought="Let me see.")),
        ("```\nprint(1)", RunCode(code="print(1)")),
        ("```python\nx = '`'\nprint(x)\n```", RunCode(code="x = '`'\nprint(x)")),
        ("ANSWER: 42", Answer(text="42")),
        ("So it is.\n**ANSWER:** 42", Answer(text="42", thought="So it is.")),
        ("answer: Paris", Answer(text="Paris")),
        ("Thinking\nANSWER: a plan\n1. go", Answer(text="a plan\n1. go", thought="Thinking")),
        ("ANSWER: `42`", Answer(text="42")),
        ("ANSWER:", Reason(text="ANSWER:")),
        ("BROWSE goto http://a.example/x", Browse(op="goto", url="http://a.example/x")),
        ("I click.\nBROWSE click [ref=e12]", Browse(op="click", ref="e12", thought="I click.")),
        ("BROWSE type e3 two words", Browse(op="type", ref="e3", text="two words")),
        ("BROWSE read more", Browse(op="read", text="more")),
        ("BROWSE back", Browse(op="back")),
        ('CALL weather {"city": "Rome"}', CallTool(tool="weather", arguments={"city": "Rome"})),
        ("CALL weather {city", Reason(text="(unreadable call of weather: the arguments are not JSON)")),
        ("", Reason(text="")),
        ("```python\n```", Reason(text="(an empty program)")),
    ],
)
def test_parse(text: str, action: object) -> None:
    assert parse(text) == action


def test_the_first_act_counts() -> None:
    assert isinstance(parse("ANSWER: 3\n```python\nprint(4)\n```"), Answer)
    assert isinstance(parse("```python\nprint('ANSWER: 3')\n```\nANSWER: 4"), RunCode)


def test_a_program_is_the_answer_when_the_task_has_tests() -> None:
    action = parse("```python\ndef f():\n    return 1\n```", code_is_answer=True)
    assert action == Answer(text="def f():\n    return 1")


def test_grammars_name_exactly_what_is_allowed() -> None:
    assert one_of([" 1", " 2"]) == 'root ::= " 1" | " 2"'
    assert "e7" in page_grammar(["e7"], more=False)
    assert "click" not in page_grammar([], more=True)


OTHER = re.compile(r"\[\^([^\]]*)\]")


@pytest.mark.parametrize("word", ["import ", "from ", "`"])
def test_program_grammar_leaves_no_way_to_begin_a_line_with(word: str) -> None:
    other = next(rule for rule in program_grammar(["math"]).splitlines() if rule.startswith("other"))
    ways = [way.strip() for way in other.removeprefix("other ::= ").split(" | ")]
    assert not any(_matches(way, word + "x") for way in ways)
    assert any(_matches(way, "if x: y") for way in ways)
    assert any(_matches(way, "for i in x:") for way in ways)
    assert any(_matches(way, "fro") for way in ways)


def _matches(way: str, line: str) -> bool:
    pattern = re.sub(r'"([^"]*)" ?', lambda m: re.escape(m.group(1)), way).replace("] [", "][")
    return re.fullmatch(pattern, line) is not None
