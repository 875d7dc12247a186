"""What stands for a program's objects where its tests run: handles that ask over there. Sent into the tests' sandbox.

The program answers for its objects' attributes, methods, items and text, but is never asked whether one is equal to,
greater than or in something: it would say yes.
"""

from __future__ import annotations

import types
from collections.abc import Callable

from ponder.tools.checking.errors import text_of
from ponder.tools.checking.wire import Gone

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers take this name for true; importing `typing` takes milliseconds
    from typing import Any

    from ponder.tools.checking.link import Link


class CannotCompare(Exception):
    """An object of the program was compared, or used where only a literal may decide."""


class CannotCross(Exception):
    """An argument is neither a literal nor a function, nor an object of the program."""


async def awaited(handle: Handle) -> Any:
    return object.__getattribute__(handle, "_ponder_link").ask("await", (handle,))


def refusal(handle: object, what: str) -> CannotCompare:
    label = object.__getattribute__(handle, "_ponder_label")
    return CannotCompare(
        f"{what} with an object of the program ({label}): compare its parts (attributes, what methods return, str) "
        "with literals; an object of the program could say anything"
    )


FOREIGN = ("__array", "__dlpack", "__cuda_array", "__dataframe", "__buffer")
"""Beginnings of names by which libraries ask for memory: addresses over there are none of ours."""


class Stub:
    """What stands for an object of the program."""

    __slots__ = ()


class Handle(Stub):  # its documentation is that of the object over there, so it has no docstring
    __slots__ = ("__weakref__", "_ponder_computed", "_ponder_id", "_ponder_label", "_ponder_link")

    def __init__(self, link: Link, number: int, label: str, *, computed: bool = False) -> None:
        for name, value in (("link", link), ("id", number), ("label", label), ("computed", computed)):
            object.__setattr__(self, f"_ponder_{name}", value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith(FOREIGN):
            raise AttributeError(name)
        return _ask(self, "getattr", name)

    def __setattr__(self, name: str, value: object) -> None:
        _ask(self, "setattr", name, value)

    def __delattr__(self, name: str) -> None:
        _ask(self, "delattr", name)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return object.__getattribute__(self, "_ponder_link").ask("call", (self, *args), keywords)

    def __hash__(self) -> int:
        return hash(("ponder", object.__getattribute__(self, "_ponder_id")))

    def __eq__(self, other: object) -> bool:
        """Whether it is the same object; whether another one is equal, nobody can be asked."""
        if self is other:
            return True
        if isinstance(other, Handle) and hash(self) == hash(other) and not (_is_computed(self) or _is_computed(other)):
            return True
        raise refusal(self, "`==` or `!=`")

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __contains__(self, value: object) -> bool:
        """Whether one of its items is equal, judged here."""
        try:
            items = iter(self)
        except TypeError:
            raise refusal(self, "`in`") from None
        return any(value is item or value == item for item in items)

    def __iter__(self) -> Any:
        iterator = _ask_plain(self, "iter")
        return iterator if isinstance(iterator, Stub) else iter(iterator)

    def __await__(self) -> Any:
        return awaited(self).__await__()

    async def __aenter__(self) -> Any:
        return await _later(self, "__aenter__")

    async def __aexit__(self, *raised: Any) -> bool:
        return bool(await _later(self, "__aexit__", None, None, None)) and raised[0] is None

    def __aiter__(self) -> Any:
        return _ask(self, "__aiter__")

    async def __anext__(self) -> Any:
        return await _later(self, "__anext__")

    def __enter__(self) -> Any:
        return _ask(self, "__enter__")

    def __exit__(self, kind: Any, error: BaseException | None, trace: object) -> bool:
        """Leave over there; an exception of the tests themselves is told as AssertionError and never swallowed."""
        if isinstance(error, Gone):
            return False
        if error is None:
            _ask(self, "exit")
            return False
        crossed = object.__getattribute__(self, "_ponder_link").raised.is_crossed(error)
        swallowed = _ask(self, "exit", kind if crossed else AssertionError, text_of(error) if crossed else "")
        return crossed and swallowed is True

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise CannotCross("an object of the program cannot be copied or pickled here")


def _is_computed(handle: Handle) -> bool:
    return bool(object.__getattribute__(handle, "_ponder_computed"))


def _ask(handle: Handle, operation: str, *args: Any) -> Any:
    return object.__getattribute__(handle, "_ponder_link").ask(operation, (handle, *args))


def _ask_plain(handle: Handle, operation: str, *args: Any) -> Any:
    """Ask for what may be a literal, except of what an operator gave: it may know what it is compared with."""
    if _is_computed(handle):
        raise refusal(handle, f"`{operation}` of what an operator gave")
    return _ask(handle, operation, *args)


async def _later(handle: Handle, operation: str, *args: Any) -> Any:
    result = _ask(handle, operation, *args)
    return await result if isinstance(result, Handle | types.CoroutineType) else result


class ClassHandle(Handle):
    __slots__ = ()

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, Stub) and _ask(self, "is_instance", value) is True

    def __subclasscheck__(self, value: object) -> bool:
        return isinstance(value, Handle) and _ask(self, "is_subclass", value) is True

    def __mro_entries__(self, bases: Any) -> Any:
        raise CannotCross("a test cannot derive a class from a class of the program")


def _add_methods() -> None:
    """Give handles the rest of Python's operators."""

    def asking(operation: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, *args: ask(self, operation, *args)

    def operator_of(operation: str, *, swapped: bool) -> Callable[..., Any]:
        def apply(self: Handle, other: object) -> Any:
            if operation in REVEALING and not isinstance(other, Handle):
                raise refusal(self, f"`{operation}`")
            args = (other, self) if swapped else (self, other)
            return object.__getattribute__(self, "_ponder_link").computed(operation, args)

        return apply

    def refused(sign: str) -> Callable[..., Any]:
        def refuse(self: Handle, _: object) -> Any:
            raise refusal(self, f"`{sign}`")

        return refuse

    for name in ("len", "bool", "int", "float", "complex", "index", "abs", "round", "next", "reversed", "bytes"):
        setattr(Handle, f"__{name}__", asking(name, _ask_plain))
    for name in ("getitem", "setitem", "delitem", "str", "repr", "format", "dir"):
        setattr(Handle, f"__{name}__", asking(name, _ask))
    for name in ("neg", "pos", "invert"):
        setattr(Handle, f"__{name}__", lambda self, name=name: object.__getattribute__(
            self, "_ponder_link").computed(name, (self,)))  # fmt: skip
    for operation in (*REVEALING, "add", "mul", "matmul", "pow", "lshift", "rshift", "or_"):
        name = operation.rstrip("_")
        setattr(Handle, f"__{name}__", operator_of(operation, swapped=False))
        setattr(Handle, f"__r{name}__", operator_of(operation, swapped=True))
    for name, sign in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
        setattr(Handle, f"__{name}__", refused(sign))
    for kind in (Handle, ClassHandle):
        kind.__doc__ = property(lambda self: _ask(self, "getattr", "__doc__"))  # type: ignore[assignment]


REVEALING = ("sub", "truediv", "floordiv", "mod", "divmod", "xor", "and_")
"""Operators that a test compares with: `abs(f(x) - 1.5) < 0.1`. With a literal they would tell what is expected."""

_add_methods()
