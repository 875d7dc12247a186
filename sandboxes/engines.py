"""A Docker engine: found, or refused with what would help; containers made and removed there. Nothing here is async."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ponder.errors import NoSandbox
from ponder.records import Limits
from ponder.sandboxes import rootfs
from ponder.sandboxes.cgroups import identity
from ponder.sandboxes.images import Image
from ponder.sandboxes.launch import PROGRAM_ENV, UNPRIVILEGED_ID, disk_shares
from ponder.sandboxes.profiles import docker_profile

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
            self.info: Mapping[str, Any] = self.api.info()
            self._check()
            self._profile = docker_profile()
        except BaseException:
            self.api.close()
            raise

    @property
    def socket(self) -> Path | None:
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
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        try:
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
                network_disabled=True,
                labels=own_labels(),
                host_config=self._host_config(limits),
            )
        except (DockerException, RequestException) as error:
            raise NoSandbox(f"the Docker engine makes no container: {error}") from error
        return str(made["Id"])

    def attach(self, container: str) -> socket.socket:
        """Return the stream of process 1's standard descriptors. Raises NoSandbox."""
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        try:
            stream = self.api.attach_socket(container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        except (DockerException, RequestException) as error:
            raise NoSandbox(f"the Docker engine attaches to no container: {error}") from error
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
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        try:
            self.api.start(container)
            return int(self.api.inspect_container(container)["State"]["Pid"])
        except (DockerException, RequestException) as error:
            raise NoSandbox(f"the Docker engine starts no container: {error}") from error

    def limit(self, container: str, limits: Limits) -> None:
        """Set the limits of memory and processes of one that runs. Raises NoSandbox."""
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        memory = memory_of(limits)
        bounds = {"Memory": memory, "MemorySwap": memory, "PidsLimit": limits.pids + 1}
        try:
            # The SDK's own method does not know the limit of processes.
            url = self.api._url("/containers/{0}/update", container)
            self.api._result(self.api._post_json(url, data=bounds), True)
        except (DockerException, RequestException) as error:
            raise NoSandbox(f"the Docker engine does not change a container's limits: {error}") from error

    def kill(self, container: str) -> None:
        """SIGKILL everything in it; one that is gone is well."""
        self._gone(self.api.kill, container)

    def remove(self, container: str) -> None:
        """Remove it, whatever it does; returns when it is gone."""
        from docker.errors import APIError

        try:
            self._gone(self.api.remove_container, container, force=True, v=True)
        except APIError as error:
            if error.status_code != 409:  # the engine removes it already, as it does with all that ended
                raise
            self._gone(self.api.wait, container, condition="removed")

    def remove_stale(self) -> None:
        """Remove containers of ponder processes of this machine that no longer run."""
        mine = own_labels()
        for found in self.api.containers(all=True, filters={"label": f"{HOST_LABEL}={mine[HOST_LABEL]}"}):
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

    def _check(self) -> None:
        if self.info.get("OSType") != "linux":
            raise NoSandbox(
                f"the Docker engine runs {self.info.get('OSType')} containers", fix="switch it to Linux containers"
            )
        if tuple(map(int, self.api.api_version.split("."))) < OLDEST_API:
            raise NoSandbox("the Docker engine is too old", fix="Docker 20.10 or newer is needed")
        theirs = str(self.info.get("Architecture"))
        if ARCHITECTURES.get(theirs, theirs) != platform.machine():
            raise NoSandbox(f"the Docker engine runs on {theirs}, and this Python on {platform.machine()}")
        if self.runtime is not None and self.runtime not in self.info.get("Runtimes", {}):
            known = ", ".join(self.info.get("Runtimes", {}))
            raise NoSandbox(f"the Docker engine has no runtime {self.runtime!r}", fix=f"it has: {known}")

    def _host_config(self, limits: Limits) -> Any:
        """Return what the engine is to keep from the container, and within which bounds."""
        shares = disk_shares(limits.disk_bytes)
        owner = f"uid={UNPRIVILEGED_ID},gid={UNPRIVILEGED_ID}"
        memory = memory_of(limits)
        return self.api.create_host_config(
            network_mode="none", dns=["127.0.0.1"], dns_search=["."],  # else the host's are told in /etc/resolv.conf
            read_only=True, cap_drop=["ALL"], ipc_mode="private", cgroupns="private", shm_size=shares.small,
            security_opt=["no-new-privileges", f"seccomp={self._profile}"],
            tmpfs={
                "/work": f"rw,exec,nosuid,nodev,size={shares.work},mode=0755,{owner}",
                "/tmp": f"rw,exec,nosuid,nodev,size={shares.small},mode=1777",
                "/sys": "ro,noexec,nosuid,nodev,size=4k,mode=0000",
            },
            mem_limit=memory, memswap_limit=memory, pids_limit=limits.pids + 1,  # process 1 counts too
            init=False, auto_remove=True, runtime=self.runtime, log_config={"Type": "none"},
        )  # fmt: skip


def connect(host: str) -> APIClient:
    """Connect to the engine that the environment names. Raises NoSandbox with what would help."""
    import docker
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        client: APIClient = docker.from_env(timeout=ANSWER_S).api
    except (DockerException, RequestException, ValueError) as error:
        raise _why_no_engine(host, error) from error
    return client


def _why_no_engine(host: str, error: BaseException) -> NoSandbox:
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
        fix = "systemctl start docker"
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
