"""The first process of every sandbox: waits for a job, runs it in a child, says what came of it.

Laid into the root tree as the module `ponder_inside`, so it imports a few small parts of the standard library and
nothing of ours. It is process 1 of its pid namespace and serves one job: on its standard input come the job and later
messages, on its standard output go frames (`ponder.sandboxes.wire` is the other end).

Why a program cannot forge what is said here: it has none of these descriptors (it talks through pipes), process 1
ignores its signals, and is not dumpable, so that neither its memory nor its descriptors can be opened or traced. The
job holds nothing that the program may not know. Files are read back when everything else in the sandbox is dead.
"""

from __future__ import annotations

import _signal
import marshal
import os
import select
import stat
import sys

WORK = "/work"
MAIN = "main.py"
PIECE = 65536
MESSAGE_BYTES = 4 << 20
"""A longer message of the program ends its conversation."""

PR_SET_DUMPABLE = 4
GONE = 7
"""Exit status when the host closed the stream: not 0, so that a launcher does not start another sandbox."""

TALK_FD = 3
"""Where a program finds its end of the conversation, if it has one: messages behind their length, 4 bytes big-endian."""


def main() -> None:
    """Serve one job. It returns in a child, which then is the program's process."""
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    _set_dumpable(0)
    _emit(b"R")
    kind, payload = _read_frame(0)
    if kind != b"J":
        os._exit(GONE)
    job = marshal.loads(payload)
    seen = _lay(job["files"])
    stdin = os.memfd_create("stdin")
    _write_all(stdin, job["stdin"])
    os.lseek(stdin, 0, os.SEEK_SET)
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    talk = talk_end = -1
    if job["talks"]:
        import _socket

        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        talk, talk_end = ours.detach(), theirs.detach()
    wake, wake_end = os.pipe()
    os.set_blocking(wake_end, False)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    _signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
    child = os.fork()
    if child == 0:
        _signal.set_wakeup_fd(-1)
        _become_program(stdin, out_end, err_end, talk_end, job["rlimits"])
        return
    for fd in (stdin, out_end, err_end, talk_end):
        if fd >= 0:
            os.close(fd)
    watch = _Watch(child, out, err, talk, wake, job["output_bytes"])
    watch.follow()
    _give_back(seen, job["return_bytes"], job["return_files"])
    _emit(b"X", watch.summary())
    os._exit(0)


def _set_dumpable(value: int) -> None:
    import ctypes

    if ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, value, 0, 0, 0) != 0:
        os._exit(97)


# --- frames: one letter, four bytes of length, the payload --------------------------------------------------------


def _read_exactly(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = os.read(fd, min(size - len(data), 1 << 20))
        if not piece:
            os._exit(GONE)
        data += piece
    return bytes(data)


def _read_frame(fd: int) -> tuple[bytes, bytes]:
    head = _read_exactly(fd, 5)
    return head[:1], _read_exactly(fd, int.from_bytes(head[1:], "big"))


def _emit(kind: bytes, payload: bytes = b"") -> None:
    _write_all(1, kind + len(payload).to_bytes(4, "big") + payload)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


# --- the program --------------------------------------------------------------------------------------------------


def _become_program(stdin: int, out: int, err: int, talk: int, rlimits: list[tuple[int, int]]) -> None:
    """Turn this forked child into the program's process: its descriptors, its limits, nothing of process 1."""
    import resource

    for fd, target in ((stdin, 0), (out, 1), (err, 2)):
        os.dup2(fd, target)
    if talk >= 0:
        os.dup2(talk, TALK_FD)
    os.closerange(TALK_FD + (talk >= 0), 64)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    os.setsid()
    _set_dumpable(1)
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(fd, b"1000")  # when memory ends, the program goes, not who reports it
        os.close(fd)
    except OSError:
        pass
    for which, value in rlimits:
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def run_main() -> None:
    """Run `main.py` as a fresh `__main__`, in the child. The interpreter's own ending follows, as for any program."""
    import _sitebuiltins
    import builtins

    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    builtins.help = _sitebuiltins._Helper()
    path = f"{WORK}/{MAIN}"
    sys.argv[:] = [MAIN]
    sys.path[:] = [WORK, *(entry for entry in sys.path if entry)]
    with open(path, "rb") as file:
        source = file.read()
    module = type(sys)("__main__")
    module.__dict__.update({"__file__": path, "__builtins__": builtins})
    sys.modules["__main__"] = module
    sys.modules.pop("ponder_inside", None)
    try:
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        # Without our own frames; a hook that the program set is honoured.
        trace = error.__traceback__.tb_next if error.__traceback__ else None
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        sys.exit(130 if isinstance(error, KeyboardInterrupt) else 1)


# --- watching -----------------------------------------------------------------------------------------------------


class _Watch:
    """Moves output and messages while the program runs, and ends all of it with the program."""

    def __init__(self, child: int, out: int, err: int, talk: int, wake: int, cap: int) -> None:
        self.child, self.talk, self.wake, self.cap = child, talk, wake, cap
        self.kinds = {out: b"o", err: b"e"}
        self.status: int | None = None
        self.seen = 0
        self.said = bytearray()  # of the conversation, what is no whole message yet
        self.told = bytearray()  # messages to the program that it has not taken yet
        self.heard = bytearray()  # what came from the host and is no whole frame yet
        for fd in (out, err, talk, wake):
            if fd >= 0:
                os.set_blocking(fd, False)

    def follow(self) -> None:
        """Return when the program has ended, everything else in the sandbox is dead, and what it said is passed on."""
        poll = select.poll()
        for fd in (0, self.wake, *self.kinds):
            poll.register(fd, select.POLLIN)
        if self.talk >= 0:
            poll.register(self.talk, select.POLLIN)
        while self.status is None and self.seen <= self.cap:
            for fd, event in poll.poll():
                if fd == 0:
                    self._hear()
                elif fd == self.wake:
                    self._reap()
                elif fd == self.talk:
                    if event & select.POLLOUT:
                        self._tell()
                    if event & ~select.POLLOUT and not self._listen():
                        poll.unregister(fd)
                        self.talk = -1
                elif not self._pass_on(fd):
                    poll.unregister(fd)
                    os.close(fd)
                    del self.kinds[fd]
            if self.talk >= 0:
                poll.modify(self.talk, select.POLLIN | (select.POLLOUT if self.told else 0))
        self._end_all()
        for fd in list(self.kinds):
            while self.seen <= self.cap and self._pass_on(fd):
                pass
        while self.talk >= 0 and self._listen():
            pass

    def summary(self) -> bytes:
        """Return, as words `name=number`, how it ended and what the processes used that were waited for."""
        import resource

        own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        words = {
            "status": -1 if self.status is None else self.status,
            "flooded": int(self.seen > self.cap),
            "user_us": int((own.ru_utime + others.ru_utime) * 1e6),
            "system_us": int((own.ru_stime + others.ru_stime) * 1e6),
            "rss": max(own.ru_maxrss, others.ru_maxrss) * 1024,
            "output": self.seen,
        }
        return " ".join(f"{name}={value}" for name, value in words.items()).encode()

    def _pass_on(self, fd: int) -> bool:
        """Move what a pipe holds to the host; return whether there may be more."""
        try:
            data = os.read(fd, PIECE)
        except BlockingIOError:
            return self.status is None and self.seen <= self.cap
        if data:
            kept = data[: max(0, self.cap - self.seen)]
            self.seen += len(data)
            if kept:
                _emit(self.kinds[fd], kept)
        return bool(data)

    def _listen(self) -> bool:
        """Pass the program's whole messages on; return whether the conversation goes on."""
        try:
            data = os.read(self.talk, PIECE)
        except BlockingIOError:
            return self.status is None
        except OSError:
            return False
        self.said += data
        while len(self.said) >= 4:
            size = int.from_bytes(self.said[:4], "big")
            if size > MESSAGE_BYTES:
                return False
            if len(self.said) < 4 + size:
                break
            _emit(b"m", bytes(self.said[4 : 4 + size]))
            del self.said[: 4 + size]
        return bool(data)

    def _tell(self) -> None:
        try:
            del self.told[: os.write(self.talk, self.told)]
        except BlockingIOError:
            return
        except OSError:
            self.told.clear()

    def _hear(self) -> None:
        """Take messages for the program from the host; a host that is gone ends everything."""
        data = os.read(0, PIECE)
        if not data:
            os._exit(GONE)
        self.heard += data
        while len(self.heard) >= 5 and len(self.heard) >= (end := 5 + int.from_bytes(self.heard[1:5], "big")):
            if self.heard[:1] == b"m" and self.talk >= 0:
                self.told += (end - 5).to_bytes(4, "big") + self.heard[5:end]
            del self.heard[:end]

    def _reap(self) -> None:
        os.read(self.wake, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child:
                self.status = status

    def _end_all(self) -> None:
        """Kill everything in the sandbox but this process, and wait for it."""
        if os.getpid() != 1:
            os._exit(98)  # elsewhere "everything" would be the machine
        while True:
            try:
                os.kill(-1, _signal.SIGKILL)
            except ProcessLookupError:
                pass
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                return
            if pid == self.child and self.status is None and self.seen <= self.cap:
                self.status = status


# --- files --------------------------------------------------------------------------------------------------------


def _marks(entry: os.stat_result) -> tuple[int, int, int, int]:
    return entry.st_ino, entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns


def _lay(files: list[tuple[str, bytes]]) -> dict[str, tuple[int, int, int, int]]:
    """Write the job's files below the working directory; return how to recognise each."""
    os.umask(0o022)
    os.chdir(WORK)
    seen = {}
    for path, data in files:
        folder = os.path.dirname(path)
        if folder:
            os.makedirs(folder, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        _write_all(fd, data)
        seen[path] = _marks(os.fstat(fd))
        os.close(fd)
    return seen


def _give_back(seen: dict[str, tuple[int, int, int, int]], max_bytes: int, max_files: int) -> None:
    """Emit the regular files that are new or changed (`f`), the paths that are gone (`d`) or left out (`l`).

    Links are never followed and nothing but regular files is opened; by now nobody is left to exchange them.
    """
    left = max_bytes
    found = set()
    for folder, _, names in os.walk(WORK):
        for name in names:
            full = f"{folder}/{name}"
            path = full[len(WORK) + 1 :]
            try:
                entry = os.lstat(full)
                if not stat.S_ISREG(entry.st_mode) or "\udc80" <= max(path) <= "\udcff":
                    _emit(b"l", path.encode("utf-8", "replace"))
                    continue
                found.add(path)
                if path == MAIN or seen.get(path) == _marks(entry):
                    continue
                if entry.st_size > left or max_files == 0:
                    _emit(b"l", path.encode())
                    continue
                os.chmod(full, 0o600)
                fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                data = _read_up_to(fd, entry.st_size)
                os.close(fd)
            except OSError:
                _emit(b"l", path.encode("utf-8", "replace"))
                continue
            left -= len(data)
            max_files -= 1
            word = path.encode()
            _emit(b"f", len(word).to_bytes(2, "big") + word + data)
    for path in seen:
        if path not in found and path != MAIN:
            _emit(b"d", path.encode())


def _read_up_to(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := os.read(fd, min(size - len(data), 1 << 20))):
        data += piece
    return bytes(data)
