"""The off switches: of a run, and of one tool."""

from __future__ import annotations

import asyncio

import pytest

from ponder.control import Control, Stopped, ToolStopped


async def test_the_first_reason_stays() -> None:
    control = Control()
    control.stop("budget", "spent")
    control.stop("interrupted", "Ctrl-C")
    assert (control.reason, control.why) == ("budget", "spent")
    await asyncio.wait_for(control.told(), 1)


async def test_work_is_cancelled_and_cleaned_up_before_stopped_is_raised() -> None:
    control, cleaned = Control(), []

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.02)
            cleaned.append(True)

    asyncio.get_running_loop().call_later(0.01, control.stop, "budget", "spent")
    with pytest.raises(Stopped, match="spent"):
        await control.race(work())
    assert cleaned


async def test_work_that_ends_first_wins_and_its_error_is_its_own() -> None:
    control = Control()
    assert await control.race(asyncio.sleep(0, "done")) == "done"

    async def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await control.race(broken())


async def test_nothing_begins_after_the_stop() -> None:
    control, begun = Control(), []

    async def work() -> None:
        begun.append(True)

    control.stop("budget", "spent")
    with pytest.raises(Stopped):
        await control.race(work())
    await asyncio.sleep(0)
    assert not begun


async def test_one_tool_ends_and_the_others_go_on() -> None:
    control = Control()
    calls = asyncio.gather(
        control.race(asyncio.sleep(5), tool="python"),
        control.race(asyncio.sleep(5), tool="python"),
        control.race(asyncio.sleep(0.05, "page"), tool="browser"),
        return_exceptions=True,
    )
    await asyncio.sleep(0.01)
    control.stop_tool("python", "spent")
    ends = await calls
    assert [type(end) for end in ends] == [ToolStopped, ToolStopped, str]
    assert control.tool_stopped("python") == "spent"
    assert control.tool_stopped("browser") is None
    with pytest.raises(ToolStopped):
        await control.race(asyncio.sleep(5), tool="python")
