"""A Docker engine: found, or refused with what would help; containers made and removed there. Nothing here is async."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ponder.errors import NoSandbox
from ponder.records import CpuReading, Limits
from ponder.sandboxes.bubblewrap.launch import PROGRAM_ENV, UNPRIVILEGED_ID, disk_shares
from ponder.sandboxes.containers.images import Image
from ponder.sandboxes.containers.profiles import docker_profile
from ponder.sandboxes.groups.cgroups import identity
from ponder.sandboxes.root import rootfs

if TYPE_CHECKING:
    from docker import APIClient

DEFAULT_HOST = "unix:///var/run/docker.sock"
OLDEST_API = (1, 41)
ANSWER_S = 60
LABEL = "ponder"
HOST_LABEL = "ponder.host"
LEAST_MEMORY = 24 * 2**20
"""Process 1 itself needs some; and the engine takes no limit under 6 MiB."""

ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn an engine's errors into NoSandbox."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except (DockerException, RequestException) as error:
        raise NoSandbox(f"{what}: {error}") from error


class Engine:
    """A connection to a Docker engine that can run our containers.

    Args:
        runtime: another OCI runtime that the engine knows, such as `runsc`.
    """

    def __init__(self, runtime: str | None = None) -> None:
        """Connect. Raises NoSandbox: none answers, or it is of no use to us; `fix` says what would help."""
        self.host = os.environ.get("DOCKER_HOST") or DEFAULT_HOST
        self.runtime = runtime
        self.api = connect(self.host)
        try:
            with refusing("the Docker engine tells nothing of itself"):
                self.info: Mapping[str, Any] = self.api.info()
            check_engine(self.info, self.api.api_version, runtime)
            self._profile = docker_profile()
        except BaseException:
            self.api.close()
            raise

    @property
    def listens_at(self) -> Path | None:
        """Return the path of the engine's socket, or None when it is asked over a network."""
        return Path(self.host.removeprefix("unix://")) if self.host.startswith("unix://") else None

    def missing(self) -> dict[str, str]:
        """Return why the engine cannot limit `memory` or `pids`, for those that it cannot."""
        roles = {"memory": "MemoryLimit", "pids": "PidsLimit"}
        lacking = [role for role, key in roles.items() if not self.info.get(key)]
        return {role: f"the Docker engine cannot limit {role}" for role in lacking}

    def create(self, image: Image, limits: Limits) -> str:
        """Make a container whose process 1 will wait for a job; return its id.

        Raises:
            NoSandbox: the engine refuses.
        """
        with refusing("the Docker engine makes no container"):
            made = self.api.create_container(
                image.name,
                list(rootfs.INSIDE),
                hostname="sandbox",
                user=f"{UNPRIVILEGED_ID}:{UNPRIVILEGED_ID}",
                working_dir="/work",
                # A name alone takes away what the engine would add.
                environment=[*(f"{name}={value}" for name, value in (PROGRAM_ENV | image.env).items()), "HOSTNAME"],
                stdin_open=True,  # and once: it closes when we are gone, and process 1 ends
                use_config_proxy=False,
                network_disabled=True,  # also: no name servers of the host in /etc/resolv.conf
                labels=own_labels(),
                host_config=self._host_config(limits),
            )
        return str(made["Id"])

    def attach(self, container: str) -> socket.socket:
        """Return the stream of process 1's standard descriptors. Raises NoSandbox."""
        with refusing("the Docker engine attaches to no container"):
            stream = self.api.attach_socket(container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        raw = getattr(stream, "_sock", stream)
        if type(raw) is not socket.socket:
            stream.close()
            raise NoSandbox(
                f"the engine at {self.host} is reached over a kind of connection that carries no sandboxes",
                fix="forward its socket: ssh -nNT -L /tmp/docker.sock:/var/run/docker.sock HOST, "
                "and set DOCKER_HOST=unix:///tmp/docker.sock",
            )
        ours = raw.dup()
        response = getattr(stream, "_response", None)  # closed first: it holds the stream, and flushes it
        if response is not None:
            response.close()
        stream.close()
        return ours

    def start(self, container: str) -> int:
        """Start it; return the pid of its process 1 on the engine's machine. Raises NoSandbox."""
        with refusing("the Docker engine starts no container"):
            self.api.start(container)
            return int(self.api.inspect_container(container)["State"]["Pid"])

    def limit(self, container: str, limits: Limits) -> None:
        """Set the limits of memory and processes of one that runs. Raises NoSandbox."""
        memory = memory_of(limits)
        bounds = {"Memory": memory, "MemorySwap": memory, "PidsLimit": limits.pids + 1}
        with refusing("the Docker engine does not change a container's limits"):
            # The SDK's own method does not know the limit of processes.
            url = f"{self.api.base_url}/v{self.api.api_version}/containers/{container}/update"
            self.api.post(url, json=bounds, timeout=ANSWER_S).raise_for_status()

    def used(self, container: str) -> CpuReading | None:
        """Return what the engine says that a container has used, or None when it says nothing. Takes up to a second."""
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        try:
            told = self.api.stats(container, stream=False, one_shot=True)
            cpu, memory = told["cpu_stats"]["cpu_usage"], told["memory_stats"]
            return CpuReading(
                user_s=cpu["usage_in_usermode"] / 1e9,
                system_s=cpu["usage_in_kernelmode"] / 1e9,
                peak_rss_bytes=memory.get("max_usage", memory.get("usage", 0)),
                method="rusage",
            )
        except (DockerException, RequestException, KeyError, TypeError, ValueError):
            return None

    def kill(self, container: str) -> None:
        """SIGKILL everything in it; one that is gone is well. Raises NoSandbox."""
        with refusing("the Docker engine kills no container"):
            self._gone(self.api.kill, container)

    def remove(self, container: str) -> None:
        """Remove it, whatever it does; returns when it is gone. Raises NoSandbox."""
        from docker.errors import APIError

        with refusing("the Docker engine removes no container"):
            try:
                self._gone(self.api.remove_container, container, force=True, v=True)
            except APIError as error:
                if error.status_code != 409:  # the engine removes it already, as it does with all that ended
                    raise
                self._gone(self.api.wait, container, condition="removed")

    def remove_stale(self) -> None:
        """Remove containers of ponder processes of this machine that no longer run. Raises NoSandbox."""
        with refusing("the Docker engine lists no containers"):
            labelled = self.api.containers(all=True, filters={"label": f"{HOST_LABEL}={own_labels()[HOST_LABEL]}"})
        for found in labelled:
            marks = re.fullmatch(r"(\d+)-(\d+)-(\d+)", found["Labels"].get(LABEL, ""))
            if marks is None:
                continue
            namespace, _, started = identity(int(marks[2]))
            if marks[1] == namespace and marks[3] != started:
                self.remove(found["Id"])

    def close(self) -> None:
        """Close the connection."""
        self.api.close()

    def _gone(self, action: Any, container: str, **words: Any) -> None:
        from docker.errors import APIError, NotFound

        try:
            action(container, **words)
        except NotFound:
            return
        except APIError as error:
            if "is not running" not in str(error):
                raise

    def _host_config(self, limits: Limits) -> Any:
        """Return what the engine is to keep from the container, and within which bounds."""
        from docker.types import LogConfig

        shares = disk_shares(limits.disk_bytes)
        owner = f"uid={UNPRIVILEGED_ID},gid={UNPRIVILEGED_ID}"
        memory = memory_of(limits)
        return self.api.create_host_config(
            network_mode="none", read_only=True, cap_drop=["ALL"], ipc_mode="private", cgroupns="private",
            shm_size=shares.small, security_opt=["no-new-privileges", f"seccomp={self._profile}"],
            tmpfs={
                "/work": f"rw,exec,nosuid,nodev,size={shares.work},mode=0755,{owner}",
                "/tmp": f"rw,exec,nosuid,nodev,size={shares.small},mode=1777",
                "/sys": "ro,noexec,nosuid,nodev,size=4k,mode=0000",
            },
            mem_limit=memory, memswap_limit=memory, pids_limit=limits.pids + 1,  # process 1 counts too
            init=False, auto_remove=True, runtime=self.runtime, log_config=LogConfig(type="none"),
        )  # fmt: skip


def connect(host: str) -> APIClient:
    """Connect to the engine that the environment names. Raises NoSandbox with what would help."""
    import docker
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        client: APIClient = docker.from_env(timeout=ANSWER_S).api
    except (DockerException, RequestException, ValueError) as error:
        raise why_no_engine(host, error) from error
    # A socket in the file system needs no proxy: else each call reads the environment for one, in a thread of its own,
    # and breaks where another thread changes the environment meanwhile.
    client.trust_env = not host.startswith("unix://")
    return client


def check_engine(info: Mapping[str, Any], api_version: str, runtime: str | None) -> None:
    """Raise NoSandbox when an engine that says this of itself is of no use to us."""
    if info.get("OSType") != "linux":
        raise NoSandbox(f"the Docker engine runs {info.get('OSType')} containers", fix="switch it to Linux containers")
    if tuple(map(int, api_version.split("."))) < OLDEST_API:
        raise NoSandbox("the Docker engine is too old", fix="Docker 20.10 or newer is needed")
    theirs = str(info.get("Architecture"))
    if ARCHITECTURES.get(theirs, theirs) != platform.machine():
        raise NoSandbox(
            f"the Docker engine runs on {theirs}, and this Python on {platform.machine()}",
            fix="set DOCKER_HOST to an engine on a machine like this one",
        )
    known = info.get("Runtimes", {})
    if runtime is not None and runtime not in known:
        raise NoSandbox(f"the Docker engine has no runtime {runtime!r}", fix=f"it has: {', '.join(known)}")


def why_no_engine(host: str, error: BaseException) -> NoSandbox:
    """Return the refusal for an engine that does not answer."""
    text = str(error)
    path = host.removeprefix("unix://")
    if "PermissionError" in text or "Permission denied" in text:
        return NoSandbox(
            f"you may not talk to the Docker engine at {path}",
            fix=f"sudo usermod -aG docker {os.environ.get('USER', '$USER')}, then log in again",
        )
    if host != DEFAULT_HOST:
        fix = f"start the engine at {host}, or unset DOCKER_HOST"
    elif shutil.which("dockerd"):
        fix = "systemctl start docker" if Path("/run/systemd/system").is_dir() else "start its daemon: sudo dockerd"
    else:
        fix = "apt-get install docker.io"
    short = "there is no such socket" if "No such file" in text or "FileNotFound" in text else text[:300]
    return NoSandbox(f"no Docker engine answers at {host}: {short}", fix=fix)


def own_labels() -> dict[str, str]:
    """Return what tells our containers from others': of which ponder process, on which machine."""
    namespace, pid, started = identity(os.getpid())
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        machine = platform.node()
    return {LABEL: f"{namespace}-{pid}-{started}", HOST_LABEL: machine}


def memory_of(limits: Limits) -> int:
    """Return the container's memory in bytes."""
    return max(LEAST_MEMORY, math.ceil(limits.memory_bytes))
