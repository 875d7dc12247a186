"""Runs tests against a program that cannot forge their outcome: each side in a sandbox of its own, we in between.

The program's sandbox (`program.py`) holds the program, the tests' sandbox (`tests.py`) the tests; what
crosses are operations on the program's objects, and literals (`data.py`). This is the relay between them.

Covered: whatever the program does in its own sandbox (exits, patches, forged messages, a driver that it took over)
is an answer to a question at most. It sees no test and no expected value; it answers only when asked, once; its answers
become exact builtin objects in the tests' sandbox, or what compares there as they do (`derived.py`), and
it alone gives the verdict.

Not covered: what a test leaves to the program. A test that asks the program's own function whether a result is right,
compares what two of its functions return, or asks an object of a class of its, trusts it. Tests see no effects of the
program but results, exceptions, output that it printed, and mutated arguments; they cannot patch its modules or feed
its standard input.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ponder.protocols import OnUsage, Sandbox
from ponder.records import ExecResult, Limits, Method, Usage
from ponder.sandboxes.talks import QueueTalk
from ponder.tools.checking.parcels import parcel
from ponder.tools.checking.units import Unit, Verdict
from ponder.tools.checking.wire import HEAD

SHARED = ("changes", "data", "errors", "wire")
SIDES = {"program": ("program", "objects", *SHARED), "tests": ("tests", "link", "stubs", "derived", "raised", *SHARED)}
"""The modules that each side needs."""

SHARE = 0.85
"""Of a check's time, what its units may use; the rest is for starting, ending and reporting."""

TURN_S = 60.0
"""How long a sandbox may wait for the other one to get its turn."""

END_S = 1.0
"""How long a program's sandbox may take to end after the last test."""

OWED = b"UCA"
"""Messages that the program's side answers, with exactly one."""

ANSWERS = b"NLRBD"
METHODS: tuple[Method, ...] = ("estimate", "process-tree", "rusage", "cgroup")
"""A sum is measured as well as its worst part."""


@dataclass(frozen=True)
class Checked:
    """What came of a check: a verdict per unit, None for one that was not judged, and how the tests' sandbox ended."""

    verdicts: tuple[Verdict | None, ...]
    ended: ExecResult | None
    """None: it was stopped at the check's wall time."""


async def check_units(
    sandbox: Sandbox,
    program: str,
    units: Sequence[Unit],
    *,
    limits: Limits,
    gate: asyncio.Lock,
    on_usage: OnUsage,
) -> Checked:
    """Run units against a program; both sides are dead when this returns or raises.

    Args:
        limits: each side gets these; the units share its CPU and wall seconds.
        gate: held while both sandboxes start. All checks on one sandbox share it: two that had one of its last two
            slots each would wait for each other. A sandbox with a single slot cannot run checks: they fail.
        on_usage: called once, with the sum of both sides.

    Raises:
        NoSandbox: the sandbox cannot be set up.
    """
    bills: list[Usage] = []
    tests, solution = QueueTalk(), QueueTalk()
    job = {"units": units, "cpu_s": SHARE * limits.cpu_s, "wall_s": SHARE * limits.wall_s}
    patient = limits.model_copy(update={"wall_s": limits.wall_s + TURN_S})
    try:
        async with asyncio.TaskGroup() as group:
            runs: list[asyncio.Task[ExecResult]] = []
            async with gate:
                for side, talk, name, data in (
                    ("program", solution, "solution.py", program.encode("utf-8", "replace")),
                    ("tests", tests, "tests.json", json.dumps(job).encode()),
                ):
                    files = {**parcel(*SIDES[side]), name: data}
                    code = f"from ponder.tools.checking.{side} import serve\nserve()\n"
                    run = sandbox.exec(code, files=files, limits=patient, talk=talk, on_usage=bills.append)
                    runs.append(group.create_task(run))
                await _started(talk_and_run=list(zip((solution, tests), runs, strict=True)))
            relay = _Relay(tests, solution, len(units), stop_program=runs[0].cancel)
            return await _follow(relay, program_run=runs[0], tests_run=runs[1], wall_s=limits.wall_s)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    finally:
        on_usage(_sum(bills))


async def _started(talk_and_run: Sequence[tuple[QueueTalk, asyncio.Task[ExecResult]]]) -> None:
    """Return when both programs run, or one is over already."""
    waits = [asyncio.create_task(talk.open.wait()) for talk, _ in talk_and_run]
    runs = [run for _, run in talk_and_run]
    try:
        while not all(waiting.done() for waiting in waits):
            await asyncio.wait([*(w for w in waits if not w.done()), *runs], return_when=asyncio.FIRST_COMPLETED)
            if any(run.done() for run in runs):
                return
    finally:
        for waiting in waits:
            waiting.cancel()


async def _follow(
    relay: _Relay, *, program_run: asyncio.Task[ExecResult], tests_run: asyncio.Task[ExecResult], wall_s: float
) -> Checked:
    """Relay until the tests' sandbox is done, and end both; nothing is relayed after the wall time."""
    relaying = asyncio.create_task(relay.run())
    try:
        await asyncio.wait({tests_run}, timeout=wall_s)
        if tests_run.done():
            await relaying  # what it said last may not have been read yet
        relay.program.say(b"Q" + bytes(HEAD - 1))
        await asyncio.wait({program_run}, timeout=END_S)
    finally:
        relaying.cancel()
        tests_run.cancel()
        program_run.cancel()
    ended = tests_run.result() if tests_run.done() and not tests_run.cancelled() else None
    return Checked(tuple(relay.verdicts), ended)


class _Relay:
    """Passes messages between the tests and the program, and holds the program to its turns."""

    def __init__(
        self, tests: QueueTalk, program: QueueTalk, units: int, *, stop_program: Callable[[], object]
    ) -> None:
        self.tests, self.program, self._stop_program = tests, program, stop_program
        self.verdicts: list[Verdict | None] = [None] * units
        self.foul = ""
        self._unit = b""
        self._owed = False
        self._dead = b""
        self._gone = ""

    async def run(self) -> None:
        """Relay until the tests have ended."""
        self.tests.say(b"G" + bytes(HEAD - 1))
        listening = asyncio.create_task(self._hear_program())
        try:
            await self._hear_tests()
        finally:
            listening.cancel()

    async def _hear_tests(self) -> None:
        while (message := await self.tests.hear()) is not None:
            kind, unit = message[:1], message[1:HEAD]
            if kind == b"V":
                verdict = json.loads(message[HEAD:])
                self.verdicts[int.from_bytes(unit, "big")] = Verdict(verdict["state"], verdict["text"])
                continue
            self._unit = unit
            self._owed = kind in OWED
            if self._owed and self._dead[1:HEAD] == unit:
                self._owed = False
                self.tests.say(self._dead)
            elif self._gone or not self.program.say(message):
                self._lose(self._gone or "the program's sandbox has ended")

    async def _hear_program(self) -> None:
        """Pass the program's answers on, each when it is asked for; anything else ends the conversation."""
        while (message := await self.program.hear()) is not None:
            if len(message) < HEAD or message[1:HEAD] > self._unit:
                self.foul = "the program's sandbox sent a forged message"
            elif message[1:HEAD] < self._unit:
                continue  # the unit ended meanwhile
            elif not self._owed and message[:1] == b"D":
                self._dead = message  # between two questions: the next one is answered with it
                continue
            elif not self._owed or message[:1] not in ANSWERS:
                self.foul = "the program's sandbox sent a message that nobody asked for"
            if self.foul:
                break
            self._owed = False
            self.tests.say(message)
        if self.program.flooded:
            self.foul = "the program's sandbox sent too many messages"
        if self.foul:
            self._stop_program()
        self._lose(self.foul or "the program's sandbox has ended")

    def _lose(self, why: str) -> None:
        self._gone = why
        if self._owed:
            self._owed = False
            self.tests.say(b"X" + self._unit + why.encode())


def _sum(bills: Sequence[Usage]) -> Usage:
    """Return one usage for both sides, which ran at the same time: CPU and memory add up, wall time does not."""
    return Usage(
        cpu_user_s=sum(bill.cpu_user_s for bill in bills),
        cpu_system_s=sum(bill.cpu_system_s for bill in bills),
        wall_s=max((bill.wall_s for bill in bills), default=0.0),
        peak_rss_bytes=sum(bill.peak_rss_bytes for bill in bills),
        bytes=sum(bill.bytes for bill in bills),
        method=min((bill.method for bill in bills if bill.cpu_s), key=METHODS.index, default="estimate"),
    )
