"""Runs tests against a program, inside a sandbox: this file is sent there as `main.py`, so it imports nothing of ours.

It is the first process of the sandbox and never runs the program itself: for each test it forks a child that loads
the program, runs the one test, and reports through a pipe. What reaches the host is signed with a nonce that this
process reads from its input only after every child is dead.

Covered: a program that exits, kills, hangs, floods, forks, prints that it passed, or writes into `/proc`; a test that
hangs costs its own share of the time only.

Not covered: within its own child the program and the test share one process, so a program written to attack this
harness (walking the stack for the child's mark, objects equal to everything, a patched `builtins`) can pass its own
tests. Only separate processes for program and test would prevent that.
"""

from __future__ import annotations

import ast
import os
import select
import signal
import sys
import time
import types
from collections.abc import Sequence
from typing import Any

MARK_BYTES = 16
SHOWN = 300
"""Characters of a value's repr, at most; a description is at most three times as long."""

TEXT_BYTES = 1200
REPORT_BYTES = 1 << 16
POLL_S = 0.01
PR_SET_DUMPABLE = 4

Unit = tuple[str, str]
"""A test's source, and the test function in it to call (empty: running the source is the test)."""


def serve() -> None:
    """Read the job from standard input, run it, print the signed report.

    The input is one line `NONCE_BYTES WALL_S CPU_S LENGTH...`, then the texts of those lengths (the program, then
    source and function of each test), then the nonce. The report is the nonce, then a line `STATE HEX` per test, where
    the state is `passed`, `failed` or `lost` and HEX what there is to say, as UTF-8.
    """
    head = b""
    while not head.endswith(b"\n"):
        head += os.read(0, 1)
    nonce_bytes, wall_s, cpu_s, *lengths = head.split()
    texts = [_read(int(length)).decode() for length in lengths]
    _hide()
    units = list(zip(texts[1::2], texts[2::2], strict=True))
    results = run_units(texts[0], units, float(wall_s), float(cpu_s))
    nonce = _read(int(nonce_bytes))
    lines = [nonce.decode(), *(f"{state} {_packed(text).decode()}" for state, text in results)]
    report = ("\n".join(lines) + "\n").encode()
    while report:
        report = report[os.write(1, report) :]


def _read(size: int) -> bytes:
    data = b""
    while len(data) < size and (more := os.read(0, size - len(data))):
        data += more
    return data


def _packed(text: str) -> bytes:
    """Return the beginning of a text as one word."""
    return text.encode("utf-8", "replace")[:TEXT_BYTES].hex().encode()


def _hide() -> None:
    """Close this process's files and memory in /proc to its children."""
    import ctypes

    if ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_DUMPABLE) failed")


def run_units(program: str, units: Sequence[Unit], wall_s: float, cpu_s: float) -> list[tuple[str, str]]:
    """Run each unit in a child of its own, giving each an even share of the time that is left."""
    results: list[tuple[str, str]] = []
    deadline = time.monotonic() + wall_s
    for done, unit in enumerate(units):
        spent = os.times()
        left = min(deadline - time.monotonic(), cpu_s - spent.children_user - spent.children_system)
        if left <= 0:
            results.append(("lost", "no time was left for it"))
            continue
        loaded, state, text = _run_child(program, unit, left / (len(units) - done))
        results.append((state, text))
        if not loaded:  # the program itself is broken: no test can tell more
            results += [("failed", text)] * (len(units) - done - 1)
            break
    return results


def _run_child(program: str, unit: Unit, share_s: float) -> tuple[bool, str, str]:
    """Return whether the program loaded, the state, and what there is to say."""
    mark = os.urandom(MARK_BYTES).hex().encode()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_child(program, unit, writer, mark)
    os.close(writer)
    data, status, timed_out = _follow(child, reader, time.monotonic() + share_s)
    os.close(reader)
    _end_all(child)
    lines = [line.partition(b" ")[2] for line in data.split(b"\n") if line.startswith(mark + b" ")]
    loaded = b"loaded" in lines
    where = "the test" if loaded else "the program"
    last = lines[-1] if lines else b""
    if last == b"passed" and status == 0:
        return True, "passed", ""
    if last.startswith(b"failed "):
        return loaded, "failed", _unpacked(last[7:])
    if timed_out:
        return loaded, "failed", f"{where} did not end within {share_s:.1f} s"
    if status is not None and status < 0:
        return loaded, "failed", f"{where} was killed by {signal.Signals(-status).name}"
    return loaded, "failed", f"{where} ended the process"


def _unpacked(word: bytes) -> str:
    try:
        return bytes.fromhex(word.decode()).decode("utf-8", "replace")
    except ValueError:
        return "it failed, and its report is garbled"


def _follow(child: int, reader: int, deadline: float) -> tuple[bytes, int | None, bool]:
    """Return what the child said, its exit code (None: still running), and whether the time was up.

    The end that counts is the child's: what it left behind may hold the pipe open for ever.
    """
    data, closed = b"", False
    os.set_blocking(reader, False)
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        late = time.monotonic() > deadline
        while not closed:
            try:
                more = os.read(reader, 4096)
            except BlockingIOError:
                break
            data += more
            closed = not more or len(data) > REPORT_BYTES
        if pid or late:
            return data, os.waitstatus_to_exitcode(status) if pid else None, late and not pid
        if closed:
            time.sleep(POLL_S / 10)
        else:
            select.select([reader], [], [], POLL_S)


def _end_all(child: int) -> None:
    """Kill and wait for everything in the sandbox but this process."""
    while True:
        # Only the first process of a pid namespace may say "everything": elsewhere that would be the machine.
        try:
            os.kill(-1 if os.getpid() == 1 else child, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            os.waitpid(-1 if os.getpid() == 1 else child, 0)
        except ChildProcessError:
            return


def _be_child(program: str, unit: Unit, writer: int, mark: bytes) -> None:
    """Run one unit, report, and end without ever returning into the parent's code."""
    say, end = os.write, os._exit  # held here, since the program may replace them
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    code = 1
    try:
        space = _load(program)
        say(writer, mark + b" loaded\n")
        _run_unit(unit, space)
        say(writer, mark + b" passed\n")
        code = 0
    except BaseException as error:
        say(writer, mark + b" failed " + _packed(_describe(error)) + b"\n")
    finally:
        end(code)


def _load(program: str) -> dict[str, Any]:
    """Run the program as module `solution` and return its names; its `__main__` block does not run."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    _keep_source("solution.py", program)
    exec(compile(program, "solution.py", "exec"), module.__dict__)
    return module.__dict__


def _run_unit(unit: Unit, space: dict[str, Any]) -> None:
    source, function = unit
    _keep_source("test.py", source)
    tree = ast.fix_missing_locations(_Explain(source).visit(ast.parse(source, "test.py")))
    names = {**space, "__name__": "test", "@explain": _explain}
    exec(compile(tree, "test.py", "exec"), names)
    if function:
        owner, _, method = function.rpartition(".")
        if not owner:
            outcome = names[method]()
        elif hasattr(names[owner], "debug"):  # a unittest.TestCase: with its setUp and tearDown, errors raised
            outcome = names[owner](method).debug()
        else:
            outcome = getattr(names[owner](), method)()
        if isinstance(outcome, types.CoroutineType):
            import asyncio

            asyncio.run(outcome)


class _Explain(ast.NodeTransformer):
    """Makes `assert a == b` say what both sides were; the sides are still evaluated once, in order."""

    def __init__(self, source: str) -> None:
        self.source = source

    def visit_Assert(self, node: ast.Assert) -> Any:
        """Rewrite an assert of one comparison or call; leave any other as it is."""
        text = ast.get_source_segment(self.source, node) or "assert"
        if node.msg is not None:
            return node
        test, before = node.test, []
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            before = [_assign("@left", test.left), _assign("@right", test.comparators[0])]
            left, right = _name("@left"), _name("@right")
            test = ast.Compare(left, test.ops, [right])
            values: list[ast.expr] = [left, right]
        else:
            before = [_assign("@left", test)]
            test = _name("@left")
            values = [_name("@left")]
        message = ast.Call(_name("@explain"), [ast.Constant(text), *values], [])
        return [ast.copy_location(new, node) for new in (*before, ast.Assert(test, message))]


def _assign(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def _name(name: str) -> ast.expr:
    return ast.Name(name, ast.Load())


def _explain(text: str, *values: object) -> str:
    if len(values) == 2:
        return f"{text}: the left side was {_short(values[0])}, the right side {_short(values[1])}"
    return f"{text}: it was {_short(values[0])}"


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose repr fails: {error}>"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _describe(error: BaseException) -> str:
    """Return the exception and the lines of program and test that led to it."""
    import traceback

    kind = type(error).__name__
    if isinstance(error, AssertionError) and str(error).startswith("assert"):
        return str(error)  # written by `_explain`
    if isinstance(error, SystemExit):
        return "it called sys.exit"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in ("solution.py", "test.py")]
    places = [f"{f.filename} line {f.lineno}: {f.line}" for f in frames[:1] + frames[1:][-2:]]
    if isinstance(error, SyntaxError):
        places.append(f"{error.filename} line {error.lineno}: {(error.text or '').strip()}")
    return "\n".join([*places, f"{kind}: {error}"])[-3 * SHOWN :]


def _keep_source(name: str, text: str) -> None:
    """Let tracebacks show the lines of a file that exists in memory only."""
    import linecache

    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)


if __name__ == "__main__":
    serve()
