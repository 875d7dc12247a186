"""The code tool: runs the core's Python programs in a sandbox, and tests against them."""

from __future__ import annotations

import ast
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeGuard

from ponder.protocols import OnUsage, Sandbox
from ponder.records import Action, CpuReading, ExecResult, Limits, Observation, RunCode, Usage
from ponder.sandboxes import harness

TEXT_CHARS = 2000
NOTHING = ("", "None")
LINE_CHARS = 200
ERROR_CHARS = 900
"""Of the text, what is kept for the end of stderr: a traceback's last lines say what happened."""

ANSWER = re.compile(r"^ANSWER:", re.MULTILINE)
HARNESS_SHARE = 0.85
"""Of a check's time, what its tests may use; the rest is for starting, ending and reporting."""

REPORT_BYTES = 4096
"""At most, per test."""

ENDINGS = {
    "cpu": "stopped: it used its {cpu_s:g} s of CPU time",
    "wall": "stopped: it did not end within {wall_s:g} s",
    "memory": "stopped: it used more than its {mebibytes:.0f} MiB of memory",
    "output": "stopped: it printed more than {output_bytes} bytes",
    "killed": "it was killed",
}


class _TestResult(NamedTuple):
    """What the harness said of one test."""

    state: str
    text: str


class PythonTool:
    """Runs Python in a sandbox that it owns; keeps nothing between calls."""

    name = "python"

    def __init__(self, sandbox: Sandbox) -> None:
        """Take over a sandbox; `close` closes it."""
        self._sandbox = sandbox
        self._harness = Path(harness.__file__).read_text(encoding="utf-8")

    async def run(self, action: Action, *, session: str, limits: Limits, on_usage: OnUsage) -> Observation:  # noqa: ARG002
        """Run the action's program; `answer` is what it printed after its last line that begins with `ANSWER:`.

        A program that ended well and printed one short line without that mark has answered too.

        Raises:
            NoSandbox: the sandbox cannot be set up.
        """
        if not isinstance(action, RunCode):
            on_usage(Usage())
            return Observation(tool=self.name, ok=False, outcome="error", text=f"python cannot do {action.type!r}")
        result = await self._sandbox.exec(action.code, limits=limits, on_usage=on_usage)
        text, cut = describe_run(result, limits)
        return Observation(
            tool=self.name,
            ok=result.outcome == "ok",
            text=text,
            outcome=result.outcome,
            answer=stated_answer(result.stdout) or (only_line(result.stdout) if result.outcome == "ok" else None),
            truncated=cut or result.truncated,
        )

    async def check(self, program: str, tests: Sequence[str], *, limits: Limits, on_usage: OnUsage) -> Observation:
        """Run tests against a program: `passed` of `total`, and a text that says which failed and how.

        Args:
            program: the source of a candidate, loaded as module `solution`; its `__main__` block does not run.
            tests: each an assert, several lines that see the program's names, or a file of `test_...` functions
                without fixtures, of which each counts as a test. Every test runs in a process of its own.

        What is and is not proof against a program that wants to pass: see `ponder.sandboxes.harness`.

        Raises:
            NoSandbox: the sandbox cannot be set up.
        """
        units = [unit for test in tests for unit in units_of(test)]
        nonce = secrets.token_hex(16)
        result = await self._sandbox.exec(
            self._harness,
            stdin=_job(program, units, nonce, limits),
            limits=limits.model_copy(
                update={"output_bytes": max(limits.output_bytes, REPORT_BYTES * (len(units) + 1))}
            ),
            on_usage=on_usage,
        )
        results = _report(result.stdout, nonce, len(units))
        if results is None:
            text = f"No test could be counted: the run {_ending(result, limits) or 'gave no report'}."
            outcome = result.outcome if result.outcome != "ok" else "error"
            return Observation(tool=self.name, ok=False, text=text, outcome=outcome, passed=0, total=len(units))
        passed = sum(result.state == "passed" for result in results)
        text, cut = describe_tests(units, results)
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

    def read(self) -> CpuReading:
        """Return zero: nothing runs between calls."""
        return CpuReading(user_s=0.0, system_s=0.0, peak_rss_bytes=0, method="rusage")

    async def close(self) -> None:
        """Close the sandbox. Safe to call twice."""
        await self._sandbox.close()


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


def describe_tests(units: Sequence[harness.Unit], results: Sequence[_TestResult]) -> tuple[str, bool]:
    """Return what the core reads of a check, and whether anything was left out. Equal failures are told once."""
    failures: dict[str, list[str]] = {}
    for (source, function), result in zip(units, results, strict=True):
        if result.state != "passed":
            title = function or source.strip().splitlines()[0][:100]
            told = result.text.startswith(title)  # an explained assert names itself
            failures.setdefault(result.text, []).append("" if told else title)
    lines = [f"{sum(result.state == 'passed' for result in results)} of {len(results)} tests passed."]
    for text, titles in failures.items():
        named = ", ".join(title for title in titles[:3] if title)
        more = f" and {len(titles) - 3} more" if len(titles) > 3 else ""
        lines.append(f"FAILED {named}{more}: {text}" if named else f"FAILED {text}")
    return shorten("\n".join(lines), TEXT_CHARS, keep_head=0.8)


def shorten(text: str, limit: int, *, keep_head: float) -> tuple[str, bool]:
    """Return the text, or its head and tail with a note between them, and whether it was cut.

    Args:
        keep_head: which part of the limit goes to the head.
    """
    if len(text) <= limit:
        return text, False
    head = int(limit * keep_head)
    return f"{text[:head]}\n[... {len(text) - limit} characters left out ...]\n{text[len(text) - limit + head :]}", True


def units_of(test: str) -> list[harness.Unit]:
    """Split a test into what runs and counts by itself: each test function or method, else the whole text."""
    try:
        tree = ast.parse(test)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return [(test, "")]  # the harness says what is wrong with it
    called = {node.func.id for top in tree.body if isinstance(top, ast.Expr) for node in ast.walk(top)
              if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and (node.name.startswith("Test") or _is_test_case(node)):
            names += [f"{node.name}.{method.name}" for method in node.body if _is_test(method)]
        elif _is_test(node) and node.name not in called:  # one that the file calls itself may take arguments
            names.append(node.name)
    return [(test, name) for name in names] or [(test, "")]


def _is_test(node: ast.stmt) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")


def _is_test_case(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).endswith("TestCase") for base in node.bases)


def _job(program: str, units: Sequence[harness.Unit], nonce: str, limits: Limits) -> bytes:
    """Write the harness's input: see `harness.serve`."""
    texts = [text.encode("utf-8", "replace") for text in (program, *(part for unit in units for part in unit))]
    wall_s, cpu_s = limits.wall_s * HARNESS_SHARE, limits.cpu_s * HARNESS_SHARE
    head = " ".join([str(len(nonce)), f"{wall_s:.3f}", f"{cpu_s:.3f}", *(str(len(text)) for text in texts)])
    return b"".join([head.encode(), b"\n", *texts, nonce.encode()])


def _report(stdout: str, nonce: str, total: int) -> list[_TestResult] | None:
    """Read the harness's report; None when it is not the harness's, or not complete."""
    lines = stdout.splitlines()
    if len(lines) != total + 1 or not secrets.compare_digest(lines[0].encode(), nonce.encode()):
        return None
    words = [line.partition(" ") for line in lines[1:]]
    return [_TestResult(state, bytes.fromhex(text).decode("utf-8", "replace")) for state, _, text in words]


def _ending(result: ExecResult, limits: Limits) -> str:
    """Say how a program ended, where it did not end well."""
    if result.outcome in ENDINGS:
        mebibytes = limits.memory_bytes / 2**20
        return ENDINGS[result.outcome].format(**limits.model_dump(), mebibytes=mebibytes)
    if result.exit_code is not None and result.exit_code < 0:
        return f"ended by signal {-result.exit_code}"
    return f"ended with exit status {result.exit_code}" if result.exit_code else ""
