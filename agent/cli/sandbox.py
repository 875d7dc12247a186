"""`ponder sandbox`: run one program as the agent would; build what programs run in."""

from __future__ import annotations

import asyncio
import math
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ponder.cli.image import image
from ponder.cli.output import note, print_json
from ponder.errors import NoSandbox, UsageError
from ponder.records import ExecResult, Limits, Outcome

EXIT_CODES: dict[Outcome, int] = {"ok": 0, "error": 1, "cpu": 3, "wall": 3, "memory": 3, "output": 3, "killed": 3}
EPILOG = """Exit codes: 0 the program ended well; 1 it failed; 3 a limit stopped it (or something killed it);
2 bad input; 5 no sandbox works here; 130 Ctrl-C, which kills the program and prints what it had printed.

Examples:

  ponder sandbox run program.py

  echo 'print(6 * 7)' | ponder sandbox run -

  ponder sandbox run program.py --file data.csv --stdin answers.txt --cpu 2 --memory 128

  ponder sandbox run program.py --json | python -m json.tool
"""
MIB = 2**20
DEFAULT = Limits()
MAX_S, MAX_MIB, MAX_PIDS, MAX_OUTPUT = 1e6, 2**20, 2**16, 2**30
MIN_MEMORY_MIB = 16
"""The interpreter itself takes about 10."""

PROGRAM_BYTES, FILE_BYTES = 4 * MIB, 64 * MIB
CLOSE_S = 3.0
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tab and line feed."""

sandbox = typer.Typer(help="Run a program as the agent would; build the image that programs run in.",
                      no_args_is_help=True)  # fmt: skip
sandbox.command()(image)


@dataclass(frozen=True)
class _Call:
    """What to run."""

    code: str
    files: dict[str, bytes]
    stdin: bytes
    limits: Limits
    backend: str | None


@dataclass(frozen=True)
class _Ran:
    """What came of it; `signal` is the one that the user ended it with."""

    result: ExecResult
    signal: int | None


@sandbox.command(epilog=EPILOG)
def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A Python program. `-` reads it from standard input.")],
    backend: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="bubblewrap, docker, docker:RUNTIME; by default the best that works here."),
    ] = None,
    cpu: Annotated[float, typer.Option(metavar="S", help="CPU seconds, of all its processes.")] = DEFAULT.cpu_s,
    memory: Annotated[int, typer.Option(metavar="MB", help="Memory, in units of 2^20 bytes.")]
    = DEFAULT.memory_bytes // MIB,
    wall: Annotated[float, typer.Option(metavar="S", help="Seconds on the clock.")] = DEFAULT.wall_s,
    pids: Annotated[int, typer.Option(metavar="N", help="Processes and threads at once.")] = DEFAULT.pids,
    output: Annotated[int, typer.Option(metavar="BYTES", help="What it may print.")] = DEFAULT.output_bytes,
    disk: Annotated[int, typer.Option(metavar="MB", help="What its files may hold.")] = DEFAULT.disk_bytes // MIB,
    stdin: Annotated[str | None, typer.Option(metavar="FILE", help="Its standard input; empty without.")] = None,
    files: Annotated[
        list[str] | None,
        typer.Option("--file", metavar="PATH", help="A file for its working directory; may be repeated. It is there "
                     "under this path, or under its name when the path leads elsewhere."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on standard output.")] = False,
) -> int:
    """Run one Python program as the agent would: in a sandbox, metered and limited.

    Prints what the program printed; how it ended and what it used go to standard error.
    """  # fmt: skip
    limits = _limits(cpu, memory, wall, pids, output, disk)
    if file == stdin == "-":
        raise UsageError("program and --stdin cannot both be standard input")
    code = _program(file)
    given = _read(stdin, "--stdin", FILE_BYTES) if stdin is not None else b""
    ran = asyncio.run(_execute(_Call(code, _files(files or [], limits), given, limits, backend)))
    if as_json:
        print_json(describe(ran.result))
    else:
        _print(ran.result, limits)
    if ran.signal is not None:
        note("stopped by " + signal.Signals(ran.signal).name)
        return 128 + ran.signal
    return EXIT_CODES[ran.result.outcome]


def describe(result: ExecResult) -> dict[str, Any]:
    """Return the result in the keys of `--json`: the usage as a charge of the ledger, of each file its size."""
    from ponder.ledger import Prices

    charge = {"tool": "python", **result.usage.model_dump(), "cost": Prices().cost(result.usage)}
    sizes = {path: None if data is None else len(data) for path, data in result.files.items()}
    return result.model_dump(mode="json", exclude={"usage", "files"}) | {"usage": charge, "files": sizes}


async def _execute(call: _Call) -> _Ran:
    """Run the program; a signal ends it, and what it printed until then is kept."""
    from ponder.sandboxes import open_sandbox

    place = await open_sandbox(call.backend)
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    got: list[int] = []

    def stop(number: int) -> None:
        got.append(number)
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stop, number)
    running = asyncio.ensure_future(
        place.exec(call.code, files=call.files, stdin=call.stdin, limits=call.limits)
    )
    waiting = asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await place.close()  # its outcome is `killed` then, with what it printed
            await asyncio.wait({running}, timeout=CLOSE_S)
            running.cancel()
        return _Ran(await running, got[0] if got else None)
    except (asyncio.CancelledError, NoSandbox):
        if got:
            raise KeyboardInterrupt from None  # it had not begun yet
        raise
    finally:
        waiting.cancel()
        await place.close()


# --- input --------------------------------------------------------------------------------------------------------


def _limits(cpu: float, memory: int, wall: float, pids: int, output: int, disk: int) -> Limits:
    """Return the limits. Raises UsageError for what is none."""
    for flag, value, low, high in (
        ("--cpu", cpu, 0.0, MAX_S), ("--wall", wall, 0.0, MAX_S), ("--memory", memory, MIN_MEMORY_MIB, MAX_MIB),
        ("--pids", pids, 1, MAX_PIDS), ("--output", output, 1, MAX_OUTPUT), ("--disk", disk, 1, MAX_MIB),
    ):  # fmt: skip
        if math.isnan(value) or value < low or value == 0 or value > high:
            bound = f"at least {low:g}" if low else "greater than 0"
            raise UsageError(f"{flag} must be {bound}, and at most {high:.0f}, not {value:g}")
    return Limits(cpu_s=cpu, wall_s=wall, memory_bytes=memory * MIB, pids=pids, output_bytes=output,
                  disk_bytes=disk * MIB)  # fmt: skip


def _program(name: str) -> str:
    """Return the program's text. Raises UsageError."""
    title = "standard input" if name == "-" else name
    try:
        code = _read(name, "the program", PROGRAM_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{title} is no Python program: it is not text in UTF-8") from error
    if "\0" in code:
        raise UsageError(f"{title} is no Python program: it is a binary file")
    if not code.strip():
        raise UsageError(f"{title} is empty: there is no program to run")
    return code


def _files(paths: list[str], limits: Limits) -> dict[str, bytes]:
    """Return the files by their names in the working directory. Raises UsageError."""
    found: dict[str, bytes] = {}
    for path in paths:
        outside = Path(path).is_absolute() or ".." in Path(path).parts
        name = Path(path).name if outside else Path(path).as_posix()
        if name in found:
            raise UsageError(f"two files would be {name} in the working directory")
        found[name] = _read(path, "--file", FILE_BYTES)
    size = sum(map(len, found.values()))
    if size > limits.disk_bytes // 2:
        raise UsageError(f"the files have {size} bytes, more than half of --disk", fix="give a larger --disk")
    return found


def _read(name: str, title: str, most: int) -> bytes:
    """Return what a file or, for `-`, standard input holds. Raises UsageError."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(most + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(most + 1)
    except (OSError, ValueError) as error:  # a path with a null character is a ValueError
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot read {title} {name}: {why}") from error
    if len(data) > most:
        raise UsageError(f"{title} {name} is larger than {most // MIB} MB")
    return data


# --- output -------------------------------------------------------------------------------------------------------


def _print(result: ExecResult, limits: Limits) -> None:
    """Print the program's output on the same streams; how it ended and what it used on standard error."""
    for stream, text in ((sys.stdout, result.stdout), (sys.stderr, result.stderr)):
        whole = text if not stream.isatty() or text.endswith("\n") or not text else text + "\n"
        stream.write(printable(whole, stream.encoding or "utf-8", terminal=stream.isatty()))
        stream.flush()
    usage = result.usage
    note(
        f"{result.outcome}  {_ending(result, limits)}  {usage.cpu_s:.3f} CPU s ({usage.cpu_user_s:.3f} user, "
        f"{usage.cpu_system_s:.3f} system)  {usage.wall_s:.3f} s  {usage.peak_rss_bytes / 1e6:.1f} MB  "
        f"{result.backend}, measured by {usage.method}"
    )
    changed = [f"{path} ({'removed' if data is None else f'{len(data)} bytes'})" for path, data in result.files.items()]
    if changed:
        note("files: " + printable(", ".join(changed), "utf-8", terminal=True))
    if result.left_out:
        note("files left out: " + printable(", ".join(result.left_out), "utf-8", terminal=True))
    for layer, why in result.layers.missing.items():
        note(f"works without {layer}: {why}")


def _ending(result: ExecResult, limits: Limits) -> str:
    """Say how the program ended."""
    stopped = {
        "cpu": f"stopped after {limits.cpu_s:g} CPU s",
        "wall": f"stopped after {limits.wall_s:g} s",
        "memory": f"it wanted more than {limits.memory_bytes // MIB} MB",
        "output": f"it printed more than {limits.output_bytes} bytes",
    }
    if result.outcome in stopped:
        return stopped[result.outcome]
    if result.exit_code is None:
        return "no exit status"
    return f"exit status {result.exit_code}" if result.exit_code >= 0 else f"signal {-result.exit_code}"


def printable(text: str, encoding: str, *, terminal: bool) -> str:
    """Return the text as a stream can take it; for a terminal without control characters, which could command it."""
    if terminal:
        text = CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return text.encode(encoding, "backslashreplace").decode(encoding)
