"""What prompts have in common is computed once, within a memory limit: against an engine that only counts."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from pathlib import Path

import pytest

from ponder.core.llama.prefixes import Prefixes, common

TOKEN_BYTES = 10
PIECE = 50


class CountingEngine:
    """Slots hold tokens; a state is a file of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slots: dict[int, list[int]] = {}
        self.pieces: list[int] = []
        self.room = True
        self.most_at_once = self.at_once = 0
        self.computed = asyncio.Event()

    async def compute(self, slot: int, tokens: Sequence[int]) -> tuple[int, int]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.001)
        self.at_once -= 1
        held = self.slots.get(slot, [])
        shared = next(
            (i for i, (a, b) in enumerate(zip(held, tokens, strict=False)) if a != b), min(len(held), len(tokens))
        )
        self.slots[slot] = list(tokens)
        self.pieces.append(len(tokens) - shared)
        self.computed.set()
        return shared, len(tokens) - shared

    async def save(self, slot: int, name: str) -> int:
        (self.folder / name).write_bytes(array("i", self.slots[slot]).tobytes())
        return len(self.slots[slot]) * TOKEN_BYTES

    async def restore(self, slot: int, name: str) -> bool:
        if not self.room:
            return False
        held = array("i")
        held.frombytes((self.folder / name).read_bytes())
        self.slots[slot] = list(held)
        return True


@pytest.fixture
def engine(tmp_path: Path) -> CountingEngine:
    return CountingEngine(tmp_path)


def keeper(engine: CountingEngine, tokens: int = 10_000) -> Prefixes:
    return Prefixes(engine, engine.folder, tokens * TOKEN_BYTES, TOKEN_BYTES, PIECE)


def text(number: int, length: int) -> list[int]:
    return [number * 100_000 + i for i in range(length)]


async def fill(prefixes: Prefixes, slot: int, tokens: list[int]) -> int:
    """Return the tokens computed."""
    told: list[int] = []
    await prefixes.fill(slot, tokens, lambda _held, fresh: told.append(fresh))
    return sum(told)


async def test_a_prompt_is_computed_in_pieces_up_to_its_last_token(engine: CountingEngine) -> None:
    assert await fill(keeper(engine), 0, text(1, 220)) == 219
    assert max(engine.pieces) == PIECE
    assert engine.slots[0] == text(1, 219)


async def test_what_is_short_is_left_to_the_request(engine: CountingEngine) -> None:
    assert await fill(keeper(engine), 0, text(1, 31)) == 0
    assert engine.pieces == []


async def test_siblings_that_come_together_share_the_first_ones_work(engine: CountingEngine) -> None:
    prefixes = keeper(engine)
    done = await asyncio.gather(*(fill(prefixes, slot, text(1, 300) + text(2 + slot, 20)) for slot in range(8)))
    assert sorted(done) == [0] * 7 + [319]
    assert engine.most_at_once == 1
    for slot in range(8):
        assert engine.slots[slot][:300] == text(1, 300)


async def test_a_long_suffix_is_computed_from_where_the_common_part_ends(engine: CountingEngine) -> None:
    prefixes = keeper(engine)
    await fill(prefixes, 0, text(1, 300))
    assert await fill(prefixes, 1, text(1, 200) + text(2, 100)) == 99


async def test_who_comes_back_after_others_finds_all_there(engine: CountingEngine) -> None:
    prefixes = keeper(engine)
    for number in range(9):
        await fill(prefixes, 0, text(number, 300))
    assert await fill(prefixes, 1, text(0, 300)) == 0
    assert engine.slots[1] == text(0, 299)


async def test_a_longer_prompt_replaces_the_state_that_it_goes_on_from(engine: CountingEngine) -> None:
    prefixes = keeper(engine)
    for length in (100, 200, 300):
        await fill(prefixes, 0, text(1, length))
    assert len(list(engine.folder.iterdir())) == 1
    assert prefixes.size == 299 * TOKEN_BYTES


async def test_the_limit_holds_and_what_was_wanted_last_stays(engine: CountingEngine) -> None:
    prefixes = keeper(engine, tokens=650)
    for number in (1, 2, 1, 3):
        await fill(prefixes, 0, text(number, 300))
        assert prefixes.size <= 650 * TOKEN_BYTES
    assert len(list(engine.folder.iterdir())) == 2
    assert await fill(prefixes, 1, text(1, 300)) == 0
    assert await fill(prefixes, 2, text(2, 300)) == 299


async def test_without_memory_nothing_is_kept(engine: CountingEngine) -> None:
    prefixes = keeper(engine, tokens=0)
    for _ in range(2):
        assert await fill(prefixes, 0, text(1, 100)) in (99, 0)
        engine.slots.clear()
    assert list(engine.folder.iterdir()) == []


async def test_a_state_that_cannot_be_read_costs_computing_and_no_error(engine: CountingEngine) -> None:
    prefixes = keeper(engine)
    await fill(prefixes, 0, text(1, 300))
    engine.room = False
    await fill(prefixes, 1, text(1, 300))
    assert engine.slots.get(1, []) in ([], text(1, 299))


async def test_whoever_is_cancelled_leaves_the_turn_to_the_next(engine: CountingEngine) -> None:
    prefixes = keeper(engine)
    first = asyncio.create_task(fill(prefixes, 0, text(1, 1000)))
    await engine.computed.wait()
    second = asyncio.create_task(fill(prefixes, 1, text(2, 100)))
    first.cancel()
    assert await second == 99
    assert len(engine.slots[0]) < 999, "no further piece was asked for"


def test_common() -> None:
    for one, other, shared in ((b"", b"a", 0), (b"abc", b"abd", 2), (b"abc", b"abc", 3), (b"abcd", b"ab", 2)):
        assert common(one, other) == shared
