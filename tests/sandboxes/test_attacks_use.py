"""Attacks on the machine's resources: processes, memory, disk, CPU, output, kernel objects.

A table: what is attacked, the program, and how it must end.
"""

# ruff: noqa: E501 (a table reads better in long lines)
from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from ponder.records import ExecResult

Run = Callable[..., Awaitable[ExecResult]]
pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

STOPPED = {"cpu", "wall", "memory", "killed"}
SURVIVED = {"ok", "error"}

ATTACKS: dict[str, tuple[str, set[str]]] = {
    # processes
    "fork bomb": ("while True:\n    try: os.fork()\n    except OSError: pass", STOPPED),
    "fork bomb that waits": ("while True:\n    try: os.fork()\n    except OSError: time.sleep(0.01)", STOPPED),
    "fork bomb in new sessions": (
        "while True:\n    try:\n        if os.fork() == 0: os.setsid()\n    except OSError: pass", STOPPED),
    "fork bomb of short lives": (
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True:\n    if os.fork() == 0: os._exit(0)", STOPPED | SURVIVED),
    "thread bomb": (
        "import _thread\ndef go():\n    while True:\n        try: _thread.start_new_thread(go, ())\n"
        "        except RuntimeError: time.sleep(0.01)\ngo()", STOPPED),
    "exec for ever": ("os.execv(sys.executable, [sys.executable, '-S', '/work/main.py'])", STOPPED),
    "orphan daemon that holds the pipes open": (
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(100)\n    os._exit(0)", {"ok"}),
    "orphans that ignore every signal": (
        "for n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
        "for _ in range(8):\n    if os.fork() == 0: time.sleep(100)", {"ok"}),
    "ignored SIGTERM": ("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.kill(0, 15)\ntime.sleep(100)", {"wall"}),
    "children stopped": ("pid = os.fork()\nos.kill(pid or os.getpid(), signal.SIGSTOP)\nos.waitpid(-1, 0)", {"wall"}),
    # memory
    "heap": ("x = []\nwhile True: x.append(bytearray(10**6))", {"memory"}),
    "one large object": ("x = [0] * 10**9", {"memory"}),
    "shared mappings": (
        "import mmap\nx = []\nwhile True:\n    x.append(mmap.mmap(-1, 2**20)); x[-1].write(b'x' * 2**20)", {"memory"}),
    "memory files": (
        "while True:\n    fd = os.memfd_create('x')\n    until_it_fails(lambda n: os.write(fd, bytes(2**20)))\n", {"memory"}),
    "shared memory of the file system": (
        "until_it_fails(lambda n: open(f'/dev/shm/{n}', 'wb').write(bytes(2**18)))", {"ok"}),
    "many processes": (
        "for _ in range(12):\n    if os.fork() == 0: break\nx = b'x' * (20 * 2**20)\ntime.sleep(1)\nexit(1)", {"memory", "error"}),
    "pipes": (
        "import fcntl\ndef fill(n):\n    r, w = os.pipe(); os.set_blocking(w, False)\n    fcntl.fcntl(w, 1031, 2**20)\n"
        "    os.write(w, bytes(2**20))\nuntil_it_fails(fill)", {"ok", "memory"}),
    "socket buffers": (
        "keep = []\ndef fill(n):\n    a, b = socket.socketpair(); keep.append((a, b)); a.setblocking(False)\n"
        "    a.setsockopt(1, 7, 2**20); a.send(bytes(2**17))\nuntil_it_fails(fill)", {"ok", "memory"}),
    "descriptors in flight": (
        "def fill(n):\n    a, b = socket.socketpair()\n    for _ in range(50): socket.send_fds(a, [b'x'], [a.fileno(), b.fileno()])\n"
        "until_it_fails(fill)", {"ok", "memory", "cpu", "wall"}),
    "page tables": (
        "import mmap\nfd = os.memfd_create('x'); os.ftruncate(fd, 4 * 2**20)\nkeep = []\ndef fill(n):\n"
        "    m = mmap.mmap(fd, 4 * 2**20); keep.append(m)\n    for at in range(0, 4 * 2**20, 2**16): m[at]\n"
        "until_it_fails(fill)", {"memory", "cpu", "ok", "wall"}),
    "locks of memory": ("tried(lambda: libc.mlockall(3) and os.open('/nothing', 0))", {"ok"}),
    # disk
    "every writable place": (
        "for place in ('/work', '/tmp', '/dev/shm'):\n    file = open(place + '/x', 'wb', buffering=0)\n"
        "    until_it_fails(lambda n: file.write(bytes(2**16)) or 1/0)", {"ok"}),
    "small files without number": ("until_it_fails(lambda n: open(f'/tmp/{n}', 'w').close())", STOPPED | SURVIVED),
    "small files in the working directory": ("until_it_fails(lambda n: open(f'{n}', 'w').close())", STOPPED | SURVIVED),
    "folders without end": ("until_it_fails(lambda n: (os.mkdir('d'), os.chdir('d')))", STOPPED | SURVIVED),
    "long links": ("until_it_fails(lambda n: os.symlink('x' * 4000, f'{n}'))", STOPPED | SURVIVED),
    "long names": ("until_it_fails(lambda n: open(f'{n:0250}', 'w').close())", STOPPED | SURVIVED),
    "extended attributes": (
        "open('x', 'w')\nuntil_it_fails(lambda n: os.setxattr('x', f'user.{n}', bytes(2**16)))", STOPPED | SURVIVED),
    "a file of an exabyte": ("tried(lambda: open('x', 'wb').truncate(2**60))", STOPPED | SURVIVED),
    # output
    "flood on both streams": ("while True: os.write(1, b'x' * 999); os.write(2, b'y' * 999)", {"output"}),
    "flood by many": ("for _ in range(3): os.fork()\nwhile True: os.write(1, b'x' * 65536)", {"output"}),
    "flood by an orphan": (
        "if os.fork() == 0:\n    while True: os.write(2, b'x' * 65536)\ntime.sleep(3)", {"output"}),
    "flood while the pipe is held in flight": (
        "a, b = socket.socketpair()\nsocket.send_fds(a, [b'x'], [1, 2, a.fileno(), b.fileno()])\n"
        "while True: os.write(1, b'x' * 999)", {"output"}),
    "pipes held in flight at the end": (
        "a, b = socket.socketpair()\nsocket.send_fds(a, [b'x'], [1, 2, a.fileno(), b.fileno()])", {"ok"}),
    # CPU, and what hangs
    "loop": ("while True: pass", {"cpu"}),
    "loop in C": ("10 ** 10 ** 8", {"cpu", "memory"}),
    "loop in a regular expression": ("import re; re.match('(a+)+$', 'a' * 40 + 'b')", {"cpu"}),
    "loop in the kernel": ("while True: open('/dev/urandom', 'rb').read(2**22)", {"cpu"}),
    "loop at the end": ("import atexit\n@atexit.register\ndef _():\n    while True: pass", {"cpu"}),
    "loop in a finaliser": ("class X:\n    def __del__(self):\n        while True: pass\nx = X()", {"cpu"}),
    "loop that catches everything": ("while True:\n    try: exit()\n    except BaseException: pass", {"cpu"}),
    "storm of timers": (
        "signal.signal(signal.SIGALRM, lambda *_: None)\nsignal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)\n"
        "while True: pass", {"cpu"}),
    "sleep": ("time.sleep(100)", {"wall"}),
    "a pipe nobody writes to": ("os.read(os.pipe()[0], 1)", {"wall"}),
    "recursion": ("def f(): f()\nf()", {"error"}),
    "recursion without its limit": ("sys.setrecursionlimit(10**9)\ndef f(): f()\nf()", {"error", "memory", "killed"}),
    "recursion in the compiler": (
        "try: compile('-' * 10**5 + '1', '', 'eval')\nexcept Exception as error: print(type(error))", {"ok", "error"}),
    "recursion of C": ("x = ()\nfor _ in range(3 * 10**5): x = (x,)\nhash(x)", {"error", "killed"}),
    # kernel objects
    "open files": ("keep = []\nuntil_it_fails(lambda n: keep.append(open('/dev/null')))", {"ok"}),
    "watches": (
        "until_it_fails(lambda n: libc.inotify_init() >= 0 or os.open('/nothing', 0))", {"ok"}),
    "timers": (
        "def make(n):\n    x = ctypes.c_long()\n    if libc.timer_create(1, None, ctypes.byref(x)): raise OSError\n"
        "until_it_fails(make)", STOPPED | SURVIVED),
    "message queues": ("tried(lambda: libc.mq_open(b'/ponder-mark', 66, 0o600, None) >= 0 or os.open('/nothing', 0))", {"ok"}),
    "shared memory of System V": ("call('shmget', 1, 2**20, 0o1600)", {"ok"}),
    "semaphores of System V": ("call('semget', 1, 100, 0o1600)", {"ok"}),
    "queues of System V": ("call('msgget', 1, 0o1600)", {"ok"}),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
async def test_contained(attack: Run, name: str) -> None:
    program, ends = ATTACKS[name]
    limits = {"wall_s": 1.5} if "wall" in ends and "cpu" not in ends else {"wall_s": 6} if "cpu" in ends else {}
    result = await attack(program, **limits)
    assert result.outcome in ends, result
    assert result.usage.cpu_s < 1.2
    assert result.usage.wall_s < 8
    if result.usage.method == "cgroup":
        assert result.usage.peak_rss_bytes <= 66 * 2**20
