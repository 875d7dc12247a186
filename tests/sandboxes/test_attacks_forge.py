"""Attacks on the report: what a program says of itself, of process 1, and of the calls after it.

Process 1 has the program's own user id and writes the report; the stream it writes to serves the next sandbox too. A
table of programs: each ends in exit status 5 or dies, having tried to be told of as something else.
"""

# ruff: noqa: E501 (a table reads better in long lines)
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ponder.records import ExecResult

Run = Callable[..., Awaitable[ExecResult]]
pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

FORGED = """
from attack import *

def frame(kind, payload):
    return kind + len(payload).to_bytes(4, "big") + payload

LIES = frame(b"o", b"LIE") + frame(b"f", b"\\0\\x03lieLIE") + frame(b"m", b"LIE") + frame(
    b"X", b"status=0 flooded=0 user_us=0 system_us=0 rss=0 output=0") + frame(b"R", b"")

def lie(fd):
    try:
        return os.write(fd, LIES)
    except OSError:
        return 0
"""

SHADOW = b"""
import os
if os.getpid() == 1:
    os.write(1, b"X" + (63).to_bytes(4, "big") + b"status=0 flooded=0 user_us=0 system_us=0 rss=0 output=0         ")
    os._exit(0)
"""
"""A module of the working directory that would end the call if process 1 ever imported it."""

SHADOWED = (
    "os", "json", "sitecustomize", "usercustomize", "resource", "_socket", "select", "stat", "time", "marshal", "errno",
    "ctypes", "encodings", "codecs", "traceback", "linecache", "warnings", "_sitebuiltins", "signal", "io", "itertools",
    "posixpath", "genericpath", "ponder", "ponder_inside", "collections", "typing", "abc", "re", "struct", "_ctypes",
)  # fmt: skip

DESCRIPTORS = {
    "lies to every descriptor": "[lie(fd) for fd in (0, *range(3, 1024))]",
    "lies through its own input": "lie(os.open('/proc/self/fd/0', os.O_WRONLY))",
    "lies through process 1's descriptors": (
        "for fd in range(64):\n    try: lie(os.open(f'/proc/1/fd/{fd}', os.O_WRONLY)); print('REACHED')\n    except OSError: pass"),
    "lies into process 1's memory": "tried(os.open, '/proc/1/mem', os.O_RDWR)",
    "lies through the parent's tasks": "tried(os.listdir, '/proc/1/task/1/fd'); tried(os.open, '/proc/1/task/1/mem', 2)",
    "lies by a child of another session": "if os.fork() == 0:\n    os.setsid(); [lie(fd) for fd in range(3, 64)]; os._exit(0)\nos.wait()",
    "all descriptors closed": "os.closerange(0, 1024)",
    "descriptors exchanged": "os.dup2(1, 0); os.dup2(2, 1); os.dup2(0, 2)",
    "the pipes' size": "import fcntl; fcntl.fcntl(1, 1031, 4096); fcntl.fcntl(2, 1031, 2**20)",
    "the pipes' other ends": "tried(lambda: os.read(os.open('/proc/self/fd/1', os.O_RDONLY | os.O_NONBLOCK), 10))",
    "the pipes made to block": "os.set_blocking(1, False); os.set_blocking(2, False)",
}

PROCESS_1 = {
    "signals to process 1": (
        "for n in range(1, 65):\n    try: os.kill(1, n)\n    except OSError: pass"),
    "stopping process 1": "os.kill(1, signal.SIGSTOP); time.sleep(0.1)",
    "killing process 1": "os.kill(1, signal.SIGKILL); os.kill(1, signal.SIGTERM)",
    "interrupting process 1": "[os.kill(1, signal.SIGINT) for _ in range(1000)]",
    "queued signals": "[libc.sigqueue(1, n, ctypes.c_void_p(1)) for n in range(1, 65)]",
    "a flood of SIGCHLD": "[os.kill(1, signal.SIGCHLD) for _ in range(20_000)]",
    "a flood of children": "for _ in range(200):\n    if os.fork() == 0: os._exit(0)\n    os.wait()",
    "orphans for process 1 to wait for": (
        "for _ in range(50):\n    if os.fork() == 0:\n        if os.fork() == 0: os._exit(0)\n        os._exit(0)\n    os.wait()"),
    "killing all": "os.kill(-1, signal.SIGKILL)",
    "killing all as a child": "if os.fork() == 0:\n    os.kill(-1, 9)\ntime.sleep(1)",
    "killing the group": "signal.signal(15, signal.SIG_IGN); os.killpg(0, 15); os.kill(0, 15)",
    "process 1's group": "tried(os.setpgid, 1, 0); tried(os.setpgid, 0, 1)",
    "a subreaper": "libc.prctl(36, 1, 0, 0, 0)\nif os.fork() == 0:\n    os.fork(); time.sleep(9)",
    "process 1's affinity": "os.sched_setaffinity(1, {min(os.sched_getaffinity(1))})",
    "process 1's priority": "os.setpriority(os.PRIO_PROCESS, 1, 19); os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))",
    "everybody's priority": "os.setpriority(os.PRIO_USER, os.getuid(), 19); libc.syscall(NUMBERS['ioprio_set'], 3, os.getuid(), 0x6000)",
    **{f"process 1's {name}": f"import resource; resource.prlimit(1, resource.{name}, (0, 0))"
       for name in ("RLIMIT_CPU", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_NPROC")},
    "the order of death": "os.write(os.open('/proc/self/oom_score_adj', 1), b'0')",
    "process 1's own limits, then output": (
        "import resource\nresource.prlimit(1, resource.RLIMIT_DATA, (0, 0))\nprint('x' * 3000)\nopen('f', 'w').write('y' * 10**6)"),
    "process 1 starved": (
        "os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))\nfor _ in range(3): os.fork()\n"
        "begun = time.process_time()\nwhile time.process_time() < begun + 0.03: pass"),
}

SELF = {
    "a patched interpreter": (
        "import builtins, sys\nos._exit = sys.exit = lambda *_: None\nbuiltins.print = None\nsys.stdout = sys.stderr = None"),
    "a stack of its own for signals": (
        "libc.sigaltstack(ctypes.create_string_buffer(bytes(16) + b'\\xff' * 8), None); os.kill(os.getpid(), 11)"),
    "a filter that says nothing": "print('denied'); call('prctl', 22, 2, 0, 0, 0)",
    "a new process image": "os.execv(sys.executable, [sys.executable, '-S', '-c', 'import os; os._exit(5)'])",
    "threads that outlive the end": "import _thread; [_thread.start_new_thread(time.sleep, (99,)) for _ in range(5)]",
    "memory of its parents": (
        "import gc, sys\nframes = sys._getframe()\nwhile frames.f_back: frames = frames.f_back\n"
        "job = frames.f_globals.get('inside'); print(len(gc.get_objects()))\n"
        "[lie(fd) for fd in range(3, 64)]\njob and setattr(job, 'main', None)"),
    "our functions, called again": (
        "frame = sys._getframe()\nwhile frame.f_back: frame = frame.f_back\ninside = frame.f_globals['inside']\n"
        "inside.os.fork() or inside._last_word(0, 0, 0)"),
    "changed main.py": "open('/work/main.py', 'w').write('print(\"LIE\")')",
    "a folder for main.py": "os.remove('/work/main.py'); os.makedirs('/work/main.py/x'); open('/work/main.py/x/y', 'w')",
    "modules laid for later": "[open(f'/work/{name}.py', 'wb').write(open('/work/shadow', 'rb').read()) for name in NAMES]",
    "modules laid elsewhere": "[open(f'{d}/{n}.py', 'wb').write(b'1/0') for d in ('/tmp', '/dev/shm') for n in NAMES]",
    "names of files that look like frames": "open(LIES[:200].replace(b'\\0', b'1').replace(b'/', b'1'), 'w').write('x')",
    "messages on a conversation that is not there": "[lie(fd) for fd in (3, 4, 5)]",
}  # fmt: skip

ATTACKS = {**DESCRIPTORS, **PROCESS_1, **SELF}
MAY_DIE = {"killing all", "killing all as a child", "a stack of its own for signals"}


@pytest.mark.parametrize("name", ATTACKS)
async def test_told_as_it_was(attack: Run, name: str) -> None:
    program = f"from forged import *\nNAMES = {SHADOWED!r}\n{ATTACKS[name]}\nos.kill(os.getpid(), 0)\nimport os as _os\n_os.abort()"
    result = await attack(program, files={"forged.py": FORGED.encode(), "shadow": SHADOW}, cpu_s=1)
    assert result.outcome != "ok" or name == "a new process image", result
    assert result.exit_code in (-6, 5, None) or name in MAY_DIE, result
    assert "LIE" not in result.stdout or name in DESCRIPTORS, result
    assert "lie" not in result.files


async def test_modules_of_the_working_directory_do_not_reach_process_1(run: Run) -> None:
    files = {f"{name}.py": SHADOW for name in SHADOWED}
    result = await run("import os\nos._exit(5)", files=files)
    assert (result.outcome, result.exit_code) == ("error", 5), result
    assert result.usage.cpu_s > 0


async def test_a_module_of_the_working_directory_changes_no_limit(run: Run) -> None:
    lax = b"RLIMIT_CPU = 0\nRLIM_INFINITY = -1\ngetrlimit = lambda n: (-1, -1)\nsetrlimit = lambda n, v: None\n"
    code = "import os; print(open('/proc/self/limits').read())"
    result = await run(code, files={"resource.py": lax})
    (line,) = (line for line in result.stdout.splitlines() if "data size" in line)
    assert "unlimited" not in line


class Listener:
    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def opened(self, send: Callable[[bytes], None]) -> None:
        send(b"J" + (10).to_bytes(4, "big") + bytes(10))

    def heard(self, message: bytes) -> None:
        self.messages.append(message)

    def ended(self) -> None:
        pass


async def test_lies_in_a_conversation_are_messages(attack: Run) -> None:
    program = """
        from forged import *
        os.write(3, len(LIES).to_bytes(4, "big") + LIES)
        lie(3)
        os._exit(5)
    """
    talk = Listener()
    result = await attack(program, files={"forged.py": FORGED.encode()}, talk=talk)
    assert (result.outcome, result.exit_code) == ("error", 5)
    assert len(talk.messages) == 1
    assert result.files == {}


async def test_a_message_cannot_become_the_next_job(run: Run) -> None:
    """What a program makes the host send, and leaves unread in the stream, is not taken for a job."""
    import marshal

    job = {"files": [("main.py", b"print('LIE')")], "stdin": b"", "talks": False, "rlimits": [], "output_bytes": 99,
           "return_bytes": 0, "return_files": 0}  # fmt: skip
    word = marshal.dumps(job, 4)
    lure = (b"J" + len(word).to_bytes(4, "big") + word) * 9000

    class Sender(Listener):
        def opened(self, send: Callable[[bytes], None]) -> None:
            for _ in range(8):
                send(lure[: 1 << 20])

    for delay in (0, 0.01, 0.03):
        await run(f"import time; time.sleep({delay})", talk=Sender())
        results = await asyncio.gather(*(run("print('truth'); exit(5)") for _ in range(4)))
        assert [(r.stdout, r.exit_code) for r in results] == [("truth\n", 5)] * 4


async def test_a_program_learns_nothing_of_the_call_before(run: Run) -> None:
    secret = "ponder-secret-" + "x" * 30
    await run(f"x = {secret!r} * 1000; open('/tmp/s', 'w').write(x); print(x[:10])", stdin=secret.encode())
    code = """
        import re
        found, word = 0, bytes(reversed(b"-terces-rednop"))
        for line in open("/proc/self/maps"):
            low, high, rights = re.match(r"(\\w+)-(\\w+) (\\S+)", line).groups()
            if rights.startswith("r") and "[v" not in line:
                with open("/proc/self/mem", "rb") as memory:
                    try:
                        memory.seek(int(low, 16))
                        found += memory.read(int(high, 16) - int(low, 16)).count(word)
                    except (OSError, OverflowError, ValueError):
                        pass
        print(found - 1)  # the word itself
    """
    assert (await run(code)).stdout == "0\n"
