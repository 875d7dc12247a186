"""The store: every run as an append-only list of events, in one SQL database (SQLite unless told otherwise).

Everything else (trees, bills, results) is a fold over these events, so nothing is written twice and a run that is
killed at any point can be read up to its last event.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import tenacity
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from ponder.errors import RunNotFound, StoreError, UsageError
from ponder.records import Record
from ponder.tree import Event

_METADATA = sa.MetaData()
_RUNS = sa.Table(
    "runs",
    _METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
)
_EVENTS = sa.Table(
    "events",
    _METADATA,
    sa.Column("run_id", sa.String(32), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("node", sa.Integer),
    sa.Column("data", sa.Text, nullable=False),
)


class RunSummary(Record):
    """One line of `ponder runs list`. The last four are None while the run has not ended."""

    id: str
    created: float
    prompt: str
    nodes: int
    stop_reason: str | None
    answer: str | None
    confidence: float | None
    cpu_s: float | None


def open_store(url: str | Path) -> Store:
    """Open (and make, if need be) the store at a file path or an SQLAlchemy URL. Raises StoreError."""
    text = str(url)
    try:
        if "://" not in text:
            path = Path(text)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            text = f"sqlite:///{path}"
        engine = sa.create_engine(text)
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", _sqlite_pragmas)
        _make_tables(engine)
    except (SQLAlchemyError, OSError) as error:
        fix = "set PONDER_HOME to a writable folder"
        raise StoreError(f"cannot open the store {url}: {_short(error)}", fix=fix) from error
    return Store(engine)


@tenacity.retry(
    retry=tenacity.retry_if_exception(lambda error: "database is locked" in str(error)),
    stop=tenacity.stop_after_delay(10), wait=tenacity.wait_random(0.01, 0.1), reraise=True,
)  # fmt: skip
def _make_tables(engine: Engine) -> None:
    """Make what is not there. Agents that share a folder may come at once, and SQLite lets none wait for WAL mode."""
    with engine.begin() as connection:
        for table in _METADATA.sorted_tables:
            connection.execute(sa.schema.CreateTable(table, if_not_exists=True))


def _sqlite_pragmas(connection: Any, _record: object) -> None:
    # WAL with synchronous=NORMAL survives kill -9 of the process and lets `ponder runs` read beside a running search.
    connection.execute("PRAGMA busy_timeout=10000")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _short(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]


class Store:
    """Append-only access to runs and their events. Thread-safe as far as its SQL engine is."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, run_id: str, prompt: str) -> None:
        """Begin a run. Raises StoreError."""
        with self._writing() as connection:
            connection.execute(_RUNS.insert().values(id=run_id, created=time.time(), prompt=prompt))

    def append(self, run_id: str, seq: int, event: Event) -> None:
        """Write one event; `seq` counts from 0 and a number can be used once. Raises StoreError."""
        row = event.model_dump(mode="json")
        with self._writing() as connection:
            row["data"] = json.dumps(row["data"])
            connection.execute(_EVENTS.insert().values(run_id=run_id, seq=seq, **row))

    def events(self, run_id: str) -> list[Event]:
        """Return all events of a run in order. Raises RunNotFound, StoreError."""
        query = sa.select(_EVENTS).where(_EVENTS.c.run_id == run_id).order_by(_EVENTS.c.seq)
        rows = self._read(query)
        if not rows:
            raise RunNotFound(f"no run {run_id!r}", fix="see `ponder runs list`")
        return [Event(kind=r.kind, node=r.node, data=json.loads(r.data), time=r.time) for r in rows]

    def find(self, prefix: str) -> str:
        """Return the one run id that begins with `prefix`. Raises RunNotFound when none or several do."""
        pattern = prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        rows = self._read(sa.select(_RUNS.c.id).where(_RUNS.c.id.like(pattern, escape="\\")).limit(2))
        if len(rows) == 1:
            return str(rows[0].id)
        what = "no run begins" if not rows else "several runs begin"
        raise RunNotFound(f"{what} with {prefix!r}", fix="see `ponder runs list`")

    def runs(self, limit: int = 20) -> list[RunSummary]:
        """Return the newest runs first."""
        rows = self._read(sa.select(_RUNS).order_by(_RUNS.c.created.desc()).limit(limit))
        return [self._summary(row) for row in rows]

    def close(self) -> None:
        """Release the database."""
        self._engine.dispose()

    def _summary(self, row: Any) -> RunSummary:
        ended = self._read(sa.select(_EVENTS.c.data).where(_EVENTS.c.run_id == row.id, _EVENTS.c.kind == "ended"))
        count = sa.select(sa.func.count()).where(_EVENTS.c.run_id == row.id, _EVENTS.c.kind == "asked")
        result = json.loads(ended[-1].data) if ended else {}
        total = result.get("ledger", {}).get("total", {})
        return RunSummary(
            id=row.id,
            created=row.created,
            prompt=row.prompt,
            nodes=int(self._read(count)[0][0]),
            stop_reason=result.get("stop_reason"),
            answer=result.get("answer"),
            confidence=result.get("confidence"),
            cpu_s=total.get("cpu_user_s", 0.0) + total.get("cpu_system_s", 0.0) if total else None,
        )

    def _read(self, query: sa.Select[Any]) -> list[Any]:
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(query))
        except SQLAlchemyError as error:
            raise StoreError(f"cannot read the store: {_short(error)}") from error

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(f"cannot write the store: {_short(error)}") from error


class Log:
    """One run's events being written: each goes to the store first, then to whoever listens (tree, view)."""

    def __init__(self, store: Store, run_id: str, *, seq: int = 0) -> None:
        self._store, self.run_id, self._seq = store, run_id, seq
        self._listeners: list[Callable[[Event], None]] = []

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener(event)` after each event is safely written."""
        self._listeners.append(listener)

    def write(self, event: Event) -> None:
        """Append the event. Raises StoreError."""
        stamped = event.model_copy(update={"time": time.time()})
        self._store.append(self.run_id, self._seq, stamped)
        self._seq += 1
        for listener in self._listeners:
            listener(stamped)


@contextmanager
def held(home: Path, run_id: str) -> Iterator[None]:
    """Hold a run while it is searched, so that nobody else goes on with it; the system lets go when the process dies.

    Where the lock's file cannot be made, the run is searched without.

    Raises:
        UsageError: another process searches it.
    """
    from filelock import FileLock, Timeout

    path = _lock_file(home, run_id)
    lock = FileLock(path)
    try:
        path.parent.mkdir(exist_ok=True, mode=0o700)
        lock.acquire(timeout=0)
    except Timeout as error:  # an OSError, too
        raise UsageError(f"run {run_id} is still being searched by another process") from error
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):  # who waits for it at this moment sees that the file is gone
                path.unlink()
            lock.release()


def is_held(home: Path, run_id: str) -> bool:
    """Return whether a run is being searched now, by any process of this machine."""
    path = _lock_file(home, run_id)
    if not path.exists():
        return False
    from filelock import FileLock, Timeout

    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False


def _lock_file(home: Path, run_id: str) -> Path:
    return home / "running" / f"{run_id}.lock"
