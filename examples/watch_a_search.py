"""Follow a search event by event: every step, verdict, charge and decision is one.

python examples/watch_a_search.py QUESTION
"""

import asyncio
import sys

from ponder import Agent, Result


async def main() -> None:
    with Agent(tools=["python"]) as agent:
        async for item in agent.stream(sys.argv[1]):
            if isinstance(item, Result):
                print(f"{item.answer} ({item.stop_reason}, {item.ledger.total.cpu_s:.1f} CPU-s)")
            elif item.kind == "decided":
                print(item.data["decision"]["why"], file=sys.stderr)


asyncio.run(main())
