"""The loop in the background: what is closed while it works is told so, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import warnings
from concurrent.futures import CancelledError

import pytest

from ponder.background import BackgroundLoop


async def _forever(heard: list[str]) -> None:
    heard.append("began")
    try:
        await asyncio.sleep(60)
    finally:
        heard.append("ended")


def test_what_runs_when_it_is_closed_is_cancelled_and_heard_to_its_end() -> None:
    heard: list[str] = []
    loop = BackgroundLoop("test")
    future = loop.submit(_forever(heard))
    loop.submit(asyncio.sleep(0)).result(timeout=5)
    loop.close()
    loop.close()
    assert heard == ["began", "ended"]
    with pytest.raises(CancelledError):
        future.result(timeout=5)


def test_what_had_not_begun_when_it_is_closed_leaves_no_warning() -> None:
    loop = BackgroundLoop("test")
    loop.submit(asyncio.sleep(0)).result(timeout=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.call(time.sleep, 0.05)  # the loop is busy while work comes and the end comes: an interrupt's moment
        future = loop.submit(asyncio.sleep(60))
        loop.close()
        assert future.cancelled()
        gc.collect()


def test_it_starts_again_after_its_end() -> None:
    loop = BackgroundLoop("test")
    assert not loop.running
    assert loop.submit(asyncio.sleep(0, "one")).result(timeout=5) == "one"
    loop.close()
    assert not loop.running
    assert loop.submit(asyncio.sleep(0, "two")).result(timeout=5) == "two"
    loop.close()


async def _cancelled_and_readable() -> None:
    """As anyio waits for a unix socket: the future is cancelled, and the socket readable before the reader is gone."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        future = loop.create_future()
        loop.add_reader(ours, future.set_result, None)
        future.cancel()
        theirs.send(b"x")
        await asyncio.sleep(0.05)
        loop.remove_reader(ours)
        loop.call_soon(int, "no number")
        loop.call_soon(loop.create_future().result)  # an InvalidStateError that is no such race
        await asyncio.sleep(0)


def test_a_cancelled_wait_for_a_socket_is_not_told_and_other_errors_are(caplog: pytest.LogCaptureFixture) -> None:
    loop = BackgroundLoop("test")
    loop.submit(_cancelled_and_readable()).result(timeout=5)
    loop.close()
    told = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert told == [ValueError, asyncio.InvalidStateError]
