"""How mutable containers that crossed are brought up to date. Sent into both sandboxes of a check.

All of it goes by what the builtin classes do: a class that derives from one is not asked.
"""

from __future__ import annotations

from collections import OrderedDict, deque

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers take this name for true; importing `typing` takes milliseconds
    from typing import Any

MUTABLE = (list, dict, set, bytearray, deque)


class BadData(Exception):
    """A text is no data of ours, or a value is too large or too deep to cross."""


def refill(target: Any, source: Any) -> None:
    """Give a mutable container the contents of another of its kind. Raises BadData when it is of another kind."""
    if target is source:
        return
    kind: Any = next((kind for kind in MUTABLE if isinstance(target, kind) and isinstance(source, kind)), None)
    if kind is None:
        raise BadData("a container that changed its kind")
    if kind in (list, bytearray):
        kind.__setitem__(target, slice(None), source)
        return
    kind = OrderedDict if isinstance(target, OrderedDict) else kind
    contents: Any = list(pairs_of(source)) if kind in (dict, OrderedDict) else list(kind.__iter__(source))
    kind.clear(target)
    if kind is OrderedDict:
        for key, value in contents:
            OrderedDict.__setitem__(target, key, value)
    else:
        (kind.extend if kind is deque else kind.update)(target, contents)


def merge(target: Any, source: Any) -> None:
    """Do as `refill`; of a tuple, which cannot be filled again, with the containers in it. Raises BadData."""
    if isinstance(target, MUTABLE):
        refill(target, source)
    elif isinstance(target, tuple) and isinstance(source, tuple):
        for own, other in zip(tuple.__iter__(target), tuple.__iter__(source), strict=False):
            merge(own, other)


def can_change(value: Any) -> bool:
    """Return whether something is a mutable container, or a tuple with one in it."""
    return isinstance(value, MUTABLE) or (isinstance(value, tuple) and any(map(can_change, tuple.__iter__(value))))


def pairs_of(value: Any) -> Any:
    """Return a dict's items, in its order."""
    return OrderedDict.items(value) if isinstance(value, OrderedDict) else dict.items(value)


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
