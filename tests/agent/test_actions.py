"""The action language: what a small core writes is read, whatever it writes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.actions import Acts, bare, compile_error, conclusion, fault, parse, render
from ponder.records import Action, Answer, Browse, CallTool, Reason, RunCode


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
        ("CALL weather {city", Reason(text="CALL weather {city")),
        ("", Reason(text="")),
        ("```python\n```", Reason(text="```python\n```")),
        # what small models really write
        ("```Python\r\nprint(1)\r\n```", RunCode(code="print(1)")),
        ("``` python\nprint(1)\n```", RunCode(code="print(1)")),
        ("~~~\nprint(1)\n~~~", RunCode(code="print(1)")),
        ("```python print(1)```", RunCode(code="print(1)")),
        ("1. So:\n   ```python\n   x = 1\n   print(x)\n   ```", RunCode(code="x = 1\nprint(x)", thought="1. So:")),
        ("```python\ns = 'a```b'\nprint(s)\n```", RunCode(code="s = 'a```b'\nprint(s)")),
        ("```bash\nls\n```\n```python\nprint(1)\n```", RunCode(code="print(1)", thought="```bash\nls\n```")),
        ("```python\n```\nANSWER: 4", Answer(text="4", thought="```python\n```")),
        ("Answer\uff1a 42", Answer(text="42")),
        ("Final answer: 42", Answer(text="42")),
        ("ANSWER: a plan\n1. go\n**Answer:** that", Answer(text="a plan\n1. go")),
        ("ANSWER: Answer: 42", Answer(text="Answer: 42")),
        ("**Final Answer**: 42", Answer(text="42")),
        ("**ANSWER: 42**", Answer(text="42")),
        ("## Answer: '42'", Answer(text="42")),
        ("So the answer is 42.", Answer(text="42", thought="So")),
        ("The answer is: **Paris**.", Answer(text="Paris")),
        (r"We get \boxed{\frac{1}{2}}", Answer(text="1/2", thought="We get")),
        (r"So \boxed{\$1,250.50 \text{ dollars}}.", Answer(text="1,250.50", thought="So")),
        (r"So \boxed{3 \times 41}", Answer(text="3 \u00d7 41", thought="So")),
        (r"So \boxed{\frac{\sqrt{3}}{2}}", Answer(text=r"\frac{\sqrt{3}}{2}", thought="So")),
        ("ANSWER: __init__", Answer(text="__init__")),
        ("ANSWER: `__main__`", Answer(text="__main__")),
        ("ANSWER: __42__", Answer(text="42")),
        ("ANSWER: <br>", Answer(text="<br>")),
        ("ANSWER: <42>", Answer(text="42")),
        ("ANSWER: Yes\nANSWER: Yes", Answer(text="Yes")),
        ("ANSWER: 1. Keys, no locks?\nAnswer: a piano\n2. One eye?\nAnswer: a needle",
         Answer(text="1. Keys, no locks?\nAnswer: a piano\n2. One eye?\nAnswer: a needle")),
        (r"So \boxed{\text{Yes, it is}}", Answer(text="Yes, it is", thought="So")),
        (r"So \boxed{50\%}, or \boxed{3\,\text{km} + 2}", Answer(text="3 km + 2", thought="So \\boxed{50\\%}, or")),
        ("2 + 2 = 4\n#### 4", Answer(text="4", thought="2 + 2 = 4")),
        ('BROWSE goto "http://a.example/x"', Browse(op="goto", url="http://a.example/x")),
        ("BROWSE: goto <http://a.example/x>", Browse(op="goto", url="http://a.example/x")),
        ("**BROWSE** click e3", Browse(op="click", ref="e3")),
        ("BROWSE click [f1e3 link: More]", Browse(op="click", ref="f1e3")),
        ('BROWSE type e3 "two words"', Browse(op="type", ref="e3", text="two words")),
        ("BROWSE type [e3 textbox: Name] Ann", Browse(op="type", ref="e3", text="Ann")),
        ("BROWSE click the button", Reason(text="BROWSE click the button")),
        ("CALL weather {'city': 'Rome', 'days': 2,}", CallTool(tool="weather", arguments={"city": "Rome", "days": 2})),
        ('CALL weather {"city": 1, "now": true,}', CallTool(tool="weather", arguments={"city": 1, "now": True})),
        ('CALL: weather({city: "Rome"})', CallTool(tool="weather", arguments={"city": "Rome"})),
        ('CALL weather {"city": "Rome"', CallTool(tool="weather", arguments={"city": "Rome"})),
    ],
)
def test_parse(text: str, action: object) -> None:
    assert parse(text) == action


def test_the_first_act_counts() -> None:
    assert isinstance(parse("ANSWER: 3\n```python\nprint(4)\n```"), Answer)
    assert isinstance(parse("```python\nprint('ANSWER: 3')\n```\nANSWER: 4"), RunCode)


MARKS = st.sampled_from(
    ["```", "```python\n", "\n```", "~~~", "ANSWER:", "answer is", "**", "BROWSE click e1",
     "BROWSE type e2 ", "BROWSE ", "CALL f ", '{"a": [1, ', "{'b': None}", "}", "\n", " ", "#### ",
     "\\boxed{", '"', "'", "`", "\r", "\x00", "<", ">", "The answer is ", ": ", "x = 1",
     "[e1 link: x]", "\\ud800", "\u201c", "\u201d", "goto http://a.b"]
)  # fmt: skip
WORDS = st.lists(MARKS | st.text(max_size=6), max_size=12).map("".join)


@given(text=WORDS | st.text(), code_is_answer=st.booleans())
@settings(max_examples=600, deadline=None, database=None)
def test_parse_never_raises_and_reads_its_own_rendering(text: str, code_is_answer: bool) -> None:
    action = parse(text, code_is_answer=code_is_answer)
    action.model_dump_json()  # what is read can be stored
    fault(action, Acts(program=True))
    if not isinstance(action, Reason):
        again = parse(render(action, code_is_answer=code_is_answer), code_is_answer=code_is_answer)
        assert again == action.model_copy(update={"thought": ""})


_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(database=None)
@given(arguments=st.dictionaries(st.text(), _VALUES, max_size=4))
def test_any_call_survives_writing_and_reading(arguments: dict[str, Any]) -> None:
    call = CallTool(tool="t", arguments=arguments)
    assert parse(render(call)) == call


@settings(database=None)
@given(st.text())
def test_bare_is_bare(text: str) -> None:
    assert bare(bare(text)) == bare(text)


@pytest.mark.parametrize(
    ("action", "wrong"),
    [
        (Reason(text="hm"), "nothing in it"),
        (RunCode(code="x ="), "no valid Python"),
        (RunCode(code="print(1)"), None),
        (Browse(op="click", ref="e9"), "no element to click e9. There is: e1, e2"),
        (Browse(op="click", ref="e1"), None),
        (Browse(op="type", ref="e1", text="x"), "no element to type into e1"),
        (Browse(op="goto", url="http://a/"), "no address"),
        (Browse(op="back"), "no page to go back"),
        (Browse(op="read", text="more"), "no more"),
        (CallTool(tool="t"), "no tool t"),
        (Answer(text="4"), None),
    ],
)
def test_what_is_not_allowed_is_said(action: Action, wrong: str | None) -> None:
    said = fault(action, Acts(program=True, click=("e1", "e2")))
    assert (said is None) if wrong is None else (said is not None and wrong in said)


def test_a_text_that_no_compiler_takes_is_an_error_in_words() -> None:
    assert compile_error("(" * 5000) is not None


def test_a_program_is_the_answer_when_the_task_has_tests() -> None:
    action = parse("```python\ndef f():\n    return 1\n```", code_is_answer=True)
    assert action == Answer(text="def f():\n    return 1")


@pytest.mark.parametrize(
    ("text", "action"),
    [
        (r"The answer: 3 a day. So 2 * 3 is \boxed{6}.", Answer(text="6", thought="The answer: 3 a day. So 2 * 3 is")),
        ("Answer: 3 a day.\nThen 6.\n**Final answer:** 6", Answer(text="6", thought="Answer: 3 a day.\nThen 6.")),
        ("First 3.\n#### 6", Answer(text="6", thought="First 3.")),
        ('```json\n["a b"]\n```\n', Answer(text='["a b"]')),
        ("```json\n[a b]\n```", Reason(text="```json\n[a b]\n```")),
        ('Like this:\n```json\n["a b"]\n```', Reason(text='Like this:\n```json\n["a b"]\n```')),
        ("We add 3 and 3.", Reason(text="We add 3 and 3.")),
        ("", Reason(text="")),
    ],
)
def test_a_chain_of_thought_is_read_from_its_end(text: str, action: object) -> None:
    assert conclusion(text, program=True) == action


def test_a_program_in_a_chain_of_thought_is_run_where_it_can_be() -> None:
    text = "Let us see.\n```python\nprint(2 * 3)\n```\nIt prints \\boxed{5}"
    assert conclusion(text, program=True) == RunCode(code="print(2 * 3)", thought="Let us see.")
    assert getattr(conclusion(text, program=False), "text", None) == "5"
