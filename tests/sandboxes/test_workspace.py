"""Workspaces: values that a program's changes are applied to."""

from __future__ import annotations

import pytest

from ponder.records import ExecResult, Layers, Usage
from ponder.sandboxes.workspace import FILE_OVERHEAD, Workspace


def ended(**files: bytes | None) -> ExecResult:
    paths = {path.replace("__", "/"): data for path, data in files.items()}
    return ExecResult(
        outcome="ok", exit_code=0, stdout="", stderr="", truncated=False, usage=Usage(), backend="none",
        layers=Layers(active=()), files=paths,
    )  # fmt: skip


def test_what_was_written_is_there_and_what_was_removed_is_gone() -> None:
    space = Workspace({"a": b"1", "b": b"2"})
    after = space.after(ended(a=None, b=b"3", c=b""))
    assert after.files == {"b": b"3", "c": b""}
    assert space.files == {"a": b"1", "b": b"2"}
    assert space.after(ended()) is space


def test_a_fork_sees_nothing_of_the_other() -> None:
    left = Workspace({"a": b"1"})
    right = left.fork()
    left = left.after(ended(a=b"2"))
    assert right.files == {"a": b"1"}
    assert left.files == {"a": b"2"}


def test_it_cannot_be_changed() -> None:
    files = {"a": b"1"}
    space = Workspace(files)
    files["b"] = b"2"
    assert space.files == {"a": b"1"}
    with pytest.raises(TypeError):
        space.files["c"] = b""  # type: ignore[index]


def test_a_file_and_a_folder_of_one_name_do_not_stay_together() -> None:
    space = Workspace({"a": b"1", "b/c": b"2", "bc": b"3"})
    assert space.after(ended(a__d=b"4", b=b"5")).files == {"bc": b"3", "a/d": b"4", "b": b"5"}


def test_the_small_files_stay_when_it_is_bounded() -> None:
    space = Workspace({"large": bytes(9000), "small": b"1", "middle": bytes(500)})
    assert space.size == 9501 + 3 * FILE_OVERHEAD
    assert space.bounded(space.size) is space
    assert set(space.bounded(space.size - 1).files) == {"small", "middle"}
    assert space.bounded(0).files == {}
