"""How mutable containers that crossed are brought up to date. Sent into both sandboxes of a check."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers take this name for true; importing `typing` takes milliseconds
    from typing import Any


MUTABLE = (list, dict, set, bytearray, deque)
BASES: tuple[Any, ...] = (
    Counter, OrderedDict, dict, list, set, deque, tuple, frozenset, str, bytes, int, float, complex,
)  # fmt: skip
"""Builtin classes that those of a program may derive from, and be more; the more special ones first."""


class BadData(Exception):
    """A text is no data of ours, or a value is too large or too deep to cross."""


def refill(target: Any, source: Any) -> None:
    """Give a mutable container the contents of another of its kind. Raises BadData when it is of another kind."""
    for kind in (list, bytearray):
        if isinstance(target, kind) and isinstance(source, kind):
            target[:] = source
            return
    fills: list[tuple[Any, Any]] = [(dict, dict.update), (set, set.update), (deque, deque.extend)]
    for kind, fill in fills:
        if isinstance(target, kind) and isinstance(source, kind):
            kind.clear(target)
            fill(target, source)
            return
    raise BadData("a container that changed its kind")


def copied(value: Any) -> Any:
    """Return what `changed` needs to know later of a container."""
    return dict(value) if isinstance(value, dict) else bytes(value) if isinstance(value, bytearray) else list(value)


def changed(value: Any, before: Any) -> bool:
    """Return whether a container holds other objects now, without asking any of them."""
    if isinstance(value, bytearray):
        return bool(bytes(value) != before)
    if len(value) != len(before):
        return True
    if isinstance(value, dict):
        pairs = zip(value.items(), before.items(), strict=True)
        return any(key is not old_key or part is not old for (key, part), (old_key, old) in pairs)
    return any(part is not old for part, old in zip(value, before, strict=True))


def can_change(value: Any) -> bool:
    """Return whether something is a mutable container, or a tuple with one in it."""
    return isinstance(value, MUTABLE) or (isinstance(value, tuple) and any(map(can_change, tuple.__iter__(value))))


def pairs_of(value: Any) -> Any:
    """Return a dict's items, in its order, without asking a class that derives from one."""
    return OrderedDict.items(value) if isinstance(value, OrderedDict) else dict.items(value)


def plain(value: Any) -> Any:
    """Return what an object of a derived class holds, as one of the builtin class; the derived one is not asked."""
    base = next(kind for kind in BASES if isinstance(value, kind))
    if isinstance(value, dict):
        return base(dict(pairs_of(value)))
    if isinstance(value, deque):
        return deque(deque.__iter__(value), value.maxlen)
    if isinstance(value, list | set | tuple | frozenset):
        return base(base.__iter__(value))
    return base.__getitem__(value, slice(None)) if isinstance(value, str | bytes) else base.__pos__(value)
