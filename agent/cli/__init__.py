"""The command line: `ponder ask`, `bench`, `runs`, `models`, `sandbox`, `doctor`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def main() -> None:
    """Run the command line and exit with the code of the design: 0, 2, 3, 4, 5 or 130."""
    # transformers and the hub's client print advice that is of no use here; the user's own setting wins.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the best answer so far, and all is closed
    try:
        from ponder.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while this was still being imported
        code = 130
    # All is closed and said: taking the interpreter apart would only cost the user CPU that no bill shows.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more, or the disk is full: that was told, if it could
            stream.flush()
    os._exit(code)
