"""A short soak of every sandbox; `benchmarks/sandbox_soak.py` runs the long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ponder.sandboxes import SANDBOXES

SCRIPT = Path(__file__).parents[2] / "benchmarks/sandbox_soak.py"


@pytest.mark.real
@pytest.mark.parametrize("backend", list(SANDBOXES))
def test_nothing_leaks(backend: str, request: pytest.FixtureRequest) -> None:
    snippets = 40 if backend == "docker" else 80  # containers take longer to make
    if backend == "docker":
        request.getfixturevalue("docker_engine")
    # What no call is charged for (first starts, calls cancelled before they began) weighs more in a short run.
    words = ["--backend", backend, "--snippets", str(snippets), "--tolerance", "0.1"]
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert (figures["leaks"], figures["faults"]) == ([], []), figures
    assert figures["bills"] == snippets
    assert done.returncode == 0, figures
