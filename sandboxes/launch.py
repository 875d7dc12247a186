"""How a program gets into bubblewrap: what must be on the machine, the files, the arguments."""

from __future__ import annotations

import fcntl
import math
import os
import platform
import posixpath
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ponder.errors import NoSandbox, UsageError
from ponder.records import Limits
from ponder.sandboxes import prelude, rootfs
from ponder.sandboxes.cgroups import CgroupGroup
from ponder.sandboxes.children import Spawn
from ponder.sandboxes.filters import filter_file
from ponder.sandboxes.groups import Groups, find_groups
from ponder.sandboxes.trees import TreeGroup

SPAWN_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
PROGRAM_ENV = {
    "HOME": "/work",
    "PATH": "/usr/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}
NAMESPACES = ("user", "pid", "net", "ipc", "uts", "cgroup")
MAIN = "main.py"
PAGE = 4096
MAX_OPEN_FILES = 256
LAUNCHERS = 2
"""Processes of the group that are not the program's: bubblewrap outside, and what it forks while it sets up."""

UNPRIVILEGED_ID = 61001
"""In the range that neither distributions nor systemd hand out, so that no other process runs as it."""


@dataclass(frozen=True)
class Machine:
    """What was found and made before the first program: launcher, root tree, system-call filter, groups."""

    launcher: tuple[str, ...]
    tree: Path
    filter: Path
    groups: Groups


@dataclass(frozen=True)
class Program:
    """What to run, and within which bounds; `files` holds `main.py`."""

    files: Mapping[str, bytes]
    stdin: bytes
    limits: Limits


@dataclass(frozen=True)
class Prepared:
    """A program that only has to be spawned. `status` is a file in which bubblewrap says what became of it."""

    spawn: Spawn
    group: CgroupGroup | TreeGroup
    status: int


def find_machine(groups: Groups | None = None) -> Machine:
    """Find the tools, make the root tree and the filter. Takes seconds the first time on a machine.

    Raises:
        NoSandbox: something is missing; `fix` says what to install.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise NoSandbox("bubblewrap is not installed", fix="apt-get install bubblewrap")
    launcher: tuple[str, ...] = (bwrap,)
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise NoSandbox(
                "setpriv, which root needs to drop its rights, is missing", fix="apt-get install util-linux"
            )
        # Under the real root bubblewrap confines little: its program stays the owner of /proc/sys, for one.
        uid, gid = unprivileged_ids(Path("/proc/self/uid_map").read_text(), Path("/proc/self/gid_map").read_text())
        launcher = (setpriv, f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs", bwrap)
    tree = rootfs.root_tree()
    return Machine(launcher, tree, filter_file(tree.parent), groups or find_groups())


def unprivileged_ids(uid_map: str, gid_map: str) -> tuple[int, int]:
    """Return a user and a group id to become, which exist in this user namespace and are not root's.

    Raises:
        NoSandbox: the namespace maps root only.
    """
    chosen = []
    for table in (uid_map, gid_map):
        spans = [(int(first), int(count)) for first, _, count in (line.split() for line in table.splitlines())]
        ids = [i for i in (UNPRIVILEGED_ID, 65534) if any(first <= i < first + count for first, count in spans)]
        ids += [first + count - 1 for first, count in spans if first + count > 1]
        if not ids:
            raise NoSandbox(
                "this user namespace has no user but root", fix="run ponder as an ordinary user, or map more users"
            )
        chosen.append(ids[0])
    return chosen[0], chosen[1]


def checked(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files under normal relative paths. Raises UsageError for a path that leads outwards or is taken."""
    result: dict[str, bytes] = {}
    for name, data in files.items():
        path = posixpath.normpath(name)
        if posixpath.isabs(path) or path in (".", "..", MAIN) or path.startswith("../") or "\0" in path:
            raise UsageError(f"{name!r} is not a path below the working directory, or is {MAIN}")
        result[path] = data
    return result


def prepare(stack: ExitStack, machine: Machine, program: Program) -> Prepared:
    """Make the group and the file descriptors of one run; the stack closes them, also when this fails midway.

    Raises:
        NoSandbox: the group lacks limits that `layers()` promises.
        OSError: out of descriptors or memory.
    """
    limits = program.limits
    group = machine.groups.make("python", memory_bytes=limits.memory_bytes, pids=limits.pids + LAUNCHERS)
    stack.callback(group.close)
    if machine.groups.places is not None and not isinstance(group, CgroupGroup):
        raise NoSandbox("no cgroup could be made for the program, though the trial's could")
    laid = {name: memory_file(stack, data) for name, data in program.files.items()}
    seccomp = _kept(stack, os.open(machine.filter, os.O_RDONLY | os.O_CLOEXEC))
    status = memory_file(stack, b"")
    if program.stdin:
        stdin = memory_file(stack, program.stdin, sealed=True)
    else:
        stdin = _kept(stack, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    words = [*_arguments(machine.tree, limits, sum(map(len, program.files.values())), laid)]
    words += ["--seccomp", str(seccomp), "--json-status-fd", str(status)]
    arguments = memory_file(stack, b"".join(os.fsencode(word) + b"\0" for word in words))
    argv = [*machine.launcher, "--args", str(arguments), "--", *_interpreter(limits)]
    return Prepared(Spawn(argv, SPAWN_ENV, stdin, (arguments, seccomp, status, *laid.values())), group, status)


def memory_file(stack: ExitStack, data: bytes, *, sealed: bool = False) -> int:
    """Return a descriptor of an unnamed file in memory that holds these bytes, at its beginning.

    Args:
        sealed: nobody can change the file any more.
    """
    fd = _kept(stack, os.memfd_create("ponder", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return fd


def _kept(stack: ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _arguments(tree: Path, limits: Limits, laid_bytes: int, laid: Mapping[str, int]) -> Iterator[str]:
    """Yield bubblewrap's options. The order is that of the mounts."""
    for name in NAMESPACES:
        yield f"--unshare-{name}"
    yield from ("--uid", str(rootfs.SANDBOX_ID), "--gid", str(rootfs.SANDBOX_ID), "--hostname", "sandbox")
    # The program is the first process: its end ends all others before bubblewrap reports it, and they are in the
    # resource usage that `wait4` reports where there is no cgroup.
    yield from ("--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL")
    yield from ("--ro-bind", str(tree), "/", "--proc", "/proc", "--dev", "/dev")
    small = _pages(limits.disk_bytes // 8)
    yield from ("--size", str(small), "--tmpfs", "/dev/shm", "--remount-ro", "/dev")
    yield from ("--size", str(small), "--tmpfs", "/tmp")
    rest = limits.disk_bytes - 2 * small + laid_bytes + PAGE * len(laid)  # what we lay there does not count
    yield from ("--size", str(_pages(rest)), "--tmpfs", "/work")
    for name, fd in laid.items():
        yield from ("--file", str(fd), f"/work/{name}")
    yield from ("--chdir", "/work", "--clearenv")
    for name, value in PROGRAM_ENV.items():
        yield from ("--setenv", name, value)


def _interpreter(limits: Limits) -> list[str]:
    """Return the command inside: unbuffered, so that a program that is stopped has said what it printed."""
    bounds = {
        "CPU": math.ceil(limits.cpu_s) + 1,
        "DATA": limits.memory_bytes,
        "FSIZE": limits.disk_bytes,
        "NOFILE": MAX_OPEN_FILES,
        "CORE": 0,
        "MEMLOCK": 16 * PAGE,
        "MSGQUEUE": 0,
    }
    if counts_processes_by_namespace(platform.release()):
        bounds["NPROC"] = limits.pids
    option = ",".join(f"{name}:{value}" for name, value in bounds.items())
    return [rootfs.PYTHON, "-u", "-X", f"{prelude.OPTION}={option}", MAIN]


def counts_processes_by_namespace(release: str) -> bool:
    """Return whether RLIMIT_NPROC counts within the user namespace (Linux 5.14), not all processes of the user."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= (5, 14)


def _pages(size: int) -> int:
    """Return the size in whole pages, at least one: 0 would mean no limit."""
    return max(PAGE, size // PAGE * PAGE)
