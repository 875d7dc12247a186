"""The cassette core: records any core's requests and answers into a file, and replays them exactly, without the model.

    core = CassetteCore.record(core, "run.jsonl")      # asks `core`, and writes down what is asked and answered
    core = CassetteCore.replay("run.jsonl")            # answers from the file; anything else is a CoreError

A request is known by its content: messages, prefill, parameters, `n`, and how often the same was asked before. A search
also depends on *when* an answer came: whether it was there when the search looked. So the file is a timeline: requests
that began, samples that ended, and the points where a run took what had ended (`taken`, see `Witness`). A replay that
asks in the recorded order gets every sample between the same two points; one that asks in another order (a batch with
several workers) gets every request's samples in their order, at once.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from ponder.core.chat import OnDone, ignore
from ponder.core.tape import Began, Ended, Failed, Header, Line, Request, Taken, read_tape
from ponder.core.timeline import Call, Timeline
from ponder.errors import CoreError, UsageError
from ponder.protocols import Core
from ponder.records import Completion, CpuReading, Prompt, SamplingParams, Usage

PREFIX = "cassette:"


class CassetteCore:
    """Makers of the two cores that know the file; see the module."""

    @staticmethod
    def record(core: Core, path: str | Path) -> RecordingCore:
        """Return a core that asks `core` and writes into a new file. Raises UsageError."""
        return RecordingCore(core, Path(path))

    @staticmethod
    def replay(path: str | Path, *, patience_s: float = 120.0) -> ReplayingCore:
        """Return a core that answers from the file. Raises UsageError: it is no cassette."""
        return ReplayingCore(Path(path), patience_s=patience_s)


class RecordingCore:
    """Asks another core, and writes down what is asked and answered, line by line, as it happens.

    Args:
        core: who answers; it is started and closed with this one.
        path: a file that does not exist yet; it is made when the core has started.

    Raises:
        UsageError: the file exists or cannot be written.
    """

    def __init__(self, core: Core, path: Path) -> None:
        if path.exists():
            raise UsageError(f"{path} exists already", fix="name another file, or remove it: nothing is recorded over")
        self.name = core.name
        self._core, self._path = core, path
        self._file: TextIO | None = None
        self._next_id = 0

    async def start(self) -> None:
        """Start the other core, and the file. Raises UsageError, and what the other core raises."""
        await self._core.start()
        if self._file is None:
            try:  # readable by its owner only: it holds the task, and what pages and programs said
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except OSError as error:
                raise UsageError(f"cannot write the cassette {self._path}: {error.strerror}") from error
            self._file = os.fdopen(descriptor, "w", encoding="utf-8")
            self._write(Header(manifest=dict(self._core.manifest())))

    async def sample(
        self, prompts: Sequence[Prompt], n: int, params: SamplingParams, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """See `Core.sample`."""
        if self._file is None:
            await self.start()
        ids = [self._began(Request(prompt=prompt, params=params, n=n)) for prompt in prompts]
        hear = on_done or ignore

        def ended(prompt: int, sample: int, completion: Completion) -> None:
            self._write(Ended(id=ids[prompt], sample=sample, completion=completion, read=self._core.read()))
            hear(prompt, sample, completion)

        try:
            return await self._core.sample(prompts, n, params, ended)
        except CoreError as error:
            for id in ids:
                self._write(Failed(id=id, error=str(error), read=self._core.read()))
            raise

    def taken(self) -> None:
        """See `Witness.taken`."""
        self._write(Taken(live=self._core.live(), read=self._core.read()))

    def read(self) -> CpuReading:
        """See `Core.read`."""
        return self._core.read()

    def live(self) -> Usage:
        """See `Core.live`."""
        return self._core.live()

    async def halt(self) -> None:
        """See `Core.halt`."""
        await self._core.halt()

    def manifest(self) -> Mapping[str, str | int | float | bool]:
        """See `Core.manifest`: the other core's own."""
        return self._core.manifest()

    async def close(self) -> None:
        """Close the other core and the file. Safe to call twice."""
        await self._core.close()
        if self._file is not None and not self._file.closed:
            self._file.close()

    def _began(self, request: Request) -> int:
        self._next_id += 1
        self._write(Began(id=self._next_id, request=request, read=self._core.read()))
        return self._next_id

    def _write(self, line: Header | Line) -> None:
        assert self._file is not None
        if not self._file.closed:  # a straggler after close(): nobody hears of it either
            self._file.write(line.model_dump_json() + "\n")
            self._file.flush()


class ReplayingCore:
    """Answers from a cassette.

    Args:
        path: what `RecordingCore` wrote.
        patience_s: how long a request may wait for a cancellation that the recording has next (the run that was
            recorded was interrupted, say) before it is a CoreError.

    Raises:
        UsageError: (when made) the file is no cassette.
        CoreError: (from `sample`) the recording has nothing like this request; says what differs from the nearest.
    """

    name = "cassette"

    def __init__(self, path: Path, *, patience_s: float) -> None:
        self._tape, self._path, self._patience_s = read_tape(path), path, patience_s
        self._timeline = Timeline(self._tape.lines, path.name)

    async def start(self) -> None:
        """Nothing to do."""

    async def sample(
        self, prompts: Sequence[Prompt], n: int, params: SamplingParams, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """See `Core.sample`."""
        hear = on_done or ignore
        calls: list[Call] = []
        try:
            for index, prompt in enumerate(prompts):
                request = Request(prompt=prompt, params=params, n=n)
                calls.append(self._timeline.begin(request, functools.partial(hear, index)))
            for call in calls:
                await self._wait(call)
        except BaseException:
            for call in calls:
                self._timeline.cancel(call)
            raise
        for call in calls:
            self._timeline.finish(call)
        return [[call.results[i] for i in range(n)] for call in calls]

    async def _wait(self, call: Call) -> None:
        while not call.over.done():
            moved = self._timeline.moved
            await asyncio.wait({call.over}, timeout=self._patience_s)
            if not call.over.done() and self._timeline.moved == moved:
                raise CoreError(
                    f"the cassette {self._path.name} has no end of this sample: it was cancelled in the recording, "
                    f"and the replay still waits for it after {self._patience_s:g} s",
                    fix="a run that was interrupted or met a budget cannot always be replayed to its end",
                )
        call.over.result()

    def taken(self) -> None:
        """See `Witness.taken`."""
        self._timeline.taken()

    def read(self) -> CpuReading:
        """See `Core.read`: the meter of the core that was recorded, at this point of the recording."""
        return self._timeline.read()

    def live(self) -> Usage:
        """See `Core.live`."""
        return self._timeline.live()

    async def halt(self) -> None:
        """Nothing computes."""

    def manifest(self) -> Mapping[str, str | int | float | bool]:
        """See `Core.manifest`: the recorded one, and that this is a replay."""
        recorded = self._tape.header.manifest
        return {**recorded, "core": self.name, "recorded_core": recorded.get("core", "unknown")}

    async def close(self) -> None:
        """Nothing to do."""
