"""What stands for objects of a program's classes that derive from a builtin one. Sent into the tests' sandbox.

`class Stack(list)`, a named tuple, an `IntEnum`: tests may take them for what they derive from, and for more. What they
hold crosses, and by that they are compared here. One that cannot change is a value here, which is asked over there for
what its class adds. A container stays over there: it is a handle that knows what it held when it was last used, and
what is in it is a copy, as with any handle. A class that adds nothing crosses as its base, a literal.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from functools import cache

from ponder.tools.checking.changes import plain
from ponder.tools.checking.stubs import Handle, Stub, refusal
from ponder.tools.checking.wire import Gone

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers take this name for true; importing `typing` takes milliseconds
    from typing import Any

    from ponder.tools.checking.link import Link

CONTENTS = "contents"
"""The operation that tells what a container holds."""

ASKED = frozenset((
    "__getitem__", "__len__", "__bool__", "__iter__", "__next__", "__reversed__", "__call__", "__enter__", "__exit__",
    "__await__", "__aenter__", "__aexit__", "__aiter__", "__anext__", "__int__", "__float__", "__complex__",
    "__index__", "__round__",
))  # fmt: skip
"""Special methods of a value that are asked for over there where its class has its own, as those of handles are."""

TELLING = {"__repr__": "repr", "__str__": "str", "__format__": "format"}
OPERATORS = {f"__{reflected}{name.rstrip('_')}__": (name, bool(reflected)) for reflected in ("", "r") for name in (
    "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift", "and_", "or_",
    "xor",
)} | {f"__{name}__": (name, False) for name in ("neg", "pos", "invert", "abs")}  # fmt: skip
"""By special method the operator, and whether its operands are swapped."""

BY_NAME: dict[str, Callable[..., Any]] = {
    "__iter__": iter, "__len__": len, "__bool__": bool, "__reversed__": reversed,
}  # fmt: skip
CHEAP = ("__len__", "__bool__", "__getitem__")
"""What is asked for where it is not known what a container holds now."""

COMPARING = ("__lt__", "__le__", "__gt__", "__ge__")
LOCAL = ("__iter__", "__len__", "__bool__", "__reversed__", "__getitem__")
READING = ("keys", "items", "values", "get", "count", "index")
"""What a container does by what it held, where its class has nothing of its own for it."""

CHANGING = frozenset((
    "add", "clear", "copy", "difference_update", "discard", "intersection_update", "pop", "remove",
    "symmetric_difference_update", "update",
))  # fmt: skip
"""Methods of sets that are asked for; the others judge what they are given, and so are the base's."""

IN_PLACE = ("__iadd__", "__imul__", "__ior__", "__iand__", "__isub__", "__ixor__")
"""What changes a container over there, where its class has nothing of its own for it."""


class Value(Stub):
    """Mixed with a builtin class whose objects cannot change; see `value_of`."""

    _ponder_link: Link | None = None
    """None: made by a method of the base, so that nobody over there knows it."""
    _ponder_computed = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return _asked(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        _linked(self, name).ask("setattr", (self, name, value))

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, _: Any) -> Any:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Be pickled as what it holds."""
        return (plain, (plain(self),))


def _shown_class(container: Any) -> type:
    """Return the builtin class that a container passes for; a Counter compares in Python, and would ask."""
    base = base_of(container)
    return dict if base is Counter else base


class Container(Handle):
    """A handle of something that derives from a builtin container; see `container_of`."""

    __slots__ = ("_ponder_base", "_ponder_held")
    __class__ = property(_shown_class)
    __hash__ = Handle.__hash__

    def __eq__(self, other: object) -> Any:
        return self is other or held(self) == held(other)

    def __ne__(self, other: object) -> Any:
        return self is not other and held(self) != held(other)

    def __contains__(self, value: object) -> bool:
        return value in held(self)

    def __copy__(self) -> Any:
        return _linked(self, "__copy__").ask("copy", (self,))

    def __deepcopy__(self, _: Any) -> Any:
        return _linked(self, "__deepcopy__").ask("deepcopy", (self,))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Be pickled as what it holds."""
        return (plain, (held(self),))


def _linked(stub: Any, name: str) -> Link:
    link: Link | None = object.__getattribute__(stub, "_ponder_link")
    if link is None:
        raise AttributeError(f"{type(stub).__name__!r} object has no attribute {name!r}")
    return link


def _asked(stub: Any, name: str) -> Any:
    return _linked(stub, name).ask("getattr", (stub, name))


def value_of(link: Link, number: int, label: str, names: frozenset[str], contents: Any) -> Any:
    """Return what stands for an object over there that cannot change.

    Args:
        label: its class's name.
        names: what the class does otherwise than its base, or besides.
        contents: what it holds, as an exact builtin object.
    """
    base: Any = type(contents)
    made = base.__new__(_value_class(base, label, names), contents)
    for name, value in (("link", link), ("id", number), ("label", label), ("base", base)):
        object.__setattr__(made, f"_ponder_{name}", value)
    return made


def container_of(link: Link, number: int, label: str, names: frozenset[str], contents: Any) -> Container:
    """Return what stands for a container over there; see `value_of` for the arguments."""
    base: Any = type(contents)
    made: Container = _container_class(base, label, names)(link, number, label)
    object.__setattr__(made, "_ponder_base", base)
    keep(made, contents)
    return made


def keep(container: Container, contents: Any) -> None:
    """Note what a container holds; None: it may be something else now."""
    object.__setattr__(container, "_ponder_held", contents)


def held(one: Any) -> Any:
    """Return what a container holds, as an exact builtin object; anything else is itself. Raises CannotCompare."""
    if not isinstance(one, Container):
        return one
    contents = object.__getattribute__(one, "_ponder_held")
    if contents is None:
        try:
            contents = _linked(one, CONTENTS).ask(CONTENTS, (one,))
        except Gone:
            raise
        except BaseException:  # it may not take the place of a failed assertion
            contents = ...
        keep(one, contents)
    if type(contents) is not base_of(one):
        raise refusal(one, "a comparison")
    return contents


def base_of(stub: Value | Container) -> type:
    """Return the builtin class that an object derives from."""
    base: type = object.__getattribute__(stub, "_ponder_base")
    return base


@cache
def _value_class(base: type, label: str, names: frozenset[str]) -> type:
    space: dict[str, Any] = {"__module__": "solution", "__doc__": property(lambda self: _asked(self, "__doc__"))}
    for name in names:
        if name in OPERATORS:
            space[name] = _operator(base, name)
        elif name in TELLING:
            space[name] = _telling(base, name)
        elif name in ASKED:
            space[name] = _asking(base, name)
        elif base is tuple and not name.startswith("__") and hasattr(base, name):  # a part that is called `count`
            space[name] = property(lambda self, name=name: _asked(self, name))  # type: ignore[misc]
    return type(label, (Value, base), space)


@cache
def _container_class(base: type, label: str, names: frozenset[str]) -> type:
    space: dict[str, Any] = {"__slots__": (), "__doc__": property(lambda self: _asked(self, "__doc__"))}
    space |= {name: _operator(base, name) for name in OPERATORS} | {name: _telling(base, name) for name in TELLING}
    space |= {name: _by_what_it_holds(name) for name in (*COMPARING, *(name for name in LOCAL if name not in names))}
    judging = {name for name in dir(base) if name[0] != "_"} - CHANGING if base is set else set[str]()
    for name in judging | {name for name in READING if hasattr(base, name)} - names:
        if base is not tuple:
            space[name] = property(lambda self, name=name: getattr(held(self), name))  # type: ignore[misc]
    for name in IN_PLACE:
        if name not in names and hasattr(base, name):
            space[name] = _in_place(name.strip("_"))
    return type(label, (Container,), space)


def _by_what_it_holds(name: str) -> Callable[..., Any]:
    function = BY_NAME.get(name) or getattr(operator, name.strip("_"))

    def act(self: Any, *others: Any) -> Any:
        if name in CHEAP and object.__getattribute__(self, "_ponder_held") is None:
            return vars(Handle)[name](self, *others)
        return function(held(self), *map(held, others))

    return act


def _in_place(operation: str) -> Callable[..., Any]:
    """Return a special method that changes a container as its base does."""

    def change(self: Any, other: object) -> Any:
        if _linked(self, operation).ask(operation, (self, other)) is not self:
            raise refusal(self, f"`{operation}`")
        return self

    return change


def _asking(base: type, name: str) -> Callable[..., Any]:
    """Return a special method that asks over there; where nobody knows the value there, it is the base's."""
    asked, own = vars(Handle)[name], getattr(base, name, None)

    def method(self: Any, *args: Any) -> Any:
        if own is None or object.__getattribute__(self, "_ponder_link") is not None:
            return asked(self, *args)
        return own(self, *args)

    return method


def _telling(base: type, name: str) -> Callable[..., str]:
    """Return a special method that gives a text, whatever happens: it may stand in what a failed assertion says."""
    own: Callable[..., str] = getattr(base, name)

    def tell(self: Any, *args: Any) -> str:
        link = object.__getattribute__(self, "_ponder_link")
        if link is None:
            return own(self, *args)
        try:
            return str.__str__(link.ask(TELLING[name], (self, *args)))
        except Gone:
            raise
        except BaseException as error:
            return f"<{type(self).__name__} whose {TELLING[name]} fails with {type(error).__name__}>"

    return tell


def _operator(base: type, name: str) -> Callable[..., Any]:
    """Return a special method: over there among objects of the program, here with literals, which may be expected."""
    own = getattr(base, name, None)
    operation, swapped = OPERATORS[name]

    def compute(self: Any, *others: Any) -> Any:
        stubs = [one for one in (self, *others) if isinstance(one, Stub)]
        if any(object.__getattribute__(one, "_ponder_computed") for one in stubs):
            raise refusal(self, f"`{operation}` with what an operator gave")
        links = [object.__getattribute__(one, "_ponder_link") for one in stubs]
        if len(stubs) == 1 + len(others) and all(links):
            return links[0].ask(operation, (*others, self) if swapped else (self, *others))
        if own is None and swapped:  # lists have no `__radd__`, since both sides are lists
            function: Callable[..., Any] = divmod if operation == "divmod" else getattr(operator, operation)
            return function(*map(held, others), plain(held(self)))
        return own(held(self), *map(held, others)) if own is not None else NotImplemented

    return compute
