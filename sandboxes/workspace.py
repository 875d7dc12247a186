"""The files of a branch between its programs: a value, so that keeping two of them is a fork."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ponder.records import ExecResult

FILE_OVERHEAD = 4096
"""What a file costs besides its content: its name, and the rest of its last page."""


@dataclass(frozen=True)
class Workspace:
    """Files by relative path, as `Sandbox.exec` takes them. Processes, links and empty folders are not kept.

    `files` cannot be changed; `fork` costs nothing, as both sides share the same bytes.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take a copy that nobody else can change."""
        object.__setattr__(self, "files", MappingProxyType(dict(self.files)))

    @property
    def size(self) -> int:
        """Bytes that the files take on a file system, roughly from above."""
        return sum(map(_cost, self.files.values()))

    def after(self, result: ExecResult) -> Workspace:
        """Return the workspace as the program left it: what it wrote is there, what it removed is gone."""
        if not result.files:
            return self
        files = dict(self.files)
        for path in result.files:
            files.pop(path, None)
        written = {path: data for path, data in result.files.items() if data is not None}
        for path in written:  # two calls of one branch may have made a file and a folder of the same name
            for other in [other for other in files if _clash(path, other)]:
                del files[other]
        return Workspace({**files, **written})

    def fork(self) -> Workspace:
        """Return a workspace of the same files for another branch; what happens to one is not seen in the other."""
        return self

    def bounded(self, max_bytes: int) -> Workspace:
        """Return the largest part that fits into so many bytes (as `size` counts), the small files first."""
        if self.size <= max_bytes:
            return self
        kept = {}
        for path, data in sorted(self.files.items(), key=lambda item: len(item[1])):
            max_bytes -= _cost(data)
            if max_bytes < 0:
                break
            kept[path] = data
        return Workspace(kept)


def _cost(data: bytes) -> int:
    return len(data) + FILE_OVERHEAD


def _clash(path: str, other: str) -> bool:
    return path.startswith(other + "/") or other.startswith(path + "/")
