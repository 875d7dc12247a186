"""The lines of a cassette: what stands in the file, and how it is read and compared.

One JSON object a line. The first is the header; a last line that was cut off (the recording program was killed) is left
out. Prompts and answers stand there as they were: whoever reads the file reads them.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from ponder.errors import UsageError
from ponder.records import Completion, CpuReading, Prompt, Record, SamplingParams, Usage

_AROUND = 30
"""Characters shown before and after a difference."""


class Request(Record):
    """What was asked: one prompt, so many samples of it."""

    prompt: Prompt
    params: SamplingParams
    n: int

    @property
    def key(self) -> str:
        """SHA-256 of the content."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


class Header(Record):
    """The first line."""

    cassette: Literal[1] = 1
    manifest: dict[str, str | int | float | bool]
    """Of the core that was recorded."""


class Began(Record):
    """A request was sent."""

    at: Literal["began"] = "began"
    id: int
    request: Request
    read: CpuReading
    """The core's meter at that moment, as in every line."""


class Ended(Record):
    """A sample ended; its finish reason says whether it was cancelled."""

    at: Literal["ended"] = "ended"
    id: int
    sample: int
    completion: Completion
    read: CpuReading


class Failed(Record):
    """A request broke with a CoreError."""

    at: Literal["failed"] = "failed"
    id: int
    error: str
    read: CpuReading


class Taken(Record):
    """A run took the samples that had ended by now, or decided on what was charged by now."""

    at: Literal["taken"] = "taken"
    live: Usage
    """Tokens of the samples in flight: a decision counts them too."""
    read: CpuReading


Line = Began | Ended | Failed | Taken
_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="at")])


class Tape(Record):
    """What a cassette holds."""

    header: Header
    lines: tuple[Line, ...]


def read_tape(path: Path) -> Tape:
    """Return what a cassette holds. Raises UsageError."""
    try:
        lines = path.read_text("utf-8").removesuffix("\n").split("\n")  # answers hold other line ends of Unicode
    except OSError as error:
        raise UsageError(f"cannot read the cassette {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no cassette: it is not text") from error
    found: list[Line] = []
    try:
        header = Header.model_validate_json(lines[0])
    except ValidationError as error:
        raise UsageError(f"{path} is no cassette", fix="record one with `ponder ask --record FILE`") from error
    for number, line in enumerate(lines[1:], 2):
        try:
            found.append(_LINE.validate_json(line))
        except ValidationError as error:
            if number == len(lines):
                break  # the recording was cut off here
            raise UsageError(f"{path}: line {number} is damaged ({error.errors()[0]['msg']})") from error
    return Tape(header=header, lines=tuple(found))


def difference(asked: Request, recorded: Sequence[Request]) -> str:
    """Return, as a sentence, what sets a request apart from the nearest recorded one."""
    if not recorded:
        return "nothing is recorded"
    near = max(range(len(recorded)), key=lambda i: _nearness(asked, recorded[i]))
    found = list(_differences(asked, recorded[near]))
    if not found:
        times = sum(one.key == asked.key for one in recorded)
        return f"it was asked {times} times in the recording, and now once more"
    return f"the nearest recorded request (number {near + 1} of {len(recorded)}) differs in {'; '.join(found)}"


def _nearness(a: Request, b: Request) -> tuple[float, float]:
    same = sum(x == y for x, y in zip(a.prompt.messages, b.prompt.messages, strict=False))
    count = max(len(a.prompt.messages), len(b.prompt.messages), 1)
    fields = (a.prompt.prefill == b.prompt.prefill, a.params == b.params, a.n == b.n)
    words = difflib.SequenceMatcher(None, _text(a)[-2000:], _text(b)[-2000:], autojunk=False).quick_ratio()
    return same / count + sum(fields) / len(fields), words


def _text(request: Request) -> str:
    return "\n".join(message.content for message in request.prompt.messages)


def _differences(asked: Request, recorded: Request) -> list[str]:
    found = []
    mine, theirs = asked.prompt.messages, recorded.prompt.messages
    if len(mine) != len(theirs):
        found.append(f"the number of messages (recorded {len(theirs)}, asked {len(mine)})")
    for i, (a, b) in enumerate(zip(mine, theirs, strict=False), 1):
        if a.role != b.role:
            found.append(f"the role of message {i} (recorded {b.role}, asked {a.role})")
        if a.content != b.content:
            found.append(f"message {i} ({a.role}) {_where(b.content, a.content)}")
            break
    if asked.prompt.prefill != recorded.prompt.prefill:
        found.append(f"the prefill (recorded {recorded.prompt.prefill!r}, asked {asked.prompt.prefill!r})")
    for name in type(asked.params).model_fields:
        was, now = getattr(recorded.params, name), getattr(asked.params, name)
        if was != now and isinstance(was, str) and isinstance(now, str):
            found.append(f"{name} {_where(was, now)}")
        elif was != now:
            found.append(f"{name} (recorded {was!r}, asked {now!r})")
    if asked.n != recorded.n:
        found.append(f"n (recorded {recorded.n}, asked {asked.n})")
    return found


def _where(recorded: str, asked: str) -> str:
    pairs = enumerate(zip(recorded, asked, strict=False))
    at = next((i for i, (was, now) in pairs if was != now), min(len(recorded), len(asked)))
    start = max(0, at - _AROUND)
    here = slice(start, at + _AROUND)
    return f"from character {at} on (recorded {recorded[here]!r}, asked {asked[here]!r})"
