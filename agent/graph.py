"""The graph of states. The only module that knows LangGraph.

    START -> think -> (browser | verify)* -> judge -> stop -> branch -> think ...
                                                       `-> END
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from ponder.errors import StoreError
from ponder.nodes import Deps, State, needs_browser, needs_verify
from ponder.nodes.branch import branch
from ponder.nodes.browser import browser
from ponder.nodes.judge import judge
from ponder.nodes.stop import stop
from ponder.nodes.think import think
from ponder.nodes.verify import verify

NodeFunction = Callable[[State, Deps], Awaitable[dict[str, Any]]]
Compiled = CompiledStateGraph[State, Deps, State, State]
_NO_RECURSION_LIMIT = 1_000_000  # LangGraph's is no budget; ponder's own budgets end runs


def build_graph(checkpointer: AsyncSqliteSaver | None = None) -> Compiled:
    """Return the compiled graph; its context is `Deps`."""
    graph = StateGraph(State, context_schema=Deps)
    for name, function in _NODES.items():
        graph.add_node(name, _with_deps(function))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", _after_think, ["browser", "verify", "judge"])
    graph.add_edge("browser", "judge")
    graph.add_edge("verify", "judge")
    graph.add_edge("judge", "stop")
    graph.add_conditional_edges("stop", _after_stop, ["branch", END])
    graph.add_edge("branch", "think")
    return graph.compile(checkpointer=checkpointer)


_NODES: dict[str, NodeFunction] = {
    "think": think,
    "browser": browser,
    "verify": verify,
    "judge": judge,
    "stop": stop,
    "branch": branch,
}


def _with_deps(function: NodeFunction) -> Any:
    async def node(state: State, runtime: Runtime[Deps]) -> dict[str, Any]:
        return await function(state, runtime.context)

    return node


def _after_think(state: State, runtime: Runtime[Deps]) -> list[str]:
    deps = runtime.context
    ready = deps.nodes(state["ready"])
    checker = deps.checker is not None
    wanted = {
        "browser": any(needs_browser(node) for node in ready),
        "verify": any(needs_verify(node, checker) for node in ready),
    }
    return [name for name, wants in wanted.items() if wants] or ["judge"]


def _after_stop(state: State) -> str:
    return END if state["stopped"] else "branch"


@asynccontextmanager
async def open_graph(checkpoints: Path) -> AsyncIterator[Compiled]:
    """Open the graph with its SQLite checkpoints. Raises StoreError."""
    checkpoints.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with AsyncExitStack() as stack:
        with _naming_checkpoints():
            saver = await stack.enter_async_context(AsyncSqliteSaver.from_conn_string(str(checkpoints)))
        yield build_graph(saver)


async def run_graph(graph: Compiled, state: State, deps: Deps) -> State:
    """Run the search to its end. `durability="exit"`: the event store is the truth, the checkpoint a convenience.

    Raises StoreError: the checkpoints cannot be read (before anything was done) or written (after all was).
    """
    config: Any = {"configurable": {"thread_id": state["run_id"]}, "recursion_limit": _NO_RECURSION_LIMIT}
    with _naming_checkpoints():
        final: Any = await graph.ainvoke(state, config, context=deps, durability="exit")
    return final  # type: ignore[no-any-return]


@contextmanager
def _naming_checkpoints() -> Iterator[None]:
    """Say which database broke, and that nothing is lost with it: the store wraps errors of its own."""
    try:
        yield
    except sqlite3.Error as error:
        fix = "checkpoints.sqlite, in the folder of the runs, can be removed: the runs themselves are elsewhere"
        raise StoreError(f"LangGraph's checkpoints broke: {error}", fix=fix) from error
