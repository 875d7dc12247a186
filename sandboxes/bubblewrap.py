"""The bubblewrap sandbox: a program in namespaces of its own, as a user without rights, over a root tree of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import ExitStack

from ponder.errors import NoSandbox
from ponder.protocols import OnUsage
from ponder.records import ExecResult, Layers, Limits, Usage
from ponder.sandboxes.children import Child, Ended, through
from ponder.sandboxes.groups import Groups
from ponder.sandboxes.launch import MAIN, PAGE, Machine, Program, checked, find_machine, prepare
from ponder.sandboxes.probes import PROGRAM, judge_layers, why_refused

TRIAL_LIMITS = Limits(cpu_s=5, wall_s=15)


def _unbilled(_: Usage) -> None:
    """Let a usage go: the trial belongs to no call."""


class BubblewrapSandbox:
    """Runs each program in a fresh bubblewrap sandbox.

    Covered:
        - the host's files: the root is a read-only tree with an interpreter and nothing else; `/work` (the working
          directory), `/tmp` and `/dev/shm` begin empty, live in memory, and hold at most `disk_bytes` together
        - the network: an empty network namespace, and only AF_UNIX sockets can be made
        - other processes: pid, ipc, uts, cgroup and user namespaces of its own; nothing outlives the program
        - rights: no capabilities, no new privileges, an unprivileged user also when ponder runs as root, a filter
          against the system calls that attacks on the kernel use
        - secrets: an environment of a few fixed variables; no open file descriptors but the standard three
        - use: CPU (of the whole group, looked at every 20 ms; RLIMIT_CPU behind it), wall time, memory, processes,
          output and disk are limited; CPU and peak memory are those of the group, orphans included

    Not covered:
        - bugs in the remaining system calls: programs share the host's kernel (gVisor or a VM would not)
        - timing and cache side channels; the kernel's version, the CPU's name and the names of mounts are in /proc
        - where no cgroup can be made (`layers()` says so): memory is limited per process and watched as a sum every
          100 ms, and CPU figures are lower bounds
        - a program that exits with status 128 + N reads as killed by signal N
    """

    name = "bubblewrap"

    def __init__(self, groups: Groups | None = None) -> None:
        """Make a sandbox; nothing is touched before the first call.

        Args:
            groups: how to make process groups; by default the best way that works here.
        """
        self._groups = groups
        self._machine: Machine | None = None
        self._layers: Layers | None = None
        self._preparing = asyncio.Lock()
        self._running: dict[Child, asyncio.Event] = {}
        self._closed = False

    def layers(self) -> Layers:
        """Return what protects programs here, as the trial program saw it from inside; before it ran, nothing."""
        return self._layers or Layers(active=(), missing={"all": "not tried yet"})

    async def probe(self) -> Layers:
        """Run, once, a program that tries every layer from inside; return what held.

        Raises:
            NoSandbox: the sandbox does not work here, or a layer that it may not lack does not hold.
        """
        await self._ready()
        return self.layers()

    async def exec(
        self,
        code: str,
        *,
        files: Mapping[str, bytes] | None = None,
        stdin: bytes = b"",
        limits: Limits | None = None,
        on_usage: OnUsage | None = None,
    ) -> ExecResult:
        """Run a Python program in a fresh sandbox and return how it ended.

        The first call lays out the root tree (seconds, once per machine) and tries the sandbox. Cancelling kills
        the program and clears it away before CancelledError is raised. `on_usage` is called once in every case.

        Raises:
            NoSandbox: the sandbox itself cannot be set up.
            UsageError: a file's path is absolute, leads outwards, or is `main.py`.
        """
        bills: list[Usage] = []
        try:
            source = code.encode("utf-8", "replace")
            laid = {MAIN: source, **checked(files or {})}
            machine = await self._ready()
            ended = await self._run(machine, Program(laid, stdin, limits or Limits()), bills.append)
        finally:
            if on_usage is not None:
                on_usage(bills[0] if bills else Usage())
        return ExecResult(
            outcome=ended.outcome,
            exit_code=ended.exit_code,
            stdout=ended.stdout.decode("utf-8", "replace"),
            stderr=ended.stderr.decode("utf-8", "replace"),
            truncated=ended.truncated,
            usage=ended.usage,
            backend=self.name,
            layers=self.layers(),
        )

    async def close(self) -> None:
        """Kill every program that still runs (outcome `killed`) and wait until all is cleared away."""
        self._closed = True
        running = dict(self._running)
        for child in running:
            await asyncio.to_thread(child.group.kill)
        for cleared in running.values():
            await cleared.wait()

    async def _ready(self) -> Machine:
        """Return what programs need, found, made and tried on the first call."""
        if self._closed:
            raise NoSandbox("the sandbox was closed")
        async with self._preparing:
            if self._machine is None:
                machine = await asyncio.to_thread(find_machine, self._groups)
                trial = Program({MAIN: PROGRAM.encode()}, b"", TRIAL_LIMITS)
                ended = await self._run(machine, trial, _unbilled)
                if ended.outcome != "ok":
                    raise why_refused(f"the trial program ended with {ended.outcome}: {ended.stderr.decode()}")
                laid = len(PROGRAM) + PAGE  # the program itself does not count
                self._layers = judge_layers(
                    ended.stdout.decode(), machine.groups.missing, disk_bytes=TRIAL_LIMITS.disk_bytes + laid
                )
                self._machine = machine
            return self._machine

    async def _run(self, machine: Machine, program: Program, on_usage: OnUsage) -> Ended:
        """Run one program; whatever happens, nothing of it is left."""
        with ExitStack() as stack:  # closes descriptors, and the group if the child did not get to it
            try:
                prepared = await through(asyncio.to_thread(prepare, stack, machine, program))
                child = Child(prepared.spawn, prepared.group, program.limits)
            except OSError as error:
                raise NoSandbox(f"bubblewrap cannot be started: {error}") from error
            cleared = self._running[child] = asyncio.Event()
            try:
                ended = await child.finish(on_usage)
            finally:
                del self._running[child]
                cleared.set()
            # Bubblewrap reports a status only of a program that it really started.
            if ended.outcome == "error" and b"exit-code" not in os.pread(prepared.status, 65536, 0):
                raise why_refused(ended.stderr.decode("utf-8", "replace"))
            return ended
