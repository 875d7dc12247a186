"""Whether a sandbox protects: a program that tries every layer from inside, and the judge of what it saw."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ponder.errors import NoSandbox
from ponder.records import Layers

PROGRAM = """
import json, os, resource, socket

def attempt(action):
    try:
        action()
    except OSError as error:
        return error.errno
    return 0

def listener():
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()

status = dict(line.split(":", 1) for line in open("/proc/self/status"))
names = ("user", "pid", "net", "ipc", "uts", "mnt", "cgroup")
print(json.dumps({
    "namespaces": {name: os.readlink("/proc/self/ns/" + name) for name in names},
    "owns_settings": os.stat("/proc/sys/kernel/core_pattern").st_uid == os.getuid(),
    "open_settings": attempt(lambda: open("/proc/sys/kernel/core_pattern", "r+")),
    "capabilities": int(status["CapEff"], 16) | int(status["CapPrm"], 16) | int(status["CapBnd"], 16),
    "no_new_privileges": int(status["NoNewPrivs"]),
    "seccomp": int(status["Seccomp"]),
    "write_root": attempt(lambda: open("/probe", "w")),
    "write_dev": attempt(lambda: open("/dev/probe", "w")),
    "write_work": attempt(lambda: open("/work/probe", "w")),
    "disk": sum(s.f_blocks * s.f_frsize for s in map(os.statvfs, ("/work", "/tmp", "/dev/shm"))),
    "interfaces": [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line],
    "inet_socket": attempt(listener),
    "root": sorted(os.listdir("/")),
    "environment": sorted(os.environ),
    "descriptors": len(os.listdir("/proc/self/fd")) - 1,
    "processes": resource.getrlimit(resource.RLIMIT_NPROC)[1],
    "rlimits": [resource.getrlimit(which)[1] for which in
                (resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)],
}))
"""

ROOT = {"bin", "dev", "etc", "lib", "lib64", "packages", "proc", "tmp", "usr", "work"}
ENVIRONMENT = {
    "HOME", "PATH", "PWD", "LANG", "LC_CTYPE", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH",
    "LD_LIBRARY_PATH", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS",
}  # fmt: skip
"""The variables that a program may see, those of the package layer included."""

REQUIRED = (
    "user-namespace", "pid-namespace", "network-namespace", "ipc-namespace", "mount-namespace", "unprivileged-user",
    "no-capabilities", "no-new-privileges", "seccomp", "read-only-root", "minimal-root", "no-network",
    "clean-environment", "no-inherited-files", "rlimits",
)  # fmt: skip
"""Without one of these, untrusted code is refused."""

SYSCTLS = (
    ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
)


def judge_layers(
    report: str,
    limits: Mapping[str, str],
    *,
    disk_bytes: int,
    required: Collection[str] = REQUIRED,
    root: Collection[str] = ROOT,
) -> Layers:
    """Turn the trial program's report into the layers that hold.

    Args:
        report: what the program printed.
        limits: why the machine cannot limit or meter a group (`memory`, `pids`, `cpu`), for those that it cannot.
        disk_bytes: what the program's file systems may hold in all.
        required: the layers without which this backend refuses.
        root: what may be in its root directory.

    Raises:
        NoSandbox: a required layer does not hold.
    """
    try:
        seen = json.loads(report)
    except ValueError as error:
        raise NoSandbox(f"the sandbox's trial program printed {report[:200]!r}") from error
    faults = {**_isolation_faults(seen, root), **_limit_faults(seen, limits, disk_bytes)}
    broken = {name: why for name, why in faults.items() if why is not None}
    for name in required:
        if name in broken:
            raise NoSandbox(f"the sandbox does not hold: {name}: {broken[name]}")
    return Layers(active=tuple(name for name in faults if name not in broken), missing=broken)


def _isolation_faults(seen: Mapping[str, Any], root: Collection[str]) -> dict[str, str | None]:
    """Return, by layer, what is wrong with it, or None."""
    faults: dict[str, str | None] = {}
    titles = {"net": "network", "mnt": "mount"}
    for name, inner in seen["namespaces"].items():
        shared = inner == os.readlink(f"/proc/self/ns/{name}")
        faults[f"{titles.get(name, name)}-namespace"] = "shared with the host" if shared else None
    # The kernel's settings belong to the machine's root, whatever name that has inside.
    is_root = seen["owns_settings"] or seen["open_settings"] == 0
    faults["unprivileged-user"] = "the program runs as the machine's root" if is_root else None
    faults["no-capabilities"] = f"capabilities {seen['capabilities']:x}" if seen["capabilities"] else None
    faults["no-new-privileges"] = None if seen["no_new_privileges"] == 1 else "not set"
    faults["seccomp"] = None if seen["seccomp"] == 2 else "no filter is active"
    writable = [place for place in ("root", "dev") if seen[f"write_{place}"] == 0]
    faults["read-only-root"] = f"{' and '.join(writable)} can be written" if writable else None
    foreign = sorted(set(seen["root"]) - set(root))
    faults["minimal-root"] = f"{', '.join(foreign)} can be seen" if foreign else None
    connected = [name for name in seen["interfaces"] if name != "lo"]
    faults["no-network"] = f"interfaces {connected}" if connected or seen["inet_socket"] == 0 else None
    strange = sorted(set(seen["environment"]) - ENVIRONMENT)
    faults["clean-environment"] = f"holds {', '.join(strange)}" if strange else None
    faults["no-inherited-files"] = None if seen["descriptors"] == 3 else f"{seen['descriptors']} are open"
    return faults


def _limit_faults(seen: Mapping[str, Any], limits: Mapping[str, str], disk_bytes: int) -> dict[str, str | None]:
    faults: dict[str, str | None] = {"rlimits": "not set" if min(seen["rlimits"]) < 0 else None}
    faults["disk-limit"] = f"{seen['disk']} bytes instead of {disk_bytes}" if seen["disk"] > disk_bytes else None
    bounded = seen["processes"] >= 0 or "pids" not in limits
    faults["process-limit"] = None if bounded else limits["pids"]
    faults["cpu-cgroup"] = limits.get("cpu")
    faults["memory-cgroup"] = limits.get("memory")
    return faults


def why_refused(stderr: str, root: Path = Path("/")) -> NoSandbox:
    """Return the error for a sandbox that could not be set up, with the command that most likely helps."""
    text = " ".join(stderr.split())[-400:] or "it said nothing"
    fix = None
    if "Unknown option" in text:
        fix = "install bubblewrap 0.8 or newer"
    elif any(word in text for word in ("namespace", "uid map", "Operation not permitted", "Permission denied")):
        for name, bad, command in SYSCTLS:
            try:
                if (root / "proc/sys" / name).read_text().strip() == bad:
                    fix = command
            except OSError:
                continue
        if fix is None:
            fix = (
                "user namespaces or mounts are forbidden here; in a container, start it with "
                "--security-opt seccomp=unconfined --security-opt systempaths=unconfined"
            )
    return NoSandbox(f"bubblewrap cannot set up a sandbox: {text}", fix=fix)
