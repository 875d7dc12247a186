"""What `ponder doctor` looks at: each check tries one part for real and says {"ok", "why", ...}."""

from __future__ import annotations

import os
import platform
import socket
import struct
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ponder.errors import NoSandbox, PonderError, UsageError
from ponder.protocols import GroupFactory

Report = dict[str, Any]
_SOON_S = 10.0
_PULL = "not on this machine yet: the first use fetches it, or `ponder models pull {}`"
ADD_PACKAGES = "ponder sandbox image numpy sympy pandas"


async def check_browser(groups: GroupFactory) -> Report:
    """Load a page in Chromium."""
    from ponder.tools.browser.tool import BrowserTool

    tool = BrowserTool(groups)
    try:
        return dict(await tool.probe())
    finally:
        await tool.close()


def check_cores() -> Report:
    """Tell which weights are here, by name."""
    from ponder.models import is_here, load_registry

    here = {name: is_here(name) for name in load_registry()}
    return {name: {"ok": yes, "why": "" if yes else _PULL.format(name)} for name, yes in here.items()}


async def check_core(name: str) -> Report:
    """Tell of the core of that name: a server is asked what it is; of weights, whether they are here."""
    from ponder.core.servers.openai_api import OpenAICore
    from ponder.core.servers.wire import PREFIX, parse_name
    from ponder.models import is_here
    from ponder.parts import OTHER_CORES, check_core

    try:
        if not name.startswith(PREFIX):
            check_core(name)
            here = name.startswith(tuple(other.partition(":")[0] + ":" for other in OTHER_CORES)) or is_here(name)
            return {"ok": here, "why": "" if here else _PULL.format(name)}
        core = OpenAICore(parse_name(name).model_copy(update={"attempts": 1}))  # who looks now need not wait for it
        try:
            await core.start()
            return {"ok": True, "why": _server(core.manifest()), **core.manifest()}
        finally:
            await core.close()
    except PonderError as error:
        return {"ok": False, "why": str(error), "fix": error.fix or ""}


def _server(about: Mapping[str, Any]) -> str:
    """Return what can be done with a server, in words."""
    begins = {"continues": "goes on with the core's turn", "flags": "goes on with the core's turn when flags say so"}
    prefill = begins.get(about["prefill"], "is told in words how to begin")
    field = about["grammar"]
    grammar = "it enforces no grammar: words are parsed" if field == "none" else f"grammars in the field {field}"
    return f"{about['engine']} at {about['server']}, model {about['model']}: {prefill}; {grammar}"


def check_engine() -> Report:
    """Tell which llama.cpp computes: the wheel's, or the one that was built for this CPU, which is tried."""
    from ponder.core.llama.native import BUILD, NoNative, choice, expected_gain, find_native

    wheel = f"the wheel's, xllamacpp {version('xllamacpp')}"
    try:
        wanted = choice()
        native = find_native()
    except UsageError as error:
        return {"ok": False, "why": str(error), "fix": error.fix or ""}
    except NoNative as missing:
        why = str(missing).removesuffix(f" ({missing.fix})")
        if wanted == "native":
            return {"ok": False, "why": f"PONDER_ENGINE=native: {why}", "fix": BUILD}
        told = expected_gain() if not missing.built else why
        return {"ok": True, "why": f"{wheel}; {told}", "fix": BUILD, "native": False}
    build = native.build
    said: int | str
    try:
        said = subprocess.run([native.path, "--version"], capture_output=True, timeout=_SOON_S, check=False).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        said = type(error).__name__
    if said != 0:
        why = f"{native.path} does not run (exit status {said}): {wheel} serves instead"
        return {"ok": False, "why": why, "fix": BUILD, "native": False}
    if wanted == "wheel":
        return {"ok": True, "why": f"{wheel}, as PONDER_ENGINE says", "native": False}
    why = f"{native.version}, built from {build.source} for {build.cpu.model}: {native.path}"
    return {"ok": True, "why": why, "native": True, "version": native.version, "path": str(native.path)}


def check_meters() -> Report:
    """Tell how processes are metered and limited: the method, which cgroup version does what, and what is missing."""
    from ponder.sandboxes.groups import find_groups
    from ponder.sandboxes.groups.places import is_v2

    groups = find_groups()
    group = groups.make("doctor")
    try:
        method = group.read().method
    finally:
        group.close()
    roles: dict[str, str] = {}
    for role in ("cpu", "memory", "pids", "kill"):
        place = getattr(groups.places, role, None)
        if place is not None:
            roles[role] = f"cgroup v{2 if is_v2(place) else 1}: {place}"
    titles = {"cpu": "CPU metered", "memory": "memory limited", "pids": "processes limited", "kill": "killed at once"}
    held = ", ".join(f"{titles[role]} by {place.partition(':')[0]}" for role, place in roles.items())
    why = held if method == "cgroup" else "no cgroup can be made here: CPU figures are lower bounds"
    versions = sorted({place.split(":")[0][-2:] for place in roles.values()})
    fix = "" if method == "cgroup" or os.geteuid() == 0 else "systemd-run --user --scope -p Delegate=yes ponder ..."
    report = {"ok": True, "why": why, "fix": fix, "cgroup_versions": versions, "roles": roles}
    return {method: report | {"missing": groups.missing}}


def check_image() -> Report:
    """Tell where the root image and the package layer are, and what they hold. Builds nothing."""
    from ponder.sandboxes.root import layers, rootfs

    try:
        tree = rootfs.trees_dir(root_user=os.geteuid() == 0) / rootfs.running_interpreter().key
        layer = layers.find_layer()
    except NoSandbox as error:
        return {"ok": False, "why": str(error), "fix": error.fix or ""}
    report: Report = {"ok": True, "path": str(tree), "built": tree.is_dir(), "bytes": 0, "packages": None}
    if tree.is_dir():
        report["bytes"] = layers.size_of(tree)
        report["why"] = f"root image {tree}, {report['bytes'] / 1e6:.0f} MB"
    else:
        report["why"] = f"root image {tree}, not built yet: the first program builds it, or `ponder sandbox image`"
    if layer is None:
        report["why"] += f"; no packages (`{ADD_PACKAGES}` adds some)"
        return report
    size = layers.size_of(layer.path)
    report["packages"] = {
        "path": str(layer.path), "bytes": size, "imports": list(layer.names), "versions": dict(layer.versions),
    }  # fmt: skip
    report["why"] += f"; packages {', '.join(layer.names)}, {size / 1e6:.0f} MB"
    return report


def check_docker() -> Report:
    """Ask the engine that DOCKER_HOST names what it is, and whether its containers can be metered from here."""
    from ponder.sandboxes.containers.engines import DEFAULT_HOST, connect

    host = os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    try:
        api = connect(host)
    except NoSandbox as error:
        return {"ok": False, "why": str(error), "fix": error.fix or ""}
    try:
        info = api.info()
    finally:
        api.close()
    runtimes = sorted(info.get("Runtimes") or {})
    hidden = _why_hidden(info, host)
    return {
        "ok": True,
        "why": f"engine {info['ServerVersion']}, runtimes {', '.join(runtimes)}; its containers' cgroups are "
               + (f"out of sight ({hidden}): their figures are lower bounds" if hidden else "visible"),
        "version": info["ServerVersion"],
        "runtimes": runtimes,
        "default_runtime": info.get("DefaultRuntime", ""),
        "cgroup_driver": info.get("CgroupDriver", ""),
        "cgroup_version": info.get("CgroupVersion", ""),
        "cgroups_visible": hidden is None,
    }  # fmt: skip


def _why_hidden(info: Mapping[str, Any], host: str) -> str | None:
    """Return why the cgroups of the engine's containers cannot be seen from here, or None when they can."""
    if info.get("KernelVersion") != platform.release():
        return f"it runs on another kernel, {info.get('KernelVersion')}"
    if not host.startswith("unix://"):
        return "it is reached over the network"
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(host.removeprefix("unix://"))
            told = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError as error:
        return f"its socket cannot be asked: {error.strerror}"
    pid, _, _ = struct.unpack("3i", told)
    if pid == 0 or not Path(f"/proc/{pid}").exists():
        return "its processes are in another pid namespace"
    return None
