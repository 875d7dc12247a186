"""What is read from a task's words, what is not, and what an answer that does not do it is told."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.instructions.reading import Instruction, asks_for_text, instructions_in, instructions_of, unfollowed
from ponder.records import SuccessCriterion, Task


def read(text: str) -> list[dict[str, Any]]:
    return [one.check.model_dump(exclude_defaults=True) | {"kind": one.check.kind} for one in instructions_in(text)]


def words(**bounds: int) -> dict[str, Any]:
    return {"kind": "words", **bounds}


def avoid(*phrases: str) -> dict[str, Any]:
    return {"kind": "avoid", "any_of": phrases}


def mention(phrase: str, **times: int) -> dict[str, Any]:
    return {"kind": "mention", "any_of": (phrase,), **times}


READ: list[tuple[str, list[dict[str, Any]]]] = [
    # lengths
    ("Describe a lighthouse in at most 40 words.", [words(most=40)]),
    ("Describe a lighthouse in under 40 words.", [words(most=39)]),
    ("A lighthouse, please, in no more than forty words!", [words(most=40)]),
    ("Write a text of between 50 and 70 words on salt.", [words(least=50, most=70)]),
    ("Write 50-70 words on salt.", [words(least=50, most=70)]),
    ("Tell me about salt in 200 words or fewer.", [words(most=200)]),
    ("Tell me about salt in a minimum of 1,200 words.", [words(least=1200)]),
    ("Write 300+ words on salt.", [words(least=300)]),
    ("Write more than 300 words on salt.", [words(least=301)]),
    ("Write about 100 words on salt.", [words(least=80, most=120)]),
    ("Write a 100-word story about salt.", [words(least=80, most=120)]),
    ("Answer in exactly two words.", [words(exactly=2)]),
    ("Keep it to one paragraph.", [{"kind": "paragraphs", "exactly": 1}]),
    ("In one sentence: why is snow white?", [{"kind": "sentences", "exactly": 1}]),
    ("Explain snow in three to five sentences.", [{"kind": "sentences", "least": 3, "most": 5}]),
    ("Write a two-paragraph letter to the mayor.", [{"kind": "paragraphs", "exactly": 2}]),
    ("Your answer must not have more than three paragraphs.", [{"kind": "paragraphs", "most": 3}]),
    ("The summary must not be longer than 50 words.", [words(most=50)]),
    ("Your answer can't be more than 100 words.", [words(most=100)]),
    ("Describe Rome without going over 100 words.", [words(most=100)]),
    ("It shouldn't be more than three sentences.", [{"kind": "sentences", "most": 3}]),
    ("Don't make it longer than two paragraphs.", [{"kind": "paragraphs", "most": 2}]),
    ("Avoid more than two paragraphs.", [{"kind": "paragraphs", "most": 2}]),
    ("The text must not be shorter than 200 words.", [words(least=200)]),
    ("Make it no shorter than 300 words.", [words(least=300)]),
    ("Don't hurry, and write more than 200 words.", [words(least=201)]),
    (
        "Write two paragraphs of 100 words each.",
        [{"kind": "paragraphs", "exactly": 2},
         {"kind": "each", "part": "paragraphs", "least_words": 80, "most_words": 120}],
    ),
    ("Compose a poem with exactly 6 lines.", [{"kind": "lines", "exactly": 6}]),
    (
        "Write four lines on rain. Every line has at most seven words.",
        [{"kind": "lines", "exactly": 4}, {"kind": "each", "part": "lines", "most_words": 7}],
    ),
    (
        "Write two sentences of exactly five words each.",
        [{"kind": "sentences", "exactly": 2}, {"kind": "each", "part": "sentences", "least_words": 5, "most_words": 5}],
    ),
    # lists, tables, headings
    ("List the tools for it in five bullet points.", [{"kind": "items", "exactly": 5}]),
    ("Give the recipe as a numbered list.", [{"kind": "items", "style": "numbered", "least": 2}]),
    ("Give four reasons as a numbered list.", [{"kind": "items", "style": "numbered", "exactly": 4}]),
    ("Give me a bulleted list of exactly four rivers.", [{"kind": "items", "exactly": 4}]),
    ("Number the steps; no more than 6 steps.", [{"kind": "items", "style": "numbered", "most": 6}]),
    ("Tell me what to pack, as bullets, and not more than 12.", [{"kind": "items", "most": 12}]),
    ("Explain how photosynthesis works as a numbered list.", [{"kind": "items", "style": "numbered", "least": 2}]),
    ("Do not use bullet points.", [{"kind": "items", "most": 0}]),
    ("Compare oak and pine in a table.", [{"kind": "table", "least": 1}]),
    (
        "Show it as a table with the columns Tree, Height and Age and at least four rows.",
        [{"kind": "table", "columns": ("Tree", "Height", "Age"), "least": 4}],
    ),
    (
        "Use the headings 'Before' and 'After the storm'.",
        [{"kind": "headings", "named": ("Before", "After the storm"), "least": 2}],
    ),
    # format
    ("Name three birds. Reply in JSON.", [{"kind": "json", "fits": {}}]),
    ("Give me a JSON array of three birds, please.", [{"kind": "json", "fits": {"type": "array"}}]),
    (
        "Answer with one JSON object with the keys name and age. Nothing else.",
        [{"kind": "json", "fits": {"type": "object", "required": ["name", "age"]}}],
    ),
    ("write a haiku, all lowercase", [{"kind": "letters", "case": "lower"}]),
    ("Shout it: ONLY CAPITAL LETTERS.", [{"kind": "letters", "case": "upper"}]),
    ("Write a riddle without any commas.", [{"kind": "without", "any_of": (",",)}]),
    ("Write to the bank. No placeholders, please.", [{"kind": "without", "any_of": ("[", "]")}]),
    ("Tell a joke and end with a question.", [{"kind": "ends", "any_of": ("?",)}]),
    (
        "Tell a joke. Finish your answer with the exact phrase \"That was it.\"",
        [{"kind": "ends", "any_of": ("That was it.", "That was it")}],
    ),
    ("Begin your letter with 'My dear'.", [{"kind": "matches", "pattern": r"\A\W*My\ dear", "exactly": 1}]),
    ("Write a dialogue in which all lines begin with 'A:' or 'B:'.", [{"kind": "lines_begin", "any_of": ("A:", "B:")}]),
    (
        "Write five lines whose first letters spell STORM.",
        [{"kind": "lines_begin", "in_turn": tuple("storm")}, {"kind": "lines", "exactly": 5}],
    ),
    # words
    ("Describe a cat without the words cat, fur or purr.", [avoid("cat", "fur", "purr")]),
    ("Describe a cat, but do not use the word 'whiskers'.", [avoid("whiskers")]),
    ('Write a short bio without "\N{EM DASH}".', [{"kind": "without", "any_of": ("\N{EM DASH}",)}]),
    ("Describe a cat. The word \"tail\" must not appear.", [avoid("tail")]),
    ("Describe a cat. Avoid the following words: soft, small.", [avoid("soft", "small")]),
    ("Praise tea. Use the words steam, cup and leaf.", [mention("steam"), mention("cup"), mention("leaf")]),
    ("Praise tea and include the keywords \"hot\" and \"calm\".", [mention("hot"), mention("calm")]),
    ("Praise tea. Mention the word cup at least 3 times.", [mention("cup", times=3)]),
    ("Praise tea. The word cup appears exactly twice.", [mention("cup", times=2, most_times=2)]),
    (
        "Write three sentences. Each sentence must contain the word 'sand' or the word 'sea'.",
        [{"kind": "sentences", "exactly": 3}, {"kind": "each", "part": "sentences", "any_of": ("sand", "sea")}],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), READ)
def test_read(text: str, expected: list[dict[str, Any]]) -> None:
    in_any_order = partial(sorted, key=partial(json.dumps, sort_keys=True))
    assert in_any_order(read(text)) == in_any_order(expected)


@pytest.mark.parametrize(
    "text",
    [
        "What is 17 times 3?",
        "There are 4 lines of 12 children each in the yard. How many children are there?",
        "The third player only has two lines, and each line has 6 words. How many words are that?",
        "The essay has exactly 500 words. How long does it take to read?",
        "Her book has more than 300 words on each page.",
        "Summarise the first two paragraphs of the letter.",
        "Compare both, with a verdict in one sentence at the end.",
        "Write it up, then close with one sentence that thanks the reader.",
        "Give me one line per week.",
        "Give at least two points for each.",
        "What is a JSON object?",
        "How do JSON and XML differ?",
        "What is the longest word in English?",
        "Who wrote 'In Search of Lost Time'?",
        "Explain the word serendipity.",
        "Keep the word count in mind.",
        "Set the table for dinner.",
        "What are the first 5 items of the list?",
        "Write with words of comfort.",
        'Is this true: "Write at most three words and no more than two sentences, in JSON only"?',
        "Use words with all capital letters now and then.",
        "What is the sum of the three largest numbers in the list 3, 8, 12, 5, 7?",
        "Write a Python function that returns the two largest numbers in a list.",
        "Write a Python function that finds all pairs in a list that sum to exactly 10.",
        "Write a function which returns the primes below n as a list.",
        "Write a SQL query that deletes duplicate rows in the users table.",
        "Explain how a bullet train works.",
        "Mary must write an essay of at least 500 words. She types 50 words a minute. How many minutes does it take?",
        "What does it mean when someone types in all caps?",
        "Explain why Python constants are written in upper case.",
        "Write a regular expression that matches only lowercase letters.",
        "Explain why Python needs no semicolons.",
        "Explain how dates are represented in JSON.",
        "Write a JSON parser in Python.",
        "Write a Python function that loads the settings stored in a JSON file.",
        'Why should you never use the word "just" in emails?',
        'How many times does "The cat saw the dog." contain the word "the"?',
        'Write the word "hello" in French.',
    ],
)
def test_nothing_is_read_where_nothing_is_asked(text: str) -> None:
    assert read(text) == []


def test_counts_that_exclude_each_other_are_of_parts_and_left_out() -> None:
    assert read("Write a headline of at most 8 words, then a text of at least 60 words.") == []
    assert read("Write at least 60 words, but no more than 80 words.") == [words(least=60), words(most=80)]


def test_nothing_is_read_twice() -> None:
    assert read("At most 30 words, please. I repeat: at most 30 words.") == [words(most=30)]


def test_each_says_where_it_stands() -> None:
    first, second = instructions_in("I like salt. Praise it in at most 5 words! Do not use the word 'sea'.")
    assert (first.says, second.says) == ("Praise it in at most 5 words!", "Do not use the word 'sea'.")
    (long,) = instructions_in("Praise " + "salt and " * 40 + "pepper in at most 5 words.")
    assert len(long.says) == 160


TEXT = "Salt is a mineral that people have taken from the sea for ages, and it keeps food."


def test_what_an_answer_does_not_do() -> None:
    says = "Praise salt in at most 5 words, in exactly two sentences, in two bullets, without the word sea."
    wrong = unfollowed(Task(prompt=says), TEXT)
    assert [one.wrong(TEXT) for one in wrong] == [
        f"{says} (It has 17 words.)",
        f"{says} (It has 1 sentences.)",
        f"{says} (It has 0 list items.)",
        f"{says} (It has 'sea'.)",
    ]


@pytest.mark.parametrize(
    ("asked", "answer", "does"),
    [
        ("Use the headings Up and Down.", "Up: sun. Down: sea.", "It has 0 headings on lines of their own."),
        ("Show it as a table.", "Oak is tall.", "It has no table."),
        ("Show it as a table with 3 rows.", "| a |\n|---|\n| b |", "It has such a table not yet."),
        ("Reply in JSON.", "Oak", "It is no JSON."),
        ("Reply with a JSON array.", "{}1", "It is no JSON."),
        ("Reply with a JSON array.", '{"a": 1}', "It is other JSON."),
        ("Write it in lower case without any commas.", "Oak, fir", "It has capital letters."),
        ("Write it without any commas.", "Oak, fir", "It has ','."),
        ("Use the word oak at least twice.", "Oak and fir", "It has 'oak' 1 times."),
        ("Begin with 'Oak'.", "Fir", ""),
    ],
)  # fmt: skip
def test_what_it_does_instead_is_told(asked: str, answer: str, does: str) -> None:
    assert unfollowed(Task(prompt=asked), answer)[0].wrong(answer) == (f"{asked} ({does})" if does else asked)


def test_json_is_checked_by_its_schema() -> None:
    task = Task(prompt="Praise salt. Reply with one JSON object with the keys praise and price.")
    (wrong,) = unfollowed(task, '{"praise": "so good"}')
    assert wrong.says == "Reply with one JSON object with the keys praise and price."
    assert unfollowed(task, '{"praise": "so good", "price": 1}') == ()


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ('Tell a story. The last word must be "home".', "She took the long way and walked back home."),
        ('Tell me of tea. End with the words "thank you for reading".', "It is hot. Thank you for reading!"),
        ("Write a letter to my bank.", f"Dear bank,\n\n{TEXT}\n\nKind regards,\nAnna Berg"),
        ("Write a three-paragraph cover letter.", f"Dear Ms Holm,\n\n{TEXT}\n\nOne.\n\nTwo.\n\nKind regards,\nAnn"),
        ("Write a paragraph about salt, then two facts as bullet points.", f"{TEXT}\n\n- It is old.\n- It is white."),
        ("Reply in JSON.", '```json\n{"a": "one two three four five six seven eight nine ten eleven twelve x"}\n```'),
        ("Praise salt.", f"{TEXT} \N{SPARKLES}"),
        ("Praise salt.", f"{TEXT} More of it: https://example.org/salt"),
        ('Write a bio without "\N{EM DASH}".', "Ann bakes bread in Oslo."),
    ],
)
def test_what_does_all_that_is_asked(prompt: str, answer: str) -> None:
    assert [one.wrong(answer) for one in unfollowed(Task(prompt=prompt), answer)] == []


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Praise salt.", "a " * 13 + "." * 60_000),
        ("Praise salt in at most 5 words.", "a " * 13 + "```" + " " * 60_000 + "!"),
        ("Show it as a table.", "|-|\n" * 16_000),
    ],
)
def test_hostile_answers_are_read_soon(prompt: str, answer: str) -> None:
    """A program can print so much as an answer, and nothing else runs meanwhile."""
    began = time.process_time()
    assert unfollowed(Task(prompt=prompt), answer) is not None
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("What is 17 times 3?", False),
        ("What is 17 times 3? Answer in one sentence.", False),
        ("Name the largest prime below 100, in at most five words.", False),
        ("Sort these names and reply with a JSON array.", False),
        ("Explain rain in at most 40 words.", True),
        ("Explain rain in three sentences.", True),
        ("Explain rain as a numbered list.", True),
        ("Praise rain without the word wet.", True),
    ],
)
def test_what_only_a_text_has(prompt: str, text: bool) -> None:
    assert asks_for_text(Task(prompt=prompt)) == text
    exact = SuccessCriterion(kind="exact", visible=("51",))
    assert not asks_for_text(Task(prompt=prompt, success=exact))


def test_a_text_is_to_be_whole() -> None:
    asked = Task(prompt="Praise salt.")
    assert unfollowed(asked, TEXT) == ()
    assert [one.says for one in unfollowed(asked, TEXT[:-6])] == ["It breaks off at its end."]
    assert [one.says for one in unfollowed(asked, f"{TEXT} {TEXT}")] == ["It says the same more than once."]
    assert unfollowed(asked, "NaCl") == ()  # a short answer is no text


def test_checks_of_the_task_itself_are_all_that_counts() -> None:
    prompt = "Answer in at most 3 words."
    assert instructions_of(Task(prompt=prompt, success=SuccessCriterion(kind="exact", visible=("a",)))) == ()
    rubric = SuccessCriterion(kind="rubric", visible=("is friendly",))
    assert len(instructions_of(Task(prompt=prompt, success=rubric))) == len(instructions_of(Task(prompt=prompt))) == 3


PIECES = [" words", " at most ", " each ", " the word ", " lines", " JSON", " two ", *"aA1 .,'\"\n-"]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=60))
def test_no_text_trips_it(pieces: list[str]) -> None:
    for one in instructions_in("".join(pieces)):
        assert isinstance(one, Instruction)
        assert isinstance(one.followed("Some words, and more."), bool)


def test_long_texts_are_read_soon() -> None:
    text = "Write at most five words about the first two lines, each with 'a' and \"b\", as a table, no commas. " * 300
    began = time.perf_counter()
    instructions_in(text)
    assert time.perf_counter() - began < 20
