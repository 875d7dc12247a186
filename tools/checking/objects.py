"""What the tests know of a program's objects: their numbers, names and exceptions. Sent into the program's sandbox."""

from __future__ import annotations

import builtins
import types
from collections.abc import Callable
from functools import partial

from ponder.tools.checking.changes import BASES, BadData
from ponder.tools.checking.data import MAX_NODES, Encoder
from ponder.tools.checking.errors import SHOWN, places, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers take this name for true; importing `typing` takes milliseconds
    from typing import Any

    from ponder.tools.checking.data import Json

ARGUMENTS = 16
CONSTANT_NODES = 10_000
"""Parts of a constant, or of an exception's arguments, that cross as values."""

OWN_MODULE = "solution"


class Objects:
    """The program's objects that the tests have handles of, by number.

    Args:
        callback: makes what calls a function of the tests, given its number and name.
    """

    def __init__(self, callback: Callable[[int, str], Callable[..., Any]]) -> None:
        self.known: list[object] = []
        self.numbers: dict[int, int] = {}
        self.callbacks: dict[int, Callable[..., Any]] = {}
        self.sources: dict[str, str] = {}
        self._callback = callback
        self._own: dict[int, tuple[type, list[str] | None]] = {}

    def encoder(self, *, known: dict[int, int] | None = None, max_nodes: int = MAX_NODES) -> Encoder:
        own = partial(self.encode_own, set[int]())
        return Encoder(self.encode_other, own=own, known=known, max_nodes=max_nodes)

    def number_of(self, value: object) -> int:
        number = self.numbers.get(id(value))
        if number is None:
            number = self.numbers[id(value)] = len(self.known)
            self.known.append(value)
        return number

    def encode_other(self, value: object) -> Json:
        """Encode an exception class, a number of numpy, or anything else as a handle."""
        if isinstance(value, type) and issubclass(value, BaseException):
            return self.encode_error_class(value)
        if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
            plain = value.item()  # type: ignore[attr-defined]
            if isinstance(plain, bool | int | float | complex | str):
                return self.encoder().encode(plain)
        return self.encode_handle(value)

    def encode_own(self, told: set[int], value: object, as_base: Callable[[], Json]) -> Json | None:
        """Encode an object of a class of the program's that derives from a builtin one: number, class, what it holds.

        Args:
            told: classes that this encoder has told about: their names, and what they do otherwise than their bases.
            as_base: encodes it as what it derives from.
        """
        kind = type(value)
        names = self._names(kind)
        if names is None:
            return None
        about: Json = self.number_of(kind)
        if about not in told:
            told.add(about)
            about = [about, kind.__name__, names]
        return ["O", self.number_of(value), about, as_base()]

    def _names(self, kind: type) -> list[str] | None:
        if id(kind) not in self._own:
            self._own[id(kind)] = (kind, own_names(kind))
        return self._own[id(kind)][1]

    def encode_handle(self, value: object) -> Json:
        kind = "c" if isinstance(value, type) else "w" if _is_coroutine(value) else "o"
        try:
            label = str(getattr(value, "__name__", type(value).__name__))[:100]
        except BaseException:
            label = "object"
        return ["h", self.number_of(value), label, kind]

    def encode_error_class(self, kind: type) -> Json:
        """Encode an exception class by its name, and up to its builtin bases where it is the program's."""
        if getattr(builtins, kind.__name__, None) is kind:
            return kind.__name__
        bases = [self.encode_error_class(base) for base in kind.__bases__ if issubclass(base, BaseException)]
        return ["e", self.number_of(kind), kind.__name__, kind.__module__, bases]

    def encode_error(self, error: BaseException) -> Json:
        own = getattr(error, "_ponder_number", None)
        if own is not None:  # the tests' own exception, on its way back
            return {"n": own}
        encoder = self.encoder(max_nodes=CONSTANT_NODES)
        args: Json = None
        attributes: dict[str, Json] = {}
        try:
            if len(error.args) <= ARGUMENTS:
                args = [encoder.encode(part) for part in error.args]
            attributes = {name: encoder.encode(part) for name, part in vars(error).items() if name[:1] != "_"}
        except BaseException:
            pass
        return {"c": self.encode_error_class(type(error)), "a": args, "s": text_of(error)[: 3 * SHOWN],
                "d": attributes, "p": places(error, self.sources)}  # fmt: skip

    def decode_other(self, data: list[Json], decode: Callable[[Json], Any]) -> object:
        """Decode what the tests pass besides literals: handles, functions of theirs, iterators, exceptions."""
        tag, first = data[:2]
        if tag == "h":
            return self.known[first]
        if tag == "k":
            if first not in self.callbacks:
                self.callbacks[first] = self._callback(first, data[2])
            return self.callbacks[first]
        if tag == "I":
            return iter(decode(first))
        if tag == "E":
            return getattr(builtins, first)
        raise BadData(f"an array with the tag {tag!r}")


def own_names(kind: type) -> list[str] | None:
    """Return what a class of the program's does otherwise than the builtin one that it derives from, or besides.

    None for one that derives from none, does nothing of its own, or is not the program's: it crosses as its base. A
    tuple with names for its parts is taken for the program's, wherever its class is from.
    """
    base = next((base for base in BASES if issubclass(kind, base)), None)
    named = base is tuple and hasattr(kind, "_fields")
    if base is None or not (kind.__module__ == OWN_MODULE or named):
        return None
    own = [each for each in kind.__mro__ if each not in base.__mro__]
    names = {name for each in own for name in vars(each)}
    if not any(vars(each).keys() - COMMON for each in own if each.__module__ == OWN_MODULE or named):
        return None
    if hasattr(kind, "__missing__"):
        names.add("__getitem__")
    return sorted(name for name in names - COMMON if hasattr(base, name) or name.startswith("__"))


COMMON = frozenset((
    "__annotations__", "__dict__", "__doc__", "__eq__", "__firstlineno__", "__getattribute__", "__getnewargs__",
    "__hash__", "__init__", "__match_args__", "__module__", "__ne__", "__new__", "__orig_bases__", "__qualname__",
    "__reduce_ex__", "__slots__", "__static_attributes__", "__weakref__",
))  # fmt: skip
"""Names that any class may have, and nothing is asked by."""


def _is_coroutine(value: object) -> bool:
    return isinstance(value, types.CoroutineType) or hasattr(type(value), "__await__")
