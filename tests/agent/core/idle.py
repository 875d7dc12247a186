"""Whether an engine stops computing.

The part of a prompt that it is at is computed to its end, slowly where others compute too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

IDLE_S = 20.0


async def idle_within(cpu_s: Callable[[], float], seconds: float = IDLE_S) -> bool:
    """Return whether it soon does nothing for a fifth of a second.

    Args:
        cpu_s: tells the CPU seconds that it has used.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        used = cpu_s()
        await asyncio.sleep(0.2)
        if cpu_s() - used < 0.04:
            return True
    return False
