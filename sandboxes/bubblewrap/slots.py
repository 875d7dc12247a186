"""A slot of the bubblewrap sandbox: a launcher that sits in its own cgroups and always has one sandbox ready.

The launcher is a shell loop that became an unprivileged user and joined the slot's cgroups once, which costs more than
all else; from there it starts a fresh bubblewrap for every job. The sandbox that comes next starts as soon as the one
before it has ended, so that a call finds a Python that waits for its program.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from pathlib import Path

from ponder.records import CpuReading, Limits
from ponder.sandboxes.groups import Groups
from ponder.sandboxes.groups.cgroups import CgroupGroup
from ponder.sandboxes.groups.trees import TreeGroup
from ponder.sandboxes.wire import LEAVE, Broken, read_frame

LOOP = 'args=$1; filter=$2; shift 2; while "$@" 3<"$args" 4<"$filter"; do :; done'
"""Goes on while sandboxes end well; one that finds its host gone does not."""

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
LAUNCHERS = 4
"""Processes of the group that are not the program's: the loop, bubblewrap outside, process 1, and one to spare."""

READY_S = 20.0
END_S = 2.0
LIMIT_BUFFER = 1 << 20


class Slot:
    """One launcher and its sandboxes, one call at a time.

    Args:
        groups: how to make the slot's group.
        launcher: words before the shell, which give up rights.
        sandbox: bubblewrap with its arguments; it finds its options at descriptor 3 and its filter at 4.
        options, seccomp: the files that are opened there.
        disk_bytes: what the sandboxes' file systems hold.
    """

    def __init__(
        self, groups: Groups, launcher: list[str], sandbox: list[str], options: Path, seccomp: Path, disk_bytes: int
    ) -> None:
        self.disk_bytes = disk_bytes
        self.group: CgroupGroup | TreeGroup = groups.make("python")
        self.reusable = isinstance(self.group, CgroupGroup)
        self._old_peak = 0
        self._billed = self.group.read()
        self._ooms = 0
        self.served = False
        self._ready = False
        self._connected = False
        self._said = os.memfd_create("said", os.MFD_CLOEXEC)
        self._ours, theirs = socket.socketpair()
        argv = [*launcher, "/bin/sh", "-c", LOOP, "sh", str(options), str(seccomp), *sandbox]
        try:
            self._process = subprocess.Popen(
                self.group.command(argv), env=ENVIRONMENT, stdin=theirs.fileno(), stdout=theirs.fileno(),
                stderr=self._said, start_new_session=True,
            )  # fmt: skip
        except OSError:
            self._ours.close()
            os.close(self._said)
            self.group.close()
            raise
        finally:
            theirs.close()
        self.group.attach(self._process.pid)

    async def ready(self) -> bool:
        """Wait for a sandbox whose process 1 waits for a job; return False when none comes (`complaint` says why)."""
        if not self._connected:
            self.reader, self.writer = await asyncio.open_connection(sock=self._ours, limit=LIMIT_BUFFER)
            self._connected = True
        if not self._ready:
            try:
                async with asyncio.timeout(READY_S):  # `wait_for` loses a cancellation that comes with the frame
                    kind, _ = await read_frame(self.reader)
            except (Broken, TimeoutError):
                return False
            self._ready = kind == b"R"
        return self._ready

    @property
    def memory_is_limited(self) -> bool:
        """See `Cell`."""
        return isinstance(self.group, CgroupGroup) and self.group.limits_memory

    def begin(self, limits: Limits) -> None:
        """See `Cell.begin`."""
        self._ready = False
        self.served = True
        self._ooms = self.group.oom_kills()
        if isinstance(self.group, CgroupGroup):
            self._old_peak = 0 if self.group.reset_peak() else self.group.read().peak_rss_bytes
            self.group.limit(memory_bytes=limits.memory_bytes, pids=limits.pids + LAUNCHERS)

    def read(self) -> CpuReading:
        """See `Cell.read`: what the slot used since its last bill.

        Where the kernel begins no new peak, one below that of an earlier call is not known, and 0.
        """
        now = self.group.read()
        return CpuReading(
            user_s=max(0.0, now.user_s - self._billed.user_s),
            system_s=max(0.0, now.system_s - self._billed.system_s),
            peak_rss_bytes=now.peak_rss_bytes if now.peak_rss_bytes > self._old_peak else 0,
            method=now.method,
        )

    def settle(self, reading: CpuReading) -> None:
        """Note that this much is billed now."""
        self._billed = CpuReading(
            user_s=self._billed.user_s + reading.user_s,
            system_s=self._billed.system_s + reading.system_s,
            peak_rss_bytes=0,
            method=reading.method,
        )

    def oom_kills(self) -> int:
        """See `Cell.oom_kills`."""
        return self.group.oom_kills() - self._ooms

    async def kill(self) -> None:
        """See `Cell.kill`."""
        await asyncio.to_thread(self._kill)

    def dismiss(self) -> None:
        """See `Cell.dismiss`: the loop starts the next sandbox at once."""
        self.writer.write(LEAVE)

    def _kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()  # it may not be in its group yet
        self.group.kill()
        self._process.wait()

    def complaint(self) -> str:
        """Return what the launcher and bubblewrap said."""
        return os.pread(self._said, 65536, 0).decode("utf-8", "replace")

    async def close(self) -> CpuReading:
        """End the launcher, remove the group; return all that it ever used. Safe to call once."""
        if self._connected:
            self.writer.close()
        else:
            self._ours.close()
        if self._ready:  # process 1 hears of it, and the loop ends: nothing has to be killed
            try:
                await asyncio.to_thread(self._process.wait, END_S)
            except subprocess.TimeoutExpired:
                pass
        await asyncio.to_thread(self._kill)
        await asyncio.to_thread(self.group.close)
        os.close(self._said)
        return self.group.read()
