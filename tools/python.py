"""The code tool: runs the core's Python programs in a sandbox, and tests against them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from ponder.protocols import OnUsage, Sandbox
from ponder.records import Action, CpuReading, ExecResult, Limits, Observation, Outcome, RunCode, Usage
from ponder.sandboxes.workspace import Workspace
from ponder.tools.checking.behaviour import CALLS, LONGEST, OUTCOMES
from ponder.tools.checking.errors import SOLUTION
from ponder.tools.checking.parcels import parcel
from ponder.tools.checking.relay import SHARE, Checked, check_units
from ponder.tools.checking.units import TEXT_CHARS, Verdict, describe_tests, shorten, units_of

HELD_BYTES = 256 * 2**20
"""What the workspaces of all sessions may hold together; those used longest ago make room."""

HELD_SESSIONS = 256

BEHAVIOUR = ("behaviour", "errors", "wire")
CALLS_S = 4.0
"""CPU and wall seconds that a candidate's calls may take together."""
OUTCOME_CHARS = LONGEST + 32
_ESCAPED = 12
"""Bytes that one character of an outcome takes in JSON, at most: a pair of escaped surrogates."""

NAMED_FILES = 8
NOTHING = ("", "None")
LINE_CHARS = 200
ERROR_CHARS = 900
"""Of the text, what is kept for the end of stderr: a traceback's last lines say what happened."""

ANSWER = re.compile(r"^ANSWER:", re.MULTILINE)
ENDINGS = {
    "cpu": "stopped: it used its {cpu_s:g} s of CPU time",
    "wall": "stopped: it did not end within {wall_s:g} s",
    "memory": "stopped: it used more than its {mebibytes:.0f} MiB of memory",
    "output": "stopped: it printed more than {output_bytes} bytes",
    "killed": "it was killed",
}


class PythonTool:
    """Runs Python in a sandbox that it owns; the files of a branch stay between its programs, processes do not."""

    name = "python"

    def __init__(self, sandbox: Sandbox) -> None:
        """Take over a sandbox; `close` closes it."""
        self._sandbox = sandbox
        self._spaces: OrderedDict[str, Workspace] = OrderedDict()  # used longest ago first
        self._gate = asyncio.Lock()

    async def run(self, action: Action, *, session: str, limits: Limits, on_usage: OnUsage) -> Observation:
        """Run the action's program; `answer` is what it printed after its last line that begins with `ANSWER:`.

        A program that ended well and printed one short line without that mark has answered too. One that printed
        nothing and wrote no file did nothing (`ok` is False): there is no answer to be read from it. What it wrote into
        its working directory is there for the session's next program, unless a limit stopped it.

        Raises:
            NoSandbox: the sandbox cannot be set up.
        """
        if not isinstance(action, RunCode):
            on_usage(Usage())
            return Observation(tool=self.name, ok=False, outcome="error", text=f"python cannot do {action.type!r}")
        held = self._space(session)
        given = held.bounded(limits.disk_bytes // 2)
        if dropped := set(held.files) - set(given.files):
            self._spaces[session] = given
        result = await self._sandbox.exec(action.code, files=given.files, limits=limits, on_usage=on_usage)
        text, cut = describe_run(result, limits)
        notes = [f"[files not kept, as they are too large together: {_names(dropped)}]"] if dropped else []
        notes += self._keep(session, result, limits) if result.outcome in ("ok", "error") else []
        return Observation(
            tool=self.name,
            ok=result.outcome == "ok" and (bool(result.files) or result.stdout.strip() not in NOTHING),
            text="\n".join([text, *notes]),
            outcome=result.outcome,
            answer=stated_answer(result.stdout) or (only_line(result.stdout) if result.outcome == "ok" else None),
            truncated=cut or result.truncated,
        )

    def fork(self, session: str, into: str) -> None:
        """Give session `into` the files that `session` has now; from here on neither sees the other's."""
        self._spaces[into] = self._space(session).fork()

    def _space(self, session: str) -> Workspace:
        return self._spaces.get(session, Workspace())

    def _keep(self, session: str, result: ExecResult, limits: Limits) -> list[str]:
        """Keep a program's files for the session; return notes on what was written, left out and too much."""
        # Onto what is held now, not onto what the program was given: calls of one session may overlap.
        wanted = self._space(session).after(result)
        kept = wanted.bounded(min(limits.disk_bytes // 2, HELD_BYTES))
        self._spaces[session] = kept
        self._spaces.move_to_end(session)
        while len(self._spaces) > HELD_SESSIONS or sum(space.size for space in self._spaces.values()) > HELD_BYTES:
            self._spaces.popitem(last=False)
        notes = []
        written = [f"{_name(path)} ({len(data)} bytes)" for path, data in sorted(result.files.items())
                   if data is not None and path in kept.files]  # fmt: skip
        removed = [f"{_name(path)} removed" for path, data in sorted(result.files.items()) if data is None]
        if written or removed:
            notes.append(f"[files: {_first(written + removed)}]")
        if result.left_out:
            notes.append(f"[files left out, as they are links, devices or too many: {_names(result.left_out)}]")
        if dropped := set(wanted.files) - set(kept.files):
            notes.append(f"[files not kept, as they are too large together: {_names(dropped)}]")
        return notes

    async def check(
        self, program: str, tests: Sequence[str], *, calls: Sequence[str] = (), limits: Limits, on_usage: OnUsage
    ) -> Observation:
        """Run tests against a program: `passed` of `total`, and a text that says which failed and how.

        Args:
            program: the source of a candidate, loaded as module `solution`; its `__main__` block does not run.
            tests: each an assert, several lines that see the program's names, or a file of `test_...` functions
                without fixtures, of which each counts as a test. Every test runs in a process of its own, and the
                program is loaded anew for it, in another sandbox.
            calls: what else to call; `outcomes` in the observation says what came of each (see `outcomes`).

        What is and is not proof against a program that wants to pass: see `ponder.tools.checking.relay`.

        Raises:
            NoSandbox: the sandbox cannot be set up.
        """
        bills: list[Usage] = []
        try:
            seen = await self._checked(program, tests, limits=limits, on_usage=bills.append)
            if not calls:
                return seen
            less = {"cpu_s": min(limits.cpu_s, CALLS_S), "wall_s": min(limits.wall_s, CALLS_S)}
            limits = limits.model_copy(update=less)
            came = await self.outcomes(program, calls, limits=limits, on_usage=bills.append)
            return seen.model_copy(update={"outcomes": dict(zip(calls, came, strict=True))})
        finally:
            on_usage(one_after_the_other(bills))

    async def _checked(self, program: str, tests: Sequence[str], *, limits: Limits, on_usage: OnUsage) -> Observation:
        units = [unit for test in tests for unit in units_of(test)]
        checked = await check_units(
            self._sandbox, program, units, limits=limits, gate=self._gate, on_usage=on_usage
        )
        ending, outcome = _stopped_check(checked, limits)
        if units and not any(checked.verdicts):
            text = f"No test could be counted: the run of the tests {ending or 'gave no verdict'}."
            return Observation(tool=self.name, ok=False, text=text, outcome=outcome, passed=0, total=len(units))
        lost = Verdict("lost", f"not run: the tests' run {ending}" if ending else "not run")
        verdicts = [verdict or lost for verdict in checked.verdicts]
        passed = sum(verdict.state == "passed" for verdict in verdicts)
        text, cut = describe_tests(units, verdicts)
        ok = passed == len(units) > 0
        return Observation(
            tool=self.name,
            ok=ok,
            text=text,
            outcome="ok" if ok else "error",
            passed=passed,
            total=len(units),
            truncated=cut,
        )

    async def outcomes(self, program: str, calls: Sequence[str], *, limits: Limits, on_usage: OnUsage) -> list[str]:
        """Return what each call of a program comes to, as a text that is the same where tests would see no difference.

        Args:
            program: a candidate, loaded anew for each call, its `__main__` block not run.
            calls: Python expressions over the program's names (`f([1, 2], 3)`); they share the limits evenly.

        Returns:
            One outcome a call: `=` and the value (numbers up to rounding), `!` and the exception's type (`!load`: the
            program does not load), `~time`, or `~gone` where the process ended. It is what the program says of itself.

        Raises:
            NoSandbox: the sandbox cannot be set up.
        """
        job = {"calls": list(calls), "cpu_s": SHARE * limits.cpu_s, "wall_s": SHARE * limits.wall_s}
        files = {**parcel(*BEHAVIOUR), SOLUTION: program.encode("utf-8", "replace"), CALLS: json.dumps(job).encode()}
        code = "from ponder.tools.checking.behaviour import main\nmain()\n"
        result = await self._sandbox.exec(code, files=files, limits=limits, on_usage=on_usage)
        return read_outcomes(result.files.get(OUTCOMES) if result.outcome == "ok" else None, len(calls))

    def read(self) -> CpuReading:
        """Return what the sandbox used so far, calls in flight and what waits for calls included."""
        return self._sandbox.read()

    async def close(self) -> None:
        """Close the sandbox and forget the sessions' files. Safe to call twice."""
        await self._sandbox.close()
        self._spaces.clear()


def read_outcomes(data: bytes | None, calls: int) -> list[str]:
    """Return the outcomes that a program's run wrote down; `~gone` for all where it did not, or wrote nonsense."""
    found: Any = None
    if data is not None and len(data) <= calls * (_ESCAPED * OUTCOME_CHARS + 8) + 2:  # more is not what was asked for
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(data)
    fits = isinstance(found, list) and len(found) == calls and all(isinstance(one, str) for one in found)
    return [one[:OUTCOME_CHARS] for one in found] if fits else ["~gone"] * calls


def one_after_the_other(bills: Sequence[Usage]) -> Usage:
    """Return one usage for several calls in a row."""
    if len(bills) == 1:
        return bills[0]
    return Usage(
        cpu_user_s=sum(bill.cpu_user_s for bill in bills),
        cpu_system_s=sum(bill.cpu_system_s for bill in bills),
        wall_s=sum(bill.wall_s for bill in bills),
        peak_rss_bytes=max((bill.peak_rss_bytes for bill in bills), default=0),
        bytes=sum(bill.bytes for bill in bills),
        method=bills[-1].method if bills else "estimate",
    )


def stated_answer(stdout: str) -> str | None:
    """Return what follows the last line that begins with `ANSWER:`, to the end of the output; None if nothing.

    A printed `None` is a function that forgot to return, and no answer.
    """
    found = list(ANSWER.finditer(stdout))
    said = stdout[found[-1].end() :].strip() if found else ""
    return None if said in NOTHING else said


def only_line(stdout: str) -> str | None:
    """Return what was printed when it is a single short line: small cores forget the marker, but mean it."""
    lines = stdout.strip().splitlines()
    fits = len(lines) == 1 and len(lines[0]) <= LINE_CHARS and lines[0].strip() not in NOTHING
    return lines[0].strip() if fits else None


def describe_run(result: ExecResult, limits: Limits) -> tuple[str, bool]:
    """Return what the core reads of a run, at most about 2,000 characters, and whether anything was left out."""
    error, error_cut = shorten(result.stderr.strip(), ERROR_CHARS, keep_head=0.1)
    output, output_cut = shorten(result.stdout.strip(), TEXT_CHARS - len(error), keep_head=0.6)
    parts = [output] if output else []
    if error:
        parts.append(f"[stderr]\n{error}")
    if ending := _ending(result, limits):
        parts.append(f"[{ending}]")
    elif not parts:
        parts.append("[it ended without printing anything]")
    return "\n".join(parts), error_cut or output_cut


def _stopped_check(checked: Checked, limits: Limits) -> tuple[str, Outcome]:
    """Return how the tests' run was stopped, in words where it was, and the outcome of a check without verdicts."""
    if checked.ended is None:
        return ENDINGS["wall"].format(**limits.model_dump(), mebibytes=0), "wall"
    return _ending(checked.ended, limits), checked.ended.outcome if checked.ended.outcome != "ok" else "error"


def _name(path: str) -> str:
    """Return a path that cannot be taken for something else in an observation."""
    return path if path.isprintable() and len(path) <= LINE_CHARS else ascii(path)[:LINE_CHARS]


def _names(paths: Iterable[str]) -> str:
    return _first([_name(path) for path in sorted(paths)])


def _first(words: Sequence[str]) -> str:
    more = f" and {len(words) - NAMED_FILES} more" if len(words) > NAMED_FILES else ""
    return ", ".join(words[:NAMED_FILES]) + more


def _ending(result: ExecResult, limits: Limits) -> str:
    """Say how a program ended, where it did not end well."""
    if result.outcome in ENDINGS:
        mebibytes = limits.memory_bytes / 2**20
        return ENDINGS[result.outcome].format(**limits.model_dump(), mebibytes=mebibytes)
    if result.exit_code is not None and result.exit_code < 0:
        return f"ended by signal {-result.exit_code}"
    return f"ended with exit status {result.exit_code}" if result.exit_code else ""
