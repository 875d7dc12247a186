"""When two answers are one answer."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ponder.answers import final_value, in_words_of, normalise, number, shown


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("434", "434.0"),
        ("434", "434.00000000000006"),
        ("12,586,269,025", "12586269025"),
        ("$5", "5"),
        ("Paris.", "paris"),
        ("The Nile", "nile"),
        ("The 2000th prime number is: 17389", "17389"),
        ("x = 7.", "7"),
        ('"quillfish"', "quillfish"),
        ("-0.0", "0"),
        ("\N{MINUS SIGN}5", "-5"),
        ("sum([1, 2]) == 3", "3"),
    ],
)
def test_same(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("434", "435"), ("1.5", "15"), ("yes", "no"), ("-3", "3"), ("x >= 5", "x <= 5"), ("x != 5", "5"),
        ("x = 2, y = 3", "x = 7, y = 3"), ("Alice: 3, Bob: 4", "4"), ("x^2 + y^2 = 25", "25"),
    ],
)
def test_different(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


def test_long_integers_are_compared_exactly() -> None:
    assert normalise(str(2**200)) != normalise(str(2**200 + 1))
    assert number(str(2**200)) == Decimal(2**200)


def test_numbers_beyond_all_bounds_are_words() -> None:
    """Written out, they would fill the memory, and arithmetic with them overflows."""
    for text in ("1e9999999", "-1e20000000", "5e-9999999"):
        assert number(text) is None
        assert len(normalise(text)) < 20
    assert normalise("0e99999999") == normalise("0e-999999999999") == normalise("0")
    assert normalise("1e40") == "1" + 40 * "0"


def test_final_value_reads_only_a_number_that_is_stated() -> None:
    assert final_value("The capital is Paris") == "The capital is Paris"
    assert final_value("there are 3 ways and the total is 12") == "12"
    assert final_value("It is 12: 47") == "47"
    assert [normalise(time) for time in ("12:47", "11:47")] == ["12:47", "11:47"], "a time states no number"
    assert final_value("51. The final answer is 51.") == "51"
    assert final_value("3 and the final answer is 3.") == "3"
    two = "The last ferry leaves at 20:10. A ticket and a bicycle are 18.10."
    assert final_value(two) == two


@pytest.mark.parametrize(
    ("raw", "nice"),
    [
        ("434.0", "434"), ("17.5%", "17.5%"), ("0.30000000000000004", "0.3"), ("Paris", "Paris"), ("1,000", "1,000"),
        ("3.10", "3.10"), ("$2.50", "$2.50"), ("x = 2, y = 3", "x = 2, y = 3"),
    ],
)
def test_shown(raw: str, nice: str) -> None:
    assert shown(raw) == nice


@pytest.mark.parametrize(
    ("task", "answer", "told"),
    [
        ("Is it so? (Answer Yes or No)", "True", "Yes"),
        ("Is it so? Say yes/no.", "false", "No"),
        ("Is it so? Say yes or no: true or false?", "True", "True"),
        ("Is 7 prime?", "True", "True"),
        ("Answer Yes or No", "12", "12"),
    ],
)
def test_a_truth_value_is_told_in_the_words_that_the_task_asks_for(task: str, answer: str, told: str) -> None:
    assert in_words_of(task, answer) == told
