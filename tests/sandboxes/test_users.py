"""The sandbox of an ordinary user: no root, no cgroups of its own to make, a root tree in a cache of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ponder.sandboxes.root.rootfs import root_tree

USER = 61999
IMPORTED = (
    "ponder", "ponder.sandboxes", "annotated_types", "platformdirs", "psutil", "pydantic", "pydantic_core", "pyseccomp",
    "typing_extensions", "typing_inspection",
)  # fmt: skip

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])  # ahead of this interpreter's library, which holds a part of ponder
import asyncio, os
from ponder.records import Limits
from ponder.sandboxes.bubblewrap.sandbox import BubblewrapSandbox

async def main():
    sandbox = BubblewrapSandbox()
    burnt = await sandbox.exec("import os, time\\nwhile time.process_time() < 0.2: pass\\nprint(os.getuid())")
    rest = [await sandbox.exec(code, limits=Limits(cpu_s=0.5, wall_s=5, memory_bytes=64 * 2**20)) for code in (
        "open('x', 'w').write('1'); exit(3)",
        "while True: pass",
        "import os, time\\nos.fork()\\nx = b'x' * (45 * 10**6)\\ntime.sleep(4)",
        "import os; os.kill(1, 9); os.fork(); print(len([p for p in os.listdir('/proc') if p.isdigit()]) <= 3)",
    )]
    await sandbox.close()
    print(f'[{os.getuid()}, {burnt.model_dump_json()}, {", ".join(r.model_dump_json() for r in rest)}]')

asyncio.run(main())
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that the other user owns; those of pytest are closed to him."""
    with tempfile.TemporaryDirectory(prefix="ponder-test-") as name:
        if os.geteuid() == 0:
            os.chown(name, USER, USER)
        yield Path(name)


def libraries(home: Path) -> Path:
    """Copy what the program imports to where that user can read it: the checkout may lie in root's home."""
    folder = home / "libraries"
    for name in IMPORTED:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin)
        if source.name == "__init__.py":
            shutil.copytree(source.parent, folder / name.replace(".", "/"), dirs_exist_ok=True)
        else:
            shutil.copy(source, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    return folder


@pytest.mark.real
def test_without_root(home: Path) -> None:
    """Runs as another user, with the interpreter of the root tree: this one may lie where that user cannot read."""
    words = [str(root_tree() / "usr/bin/python3"), "-S", "-c", PROGRAM, str(libraries(home))]
    if os.geteuid() == 0:
        words = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *words]
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PONDER_SANDBOX_ROOT": str(home / "trees")}
    done = subprocess.run(words, env=environment, cwd=home, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    uid, burnt, returned, looped, greedy, sly = json.loads(done.stdout)
    assert uid != 0
    assert burnt["outcome"] == "ok", burnt
    assert burnt["stdout"] == "1000\n"
    assert 0.2 <= burnt["usage"]["cpu_user_s"] + burnt["usage"]["cpu_system_s"] < 0.6
    layers = burnt["layers"]
    assert {"user-namespace", "seccomp", "no-network", "no-capabilities", "read-only-root"} <= set(layers["active"])
    if "cpu-cgroup" in layers["missing"]:
        assert burnt["usage"]["method"] in ("rusage", "process-tree")
    assert (returned["outcome"], returned["exit_code"], returned["files"]) == ("error", 3, {"x": "1"})
    assert [looped["outcome"], greedy["outcome"]] == ["cpu", "memory"]
    assert sly["stdout"].startswith("True"), sly
