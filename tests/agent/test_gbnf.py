"""Grammars allow exactly the acts of a step: tried with llguidance, byte by byte, and by their text."""

from __future__ import annotations

from typing import Any

import pytest

from ponder.actions import Acts
from ponder.gbnf import LINE_CHARS, TESTS, act_grammar, answer_grammar, grammar_of_tests, one_of, without_chatter


def test_one_of() -> None:
    assert one_of([" 1", " 2"]) == 'root ::= " 1" | " 2"'


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("ANSWER: 11 crowns", True),
        ("ANSWER: ", False),
        ("ANSWER:  ", False),
        ("ANSWER: two\nlines", False),
        ("BROWSE click e4", True),
        ("BROWSE click e5", False),
        ("BROWSE click e44", False),
        ("BROWSE type e7 quillfish", True),
        ("BROWSE type e7", False),
        ("BROWSE type e4 x", False),
        ("BROWSE read more", True),
        ("BROWSE back", False),
        ("BROWSE goto http://evil.example/", False),
        ('CALL weather {"city": "Rome", "days": [1, 2], "deep": {"a": null}}', True),
        ("CALL weather {}", True),
        ("CALL shell {}", False),
        ("CALL weather {'city': 1}", False),
        ("Well, ", False),
    ],
)
def test_an_act_is_one_of_those_that_are_allowed(reader: Any, text: str, right: bool) -> None:
    acts = Acts(click=("e4",), type=("e7",), more=True, calls=("weather",))
    assert reader.takes(act_grammar(acts), text) is right


def test_going_where_the_task_allows(reader: Any) -> None:
    grammar = act_grammar(Acts(answer=False, goto=("http://a/",), back=True))
    assert reader.takes(grammar, "BROWSE goto http://a/")
    assert reader.takes(grammar, "BROWSE back")
    assert not reader.begins(grammar, "ANSWER: 4")


def test_a_page_without_elements_can_only_be_answered(reader: Any) -> None:
    grammar = act_grammar(Acts())
    assert reader.takes(grammar, "ANSWER: 4")
    assert not reader.begins(grammar, "B")


def test_an_answer_is_never_empty_and_ends(reader: Any) -> None:
    line = answer_grammar(one_line=True)
    assert reader.takes(line, " 42")
    assert not reader.takes(line, " ")
    assert not reader.begins(line, " 42\n")
    assert not reader.begins(line, "x" * (LINE_CHARS + 2))
    text = answer_grammar(one_line=False)
    assert reader.takes(text, "\n1. go\n\n2. stay")
    assert not reader.takes(text, "\n")


TEXT = "The first line of a text that is longer than any fact that stands alone."


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("ANSWER: quillfish", True),
        ("ANSWER: quillfish\nThe page says so, in the third paragraph, where it speaks of code words.", False),
        ("ANSWER: leeks, 2\ncream, 1 cup", True),
        ("ANSWER: 434\n435", True),
        ("ANSWER: To buy:\n- leeks\n- cream", True),
        ("ANSWER: - leeks\n- cream", True),
        ("ANSWER: 1. leeks\n2. cream", True),
        (f"ANSWER: {TEXT}\n\nA second one.", True),
        (f"ANSWER: {TEXT}\n\n\nA second one.", False),
        ("BROWSE click e4\nBROWSE back", False),
    ],
)
def test_an_answer_from_a_page_may_be_a_text_but_not_a_fact_with_chatter(reader: Any, text: str, right: bool) -> None:
    grammar = act_grammar(Acts(click=("e4",), one_line=False))
    assert reader.takes(grammar, text) is right
    if text.startswith("ANSWER: ") and "\n\n\n" not in text:  # what no grammar held back is cut off
        assert (without_chatter(text.removeprefix("ANSWER: ")) == text.removeprefix("ANSWER: ")) is right


THREE = "(1) == 1\nassert f(2) == 2\nassert f"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("(1) == 2", True),
        ("() == []", True),
        ("('it\\'s', x=-1.5) == {'a': (1,), 'b': None}\nassert f([[1, 2], []]) == {1, 2}", True),
        ("(1) == g(2)", False),
        ("(n) == 2", False),
        ("(1) == 2\nprint(f(1))", False),
        ("(1) == 2\nassert g(1) == 2", False),
        ("\nassert f".join(["(1) == 1"] * (TESTS - 2)), True),
        ("\nassert f".join(["(1) == 1"] * (TESTS - 1)), False),
    ],
)
def test_tests_are_calls_with_literals(reader: Any, text: str, right: bool) -> None:
    grammar = grammar_of_tests("f")
    assert reader.takes(grammar, f"{THREE}{text}\n```") is right
    assert not reader.takes(grammar, "(1) == 1\n```"), "one test is too few"
