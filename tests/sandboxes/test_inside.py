"""The pieces of a sandbox's conversation: frames, jobs, what the host takes from process 1 and what it refuses."""

from __future__ import annotations

import asyncio
import marshal
import resource
from collections.abc import Callable

import pytest

from ponder.errors import UsageError
from ponder.records import CpuReading, Limits, Outcome, Usage
from ponder.sandboxes import calls, wire
from ponder.sandboxes.inside.frames import frame_end
from ponder.sandboxes.wire import Broken, Job, read_frame

LAST = b"status=0 flooded=0 user_us=1000 system_us=0 rss=4096 output=2"


def stream(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def test_frames_go_round() -> None:
    reader = stream(wire.frame(b"o", b"abc") + wire.frame(b"X", b""))
    assert [await read_frame(reader), await read_frame(reader)] == [(b"o", b"abc"), (b"X", b"")]
    with pytest.raises(Broken):
        await read_frame(reader)


@pytest.mark.parametrize("data", [b"", b"o", b"o\0\0\0\x05abc", b"o\xff\xff\xff\xffabc"])
async def test_what_is_no_frame(data: bytes) -> None:
    with pytest.raises(Broken):
        await read_frame(stream(data))


@pytest.mark.parametrize(("size", "end"), [(0, None), (4, None), (5, None), (7, None), (8, 8), (20, 8)])
def test_where_a_frame_ends(size: int, end: int | None) -> None:
    assert frame_end(bytearray(b"m\0\0\0\x03" + bytes(15))[:size]) == end


def test_a_job_says_all_that_process_1_needs() -> None:
    limits = Limits(cpu_s=1.5, disk_bytes=2**40)
    payload = Job(b"print()", {"a": b"1"}, b"in", limits, talks=True).frame()
    assert payload[:1] == b"J"
    job = marshal.loads(payload[5:])
    assert job["files"] == [("main.py", b"print()"), ("a", b"1")]
    assert (job["stdin"], job["talks"], job["return_files"]) == (b"in", True, 256)
    assert job["return_bytes"] == wire.RETURN_BYTES < wire.FRAME_BYTES
    assert (resource.RLIMIT_CPU, 3) in job["rlimits"]


@pytest.mark.parametrize("word", [b"/etc/passwd", b"../x", b"a/../b", b"a//b", b"./a", b"main.py", b"", b"\xff", b"\0"])
def test_files_with_names_that_no_file_has(word: bytes) -> None:
    with pytest.raises(Broken):
        wire.named_file(len(word).to_bytes(2, "big") + word + b"data")


def test_a_returned_file() -> None:
    assert wire.named_file(b"\0\x03a/bdata") == ("a/b", b"data")


@pytest.mark.parametrize("word", [b"", b"status=0", b"status=x flooded=0", b"\xff", LAST.replace(b"rss=", b"rss ")])
def test_last_words_that_are_none(word: bytes) -> None:
    with pytest.raises(Broken):
        wire.summary(word)
    assert wire.summary(LAST)["user_us"] == 1000


def test_messages_have_a_length() -> None:
    assert wire.message(b"x") == b"m\0\0\0\x01x"
    with pytest.raises(UsageError):
        wire.message(bytes(wire.MESSAGE_BYTES + 1))


@pytest.mark.parametrize(
    ("code", "cpu_s", "ooms", "stderr", "outcome"),
    [
        (0, 0.1, 0, "", "ok"),
        (0, 0.1, 1, "", "ok"),
        (1, 0.1, 0, "MemoryError", "memory"),
        (1, 0.1, 0, "MemoryError: x\n", "memory"),
        (1, 0.1, 0, "MemoryError\nValueError", "error"),
        (-9, 0.1, 1, "", "memory"),
        (-9, 0.99, 0, "", "cpu"),
        (-24, 0.99, 0, "", "cpu"),
        (-9, 0.1, 0, "", "killed"),
        (None, 0.1, 0, "", "killed"),
        (-11, 0.1, 0, "", "error"),
        (3, 0.1, 0, "", "error"),
    ],
)
def test_ends_that_were_not_ours(code: int | None, cpu_s: float, ooms: int, stderr: str, outcome: Outcome) -> None:
    usage = Usage(cpu_user_s=cpu_s)
    assert calls._outcome(code, usage, ooms, Limits(cpu_s=1), stderr.encode()) == outcome


class Scripted:
    """A cell whose process 1 says what it is told to."""

    def __init__(self, said: bytes, *, method: str = "cgroup") -> None:
        self.reader = stream(said)
        self.writer = self
        self.written: list[bytes] = []
        self.method, self.memory_is_limited = method, method == "cgroup"
        self.kills = self.dismissed = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return False

    def begin(self, limits: Limits) -> None:
        pass

    def read(self) -> CpuReading:
        return CpuReading(user_s=0.5, system_s=0.0, peak_rss_bytes=0, method=self.method)  # type: ignore[arg-type]

    def oom_kills(self) -> int:
        return 0

    async def kill(self) -> None:
        self.kills += 1

    def dismiss(self) -> None:
        self.dismissed += 1


async def call(said: bytes, **words: object) -> tuple[calls.Ended, Scripted, list[Usage]]:
    bills: list[Usage] = []
    cell = Scripted(said, **words)  # type: ignore[arg-type]
    limits = Limits(output_bytes=10, disk_bytes=100)
    ended = await calls.run_call(cell, Job(b"", {"given": b""}, b"", limits), None, bills.append)  # type: ignore[arg-type]
    return ended, cell, bills


def file_frame(name: str, size: int) -> bytes:
    return wire.frame(b"f", len(name).to_bytes(2, "big") + name.encode() + bytes(size))


async def test_a_good_report() -> None:
    said = wire.frame(b"o", b"hi") + file_frame("x", 3) + wire.frame(b"d", b"given") + wire.frame(b"l", b"y")
    ended, cell, bills = await call(said + wire.frame(b"X", LAST))
    assert (ended.outcome, ended.stdout, ended.left_out) == ("ok", b"hi", ("y",))
    assert ended.files == {"x": bytes(3), "given": None}
    assert (ended.clean, cell.kills, cell.dismissed) == (True, 0, 1)
    assert bills == [ended.usage]
    assert ended.usage.peak_rss_bytes == 4096


@pytest.mark.parametrize(
    "said",
    [
        b"",
        wire.frame(b"o", b"x" * 1000) + wire.frame(b"X", LAST),
        file_frame("x", 101) + wire.frame(b"X", LAST),
        file_frame("../x", 1) + wire.frame(b"X", LAST),
        b"".join(file_frame(str(n), 0) for n in range(300)) + wire.frame(b"X", LAST),
        wire.frame(b"l", b"x") * 200 + wire.frame(b"X", LAST),
        wire.frame(b"d", b"never given") + wire.frame(b"X", LAST),
        wire.frame(b"X", b"status=0"),
    ],
)
async def test_a_report_that_process_1_never_makes(said: bytes) -> None:
    ended, cell, bills = await call(said)
    assert (ended.outcome, ended.exit_code, ended.files, ended.clean) == ("killed", None, {}, False)
    assert cell.kills == 1
    assert cell.dismissed == 0
    assert len(bills) == 1


@pytest.mark.parametrize(("user_us", "method", "cpu_s"), [(900_000, "rusage", 0.9), (100_000, "process-tree", 0.5)])
async def test_without_a_cgroup_the_larger_lower_bound_counts(user_us: int, method: str, cpu_s: float) -> None:
    last = LAST.replace(b"user_us=1000", b"user_us=%d" % user_us)
    ended, _, _ = await call(wire.frame(b"X", last), method="process-tree")
    assert (ended.usage.method, ended.usage.cpu_s) == (method, pytest.approx(cpu_s))


async def test_through_a_cancellation() -> None:
    done: list[str] = []

    async def work(say: Callable[[str], None]) -> str:
        await asyncio.sleep(0.05)
        say("cleared")
        return "result"

    assert await calls.through(work(done.append)) == "result"
    task = asyncio.ensure_future(calls.through(work(done.append)))
    for _ in range(3):
        await asyncio.sleep(0.01)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["cleared", "cleared"]
