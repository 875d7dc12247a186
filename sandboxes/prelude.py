"""What an interpreter in the sandbox does first, before any line of the program: bound itself.

This file is laid into the sandbox's root tree as its `sitecustomize`, so it may use the standard library only. Doing
it here rather than before the sandbox starts costs no further process, and lets the limit of processes count inside
of the sandbox's own user namespace only.
"""

from __future__ import annotations

import sys

OPTION = "ponder"
"""`-X ponder=CPU:2,NOFILE:256`: names of `resource.RLIMIT_*` and their values."""


def bound() -> None:
    """Set the limits that the command line names, soft and hard; an inner interpreter inherits them."""
    wanted = sys._xoptions.pop(OPTION, None)
    if not isinstance(wanted, str):
        return
    import resource

    for item in wanted.split(","):
        name, _, value = item.partition(":")
        which = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(which)[1]
        new = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(which, (new, new))


if __name__ == "sitecustomize":
    bound()
