"""Each kind of constraint: met, not met, and the answers that trip a checker (empty, long, unicode, markdown)."""

from __future__ import annotations

import time
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from ponder.instructions.constraints import Constraint
from ponder.instructions.counted import Checked

READER: TypeAdapter[Checked] = TypeAdapter(Constraint)


def made(kind: str, **fields: Any) -> Checked:
    return READER.validate_python({"kind": kind, **fields})


OBJECT = {"type": "object", "required": ["a"]}
TABLE = "Look:\n\n| Sign | Ripe |\n|:---|---:|\n| Touch | **soft** |\n| Colour | dark |\n\nThat's all."

CASES: list[tuple[Checked, list[str], list[str]]] = [
    (
        made("words", exactly=3),
        ["one two three", "- one\n- two\n- three", "**one** `two` — three!", "один два три"],
        ["one two", "one two three four", "1. one"],
    ),
    (made("words", least=2), ["well-known facts", "word " * 10_000], ["well-known"]),
    (made("words", most=2), ["1. Go home", "| a | b |\n|---|---|"], ["a b c"]),
    (
        made("sentences", exactly=2),
        [
            "It rains. Take a hat!",
            "Dr. Ray lives at 3.5 km. He walks.",
            "it rains. take a hat.",
            "- It rains\n- Take a hat",
            "# Rain\nIt rains. Take a hat.",
            "He asked: “Why?” “Because.”",
            "Apples, e.g. Cox, are red. Pears are not.",
            "Es regnet… Nimm einen Hut.",
        ],
        ["It rains.", "It rains. Take a hat. Go.", "Version 2.0 is out"],
    ),
    (
        made("paragraphs", exactly=2),
        ["One.\n\nTwo.", "One.\nTwo.", "# Title\n\nOne.\nstill one\n\n\n\nTwo.", "One.\n\n---\n\nTwo."],
        ["One.", "One.\n\nTwo.\n\nThree.", "One. Two."],
    ),
    (
        made("lines", exactly=3),
        ["a\nb\nc", "a\n\nb\n\nc\n", "```\na\nb\nc\n```", "- a\n---\n- b\n- c"],
        ["a b c", "a\nb"],
    ),
    (
        made("items", exactly=3),
        [
            "- a\n- b\n- c",
            "* a\n* b\n* c",
            "1. a\n2) b\n3. c",
            "• a\n• b\n• c",
            "Here:\n\n- a\n  - aa\n  - ab\n- b\n- c\n\nDone.",
            "**1.** a\n**2.** b\n**3.** c",
            "### 1. a\ntext\n### 2. b\n### 3. c",
        ],
        ["a\nb\nc", "- a\n- b", "**a**\n**b**\n**c**", "1.5 km\n2.5 km\n3.5 km", "- a\n- b\n- c\n- d"],
    ),
    (made("items", style="numbered", least=2), ["1. a\n2. b", "1. a\n   - x\n2. b"], ["- a\n- b", "1. a"]),
    (made("items", style="bulleted", exactly=1), ["- a\n1. b"], ["1. a"]),
    (made("items", least=2, multiple_of=2), ["- a\n- b", "- a\n- b\n\n- c\n- d"], ["- a\n- b\n- c", "words"]),
    (made("items", exactly=3), ["1. **For:**\n   - a\n   - b\n2. **Against:**\n   - c"], ["1. **For:**\n   - a"]),
    (made("items", most=0), ["Just words - and a dash."], ["- a"]),
    (
        made("headings", named=["Morning", "Evening"], least=2),
        [
            "# Morning\na\n# Evening\nb",
            "**Morning**\na\n\n**Evening:**\nb",
            "Morning:\na\nEvening:\nb",
            "## In the Morning\na\n## evening walk\nb",
        ],
        ["# Evening\na\n# Morning\nb", "Morning is fine and evening is fine", "# Morning\na"],
    ),
    (made("headings", exactly=1), ["# A\ntext", "__A__\ntext"], ["text", "# A\n# B", "- a\n- **b**: c"]),
    (
        made("headings", named=["Buy", "Call"], exactly=2),
        ["1. **Buy:**\n   - a\n2. **Call**:\n   - b"],
        ["1. Buy\n2. Call"],
    ),
    (
        made("table", columns=["sign", "ripe"], exactly=2),
        [TABLE, "Sign | Ripe\n--- | ---\na | b\nc | d"],
        [
            "| Sign | Ripe |\n| a | b |",
            TABLE.replace("Sign", "Mark"),
            TABLE.replace("| Colour | dark |\n", ""),
            "a | b",
        ],
    ),
    (
        made("json", fits=OBJECT),
        ['{"a": 1}', ' {"a": {"b": "ü"}}\n', 'Here:\n```json\n{"a": 1}\n```\nDone.', '```\n{"a": 1}\n```'],
        ['{"b": 1}', "[1]", '{"a": 1', "a", 'Here: {"a": 1}', "{'a': 1}", "[" * 50_000, "null"],
    ),
    (
        made("mention", any_of=["rain*", "wet weather"]),
        ["It RAINS.", "a **rain**-coat", "wet\nweather", "_rain_", "ra\u200bin rain"],
        ["train", "brain", "wet cold weather", "r a i n"],
    ),
    (
        made("mention", any_of=["30"]),
        ["30 pages", "about (30).", "30, or so", "30-40"],
        ["300", "30.5", "2.30", "130", "30,5"],
    ),
    (
        made("mention", any_of=["3,140"]),
        ["3140 euros", "3,140 euros", "€3,140.", "EUR 3,140,"],
        ["3.140", "13,140", "3,140,000"],
    ),
    (made("mention", any_of=["don't", "café"]), ["Don\u2019t!", "CAFÉ", "cafe\u0301"], ["dont", "cafe"]),
    (
        made("mention", any_of=["17:25", "10%", "°C"]),
        ["at 17:25.", "10% off", "11 °C", "11 ℃"],
        ["at 7:25", "17:255", "110%"],
    ),
    (
        made("mention", any_of=["time", "time flies"], times=2, most_times=2),
        ["time and Time", "time flies, in time"],
        ["time", "time time time", "sometimes timeless"],
    ),
    (made("covers", of=[["a"], ["b", "bee"], ["c"]], least=2), ["a bee", "c, b"], ["a a a", "b bee", "d"]),
    (made("avoid", any_of=["leaf", "apolog*"]), ["leaflet", "fine"], ["A Leaf!", "APOLOGIES", "**leaf**-green"]),
    (
        made("order", steps=[["one", "first"], ["two"], ["three"]]),
        ["one two three", "three? No: first, then two, then three"],
        ["two one three", "one two", "three two one"],
    ),
    (
        made("near", any_of=["dog*"], with_any=["no", "not"], within=3),
        ["Dogs may not come", "No: the big dog", "- **Dog**: no"],
        ["Dogs are fine here, though cats are not", "dog", "know dogs"],
    ),
    (
        made("lines_begin", in_turn=["hen:", "fox:"]),
        ["Hen: a\nFox: b\nHen: c", "**Hen:** a\n\n**Fox:** b", "- hen: a"],
        ["Hen: a\nHen: b", "Fox: a\nHen: b", "A hen: b"],
    ),
    (made("lines_begin", any_of=["a", "b"], others=1), ["Title\na\nb", "a\na"], ["x\ny\na", "Title"]),
    (made("lines_begin", pattern=r"\d{1,2}:\d\d"), ["14:00 Cake\n15:00 Games", "| 14:00 | Cake |"], ["Cake at 14:00"]),
    (
        made("each", part="items", any_of=["train*"]),
        ["- Trains go\n- a train", "1. the **train**"],
        ["- train\n- plane", "train"],
    ),
    (made("each", part="sentences", most_words=3), ["I go. You go.", "Go!"], ["I go. You go home now."]),
    (
        made("each", part="items", any_of=["fold"], at_its_start=True),
        ["1. Fold it.\n2. **Fold** again."],
        ["1. Now fold it."],
    ),
    (made("each", part="lines", least_words=2), ["a b\nc d"], ["a b\nc"]),
    (made("ends", any_of=["?", "."]), ["Why?", "**Why?**  \n", "“Go.”"], ["Why", "Why? No", "Why?)"]),
    (made("letters", case="lower"), ["all lower, ünder 5!"], ["One", "Ünder"]),
    (made("letters", case="upper"), ["OUT OF ORDER: 5!", "ÜBER"], ["OUT of order"]),
    (made("without", any_of=["!", "```"]), ["calm"], ["Loud!", "```\ncode\n```"]),
    (
        made("matches", pattern=r"^week \d", exactly=2),
        ["Week 1: a\nweek 2: b", "**Week 1** a\n**Week 2** b"],
        ["Week 1, week 2"],
    ),
    (made("matches", pattern="example", exactly=0), ["fine"], ["An Example"]),
    (
        made("no_repeats"),
        ["I am here now. You are there now.", "Yes. Yes.", "- Rest\n- Rest"],
        [
            "It is a cat. It is a cat.",
            "- Work from home\n" * 6,
            "- Drink a lot of water\n- drink a **lot** of water!",
            "I like it a lot. No.\nI like it a lot!",
        ],
    ),
    (
        made("finished"),
        ["Done.", "Really?", "“Done.”", "**Done.**", "- milk\n- eggs", "| a | b |", '{"a": 1}', "See (1)"],
        ["It was a dark and", "First we", "- milk\n- and then,", "Steps:"],
    ),
]

PAIRS = [
    pytest.param(constraint, answer, met, id=f"{constraint.kind}-{number}-{'met' if met else 'not'}-{place}")  # type: ignore[attr-defined]
    for number, (constraint, *sides) in enumerate(CASES)
    for met, answers in zip((True, False), sides, strict=True)
    for place, answer in enumerate(answers)
]


@pytest.mark.parametrize(("constraint", "answer", "met"), PAIRS)
def test_met_and_not_met(constraint: Checked, answer: str, met: bool) -> None:
    assert constraint.met(answer) is met


def test_every_kind_is_tested_both_ways() -> None:
    kinds = {
        name
        for member in get_args(get_args(Constraint)[0])
        for name in get_args(member.model_fields["kind"].annotation)
    }
    assert {constraint.kind for constraint, yes, no in CASES if yes and no} == kinds  # type: ignore[attr-defined]


@pytest.mark.parametrize("answer", ["", " \n\t", "---", "```\n```", "- \n- ", "**", "…", "| | |\n|-|-|"])
def test_an_answer_without_a_word_meets_nothing(answer: str) -> None:
    assert not any(constraint.met(answer) for constraint, _, _ in CASES)


@pytest.mark.parametrize(
    "piece",
    [
        "word ",
        "A sentence. ",
        "- item\n",
        "a|",
        "**",
        "* _`",
        "# ",
        "(",
        "1,234,",
        "a\u0301",
        "\n\n",
        '"',
        "|-",
        "no " * 500 + "x " * 500 + "dog ",
    ],
)
def test_a_very_long_answer_takes_no_long_time(piece: str) -> None:
    answer = "start " + piece * (20_000 // len(piece))
    kinds = {constraint.kind: constraint for constraint, _, _ in CASES}  # type: ignore[attr-defined]
    began = time.process_time()
    for constraint in kinds.values():
        constraint.met(answer)
    assert time.process_time() - began < 0.15 * len(kinds)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab1. \n-*#|:`_\"'“é漢🙂?!,()[]{}\\\u0301\u2028\x00"), max_size=60))
def test_any_text_can_be_checked(answer: str) -> None:
    for constraint, _, _ in CASES:
        assert constraint.met(answer) in (True, False)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"kind": "words"}, "least, most or exactly"),
        ({"kind": "words", "exactly": 3, "most": 4}, "excludes"),
        ({"kind": "words", "most": -1}, "greater than or equal"),
        ({"kind": "mention", "any_of": []}, "at least 1"),
        ({"kind": "mention", "words": ["a"]}, "Extra inputs"),
        ({"kind": "order", "steps": [["a"]]}, "at least 2"),
        ({"kind": "json", "fits": {"type": "thing"}}, "no JSON schema"),
        ({"kind": "matches", "pattern": "(", "least": 1}, "no regular expression"),
        ({"kind": "sense"}, "does not match any of the expected tags"),
    ],
)
def test_a_wrong_constraint_says_why(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        READER.validate_python(fields)


def test_constraints_are_frozen_and_come_back_from_json() -> None:
    for constraint, _, _ in CASES:
        assert READER.validate_json(READER.dump_json(constraint)) == constraint
    with pytest.raises(ValidationError, match="frozen"):
        CASES[0][0].exactly = 4  # type: ignore[attr-defined]
