"""Suites by name: `open_suite` reads or makes the tasks, and says what identifies them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from ponder.bench.open_ended import tasks as open_ended
from ponder.bench.problems import Problem, Suite
from ponder.bench.suites import gsm8k, gym, humaneval, mbpp
from ponder.bench.suites.gym_talk import GymTalk
from ponder.bench.suites.rows import refuse_repeats
from ponder.errors import UnknownName, UsageError
from ponder.policies.hosts import HostRules

SUITES = ("humaneval", "mbpp", "gsm8k", "reasoning_gym", "open_ended")
MADE_HERE = {"reasoning_gym": "makes", "open_ended": "brings"}
"""Suites without a data file, and what they do with their tasks. They have families."""
SEED = 2026


def open_suite(
    name: str,
    *,
    data: Path | None = None,
    families: Sequence[str] = (),
    seed: int = SEED,
) -> Suite:
    """Return a suite whose problems come in an order that the seed sets, so that the first few are a fair sample.

    Whoever opens it closes it (`with open_suite(...) as suite`): pages are served and processes live until then.

    Args:
        data: the suite's JSON-lines file; `humaneval` has one in a package, those in `MADE_HERE` need none.
        families: of reasoning-gym, by default `gym.FAMILIES`; of open-ended tasks, by default all five.
        seed: also makes reasoning-gym's puzzles.

    Raises:
        UnknownName: there is no such suite or family.
        UsageError: the data file is missing or broken, or an argument is not for this suite.
        MachineError: a package that the suite needs is not installed.
    """
    if name not in SUITES:
        raise UnknownName("suite", name, list(SUITES))
    if name in MADE_HERE:
        if data is not None:
            raise UsageError(f"{name} {MADE_HERE[name]} its tasks itself", fix="leave --data out")
        return _gym(families, seed) if name == "reasoning_gym" else _open_ended(families, seed)
    if families:
        raise UsageError(f"{name} has no families", fix=f"--families is for {' and '.join(MADE_HERE)}")
    return _from_file(name, data, seed)


def _from_file(name: str, data: Path | None, seed: int) -> Suite:
    made: list[Problem]
    if name == "humaneval":
        programs = humaneval.read(data)
        made, about = [humaneval.problem(row) for row in programs.rows], programs.manifest
    elif name == "mbpp":
        sentences = mbpp.read(_needed(name, data))
        made, about = [mbpp.problem(row) for row in sentences.rows], sentences.manifest
    else:
        words = gsm8k.read(_needed(name, data))
        made, about = [gsm8k.problem(row, i) for i, row in enumerate(words.rows)], words.manifest
    refuse_repeats([problem.id for problem in made], str(about["data"]))
    random.Random(seed).shuffle(made)
    return Suite(name=name, manifest=about, size=len(made), problems=_first_of(made))


def _first_of(made: Sequence[Problem]) -> Callable[[int], Sequence[Problem]]:
    return lambda count: made[:count]


def _needed(name: str, data: Path | None) -> Path:
    if data is None:
        raise UsageError(f"{name} needs its tasks", fix=f"ponder bench {name} --data FILE.jsonl")
    return data


def _gym(families: Sequence[str], seed: int) -> Suite:
    with ExitStack() as stack:
        talk = GymTalk()
        stack.callback(talk.close)
        known, version = talk.families()
        chosen = gym.check_families(families, known)
        return Suite(
            name="reasoning_gym",
            manifest={"families": ",".join(chosen), "reasoning_gym": version},
            size=gym.ROUNDS * len(chosen),
            problems=lambda count: gym.problems(talk, chosen, seed, count),
            resources=stack.pop_all(),
        )


def _open_ended(families: Sequence[str], seed: int) -> Suite:
    chosen = open_ended.check_families(families)
    with ExitStack() as stack:
        url = stack.enter_context(open_ended.serve_pages())
        made = open_ended.problems(url, chosen, seed)
        return Suite(
            name="open_ended",
            manifest={"families": ",".join(chosen), "data_sha256": open_ended.digest()},
            size=len(made),
            problems=_first_of(made),
            tools=("python", "browser"),
            hosts=HostRules(permitted=frozenset([url.removeprefix("http://")])),
            resources=stack.pop_all(),
        )
