"""Attacks that try to reach out: the network, the host's files and settings, the kernel, rights.

A table of programs; each reports what it reached (`tried`, `call`), and must report that it was denied.
"""

# ruff: noqa: E501 (a table reads better in long lines)
from __future__ import annotations

import asyncio
import os
import platform
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from ponder.records import ExecResult

Run = Callable[..., Awaitable[ExecResult]]
pytestmark = pytest.mark.real
inside = pytest.mark.asyncio(loop_scope="module")

X86 = platform.machine() == "x86_64"


def connect(family: str, address: str, kind: str = "SOCK_STREAM") -> str:
    return f"tried(lambda: socket.socket(socket.{family}, socket.{kind}).connect({address}))"


def make(family: int, kind: int = 1, protocol: int = 0) -> str:
    return f"tried(socket.socket, {family}, {kind}, {protocol})"


NETWORK = {
    "a service of this host": connect("AF_INET", "('127.0.0.1', {port})"),
    "a service of this host, version 6": connect("AF_INET6", "('::1', {port})"),
    "a datagram": "tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port})))",
    "the world": connect("AF_INET", "('1.1.1.1', 53)"),
    "a name": "tried(lambda: socket.getaddrinfo('example.com', 80))",
    "a raw socket": make(2, 3, 1),
    "packets": make(17, 3, 3),
    "netlink": make(16, 3),
    "VSOCK": make(40),
    "Bluetooth": make(31, 3, 1),
    "kernel cryptography": make(38, 5),
    "CAN": make(29, 3, 1),
    "TIPC": make(30),
    "TIPC by a pair": "call('socketpair', 30, 1, 0, (ctypes.c_int * 2)())",
    "XDP": make(44, 3),
    "SMC": make(43),
    "IUCV and the rest": "for n in range(2, 50): tried(socket.socketpair, n)",
    "an abstract socket of this host": connect("AF_UNIX", "'\\0{abstract}'"),
    "a socket file of this host": connect("AF_UNIX", "'{folder}/socket'"),
    "a socket file of the system": connect("AF_UNIX", "'/run/dbus/system_bus_socket'"),
    "Docker": connect("AF_UNIX", "'/var/run/docker.sock'"),
    "the kernel's log socket": connect("AF_UNIX", "'/dev/log'", "SOCK_DGRAM"),
}

FILES = {
    **{f"reading {path}": f"tried(lambda: os.listdir({path!r}) if os.path.isdir({path!r}) else open({path!r}).read())"
       for path in ("/etc/shadow", "/root", "/home", "/var", "/sys", "/run", "/bin/sh", "/boot", "/mnt",
                    "/usr/bin/env", "/proc/1/root", "/proc/1/cwd/", "/proc/1/environ", "/proc/1/mem", "/proc/1/maps", "/proc/1/fd",
                    "/proc/1/auxv", "/proc/1/stack", "/proc/1/syscall", "/proc/1/io", "/proc/1/map_files", "/proc/1/ns/net",
                    "/proc/kcore", "/proc/kmsg", "/proc/{pid}/environ", "/proc/{pid}/root", "{folder}/secret", "/dev/mem",
                    "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/userfaultfd",
                    "/sys/fs/cgroup", "/etc/ssh", "/etc/machine-id")},
    **{f"writing {path}": f"tried(written, {path!r})"
       for path in ("/x", "/usr/x", "/etc/passwd", "/dev/x", "/lib/x", "/proc/sys/kernel/core_pattern",
                    "/proc/sys/kernel/modprobe", "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/hostname",
                    "/proc/sys/net/ipv4/ip_forward", "/proc/sys/user/max_user_namespaces", "/proc/sys/fs/mqueue/msg_max",
                    "/proc/sysrq-trigger", "/proc/1/mem", "/proc/1/oom_score_adj", "/proc/1/comm", "/proc/1/clear_refs",
                    "/proc/1/coredump_filter", "/proc/1/timerslack_ns", "/proc/1/uid_map", "/proc/1/setgroups",
                    "/proc/1/attr/current", "/proc/1/fd/1", "/proc/1/fd/0", "/proc/irq/default_smp_affinity",
                    "/sys/fs/cgroup/cgroup.procs", "/sys/kernel/uevent_helper", "/usr/bin/python3",
                    "/usr/lib/python3.11/os.py", "/packages/x")},
    "deleting the interpreter": "tried(os.unlink, '/usr/bin/python3')",
    "changing our part of the tree": "import glob; [tried(open, f, 'a') for f in glob.glob('/lib/python3*/ponder/sandboxes/inside/*')]",
    "hard links to the tree": "tried(os.link, '/etc/passwd', 'p')",
    "moving the working directory": "tried(os.rename, '/work', '/tmp/w')",
    "removing the working directory": "tried(os.rmdir, '/work')",
    "a link out of the working directory": "os.symlink('{folder}', 'l'); tried(os.listdir, 'l')",
    "climbing": "tried(os.listdir, '../' * 50 + '{folder}')",
    "the mapper of users": "tried(written, '/proc/self/uid_map', b'0 0 1')",
    "the core dump's path": "tried(written, '/proc/sys/kernel/core_pattern', b'|/bin/sh')",
}

KERNEL = {
    "tracing process 1": "call('ptrace', 16, 1, 0, 0)",
    "tracing by seizing": "call('ptrace', 0x4206, 1, 0, 0)",
    "being traced": "call('ptrace', 0, 0, 0, 0)",
    "reading memory of process 1": "call('process_vm_readv', 1, 0, 0, 0, 0, 0)",
    "writing memory of process 1": "call('process_vm_writev', 1, 0, 0, 0, 0, 0)",
    "a descriptor of process 1": "call('pidfd_getfd', libc.syscall(NUMBERS['pidfd_open'], 1, 0), 1, 0)",
    "comparing with process 1": "call('kcmp', 1, os.getpid(), 0, 0, 0)",
    "advice to process 1": "call('process_madvise', 3, 0, 0, 0, 0)",
    "moving pages of process 1": "call('move_pages', 1, 0, 0, 0, 0, 0)",
    "session keyring": "call('keyctl', 0, -3, 1)",
    "joining a keyring": "call('keyctl', 1, b'ponder-mark')",
    "adding a key": "call('add_key', b'user', b'ponder-mark', b'x', 1, -4)",
    "asking for a key": "call('request_key', b'user', b'ponder-mark', None, -4)",
    "io_uring": "call('io_uring_setup', 8, ctypes.create_string_buffer(200))",
    "bpf": "call('bpf', 0, ctypes.create_string_buffer(200), 100)",
    "perf": "call('perf_event_open', ctypes.create_string_buffer(200), 0, -1, -1, 0)",
    "userfaultfd": "call('userfaultfd', 1)",
    "fanotify": "call('fanotify_init', 0, 0)",
    "secret memory": "call('memfd_secret', 0)",
    "namespaces": "for flag in (0x80, 0x20000, 2**25, 2**26, 2**27, 2**28, 2**29, 2**30): call('unshare', flag)",
    "namespaces by clone": "for n in (17, 25, 26, 27, 28, 29, 30): call('clone', (1 << n if n > 17 else 0x20000) | 17, 0, 0, 0, 0)",
    "namespaces by clone3": "call('clone3', (ctypes.c_ulong * 11)(2**28), 88)",
    "namespaces of process 1": "tried(lambda: os.open('/proc/1/ns/mnt', 0)); call('setns', 0, 0)",
    "own namespaces again": "call('setns', os.open('/proc/self/ns/user', 0), 0)",
    "mounting": "call('mount', b'none', b'/tmp', b'tmpfs', 0, None)",
    "mounting again, writable": "call('mount', b'none', b'/', None, 0x1020, None)",
    "mounting anew": "call('open_tree', -100, b'/', 1); call('fsopen', b'tmpfs', 0); call('move_mount', 0, b'', 0, b'', 0)",
    "changing mounts": "call('mount_setattr', -100, b'/', 0, 0, 0)",
    "unmounting": "call('umount2', b'/proc', 2); call('umount2', b'/work', 2)",
    "another root": "call('chroot', b'/work'); call('pivot_root', b'/work', b'/work')",
    "files by handle": "call('open_by_handle_at', -100, ctypes.create_string_buffer(100), 0)",
    "modules": "call('init_module', 0, 0, b''); call('finit_module', 0, b'', 0)",
    "another kernel": "call('kexec_load', 0, 0, 0, 0); call('reboot', 0xfee1dead, 672274793, 0x4321fedc, 0)",
    "swap, quotas, accounting": "call('swapon', b'/work/x', 0); call('quotactl', 0, 0, 0, 0); call('acct', b'/work/x')",
    "the kernel's log": "call('syslog', 3, ctypes.create_string_buffer(100), 100)",
    "the clock": "call('clock_settime', 0, (ctypes.c_long * 2)(1, 0)); call('settimeofday', (ctypes.c_long * 2)(1, 0), 0)",
    "the clock's rate": "call('adjtimex', ctypes.create_string_buffer(500))",
    "the host's name": "call('sethostname', b'x', 1)",
    "another personality": "call('personality', 0x40000)",
    "a filter of one's own": "call('seccomp', 1, 0, (ctypes.c_long * 2)()); call('prctl', 22, 2, 0, 0, 0)",
    "the parent's death signal": "call('prctl', 1, 0, 0, 0, 0); call('prctl', 2**32 + 1, 0, 0, 0, 0)",
    "ports": "call('iopl', 3); call('ioperm', 0, 1, 1)",
    "device nodes": "[tried(os.mknod, f'/{d}/n', 0o20666, os.makedev(1, 1)) for d in ('work', 'tmp', 'dev/shm')]",
    "block devices": "tried(os.mknod, '/tmp/n', 0o60666, os.makedev(8, 0))",
    "user 0": "tried(os.setuid, 0); tried(os.setresuid, 0, 0, 0); tried(os.setgid, 0); tried(os.setgroups, [0])",
    "capabilities": "call('capset', (ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)(*[2**32 - 1] * 6))",
    "ambient capabilities": "call('prctl', 47, 2, 21, 0, 0)",
    "a program with another owner": (
        "open('s', 'w').write('x'); os.chmod('s', 0o6755)\ntried(os.chown, 's', 0, 0); tried(os.chown, 's', 1001, 1001)"),
    "real time": "tried(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(50)); tried(os.nice, -5)",
    "the terminal": (
        "import fcntl, pty\na, b = pty.openpty()\nfor request in (0x5412, 0x541C):\n    tried(fcntl.ioctl, b, request, b'x')\n"
        "call('vhangup')"),
    "another terminal": "tried(os.open, '/dev/tty', os.O_RDWR); tried(os.open, '/dev/console', os.O_RDWR)",
    "hard limits": (
        "import resource\nfor n in (0, 1, 2, 6, 7, 8):\n    try: resource.setrlimit(n, (-1, -1)); print('REACHED', n)\n"
        "    except ValueError: print('denied')"),
}  # fmt: skip

ATTACKS = {**NETWORK, **FILES, **KERNEL}


class Host:
    """Something on this machine that a program may not reach: services and files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pid, self.abstract = folder, os.getpid(), f"ponder-{folder}"
        (folder / "secret").write_text("REACHED")
        for path in (folder, *folder.parents):
            if path.stat().st_uid == os.geteuid() and not path.stat().st_mode & 1:
                path.chmod(path.stat().st_mode | 0o011)
        (folder / "secret").chmod(0o644)
        self.visits: list[str] = []
        self.sockets = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
        self.port = self.sockets[0].getsockname()[1]
        self.sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.sockets[3].bind(("127.0.0.1", 0))
        self.udp = self.sockets[3].getsockname()[1]
        self.sockets[1].bind(f"\0{self.abstract}")
        self.sockets[2].bind(f"{folder}/socket")
        (folder / "socket").chmod(0o777)
        for listener in self.sockets[:3]:
            if listener.family == socket.AF_UNIX:
                listener.listen()
            threading.Thread(target=self.welcome, args=(listener,), daemon=True).start()

    def welcome(self, listener: socket.socket) -> None:
        try:
            while True:
                listener.accept()[0].close()
                self.visits.append(str(listener.family))
        except OSError:
            return

    def close(self) -> None:
        for listener in self.sockets:
            if listener.type == socket.SOCK_STREAM:
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()


@pytest.fixture(scope="module", autouse=True)  # before the sandbox, which is asked what it leaves
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    made = Host(tmp_path_factory.mktemp("host"))
    yield made
    made.sockets[3].setblocking(False)
    with pytest.raises(BlockingIOError):
        made.sockets[3].recv(1)
    assert made.visits == []
    made.close()


@pytest.mark.parametrize("name", ATTACKS)
@inside
async def test_denied(attack: Run, host: Host, name: str) -> None:
    program = ATTACKS[name]
    for word in ("port", "udp", "abstract", "folder", "pid"):
        program = program.replace("{" + word + "}", str(getattr(host, word)))
    result = await attack(program, cpu_s=2, look_after=False)
    assert "denied" in result.stdout, result


def test_the_host_can_be_reached_from_here(tmp_path: Path) -> None:
    """Else the attacks above would prove nothing."""
    made = Host(tmp_path)
    for family, address in ((socket.AF_INET, ("127.0.0.1", made.port)), (socket.AF_UNIX, f"\0{made.abstract}")):
        with socket.socket(family) as line:
            line.connect(address)
            assert line.recv(1) == b""
    deadline = time.monotonic() + 10
    while len(made.visits) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)  # a visit is noted by a thread
    made.close()
    assert len(made.visits) == 2


@inside
async def test_a_running_neighbour(run: Run) -> None:
    """Two programs at once: neither sees the other's files, processes, sockets or shared memory."""
    holder = """
        import os, socket, time
        from multiprocessing import shared_memory
        for place in ("/work", "/tmp", "/dev/shm"):
            open(f"{place}/ponder-mark", "w").write("secret")
        shared_memory.SharedMemory("ponder-mark-2", create=True, size=10)
        socket.socket(socket.AF_UNIX).bind("\\0ponder-mark")
        time.sleep(1)
    """
    seeker = """
        import glob, os, socket
        print(glob.glob("/*/ponder-mark*") + glob.glob("/dev/shm/*"), len([p for p in os.listdir("/proc") if p.isdigit()]))
        print(open("/proc/net/unix").read().count("ponder"))
    """
    holding = asyncio.ensure_future(run(holder, wall_s=5))
    await asyncio.sleep(0.5)
    seen = await asyncio.gather(*(run(seeker) for _ in range(4)))
    assert [result.stdout for result in seen] == ["[] 2\n0\n"] * 4
    assert (await holding).outcome == "ok"


@inside
async def test_no_environment_of_ours(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PONDER_TEST_SECRET", "hush")
    result = await run("import os; print(os.environ)")
    assert "hush" not in result.stdout
    assert "HOME" in result.stdout


@inside
async def test_no_rights(run: Run) -> None:
    code = """
        import os
        for line in open("/proc/self/status"):
            if line.startswith(("Cap", "NoNewPrivs", "Seccomp:")):
                print(line.split()[1], end=" ")
        print(os.getuid() >= 1000, len([p for p in os.listdir("/proc") if p.isdigit()]))
    """
    assert (await run(code)).stdout == "0000000000000000 " * 5 + "1 2 True 2\n"


if X86:

    @inside
    async def test_calls_of_another_architecture_end_the_program(run: Run) -> None:
        code = """
            import ctypes, mmap
            page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
            page.write(bytes.fromhex("b814000000" "cd80" "c3"))  # mov eax, 20 (getpid); int 0x80; ret
            call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
            print("called", call())
        """
        result = await run(code)
        assert result.exit_code in (-31, -11), result  # SIGSYS, or a kernel without such calls
        assert result.stdout == ""
