"""The code tool in a real sandbox, shared by its tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from ponder.errors import NoSandbox
from ponder.records import Limits, Observation, Usage
from ponder.sandboxes import open_sandbox
from ponder.tools.python import PythonTool

LIMITS = Limits(cpu_s=6, wall_s=12, memory_bytes=128 * 2**20)


@pytest.fixture
async def code_tool() -> AsyncIterator[PythonTool]:
    try:
        opened = PythonTool(await open_sandbox())
    except NoSandbox as error:
        pytest.fail(f"no sandbox works here: {error}")
    yield opened
    await opened.close()
    await opened.close()  # safe to call twice


@pytest.fixture
def check(code_tool: PythonTool) -> Callable[..., Awaitable[Observation]]:
    """Return what checks a program against tests, and that it is billed once."""

    async def check(program: str, *tests: str, limits: Limits = LIMITS) -> Observation:
        bills: list[Usage] = []
        seen = await code_tool.check(program, tests, limits=limits, on_usage=bills.append)
        assert len(bills) == 1
        assert bills[0].cpu_s > 0
        return seen

    return check
