"""reasoning-gym (Stojanovski et al. 2025): seeded puzzles by family, each graded by its family's own verifier.

The library lives in a child process (`gym_child.py`), which makes the questions and scores the answers. What it knows
of a right answer never enters the process that searches.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ponder.bench.grading import PuzzleGrader
from ponder.bench.problems import Problem
from ponder.bench.suites.gym_talk import GymTalk
from ponder.errors import UnknownName, UsageError
from ponder.records import Task

FAMILIES = (
    "base_conversion", "basic_arithmetic", "caesar_cipher", "calendar_arithmetic", "chain_sum", "count_primes",
    "fraction_simplification", "gcd", "knights_knaves", "lcm", "leg_counting", "letter_counting", "number_filtering",
    "number_sorting", "prime_factorization", "products", "simple_equations", "spell_backward", "syllogism",
    "time_intervals", "word_sequence_reversal", "word_sorting",
)  # fmt: skip
"""Unless others are named: those that a small core has a chance with."""

EVALUATES = frozenset({
    "binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication", "puzzle24",
    "simple_integration", "spiral_matrix", "string_insertion",
})  # fmt: skip
"""Families whose verifier evaluates the answer as code, outside any sandbox: what a core wrote would run here."""

ROUNDS = 10
"""Puzzles of each family, where nothing limits their number."""

PLAIN = "{question}\n\nThink step by step. End with the answer on a line that starts with ANSWER:"


def check_families(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the families without repeats, the default ones where none is named.

    Args:
        known: all that the library has.

    Raises:
        UnknownName: there is no such family.
        UsageError: its verifier would run what a core wrote.
    """
    usable = sorted(set(known) - EVALUATES)
    for name in names:
        if name in EVALUATES:
            raise UsageError(f"the family {name!r} is not run: its verifier evaluates answers as code, unprotected")
        if name not in known:
            raise UnknownName("family", name, usable)
    return tuple(dict.fromkeys(names)) or tuple(name for name in FAMILIES if name in known)


def problems(talk: GymTalk, families: Sequence[str], seed: int, count: int) -> list[Problem]:
    """Return the first `count` puzzles, family by family in turn, each turn in an order of its own.

    Raises:
        MachineError: the library cannot make one.
    """
    made: list[Problem] = []
    for index in range(-(-count // len(families))):
        turn = list(families)
        random.Random(f"{seed}/{index}").shuffle(turn)
        made += [_problem(talk, family, seed, index) for family in turn[: count - len(made)]]
    return made


def _problem(talk: GymTalk, family: str, seed: int, index: int) -> Problem:
    question = talk.question(family, seed, index)
    return Problem(
        task=Task(id=f"gym/{family}/{seed}/{index}", prompt=question),
        grader=PuzzleGrader(talk, family, seed, index),
        plain=PLAIN.format(question=question),
        reply="text",
    )
