"""Samples on their way: submitted by `think`, harvested in the order in which they were asked for.

Generation is not bound to LangGraph's supersteps: what is not harvested yet stays in flight in the core while tools run
and the policy thinks, and is cancelled when the decision falls. Harvesting in the order of asking (never of finishing)
keeps short answers from winning by speed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ponder.prompting import StepRequest
from ponder.protocols import Core, Witness
from ponder.records import Completion, Record, Spending


class Harvest(Record):
    """One finished sample: the node it is for, what was asked, and what came."""

    node: int
    request: StepRequest
    completion: Completion


class Flight:
    """The samples in flight of one run.

    Args:
        core: where they run.
        on_done: called with (node, completion) once for every sample, the moment it ends, cancelled ones included.
        on_start: called with the node when its sample is submitted.
    """

    def __init__(
        self,
        core: Core,
        on_done: Callable[[int, Completion], None],
        on_start: Callable[[int], None] | None = None,
    ) -> None:
        self._core, self._on_done, self._on_start = core, on_done, on_start or _ignore
        self._waiting: dict[int, tuple[StepRequest, asyncio.Future[Completion]]] = {}
        self._calls: set[asyncio.Task[None]] = set()

    def __contains__(self, node: int) -> bool:
        return node in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def decides(self, spent: Spending) -> Spending:
        """Tell a core that records or replays the run that it decides now; return what is, or was, spent."""
        return self._core.decides(spent) if isinstance(self._core, Witness) else spent

    def submit(self, wanted: Sequence[tuple[int, StepRequest]]) -> None:
        """Start sampling for these nodes; those with the same request share one call and one prefill."""
        loop = asyncio.get_running_loop()
        groups: dict[StepRequest, list[int]] = {}
        for node, request in wanted:
            groups.setdefault(request, []).append(node)
            self._waiting[node] = (request, loop.create_future())
        for request, nodes in groups.items():
            for node in nodes:
                self._on_start(node)
            self._start(request, nodes)

    def _start(self, request: StepRequest, nodes: Sequence[int]) -> None:
        futures = [self._waiting[node][1] for node in nodes]
        open_ones = set(range(len(nodes)))
        failed: dict[int, Completion] = {}
        """What the core could not answer: its own word for it if the call ends well, lost with the core if it broke."""

        def done(_prompt: int, sample: int, completion: Completion) -> None:
            if sample in open_ones:
                open_ones.remove(sample)
                self._on_done(nodes[sample], completion)
            if completion.finish_reason == "error":
                failed[sample] = completion
            elif not futures[sample].done():
                futures[sample].set_result(completion)

        async def sampling() -> None:
            try:
                await self._core.sample([request.prompt], len(nodes), request.params, done)
                for sample, completion in failed.items():
                    if not futures[sample].done():
                        futures[sample].set_result(completion)
            except Exception as error:  # CoreError: whoever harvests these nodes must hear of it
                for future in futures:
                    if not future.done():
                        future.set_exception(error)

        def ended(call: asyncio.Task[None]) -> None:
            self._calls.discard(call)
            # A core that broke said nothing of these, and neither did a call that was cancelled before it began.
            for sample in sorted(open_ones):
                self._on_done(nodes[sample], Completion(text="", finish_reason="cancelled"))
            open_ones.clear()

        call = asyncio.create_task(sampling())
        self._calls.add(call)
        call.add_done_callback(ended)

    async def harvest(self) -> list[Harvest]:
        """Wait for the sample that was asked for first; return it with the finished ones that follow it.

        Raises:
            CoreError: the core broke; the samples that it lost are no longer in flight.
        """
        if not self._waiting:
            return []
        oldest = min(self._waiting)
        await asyncio.wait({self._waiting[oldest][1]})
        ready: list[Harvest] = []
        for node in sorted(self._waiting):
            request, future = self._waiting[node]
            if not future.done() or (ready and future.exception() is not None):
                break
            del self._waiting[node]
            ready.append(Harvest(node=node, request=request, completion=future.result()))
        if ready and isinstance(self._core, Witness):
            self._core.taken()
        return ready

    def finished(self) -> list[Harvest]:
        """Return all samples that came to an end, whatever became of others: they are no longer in flight."""
        ready = []
        for node in sorted(self._waiting):
            request, future = self._waiting[node]
            if future.done() and not future.cancelled() and future.exception() is None:
                del self._waiting[node]
                ready.append(Harvest(node=node, request=request, completion=future.result()))
        return ready

    async def cancel(self) -> list[int]:
        """Stop everything in flight; return the nodes that were waiting."""
        nodes, futures = sorted(self._waiting), [future for _, future in self._waiting.values()]
        self._waiting.clear()
        for future in futures:  # before the calls: a harvest that waits must not take what was cut off for an answer
            future.cancel()
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        return nodes


def _ignore(_node: int) -> None:
    return None
