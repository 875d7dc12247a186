"""What a program does when it is called: sent into a sandbox with it, where each call has a process of its own.

The outcomes are the program's own claims: it can say what it likes. It gains little by that, since what agrees with
nothing is no evidence; but where the core's own tests are called with what they expect, it can claim to pass them.
Whoever must not trust it runs tests (`relay.py`).
"""

from __future__ import annotations

import json
import math
import sys
import time
import types

from ponder.tools.checking.errors import SOLUTION
from ponder.tools.checking.wire import TICK_MS, Channel, Gone, Stage, cpu_share_s, wait

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers take this name for true; importing `typing` takes milliseconds
    from typing import Any

CALLS, OUTCOMES = "calls.json", "outcomes.json"
LONGEST = 400
"""Characters of an outcome; a longer one is cut and gets the hash of the whole."""

MOST_PARTS = 20_000
DIGITS = 9
"""Significant digits of a float that count."""


def main() -> None:
    """Make each call and write down what came of it."""
    with open(CALLS, encoding="utf-8") as file:
        job = json.load(file)
    with open(SOLUTION, encoding="utf-8", errors="replace", newline="") as file:
        source = file.read()
    deadline = time.monotonic() + job["wall_s"]
    outcomes: list[str] = []
    for index, call in enumerate(job["calls"]):
        waiting = len(job["calls"]) - index
        share_s = max(0.0, deadline - time.monotonic()) / waiting
        outcomes.append(_outcome(source, call, cpu_share_s(job["cpu_s"], waiting), share_s))
        if outcomes[-1] == "!load":  # it would not load for the others either
            outcomes += ["!load"] * (waiting - 1)
            break
    with open(OUTCOMES, "w", encoding="utf-8") as file:
        json.dump(outcomes, file)


def _outcome(source: str, call: str, cpu_s: float, wall_s: float) -> str:
    """Return what one call comes to, at most `wall_s` seconds later."""
    stage = Stage(lambda channel: _be_called(channel, source, call), cpu_s)
    deadline = time.monotonic() + wall_s
    try:
        while (left := deadline - time.monotonic()) > 0:
            wait((stage.channel,), (), min(TICK_MS, left * 1000))
            for _, payload in stage.channel.take():
                return payload.decode()
        return "~time"
    except Gone:
        stage.ended(0.1)
        return "~time" if "CPU time" in stage.said() else "~gone"
    finally:
        stage.close()


def _be_called(channel: Channel, source: str, call: str) -> None:
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        exec(compile(source, SOLUTION, "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        channel.send(b"V", b"!load")
        return
    try:
        said = "=" + shape(eval(compile(call, "call", "eval", dont_inherit=True), module.__dict__))
    except BaseException as error:
        said = "!" + type(error).__name__
    if len(said) > LONGEST:
        import hashlib

        digest = hashlib.blake2b(said.encode("utf-8", "replace"), digest_size=8).hexdigest()
        said = f"{said[:LONGEST]}... {digest}"
    channel.send(b"V", said.encode("utf-8", "replace"))


def shape(value: Any) -> str:
    """Return a text that is the same for values that tests would find equal, up to rounding."""
    parts = [0]

    def of(value: Any) -> str:
        parts[0] += 1
        if parts[0] > MOST_PARTS:
            raise OverflowError("too large")
        match value:
            case bool() | int():
                return str(int(value)) if abs(value) < 10**4000 else f"int of {value.bit_length()} bits"
            case float():
                whole = math.isfinite(value) and value == int(value) and abs(value) < 10**DIGITS
                return str(int(value)) if whole else f"{value:.{DIGITS}g}"
            case str() | bytes() | bytearray() | None:
                return repr(value)
            case list():
                return f"[{', '.join(map(of, value))}]"
            case tuple():
                return f"({', '.join(map(of, value))},)"
            case set() | frozenset():
                return f"{{{', '.join(sorted(map(of, value)))}}}"
            case dict():
                return f"{{{', '.join(sorted(f'{of(key)}: {of(item)}' for key, item in value.items()))}}}"
        text = repr(value)
        return type(value).__name__ if " at 0x" in text else text

    return of(value)
