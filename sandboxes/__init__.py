"""Where untrusted code runs, and how what it used is measured.

`open_sandbox()` gives the best sandbox that works on this machine, tried from inside; with none it raises, and code is
never run bare. `group_factory()` (in `ponder.sandboxes.groups`) meters and stops any other process tree.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ponder.errors import NoSandbox, UnknownName
from ponder.protocols import Sandbox
from ponder.records import Layers
from ponder.sandboxes.bubblewrap import BubblewrapSandbox

__all__ = ["SANDBOXES", "check_sandboxes", "open_sandbox"]


SANDBOXES: dict[str, Callable[[], Sandbox]] = {"bubblewrap": BubblewrapSandbox}
"""The backends, best first."""


async def open_sandbox(name: str | None = None) -> Sandbox:
    """Return a sandbox that works, tried from inside.

    Args:
        name: which one; by default what `PONDER_SANDBOX` names, else the best that works.

    Raises:
        NoSandbox: none works here (`fix` says what to do), or `PONDER_SANDBOX` switches them off (`none`).
        UnknownName: there is no sandbox of that name.
    """
    wanted = name or os.environ.get("PONDER_SANDBOX") or None
    if wanted == "none":
        raise NoSandbox("sandboxes are switched off, so untrusted code is refused", fix="unset PONDER_SANDBOX")
    if wanted is not None and wanted not in SANDBOXES:
        raise UnknownName("sandbox", wanted, [*SANDBOXES, "none"])
    refusals: list[NoSandbox] = []
    for make in [SANDBOXES[wanted]] if wanted else SANDBOXES.values():
        sandbox = make()
        try:
            await sandbox.probe()
        except NoSandbox as error:
            await sandbox.close()
            refusals.append(error)
            continue
        return sandbox
    if len(refusals) == 1:
        raise refusals[0]
    raise NoSandbox("no sandbox works here: " + "; ".join(map(str, refusals)), fix=refusals[0].fix)


async def check_sandboxes() -> dict[str, dict[str, bool | str]]:
    """Try every backend; return by name whether it works (`ok`) and what is missing or how to fix it (`why`)."""
    report: dict[str, dict[str, bool | str]] = {}
    for name, make in SANDBOXES.items():
        sandbox = make()
        try:
            layers = await sandbox.probe()
        except NoSandbox as error:
            report[name] = {"ok": False, "why": str(error)}
        else:
            missing = "; ".join(f"{layer}: {why}" for layer, why in layers.missing.items())
            report[name] = {"ok": True, "why": f"works, without {missing}" if missing else "every layer holds"}
        finally:
            await sandbox.close()
    return report
