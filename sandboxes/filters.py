"""The system-call filter of a sandbox: what a Python program never needs and a kernel exploit often does.

A deny list over the native architecture; calls of any other architecture (32-bit, x32) kill the program.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from ponder.errors import NoSandbox

DENIED = (
    # looking into and writing to other processes
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "kcmp", "pidfd_getfd",
    # keys are per user, not per namespace
    "keyctl", "add_key", "request_key",
    # large, young or historically leaky parts of the kernel
    "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "vmsplice",
    "fanotify_init", "lookup_dcookie", "memfd_secret", "map_shadow_stack", "uselib", "nfsservctl", "_sysctl",
    # mounts and roots
    "mount", "umount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "open_tree_attr", "fsopen",
    "fsconfig", "fsmount", "fspick", "mount_setattr", "statmount", "listmount", "quotactl", "quotactl_fd",
    "open_by_handle_at", "name_to_handle_at",
    # namespaces (clone with namespace flags: see below)
    "unshare", "setns",
    # shared memory and queues of the older kind, which a look at processes does not find
    "shmget", "shmat", "shmctl", "semget", "semctl", "semtimedop", "msgget", "msgctl", "msgsnd", "msgrcv",
    # the machine
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "create_module", "reboot",
    "swapon", "swapoff", "acct", "syslog", "sethostname", "setdomainname", "settimeofday", "clock_settime",
    "clock_adjtime", "adjtimex", "stime", "vhangup", "ioperm", "iopl", "modify_ldt", "vm86", "vm86old",
    "personality", "seccomp",
    # memory policy of other processes
    "move_pages", "migrate_pages", "mbind", "set_mempolicy", "set_mempolicy_home_node",
)  # fmt: skip

NUMBERS = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "clone3": 435, "pidfd_getfd": 438,
    "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443, "memfd_secret": 447, "process_mrelease": 448,
    "set_mempolicy_home_node": 450, "map_shadow_stack": 453, "statmount": 457, "listmount": 458, "open_tree_attr": 467,
}  # fmt: skip
"""Calls newer than many a libseccomp; from 424 on, the numbers are the same on every architecture."""

NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
"""The CLONE_NEW* flags of `clone`: mount, cgroup, uts, ipc, user, pid, network."""

TERMINAL_REQUESTS = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, which type into the terminal of whoever started us."""

PROCESS_OPTIONS = (1, 22)
"""PR_SET_PDEATHSIG (the signal that ends the program when we die is not its own to switch off) and PR_SET_SECCOMP."""

SOCKET_CALLS = ("socket", "socketpair")
AF_UNIX = 1
RULES = 3
"""Changes with the code below, so that filters that were compiled before are not used."""


def filter_file(directory: Path) -> Path:
    """Return the compiled filter, as a file that bubblewrap reads; made once per kernel architecture and rules.

    Raises:
        NoSandbox: libseccomp is missing, or the directory cannot be written.
    """
    rules = repr((DENIED, NUMBERS, NAMESPACES, TERMINAL_REQUESTS, platform.machine(), RULES))
    path = directory / f"filter-{hashlib.sha256(rules.encode()).hexdigest()[:16]}.bpf"
    if path.exists():
        return path
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".filter-", delete=False) as draft:
            draft.write(_compile_filter())
        os.chmod(draft.name, 0o644)  # the launcher opens it as another user
        os.replace(draft.name, path)
    except OSError as error:
        raise NoSandbox(f"the system-call filter cannot be written: {error}") from error
    return path


def _compile_filter() -> bytes:
    """Return the filter as a BPF program."""
    sc = libseccomp()
    rules = sc.SyscallFilter(sc.ALLOW)
    for name in DENIED:
        if (number := _number(sc, name)) is not None:
            rules.add_rule(sc.ERRNO(errno.EPERM), number)
    # Its flags are behind a pointer, out of reach of a filter; libraries take ENOSYS as "use clone".
    rules.add_rule(sc.ERRNO(errno.ENOSYS), NUMBERS["clone3"])
    flags = 1 if platform.machine() == "s390x" else 0
    for flag in NAMESPACES:
        rules.add_rule(sc.ERRNO(errno.EPERM), "clone", sc.Arg(flags, sc.MASKED_EQ, flag, flag))
    for call in SOCKET_CALLS:
        rules.add_rule(sc.ERRNO(errno.EPERM), call, sc.Arg(0, sc.NE, AF_UNIX))
    for request in TERMINAL_REQUESTS:  # masked: the kernel looks at 32 bits of these arguments
        rules.add_rule(sc.ERRNO(errno.EPERM), "ioctl", sc.Arg(1, sc.MASKED_EQ, 0xFFFFFFFF, request))
    for option in PROCESS_OPTIONS:
        rules.add_rule(sc.ERRNO(errno.EPERM), "prctl", sc.Arg(0, sc.MASKED_EQ, 0xFFFFFFFF, option))
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def libseccomp() -> Any:
    """Return the library, which knows names and numbers of system calls. Raises NoSandbox."""
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError) as error:
        raise NoSandbox(f"the system-call filter cannot be made: {error}", fix="apt-get install libseccomp2") from error
    return pyseccomp


def _number(sc: Any, name: str) -> int | None:
    """Return a call's number here; `None` where this architecture has no such call."""
    number = int(sc.resolve_syscall(sc.Arch.NATIVE, name))
    if number >= 0:
        return number
    return NUMBERS.get(name)
