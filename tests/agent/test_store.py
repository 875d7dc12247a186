"""The event store: append-only, readable after a kill, clear when it cannot be used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ponder.errors import RunNotFound, StoreError, UsageError
from ponder.store import Log, held, is_held, open_store
from ponder.tree import Event, Tree


def test_events_come_back_in_order(tmp_path: Path) -> None:
    store = open_store(tmp_path / "deep" / "runs.sqlite")
    store.create("r1", "q")
    log = Log(store, "r1")
    heard: list[Event] = []
    log.listen(heard.append)
    log.write(Event(kind="started", data={"task": {"prompt": "q"}, "manifest": {}}))
    log.write(Event(kind="failed", node=3, data={"text": "ü"}))
    assert [event.kind for event in store.events("r1")] == ["started", "failed"]
    assert store.events("r1") == heard


def test_several_make_the_store_at_once(tmp_path: Path) -> None:
    at_once = threading.Barrier(8)

    def make(number: int) -> None:
        at_once.wait()
        open_store(tmp_path / "runs.sqlite").create(f"r{number}", "q")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(make, range(8)))
    assert len(open_store(tmp_path / "runs.sqlite").runs(10)) == 8


def test_runs_are_found_by_how_their_id_begins(tmp_path: Path) -> None:
    store = open_store(tmp_path / "runs.sqlite")
    for run in ("ab1", "ab2", "c_1"):
        store.create(run, "q")
    assert store.find("c_") == "c_1"
    with pytest.raises(RunNotFound, match="several"):
        store.find("ab")
    with pytest.raises(RunNotFound, match="no run"):
        store.find("c%")
    with pytest.raises(RunNotFound):
        store.events("nowhere")


def test_a_used_number_cannot_be_used_again(tmp_path: Path) -> None:
    store = open_store(tmp_path / "runs.sqlite")
    store.append("r", 0, Event(kind="cancelled", node=1))
    with pytest.raises(StoreError):
        store.append("r", 0, Event(kind="cancelled", node=2))


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="PONDER_HOME"):
        open_store(tmp_path / "file" / "runs.sqlite")
    (tmp_path / "rubbish.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="not a database"):
        open_store(tmp_path / "rubbish.sqlite")


WRITER = """
import sys
from ponder.store import open_store, Log
from ponder.tree import Event
store = open_store(sys.argv[1])
store.create("r", "q")
log = Log(store, "r")
log.write(Event(kind="started", data={"task": {"prompt": "q"}}))
node = {"id": 0, "parent": 0, "branch": 1, "depth": 1}
for i in range(1, 10**6):
    log.write(Event(kind="asked", data=node | {"id": i}))
    print(i, flush=True)
"""


def test_what_was_written_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    written = [int(writer.stdout.readline()) for _ in range(20)]
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    tree = Tree.from_events(open_store(path).events("r"))
    assert set(written) <= set(tree.nodes)


HOLDER = """
import sys, time
from pathlib import Path
from ponder.store import held
with held(Path(sys.argv[1]), "r"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_is_held_by_one_process_until_that_ends_however_it_ends(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert is_held(tmp_path, "r")
    assert not is_held(tmp_path, "another")
    with pytest.raises(UsageError, match="another process"), held(tmp_path, "r"):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert not is_held(tmp_path, "r")
    with held(tmp_path, "r"):
        assert is_held(tmp_path, "r")
    assert not (tmp_path / "running" / "r.lock").exists()
