"""One container as a cell: its stream, its meter, its end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

import psutil

from ponder.errors import NoSandbox
from ponder.records import CpuReading, Limits
from ponder.sandboxes.calls import through
from ponder.sandboxes.containers.engines import Engine, memory_of
from ponder.sandboxes.containers.images import Image
from ponder.sandboxes.groups.cgroups import CgroupMeter
from ponder.sandboxes.groups.places import Places, find_places
from ponder.sandboxes.wire import Broken, read_frame

LIMIT_BUFFER = 1 << 20
COMPLAINT_BYTES = 65536
READY_S = 20.0
ASK_S = 0.5
LOOK_S = 0.003
"""Between looks at the meter of a container that is being killed, which its engine removes at once."""

QUIET_S = 0.03
QUIETS = 15

STDOUT, STDERR = 1, 2
HEAD = 8
UNMETERED = CpuReading(method="rusage")

FindPlaces = Callable[[int, str], Places]
"""Finds the cgroups of a container, by the pid of its process 1 and its id; none where they cannot be seen."""


def visible_places(pid: int, container: str) -> Places:
    """Return the container's cgroups as this machine shows them; none for an engine on another machine."""
    return find_places(pid=pid, within=container) if pid > 0 else Places()


class Demux(asyncio.StreamReaderProtocol):
    """Takes an attached stream apart: pieces of standard output and error, each behind a head of eight bytes."""

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self.complaint = bytearray()
        self.over = False
        self._held = bytearray()
        self._kind = 0
        self._left = 0
        self._pieces = 0
        self._out = reader

    async def quiet(self) -> None:
        """Return when nothing has come for a moment, and let nothing come any more.

        What was said before a kill is on its way for some milliseconds; that it was all is told much later.
        """
        pieces = -1
        for _ in range(QUIETS):
            if pieces == self._pieces:
                break
            pieces = self._pieces
            await asyncio.sleep(QUIET_S)
        self.over = True
        self._out.feed_eof()

    def data_received(self, data: bytes) -> None:
        """Pass on what is standard output; keep what is standard error."""
        if self.over:
            return
        self._pieces += 1
        self._held += data
        while self._held:
            if self._left == 0:
                if len(self._held) < HEAD:
                    return
                self._kind, self._left = self._held[0], int.from_bytes(self._held[4:HEAD], "big")
                del self._held[:HEAD]
                continue
            piece = bytes(self._held[: self._left])
            del self._held[: len(piece)]
            self._left -= len(piece)
            if self._kind == STDOUT:
                super().data_received(piece)
            elif self._kind == STDERR and len(self.complaint) < COMPLAINT_BYTES:
                self.complaint += piece


class Container:
    """A container whose process 1 waits for one job; see `ponder.sandboxes.calls.Cell`. Made by `start_container`."""

    def __init__(self, engine: Engine, name: str, limits: Limits) -> None:
        self.engine, self.name, self.limits = engine, name, limits
        self.pid = 0
        self.meter: CgroupMeter | None = None
        self.writable = False
        self._told = UNMETERED
        self._asking: asyncio.Task[None] | None = None
        self._final: CpuReading | None = None
        self._shim: psutil.Process | None = None

    def start(self, places: FindPlaces) -> socket.socket:
        """Attach, start, find the meter; return the stream. Blocks. Raises NoSandbox."""
        stream = self.engine.attach(self.name)
        try:
            self.pid = self.engine.start(self.name)
            found = places(self.pid, self.name)
            if found.cpu is not None:
                self.meter = CgroupMeter(found)
                self._shim = _parent(self.pid)
                self.writable = all(os.access(d / "cgroup.procs", os.W_OK) for d in found.directories())
        except OSError:  # it ended already: `ready` will tell
            self.meter = None
        except BaseException:
            stream.close()
            raise
        return stream

    async def connect(self, stream: socket.socket) -> None:
        """Take up the conversation. Raises NoSandbox when process 1 does not say that it is ready."""
        loop = asyncio.get_running_loop()
        self.reader = asyncio.StreamReader(limit=LIMIT_BUFFER, loop=loop)
        demux = self._demux = Demux(self.reader, loop)
        stream.setblocking(False)
        transport, _ = await loop.create_connection(lambda: demux, sock=stream)
        self.writer = asyncio.StreamWriter(transport, demux, self.reader, loop)
        try:
            kind, _ = await asyncio.wait_for(read_frame(self.reader), READY_S)
        except (Broken, TimeoutError):
            kind = b""
        if kind != b"R":
            said = " ".join(demux.complaint.decode("utf-8", "replace").split())[-400:]
            raise NoSandbox(f"no sandbox starts in its container: {said or 'it said nothing'}")

    @property
    def waits(self) -> bool:
        """Whether process 1 still waits for a job."""
        return not self.reader.at_eof() and not self.writer.is_closing()

    async def fit(self, limits: Limits) -> None:
        """Set this call's limits where the container was made with others. Raises NoSandbox."""
        if (limits.memory_bytes, limits.pids) != (self.limits.memory_bytes, self.limits.pids):
            await through(asyncio.to_thread(self._set, limits))

    def _set(self, limits: Limits) -> None:
        if self.meter is not None and self.writable:
            try:
                self.meter.limit(memory_bytes=memory_of(limits), pids=limits.pids + 1)
                return
            except OSError:
                pass  # the engine has ways of its own
        self.engine.limit(self.name, limits)

    @property
    def memory_is_limited(self) -> bool:
        """See `Cell`: the engine always sets a limit."""
        return True

    def begin(self, limits: Limits) -> None:  # noqa: ARG002 (`fit` has set them)
        """See `Cell.begin`: `fit` has set the limits, and the container is new."""
        if self.meter is None:
            self._asking = asyncio.ensure_future(self._ask())

    async def _ask(self) -> None:
        """Ask the engine now and then: slow and late, but a runaway must not go on where no meter is in sight."""
        while True:
            await asyncio.sleep(ASK_S)
            told = await asyncio.to_thread(self.engine.used, self.name)
            if told is not None and told.cpu_s >= self._told.cpu_s:  # of one that has ended it tells zeros
                self._told = told

    def read(self) -> CpuReading:
        """See `Cell.read`; what the engine told last, where the container's cgroups cannot be seen."""
        if self._final is not None:
            return self._final
        return self.meter.read() if self.meter is not None else self._told

    def oom_kills(self) -> int:
        """See `Cell.oom_kills`."""
        return self.meter.oom_kills() if self.meter is not None else 0

    async def kill(self) -> None:
        """See `Cell.kill`. The figures are those of the last moment: the engine removes the cgroups soon after."""
        if self.meter is not None and self.writable:
            await asyncio.to_thread(self._kill_at_once, self.meter)
        else:
            await self._have_killed()
        await self._demux.quiet()

    async def _have_killed(self) -> None:
        killing = asyncio.ensure_future(asyncio.to_thread(self.engine.kill, self.name))
        while not killing.done():
            self.read()
            self.oom_kills()
            await asyncio.wait({killing}, timeout=LOOK_S)
        killing.result()
        self.read()

    def _kill_at_once(self, meter: CgroupMeter) -> None:
        meter.kill()
        meter.read()
        meter.oom_kills()

    def dismiss(self) -> None:
        """See `Cell.dismiss`: process 1 ends when the stream closes (`hang_up`), for that makes work for the engine."""

    def supervisor_cpu_s(self) -> float:
        """Return the CPU of the process that looks after this container for its engine; 0 where it cannot be seen."""
        try:
            return sum(self._shim.cpu_times()[:4]) if self._shim is not None else 0.0
        except psutil.Error:
            return 0.0

    def hang_up(self) -> None:
        """Close the stream, keep the last figures; process 1 hears of it and ends.

        What the program never took is dropped: an orderly close would wait for the engine to take it.
        """
        self._final = self.read()
        if self._asking is not None:
            self._asking.cancel()
        if self.meter is not None:
            self.meter.close()
        if hasattr(self, "writer"):
            self.writer.transport.abort()


def _parent(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid).parent()
    except psutil.Error:
        return None


async def start_container(engine: Engine, image: Image, limits: Limits, places: FindPlaces) -> Container:
    """Start a container; return it when its process 1 waits for a job. Nothing is left when that fails.

    Raises:
        NoSandbox: the engine or the container refuses.
    """
    container = Container(engine, await asyncio.to_thread(engine.create, image, limits), limits)
    try:
        await container.connect(await asyncio.to_thread(container.start, places))
    except BaseException:
        container.hang_up()
        await asyncio.shield(asyncio.to_thread(engine.remove, container.name))
        raise
    return container
