"""Exceptions that cross, as the tests know them. Sent into their sandbox."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable

from ponder.tools.checking.changes import BadData
from ponder.tools.checking.errors import PLACES, text_of
from ponder.tools.checking.stubs import CannotCompare

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers take this name for true; importing `typing` takes milliseconds
    from typing import Any

    from ponder.tools.checking.data import Json

DEPTH = 20
"""Of the classes that an exception's class derives from."""


class Raised:
    """Exceptions of one program, made here after what it says of them, and those of the tests that went there.

    Args:
        decode: decodes a value of the program's.
    """

    def __init__(self, decode: Callable[[Json], Any]) -> None:
        self._decode = decode
        self._kinds: dict[int, type[BaseException]] = {}
        self._own: list[BaseException] = []
        self._crossed: list[BaseException] = []

    def number_of(self, kind: type[BaseException]) -> int | None:
        """Return the number of a class of the program's; None for any other."""
        return next((number for number, other in self._kinds.items() if other is kind), None)

    def is_crossed(self, error: BaseException | None) -> bool:
        """Return whether the program raised this exception."""
        return any(error is other for other in self._crossed)

    def encode(self, error: BaseException) -> Json:
        """Encode an exception of the tests; the text of a failed assertion may tell what was expected, and stays."""
        self._own.append(error)
        kind = next((kind for kind in type(error).__mro__ if is_builtin(kind)), Exception)
        known = self.number_of(type(error))
        return {"n": len(self._own) - 1, "c": kind.__name__ if known is None else known,
                "s": "" if is_judged(error) else text_of(error)}  # fmt: skip

    def crossed(self, data: Json, *, ends_iteration: bool) -> BaseException:
        """Return the exception that the program raised.

        Args:
            ends_iteration: it may be the end of an iteration; elsewhere that would silently end a loop of the tests.

        Raises:
            BadData: it is none.
        """
        error = self._made(members(data))
        if isinstance(error, StopIteration | StopAsyncIteration) and not ends_iteration:
            error = RuntimeError(f"the program raised {type(error).__name__}")
        self._crossed.append(error)
        return error

    def _made(self, data: dict[str, Json]) -> BaseException:
        number = data.get("n")
        if type(number) is int and 0 <= number < len(self._own):
            return self._own[number]
        kind, text, args = self.class_of(data.get("c")), data.get("s"), data.get("a")
        if type(text) is not str or not (args is None or type(args) is list):
            raise BadData("an exception that is none")
        values = None if args is None else [self._decode(part) for part in args]
        attributes = {name: self._decode(part) for name, part in members(data.get("d", {})).items()}
        try:
            error = kind(*values) if values is not None else kind(text)
        except Exception:  # a class that wants other arguments than it keeps
            error = kind.__new__(kind, *(values or [text]))
        if kind.__module__ != "builtins":
            error.__dict__.update({name: value for name, value in attributes.items() if name.isidentifier()})
            error.__dict__["_ponder_text"] = text
        lines = data.get("p", [])
        if type(lines) is list:
            error.__dict__[PLACES] = [line[:300] for line in lines[:4] if type(line) is str]
        return error

    def class_of(self, data: Json, depth: int = 0) -> type[BaseException]:
        """Return the builtin class of that name, a loaded one of the standard library, or one that is made here.

        Raises:
            BadData: it is no exception's class.
        """
        if type(data) is str:
            found = getattr(builtins, data, None)
            if isinstance(found, type) and issubclass(found, BaseException):
                return found
        if type(data) is not list or len(data) != 5 or data[0] != "e" or depth > DEPTH:
            raise BadData("an exception class that is none")
        _, number, name, module, bases = data
        if type(number) is not int or type(name) is not str or type(module) is not str or type(bases) is not list:
            raise BadData("an exception class that is none")
        if number not in self._kinds:
            parents = tuple(self.class_of(base, depth + 1) for base in bases)
            known = None
            if module.partition(".")[0] in sys.stdlib_module_names and module in sys.modules:
                known = vars(sys.modules[module]).get(name)
            real = isinstance(known, type) and issubclass(known, BaseException)
            self._kinds[number] = known if real else _make_error(name, parents)  # type: ignore[assignment]
        return self._kinds[number]


def _make_error(name: str, parents: tuple[type[BaseException], ...]) -> type[BaseException]:
    space = {"__module__": "solution", "__str__": _text_over_there}
    try:
        return type(name, parents or (Exception,), dict(space))
    except TypeError:
        return type(name, (Exception,), dict(space))


def _text_over_there(error: BaseException) -> str:
    text = error.__dict__.get("_ponder_text")
    return text if type(text) is str else Exception.__str__(error)


def is_builtin(kind: type) -> bool:
    """Return whether a class is the builtin one of its name."""
    return getattr(builtins, kind.__name__, None) is kind


def is_judged(error: BaseException) -> bool:
    """Return whether an exception is a verdict: an assertion that failed, or a comparison that nobody may make."""
    return isinstance(error, AssertionError | CannotCompare)


def members(data: Json) -> dict[str, Json]:
    """Return an object of ours. Raises BadData: it is none."""
    if type(data) is not dict:
        raise BadData("no object where one should be")
    return data
