"""Which samples are not worth going on with."""

from __future__ import annotations

import pytest

from ponder.core.stragglers import hopeless, repeats
from ponder.records import SamplingParams

PARAMS = SamplingParams(stretch=3.0, repeats=100)
BOARD = "board = [\n" + "".join(f"    [0, 0, 0, 0, {row}, 0, 0, 0, 0],\n" for row in range(9)) + "]\n"
STEPS = "".join(f"total += {n} * price\nprint(total)\n" for n in range(40))


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("ANSWER: ZWJUH" + " UUQFZQYQ YDZJW QZS" * 40, True),
        ("ANSWER: PLYXH" + " JXYH" * 200, True),
        ("Well." + "\nThe lighthouse stands on the rock, and the keeper sleeps in it all day." * 12, True),
        ("a" * 700, True),
        ("import time\n" + "".join(f"def test_{n}():\n    time.sleep({n})\n" for n in range(5)) * 4, True),
        ("import time\n" + "".join(f"def test_{n}():\n    time.sleep({n})\n" for n in range(9)) * 3, False),
        (BOARD * 2, False),
        (STEPS, False),
        ("The keeper sleeps. " * 3 + STEPS, False),
        (STEPS[:900] + "x = 0\n" * 30, False),
    ],
)
def test_one_piece_over_and_over(text: str, loops: bool) -> None:
    tokens = len(text) // 3
    assert tokens >= 100
    assert repeats(tokens, lambda: text, PARAMS) == loops
    assert not repeats(tokens, lambda: text, SamplingParams())


def test_what_is_short_yet_is_not_looked_at() -> None:
    assert not repeats(99, pytest.fail, PARAMS)


def test_only_where_none_of_the_rest_is_worth_going_on_with() -> None:
    texts = ["one", "ab " * 100, STEPS, "ab " * 100]
    assert hopeless([1, 110, 110, 110], texts.__getitem__, {0}, PARAMS) == []
    assert hopeless([1, 110, 110, 110], texts.__getitem__, {0, 2}, PARAMS) == [1, 3]
    assert hopeless([30, 30, 30, 89], texts.__getitem__, {0, 1, 2}, PARAMS) == []
    assert hopeless([30, 30, 30, 90], texts.__getitem__, {0, 1, 2}, PARAMS) == [3]


def test_no_samples_left() -> None:
    assert hopeless([1, 2], ["a", "b"].__getitem__, {0, 1}, PARAMS) == []
