"""The commands put together, and every error turned into one line and an exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from ponder.cli.ask import EPILOG, ask
from ponder.cli.bench import EPILOG as BENCH_EPILOG
from ponder.cli.bench import bench
from ponder.cli.doctor import doctor
from ponder.cli.models import models
from ponder.cli.output import note
from ponder.cli.policy import policy
from ponder.cli.runs import runs
from ponder.cli.sandbox import sandbox
from ponder.errors import PonderError

# typer carries its own copy of click; these are that copy's base errors, whichever it is.
_ClickError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
EXIT_USAGE, EXIT_MACHINE, EXIT_INTERRUPTED = 2, 5, 130

app = typer.Typer(
    name="ponder",
    help="A small reasoning core that searches with real tools and stops when another step is not worth its cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=EPILOG)(ask)
app.command(epilog=BENCH_EPILOG)(bench)
app.command()(doctor)
app.add_typer(models, name="models")
app.add_typer(runs, name="runs")
app.add_typer(policy, name="policy")
app.add_typer(sandbox, name="sandbox")


def _version(wanted: bool) -> None:
    if wanted:
        from ponder import __version__

        typer.echo(f"ponder {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """A small reasoning core that searches with real tools and stops when another step is not worth its cost."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. No error leaves as a traceback."""
    _take_any_letter()
    try:
        code = app(list(arguments), standalone_mode=False)
        return code if isinstance(code, int) else 0
    except PonderError as error:
        _complain(str(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _complain("interrupted")
        return EXIT_INTERRUPTED
    except (BrokenPipeError, SystemExit):  # typer and rich leave when whoever read standard output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _complain(str(error))
        return EXIT_MACHINE
    except _ClickError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            _complain(f"{error.format_message()} (see `ponder --help`)")
        return EXIT_USAGE


def _take_any_letter() -> None:
    """Let no text break the output: letters that a stream's encoding lacks are escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _complain(message: str) -> None:
    note(" ".join(message.split()))
