"""What stands for objects of a program's classes that derive from a builtin one. Sent into the tests' sandbox.

`class Stack(list)`, a named tuple, an `IntEnum`: tests may take them for what they derive from, and for more. One holds
here what it holds over there, and what its base does it does here, by that: compare above all. Over there it is asked
for what its class adds, and for what its class does otherwise, comparing and computing with literals aside. What it
holds is brought up to date on both sides whenever an operation has to do with it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from functools import cache, partial

from ponder.tools.checking.changes import MUTABLE, can_change, refill
from ponder.tools.checking.data import BASES
from ponder.tools.checking.stubs import Handle, Stub, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers take this name for true; importing `typing` takes milliseconds
    from typing import Any

    from ponder.tools.checking.link import Link

ASKED = frozenset((
    "__str__", "__repr__", "__format__", "__getitem__", "__setitem__", "__delitem__", "__len__", "__bool__", "__iter__",
    "__next__", "__reversed__", "__call__", "__enter__", "__exit__", "__await__", "__aenter__", "__aexit__",
    "__aiter__", "__anext__", "__int__", "__float__", "__complex__", "__index__", "__round__",
))  # fmt: skip
"""Special methods that are asked for over there where the class has its own, as those of handles are."""

OPERATORS = {f"__{reflected}{name.rstrip('_')}__": (name, bool(reflected)) for reflected in ("", "r") for name in (
    "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift", "and_", "or_",
    "xor",
)} | {f"__{name}__": (name, False) for name in ("neg", "pos", "invert", "abs")}  # fmt: skip
"""By special method the operator, and whether its operands are swapped."""

SCALING = ("mul", "truediv", "floordiv", "mod")
OVERRIDDEN = (list, dict, deque, tuple)
"""Bases whose methods a class may have in another way. What a text or a set says of a literal is judged here."""


class Derived(Stub):
    """Mixed with a builtin class; see `derived`."""

    _ponder_link: Link | None = None
    """None: made by a method of the base, so that nobody over there knows it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return _ask(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        object.__getattribute__(self, "_ponder_link").ask("setattr", (self, name, value))

    def __delattr__(self, name: str) -> None:
        object.__getattribute__(self, "_ponder_link").ask("delattr", (self, name))

    def __copy__(self) -> Any:
        return plain(self) if isinstance(self, MUTABLE) else self

    def __deepcopy__(self, known: Any) -> Any:
        import copy

        return copy.deepcopy(plain(self), known) if can_change(self) else self

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Be pickled as what it holds."""
        return (plain, (plain(self),))


def derived(link: Link, number: int, label: str, names: frozenset[str], contents: Any) -> Any:
    """Return what stands for an object over there.

    Args:
        label: its class's name.
        names: what the class does otherwise than its base, or besides.
        contents: what it holds, as an exact builtin object.
    """
    base: Any = type(contents)
    kind: Any = _class_of(base, label, names)
    made = kind.__new__(kind) if base in MUTABLE or base is Counter else base.__new__(kind, contents)
    for name, value in (("link", link), ("id", number), ("label", label), ("computed", False)):
        object.__setattr__(made, f"_ponder_{name}", value)
    if base is deque:
        deque.__init__(made, (), contents.maxlen)
    if isinstance(contents, MUTABLE):
        refill(made, contents)
    return made


def plain(value: Any) -> Any:
    """Return what a derived object holds as an exact builtin one, without asking."""
    base = next(kind for kind in BASES if isinstance(value, kind))
    if isinstance(value, deque):
        return deque(deque.__iter__(value), value.maxlen)
    if isinstance(value, MUTABLE):
        made = base()
        refill(made, value)
        return made
    if isinstance(value, tuple | frozenset):
        return base(base.__iter__(value))
    return base.__getitem__(value, slice(None)) if isinstance(value, str | bytes) else base.__pos__(value)


@cache
def _class_of(base: type, label: str, names: frozenset[str]) -> type:
    space: dict[str, Any] = {"__module__": "solution", "__doc__": property(partial(_ask, name="__doc__"))}
    for name in names if base is not Counter else ():  # whose comparing is written in Python: it would ask
        if name in OPERATORS:
            space[name] = _operator(base, name)
        elif name in ASKED and not (name == "__iter__" and base is deque):  # by which it is compared
            space[name] = vars(Handle)[name]
        elif not name.startswith("__") and hasattr(base, name) and base in OVERRIDDEN:
            space[name] = property(partial(_ask, name=name))
    if issubclass(base, MUTABLE) and hasattr(base, "copy"):
        space["copy"] = property(partial(_ask, name="copy"))
    return type(label, (Derived, base), space)


def _operator(base: type, name: str) -> Callable[..., Any]:
    """Return a special method: over there among objects of the program, here with literals, which may be expected.

    A row may be asked for so many times itself: what comes is a row, too, and no number that was told.
    """
    own = getattr(base, name, None)
    operation, swapped = OPERATORS[name]

    def compute(self: Any, *others: Any) -> Any:
        link = object.__getattribute__(self, "_ponder_link")
        scaled = operation in SCALING and base in (list, tuple) and all(type(one) in (int, float) for one in others)
        if link is not None and (scaled or all(isinstance(other, Stub) for other in others)):
            found = link.ask(operation, (*others, self) if swapped else (self, *others))
            if scaled and not isinstance(found, list | tuple):
                raise refusal(self, f"`{operation}`")
            return found
        return own(self, *others) if own is not None else NotImplemented

    return compute


def _ask(stub: Any, name: str) -> Any:
    link = object.__getattribute__(stub, "_ponder_link")
    if link is None:
        raise AttributeError(f"{type(stub).__name__!r} object has no attribute {name!r}")
    return link.ask("getattr", (stub, name))
