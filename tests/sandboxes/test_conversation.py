"""Talking with a program while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ponder.errors import UsageError
from ponder.records import ExecResult

Run = Callable[..., Awaitable[ExecResult]]
pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

PROGRAM = """
import socket
line = socket.socket(fileno=3)
stream = line.makefile("rwb", buffering=0)

def exactly(size):
    data = b""
    while len(data) < size:
        data += stream.read(size - len(data)) or exit("nobody is there")
    return data

def hear():
    return exactly(int.from_bytes(exactly(4), "big"))

def say(data):
    line.sendall(len(data).to_bytes(4, "big") + data)

"""


class Teller:
    """Tells the program all its messages at once; keeps what it hears."""

    def __init__(self, *messages: bytes) -> None:
        self.messages = messages
        self.heard_: list[bytes] = []
        self.events: list[str] = []

    def opened(self, send: Callable[[bytes], None]) -> None:
        self.send = send
        self.events.append("opened")
        for message in self.messages:
            send(message)

    def heard(self, message: bytes) -> None:
        self.heard_.append(message)

    def ended(self) -> None:
        self.events.append("ended")


async def test_both_ways(run: Run) -> None:
    talk = Teller(b"one", b"", b"three")
    result = await run(PROGRAM + "for _ in range(3): say(b'<' + hear() + b'>')\nprint('said')", talk=talk)
    assert talk.heard_ == [b"<one>", b"<>", b"<three>"], result.stderr
    assert (talk.events, result.stdout) == (["opened", "ended"], "said\n")


async def test_an_answer_to_an_answer(run: Run) -> None:
    class Counter(Teller):
        def heard(self, message: bytes) -> None:
            super().heard(message)
            self.send(str(int(message) + 1).encode())

    talk = Counter(b"0")
    await run(PROGRAM + "for _ in range(50): say(hear())", talk=talk)
    assert talk.heard_ == [str(n).encode() for n in range(50)]


async def test_large_messages(run: Run) -> None:
    message = bytes(range(256)) * 4 * 4096  # 4 MiB
    talk = Teller(message, b"end")
    result = await run(PROGRAM + "x = hear(); say(x); say(hear())", talk=talk)
    assert talk.heard_ == [message, b"end"], result
    with pytest.raises(UsageError):
        talk.send(message + b"x")


@pytest.mark.parametrize("size", ["2**32 - 1", "4 * 2**20 + 1"])
async def test_a_message_that_is_too_long_ends_the_conversation(run: Run, size: str) -> None:
    talk = Teller()
    code = f"line.sendall(({size}).to_bytes(4, 'big') + b'x' * 100)\nprint(hear())"
    result = await run(PROGRAM + code, talk=talk)
    assert talk.heard_ == []
    assert result.outcome == "error", result


async def test_half_a_message_is_none(run: Run) -> None:
    talk = Teller()
    result = await run(PROGRAM + "say(b'whole'); line.sendall(b'\\0\\0\\0\\x09half')", talk=talk)
    assert (result.outcome, talk.heard_) == ("ok", [b"whole"])


async def test_said_just_before_the_end(run: Run) -> None:
    talk = Teller()
    await run(PROGRAM + "import os\nfor n in range(100): say(b'%d' % n)\nos.kill(os.getpid(), 9)", talk=talk)
    assert talk.heard_ == [str(n).encode() for n in range(100)]


async def test_a_program_that_hangs_up(run: Run) -> None:
    talk = Teller(b"unheard")
    result = await run("import os, time\nos.close(3)\ntime.sleep(0.2)\nprint('on')", talk=talk)
    assert (result.outcome, result.stdout) == ("ok", "on\n")


async def test_a_program_that_never_reads(run: Run) -> None:
    """What it did not take does not reach the next program of the slot, whole or in part."""
    parts = [bytes([n]) * 2**20 for n in range(24)]
    for _ in range(4):
        assert (await run("import time; time.sleep(0.05)", talk=Teller(*parts))).outcome == "ok"
        assert (await run("print('next')")).stdout == "next\n"


async def test_messages_after_the_end_are_dropped(run: Run) -> None:
    talk = Teller()
    result = await run("pass", talk=talk)
    for _ in range(3):
        talk.send(b"x" * 10_000)
    await asyncio.sleep(0.05)
    talk.send(b"J" + bytes(100))
    assert result.outcome == "ok"
    assert [(await run("print(1)")).stdout for _ in range(4)] == ["1\n"] * 4


async def test_messages_at_the_moment_of_the_end(run: Run) -> None:
    async def chatter(talk: Teller) -> None:
        while "ended" not in talk.events:
            if "opened" in talk.events:
                talk.send(b"J" + bytes(70_000))
            await asyncio.sleep(0.002)

    for _ in range(5):
        talk = Teller()
        result, _ = await asyncio.gather(run("import time; time.sleep(0.05); print(1)", talk=talk), chatter(talk))
        assert result.stdout == "1\n"


async def test_without_a_conversation_there_is_no_descriptor(run: Run) -> None:
    result = await run("import os; print(sorted(os.listdir('/proc/self/fd')))")
    assert result.stdout == "['0', '1', '2', '3']\n"  # 3 is the folder that is being listed


async def test_a_stopped_conversation_ends(run: Run) -> None:
    talk = Teller(b"x")
    result = await run(PROGRAM + "while True: say(b'x')", talk=talk, cpu_s=0.3)
    assert result.outcome == "cpu"
    assert talk.events == ["opened", "ended"]
    assert set(talk.heard_) == {b"x"}
