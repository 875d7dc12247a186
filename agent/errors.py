"""Every error that ponder raises, as one tree.

    PonderError
    |- UsageError            the caller's input is wrong                     exit code 2
    |   |- UnknownName       no core, model, tool, backend of that name
    |   `- RunNotFound       no recorded run of that id
    `- MachineError          something on this machine is missing or broke   exit code 5
        |- NoSandbox         no sandbox works here: untrusted code is refused
        |- BrowserError      the browser cannot start, or died
        |- CoreError         the reasoning core cannot start, died, or answered rubbish
        |- ModelError        weights are missing, corrupt, or cannot be fetched
        `- StoreError        the record of runs cannot be read or written

A *tool's* failure (a program that crashes, a page that is not there) is never one of these: it is an
`Observation` that the core sees. These stop the run.
"""

from __future__ import annotations


class PonderError(Exception):
    """Base of all errors. `fix` is what the user can do about it, as a sentence or a command."""

    exit_code = 5

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.fix = fix

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.fix})" if self.fix else message


class UsageError(PonderError):
    """The caller's input is wrong: a flag, a file, a task."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that is not registered; the message lists those that are."""

    def __init__(self, what: str, name: str, known: list[str]) -> None:
        super().__init__(f"unknown {what} {name!r}", fix=f"known: {', '.join(sorted(known))}")


class RunNotFound(UsageError):
    """No recorded run has that id."""


class MachineError(PonderError):
    """Something on this machine is missing or broke."""

    exit_code = 5


class NoSandbox(MachineError):
    """No sandbox works on this machine, so untrusted code is refused."""


class BrowserError(MachineError):
    """The browser cannot start, or died."""


class CoreError(MachineError):
    """The reasoning core cannot start, died, or answered rubbish."""


class ModelError(MachineError):
    """Weights are missing, corrupt, or cannot be fetched."""


class StoreError(MachineError):
    """The record of runs cannot be read or written."""
