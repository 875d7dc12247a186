"""The queue at the host's end of a conversation."""

from __future__ import annotations

import asyncio

from ponder.protocols import Talk
from ponder.sandboxes.talks import QueueTalk


async def test_messages_come_in_order_and_end() -> None:
    talk: QueueTalk = QueueTalk()
    as_protocol: Talk = talk
    sent: list[bytes] = []
    assert not talk.say(b"too early")
    as_protocol.opened(sent.append)
    assert talk.open.is_set()
    assert talk.say(b"hello")
    waiting = asyncio.create_task(talk.hear())
    await asyncio.sleep(0)
    as_protocol.heard(b"1")
    as_protocol.heard(b"")
    as_protocol.ended()
    as_protocol.heard(b"after the end")
    assert [await waiting, await talk.hear(), await talk.hear(), await talk.hear()] == [b"1", b"", None, None]
    assert not talk.say(b"too late")
    assert sent == [b"hello"]


async def test_who_says_too_much_is_cut_off() -> None:
    talk = QueueTalk(waiting_bytes=10)
    talk.opened(lambda _: None)
    for _ in range(3):
        talk.heard(b"12345")
        assert await talk.hear() == b"12345"
    talk.heard(b"12345")
    talk.heard(b"12345")
    assert talk.flooded
    assert await talk.hear() is None
    assert not talk.say(b"")


async def test_a_program_that_never_runs_ends_the_wait() -> None:
    talk = QueueTalk()
    talk.ended()
    await asyncio.wait_for(talk.open.wait(), 1)
    assert await talk.hear() is None
