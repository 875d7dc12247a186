"""The parent's end of the conversation with reasoning-gym's process."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
import time
from typing import Any

from ponder.bench.problems import Grade
from ponder.errors import MachineError

MAKE_S = 120.0
"""For a question; the first one also imports the library."""

SCORE_S = 20.0
ANSWER_CHARS = 20_000
"""A longer answer is wrong: no puzzle asks for one."""

MISSING = "pip install 'ponder[bench]'"


class _TooSlow(Exception):
    """No reply in time; the process is gone."""


class GymTalk:
    """Asks a child process for questions and scores. The child starts on first use, and again after it was ended.

    One question at a time; threads take turns.
    """

    def __init__(self, *, score_s: float = SCORE_S) -> None:
        self._score_s = score_s
        self._child: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def families(self) -> tuple[tuple[str, ...], str]:
        """Return the library's families and its version. Raises MachineError: it is not installed."""
        reply = self._asked({"families": True})
        return tuple(reply["families"]), str(reply["version"])

    def question(self, family: str, seed: int, index: int) -> str:
        """Return a puzzle's question. Raises MachineError: it cannot be made."""
        return str(self._asked({"family": family, "seed": seed, "index": index})["question"])

    def score(self, family: str, seed: int, index: int, answer: str) -> Grade:
        """Return what an answer is worth; outcome `wall` when the verifier took too long. Raises MachineError."""
        if len(answer) > ANSWER_CHARS:
            return Grade(right=False, outcome="wrong")
        place = {"family": family, "seed": seed, "index": index}
        self._asked(place)  # loads the library and makes the puzzle, if need be: that is not the verifier's time
        try:
            reply = self._ask({**place, "answer": answer}, self._score_s)
        except _TooSlow:
            return Grade(right=False, outcome="wall")
        score = min(1.0, max(0.0, float(_checked(reply)["score"])))
        right = score > 1 - 1e-9
        return Grade(right=right, score=score, outcome="right" if right else "wrong")

    def close(self) -> None:
        """End the child. Safe to call twice."""
        with self._turn:
            self._end()

    def _asked(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return _checked(self._ask(request, MAKE_S))
        except _TooSlow as error:
            raise MachineError(f"reasoning-gym gave no answer within {MAKE_S:.0f} s") from error

    def _ask(self, request: dict[str, Any], patience_s: float) -> dict[str, Any]:
        with self._turn:
            child = self._running()
            assert child.stdin is not None
            try:
                child.stdin.write(json.dumps(request).encode() + b"\n")
                child.stdin.flush()
                line = self._line(child, time.monotonic() + patience_s)
            except BrokenPipeError:
                line = b""
            except BaseException:  # Ctrl-C, too: a reply that comes later would be taken for the next one's
                self._end()
                raise
            if not line.endswith(b"\n"):
                self._end()
                raise MachineError("reasoning-gym's process died")
            reply: dict[str, Any] = json.loads(line)
            return reply

    @staticmethod
    def _line(child: subprocess.Popen[bytes], deadline: float) -> bytes:
        """Return the next line; what there is of it when the child ended. Raises _TooSlow."""
        assert child.stdout is not None
        parts: list[bytes] = []
        while not (parts and parts[-1].endswith(b"\n")):
            ready, _, _ = select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise _TooSlow
            part = child.stdout.read1(65536)  # type: ignore[attr-defined]  # a buffered reader: Popen says IO
            if not part:
                break
            parts.append(part)
        return b"".join(parts)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._end()
            # A session of its own: Ctrl-C at the terminal is ours to handle.
            self._child = subprocess.Popen(
                [sys.executable, "-m", "ponder.bench.suites.gym_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self._child

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()


def _checked(reply: dict[str, Any]) -> dict[str, Any]:
    """Return the reply. Raises MachineError when it is an error."""
    if reply.get("missing"):
        raise MachineError(f"reasoning-gym cannot be used: {reply['error']}", fix=MISSING)
    if "error" in reply:
        raise MachineError(f"reasoning-gym failed: {reply['error']}")
    return reply
