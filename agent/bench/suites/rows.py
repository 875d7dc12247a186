"""Suites' data files: JSON lines, plain or gzipped, every row checked before anything runs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ponder.errors import UsageError

MAX_BYTES = 512 * 2**20


class Row(BaseModel):
    """Base of a suite's rows: strict types, and fields that the suite does not use are let through."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Data(Generic[R]):
    """A data file that was read."""

    rows: tuple[R, ...]
    file: str
    """The file's name, without its folder: a manifest says which data, not where it lay."""
    sha256: str
    """Of the rows' bytes, unzipped."""

    @property
    def manifest(self) -> dict[str, str | int]:
        """What a results file must agree on."""
        return {"data": self.file, "data_sha256": self.sha256}


def read_rows(path: Path, kind: type[R]) -> Data[R]:
    """Return the rows of a JSON-lines file (`.gz`: gzipped).

    Raises:
        UsageError: the file cannot be read, is empty, or a row is no JSON object of that kind; the message names the
            line.
    """
    content = _content(path)
    rows = []
    # Split at line feeds only: JSON lets other line separators (U+2028) stand inside strings.
    for number, line in enumerate(content.decode("utf-8").split("\n"), 1):
        if line.strip():
            rows.append(_row(line, kind, f"{path.name}, line {number}"))
    if not rows:
        raise UsageError(f"the suite file {path.name} is empty")
    return Data(rows=tuple(rows), file=path.name, sha256=hashlib.sha256(content).hexdigest())


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise UsageError(f"the suite file {path.name} holds more than {MAX_BYTES // 2**20} MiB")
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"the suite file {path.name} is not text") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(f"the suite file {path.name} cannot be unzipped: {error}") from error
    except OSError as error:
        raise UsageError(f"cannot read the suite file {path}: {error.strerror or error}") from error
    return content


def _row(line: str, kind: type[R], where: str) -> R:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:  # also an integer of more digits than Python reads
        raise UsageError(f"{where}: no JSON ({error})") from error
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise UsageError(f"{where}: the field {field!r} is missing") from error
        what = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{where}: {field + ': ' if field else 'no row: '}{what}") from error


def refuse_repeats(ids: list[str], file: str) -> None:
    """Raise UsageError when two rows have the same id."""
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise UsageError(f"{file}: two rows have the id {one}")
        seen.add(one)
