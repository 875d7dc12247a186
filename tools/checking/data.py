"""What may cross between a program and its tests: literals, as tagged JSON. Sent into both sandboxes of a check.

A JSON number, string, `true`, `false` or `null` is itself. Anything else is an array whose first element is its tag
(see `Decoder`). Decoding builds exact builtin objects and those of a few standard classes, and never evaluates, imports
or calls anything that the text names. What is no literal gets a tag of its own from the two sides: handles, callbacks,
objects of classes that derive from a builtin one.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence

from ponder.tools.checking.changes import MUTABLE, BadData, pairs_of, refill

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers take this name for true; importing `typing` takes milliseconds
    from typing import Any

    Json = Any

MAX_DEPTH = 100
MAX_NODES = 1_000_000
MAX_DIGITS = 1 << 20
"""Hexadecimal digits of an integer."""

SMALL = 1 << 63
MAX_TEXT = 4 << 20
SIZED: tuple[Any, ...] = (str, bytes, bytearray, list, tuple, dict, set, frozenset, deque)

TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, type(None), object,
        type, slice, deque, Counter, OrderedDict, defaultdict,
    )
}  # fmt: skip
"""Types that cross by name, to be passed to a function or compared with `type(x)`."""

EXACT = frozenset(map(id, TYPES.values()))
"""By identity, since a metaclass may not be hashable."""

ALIASES = {"np": "numpy", "pd": "pandas", "sp": "sympy"}
OPEN_MODULES = (
    "math", "cmath", "collections", "collections.abc", "itertools", "functools", "operator", "statistics", "fractions",
    "decimal", "datetime", "typing", "string", "re", "copy", "heapq", "bisect",
)  # fmt: skip
"""Modules whose functions a test may mean when it uses a name that the program imported."""


def dumps(value: Json) -> bytes:
    """Return encoded data as text."""
    return json.dumps(value, check_circular=False, separators=(",", ":")).encode()


def loads(data: bytes) -> Json:
    """Read a text from outside. Raises BadData."""
    try:
        return json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadData(f"no JSON of ours: {str(error)[:100]}") from error


def _refuse(word: str) -> None:
    raise BadData(f"no JSON of ours: {word}")


class Encoder:
    """Turns values into tagged JSON.

    Args:
        other: encodes what is no literal, or raises.
        own: asked first of what is of none of the exact builtin types, with a function that encodes it as its base;
            None: it is encoded so.
        known: objects by identity that the other side has under a number: they cross as a reference.
        marked: where given, mutable containers are numbered and appended to it, so that the other side can say how
            they changed.
    """

    def __init__(
        self,
        other: Callable[[object], Json],
        *,
        own: Callable[[object, Callable[[], Json]], Json | None] | None = None,
        known: Mapping[int, int] | None = None,
        marked: list[Any] | None = None,
        max_nodes: int = MAX_NODES,
    ) -> None:
        self._other = other
        self._own = own
        self._known = dict(known or {})
        self._marked = marked
        self._left = max_nodes

    def encode(self, value: object, depth: int = 0, *, as_base: bool = False) -> Json:
        """Return a value's encoding. Raises BadData for one that is too large or nested too deeply.

        Args:
            as_base: take an object of a derived class for one of the class that it derives from.
        """
        self._left -= 1
        if depth > MAX_DEPTH:
            raise BadData(f"it is nested more than {MAX_DEPTH} deep, or contains itself")
        if self._left < 0:
            raise BadData("it is too large")
        kind = type(value)
        if value is None or kind is bool or (kind is int and -SMALL < value < SMALL):  # type: ignore[operator]
            return value
        if id(kind) not in EXACT and self._own is not None and not as_base:
            found = self._own(value, lambda: self.encode(value, depth, as_base=True))
            if found is not None:
                return found
        if isinstance(value, SIZED):
            self._check_size(value)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            number = int.__pos__(value)
            return number if -SMALL < number < SMALL else self._big(number)
        if isinstance(value, float):
            real = float.__pos__(value)
            return real if math.isfinite(real) else ["f", repr(real)]
        if isinstance(value, MUTABLE):
            return self._container(value, depth)
        return self.contents(value, depth)

    def _check_size(self, value: Any) -> None:
        """Refuse what is too large before it is walked through."""
        text = isinstance(value, str | bytes | bytearray)
        size = next(kind for kind in SIZED if isinstance(value, kind)).__len__(value)
        if size > (MAX_TEXT if text else self._left):
            raise BadData(f"it holds {'a text' if text else 'a container'} of length {size}, which is too large")

    def _big(self, number: int) -> Json:
        if number.bit_length() > 4 * MAX_DIGITS:
            raise BadData("it holds an integer that is too large")
        return ["i", hex(number)]

    def _container(self, value: Any, depth: int) -> Json:
        number = self._known.get(id(value))
        if number is not None:
            return ["=", number]
        if self._marked is None:
            return self.contents(value, depth)
        number = self._known[id(value)] = len(self._marked)
        self._marked.append(value)
        return ["m", number, self.contents(value, depth)]

    def contents(self, value: object, depth: int = 0) -> Json:
        """Encode a container or one of the rarer literals by what it holds. Subclasses cross as their base."""
        if isinstance(value, list):
            return ["l", *self._all(list.__iter__(value), depth)]
        if isinstance(value, tuple):
            return ["t", *self._all(tuple.__iter__(value), depth)]
        if isinstance(value, dict):
            tag = "C" if isinstance(value, Counter) else "d"
            return [tag, *self._all((part for pair in pairs_of(value) for part in pair), depth)]
        if isinstance(value, set):
            return ["s", *self._all(set.__iter__(value), depth)]
        if isinstance(value, frozenset):
            return ["z", *self._all(frozenset.__iter__(value), depth)]
        if isinstance(value, bytes | bytearray):
            return ["b" if isinstance(value, bytes) else "a", memoryview(value).hex()]
        if isinstance(value, deque):
            return ["q", deque.maxlen.__get__(value), *self._all(deque.__iter__(value), depth)]
        if isinstance(value, complex):
            number = complex.__pos__(value)
            return ["c", self.encode(number.real), self.encode(number.imag)]
        if isinstance(value, range):
            return ["r", *(self.encode(part) for part in (value.start, value.stop, value.step))]
        if isinstance(value, slice):
            return ["S", *(self.encode(part) for part in (value.start, value.stop, value.step))]
        if isinstance(value, type) and TYPES.get(value.__name__) is value:
            return ["n", value.__name__]
        return _encode_rare(value) or self._other(value)

    def _all(self, values: Any, depth: int) -> list[Json]:
        return [self.encode(value, depth + 1) for value in values]


def _encode_rare(value: object) -> Json:
    """Encode numbers and times of the standard library; return None for anything else."""
    datetime = sys.modules.get("datetime")  # a value of it has imported it
    if datetime is None:
        pass
    elif isinstance(value, datetime.datetime):
        return ["Y", datetime.datetime.isoformat(value)]
    elif isinstance(value, datetime.date):
        return ["y", datetime.date.isoformat(value)]
    elif isinstance(value, datetime.time):
        return ["H", datetime.time.isoformat(value)]
    elif isinstance(value, datetime.timedelta):
        return ["T", value.days, value.seconds, value.microseconds]
    module = type(value).__module__
    if module == "decimal" and type(value).__name__ == "Decimal":
        return ["D", str(value)]
    if module == "fractions" and type(value).__name__ == "Fraction":
        return ["F", hex(value.numerator), hex(value.denominator)]  # type: ignore[attr-defined]
    return None


class Decoder:
    """Builds values from tagged JSON.

    Args:
        other: decodes arrays of the sides' own tags, given the whole array and what decodes a part of it, or raises
            BadData.
        marked: the containers that references name; marked ones that arrive are appended.
    """

    def __init__(
        self, other: Callable[[list[Json], Callable[[Json], Any]], object], marked: list[Any] | None = None
    ) -> None:
        self._other = other
        self.marked: list[Any] = [] if marked is None else marked

    def decode(self, data: Json) -> Any:
        """Return the value. Raises BadData for anything that an `Encoder` does not write."""
        try:
            return self._decode(data, 0)
        except BadData:
            raise
        except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
            raise BadData(f"{type(error).__name__} in it: {str(error)[:100]}") from error

    def _decode(self, data: Json, depth: int) -> Any:
        if type(data) is not list:
            if data is None or type(data) in (bool, int, float, str):
                return data
            raise BadData("an object where a value should be")
        if depth > MAX_DEPTH + 1 or not data:
            raise BadData("it is nested too deeply, or an array without a tag")
        tag = data[0]
        if tag == "=":
            return self.marked[_natural(data[1])]
        if tag == "m":
            return self._marked_one(data, depth)
        build = _CONTAINERS.get(tag) if type(tag) is str else None
        if build is not None:
            parts = data[2:] if tag == "q" else data[1:]
            return build([self._decode(part, depth + 1) for part in parts], data[1] if tag == "q" else None)
        rare = _RARE.get(tag) if type(tag) is str else None
        return rare(data) if rare is not None else self._other(data, lambda part: self._decode(part, depth))

    def _marked_one(self, data: list[Json], depth: int) -> Any:
        """Make the container before its contents, which may refer to it."""
        _, number, body = data
        if number != len(self.marked) or body[0] not in _EMPTY:
            raise BadData("a mark that is out of order")
        made: Any = deque(maxlen=body[1]) if body[0] == "q" else _EMPTY[body[0]]()
        self.marked.append(made)
        refill(made, self._decode(body, depth))
        return made


def _natural(number: Json) -> int:
    if type(number) is not int or number < 0:
        raise BadData("a number that is no index")
    return number


def _pairs(parts: Sequence[Any]) -> dict[Any, Any]:
    if len(parts) % 2:
        raise BadData("a dict with a key and no value")
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _real(data: Json) -> float:
    if type(data) is list and len(data) == 2 and data[0] == "f" and data[1] in ("inf", "-inf", "nan"):
        return float(data[1])
    if type(data) in (int, float):
        return float(data)
    raise BadData("a number that is none")


def _hex(text: Json) -> int:
    if type(text) is not str or len(text) > MAX_DIGITS + 3:
        raise BadData("an integer that is none")
    return int(text, 16)


def _whole(data: Json) -> int:
    return _hex(data[1]) if type(data) is list and data[:1] == ["i"] else int.__index__(data)


def _time(kind: str) -> Callable[[list[Json]], object]:
    def read(data: list[Json]) -> object:
        import datetime

        if kind == "timedelta":
            return datetime.timedelta(*(int.__index__(part) for part in data[1:4]))
        return getattr(datetime, kind).fromisoformat(data[1])

    return read


def _decimal(data: list[Json]) -> object:
    from decimal import Decimal

    return Decimal(str.__str__(data[1]))


def _fraction(data: list[Json]) -> object:
    from fractions import Fraction

    return Fraction(_hex(data[1]), _hex(data[2]))


_EMPTY: dict[str, type] = {"l": list, "d": dict, "C": Counter, "s": set, "a": bytearray, "q": deque}
_CONTAINERS: dict[str, Callable[[list[Any], Any], Any]] = {
    "l": lambda parts, _: parts,
    "t": lambda parts, _: tuple(parts),
    "d": lambda parts, _: _pairs(parts),
    "C": lambda parts, _: Counter(_pairs(parts)),
    "s": lambda parts, _: set(parts),
    "z": lambda parts, _: frozenset(parts),
    "q": lambda parts, length: deque(parts, None if length is None else _natural(length)),
}
_RARE: dict[str, Callable[[list[Json]], object]] = {
    "i": _whole,
    "f": _real,
    "b": lambda data: bytes.fromhex(data[1]),
    "a": lambda data: bytearray.fromhex(data[1]),
    "c": lambda data: complex(_real(data[1]), _real(data[2])),
    "r": lambda data: range(*(_whole(part) for part in data[1:4])),
    "S": lambda data: slice(*(None if part is None else _whole(part) for part in data[1:4])),
    "n": lambda data: TYPES[data[1]],
    "Y": _time("datetime"),
    "y": _time("date"),
    "H": _time("time"),
    "T": _time("timedelta"),
    "D": _decimal,
    "F": _fraction,
}
