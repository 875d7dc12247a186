"""The tests' end of the connection to a program: what is asked, and what becomes of the answers. Sent into a sandbox.

Only literals come back, as exact builtin objects, so that an answer cannot lie about what it is equal to; what derives
from one compares as its base does (`derived.py`). What is no literal comes back as a handle (`stubs.py`).
"""

from __future__ import annotations

import _thread
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice

from ponder.tools.checking.changes import BASES, BadData, can_change, refill
from ponder.tools.checking.data import MAX_NODES, Decoder, Encoder, dumps, loads
from ponder.tools.checking.derived import CONTENTS, Container, Value, base_of, container_of, held, keep, value_of
from ponder.tools.checking.raised import Raised, is_builtin, is_judged, members
from ponder.tools.checking.stubs import CannotCompare, CannotCross, ClassHandle, Handle, Stub, awaited, refusal
from ponder.tools.checking.wire import MESSAGE_BYTES, Channel, Gone

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers take this name for true; importing `typing` takes milliseconds
    from typing import Any

    from ponder.tools.checking.data import Json

STEPS = ("__next__", "next", "__anext__")
"""Operations that may end an iteration."""


class Link:
    """The tests' end of the connection to one loaded program."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._asking = _thread.RLock()
        self._handles: dict[int, Handle] = {}
        self._derived: dict[int, Value | Container] = {}
        self._classes: dict[int, tuple[str, frozenset[str]]] = {}
        self._owners: dict[int, Container] = {}
        """By the number of a method, an iterator or a coroutine, the container that it may change."""
        self._forgotten: list[Container] = []
        """Containers that may hold something else by now."""
        self._asked: Container | None = None
        self._touched: set[int] = set()
        self._callbacks: list[Callable[..., Any]] = []
        self._callback_numbers: dict[int, int] = {}
        self.raised = Raised(self.decode)
        self.gone: str | None = None
        """Why the program cannot be asked any more."""
        self.failed: BaseException | None = None
        """The first assertion that failed in a function that the program called: it may not swallow that."""

    def ask(self, operation: str, args: tuple[Any, ...], keywords: dict[str, Any] | None = None) -> Any:
        """Do an operation over there and return its result; an exception over there is raised here.

        Raises:
            Gone: the program is dead, or its answer is no data.
            CannotCross: an argument may not cross.
        """
        with self._asking:
            marked: list[Any] = []
            met: list[Container] = []
            encoder = self._encoder(met, marked=marked)
            try:
                values = [encoder.encode(part) for part in args]
                named = {key: encoder.encode(part) for key, part in (keywords or {}).items()}
                request = dumps({"o": operation, "a": values, "w": named})
            except BadData as error:
                raise CannotCross(f"an argument cannot be passed to the program: {error}") from None
            if len(request) > MESSAGE_BYTES:
                raise CannotCross(f"the arguments are too large: {len(request)} bytes as text")
            first = next(part for part in args if isinstance(part, Stub))
            asked = first if isinstance(first, Container) else self._owners.get(_number(first))
            met += [asked] if asked is not None else []
            if operation != CONTENTS:
                self._settle(met)
                self._forget(met)
            payload = self._converse(request)
            if operation != CONTENTS:
                self._forget(met)  # what a function of the tests has seen of them meanwhile
            self._asked, self._touched = asked, {_number(one) for one in met}
            try:
                return self._result(payload, marked, operation)
            except BadData as error:
                self.gone = f"what the program returned cannot be read: {error}"
                raise Gone(self.gone) from None
            finally:
                self._asked, self._touched = None, set()

    def _settle(self, but: Sequence[Container]) -> None:
        """Have told what containers hold, but for these: later the program may know what they are compared with."""
        waiting, self._forgotten = self._forgotten, []
        for one in waiting:
            if not any(one is other for other in but):
                with suppress(CannotCompare):
                    held(one)

    def _forget(self, containers: Sequence[Container]) -> None:
        """Note that these may hold something else by now."""
        self._forgotten += containers
        for one in containers:
            keep(one, None)

    def decode(self, data: Json) -> Any:
        """Return a value that the program named. Raises BadData."""
        return Decoder(self._decode_other).decode(data)

    def _converse(self, request: bytes) -> bytes:
        """Send a request; serve the program's calls of our functions until its answer comes."""
        if self.gone is None:
            self._channel.send(b"C", request)
        while self.gone is None:
            kind, payload = self._channel.receive()
            if kind == b"R":
                return payload
            if kind == b"B":
                self._channel.send(b"A", self._called_back(payload))
            else:
                self.gone = why_gone(kind, payload)
        raise Gone(self.gone)

    def _result(self, payload: bytes, marked: list[Any], operation: str) -> Any:
        reply = members(loads(payload))
        decoder = Decoder(self._decode_other, list(marked))
        updates, printed = reply.get("u", []), reply.get("p", "")
        if type(updates) is not list or type(printed) is not str:
            raise BadData("updates that are none")
        renewing = Decoder(partial(self._decode_other, renew=True), decoder.marked)
        value = renewing.decode(reply["v"]) if "v" in reply else None
        for update in updates:
            if type(update) is not list or type(update[0]) is not int or not 0 <= update[0] < len(marked):
                raise BadData("updates that are none")
            refill(marked[update[0]], decoder.decode(update[1]))
        if printed:
            sys.stdout.write(printed)
        if "v" in reply:
            return value
        raise self.raised.crossed(reply.get("x"), ends_iteration=operation in STEPS)

    # --- arguments --------------------------------------------------------------------------------------------

    def _encoder(self, met: list[Container] | None = None, *, marked: list[Any] | None = None) -> Encoder:
        """Return an encoder of values of the tests.

        Args:
            met: containers of the program that it comes upon are put here.
        """

        def own(value: object, _: Callable[[], Json]) -> Json | None:
            if not isinstance(value, Stub) or object.__getattribute__(value, "_ponder_link") is None:
                return None
            if isinstance(value, Container) and met is not None:
                met.append(value)
            return ["h", _number(value)]

        return Encoder(partial(self._encode_other, met), own=own, marked=marked)

    def _encode_other(self, met: list[Container] | None, value: object) -> Json:
        if isinstance(value, type) and issubclass(value, BaseException):
            number = self.raised.number_of(value)
            if number is not None:
                return ["h", number]
            if is_builtin(value):
                return ["E", value.__name__]
        if callable(value):
            return ["k", self._callback(value), str(getattr(value, "__name__", type(value).__name__))[:100]]
        if isinstance(value, Iterator):
            parts = list(islice(value, MAX_NODES + 1))
            return ["I", self._encoder(met).encode(parts)]
        if isinstance(value, type({}.keys()) | type({}.values()) | type({}.items())):
            return self._encoder(met).encode(list(value))
        raise CannotCross(
            f"an argument of type {type(value).__name__} cannot be passed to the program: only literals, functions "
            "and the program's own objects can"
        )

    def _callback(self, function: Callable[..., Any]) -> int:
        number = self._callback_numbers.get(id(function))
        if number is None:
            number = self._callback_numbers[id(function)] = len(self._callbacks)
            self._callbacks.append(function)
        return number

    def _called_back(self, payload: bytes) -> bytes:
        """Call a function of the tests for the program; return the answer."""
        try:
            request = members(loads(payload))
            decoder = Decoder(partial(self._decode_other, renew=True))
            number = request.get("k")
            if type(number) is not int or not 0 <= number < len(self._callbacks):
                raise BadData("a call of no function of ours")
            args = [decoder.decode(part) for part in request["a"]]
            keywords = {str(key): decoder.decode(part) for key, part in members(request["w"]).items()}
        except (BadData, KeyError, TypeError) as error:
            self.gone = f"what the program passed to a function of the test cannot be read: {error}"
            raise Gone(self.gone) from None
        try:
            value = self._callbacks[number](*args, **keywords)
            met: list[Container] = []
            answer = dumps({"v": self._encoder(met).encode(value)})
            self._forget(met)
            if len(answer) > MESSAGE_BYTES:
                raise CannotCross("what a function of the test returned is too large")
            return answer
        except Gone:
            raise
        except BaseException as error:
            if is_judged(error) and self.failed is None and not self.raised.is_crossed(error):
                self.failed = error
            return dumps(self.raised.encode(error))

    # --- results ----------------------------------------------------------------------------------------------

    def _decode_other(self, data: list[Json], decode: Callable[[Json], Any], *, renew: bool = False) -> object:
        if data[0] == "h" and len(data) == 4:
            return self.handle(data)
        if data[0] == "O" and len(data) == 4:
            kind = self._class(data[2])  # before what it holds, which may be of the same class
            return self._derived_one(data[1], kind, decode(data[3]), renew=renew)
        if data[0] == "e":
            return self.raised.class_of(data)
        raise BadData("an array with an unknown tag")

    def handle(self, data: list[Json]) -> Any:
        """Return the handle of an object over there: the same one whenever it is the same object."""
        _, number, label, kind = data
        if type(number) is not int or type(label) is not str or kind not in ("o", "c", "w"):
            raise BadData("a handle that is none")
        known = self._handles.get(number)
        if known is None:
            known = self._handles[number] = (ClassHandle if kind == "c" else Handle)(self, number, label[:100])
            if self._asked is not None and kind != "c":
                self._owners[number] = self._asked
        return awaited(known) if kind == "w" else known

    def _class(self, about: Json) -> tuple[str, frozenset[str]]:
        """Return a class's name, and the names in it that are its own: it is told about once in a message."""
        if type(about) is not list:
            return self._classes[about]
        number, label, names = about
        if type(number) is not int or type(label) is not str or not all(type(name) is str for name in names):
            raise BadData("a class that is none")
        self._classes[number] = (label if label.isidentifier() else "Object", frozenset(names))
        return self._classes[number]

    def _derived_one(
        self, number: Json, kind: tuple[str, frozenset[str]], contents: Any, *, renew: bool
    ) -> Value | Container:
        """Return what stands for an object that derives from a builtin one: the same whenever it is the same object.

        Args:
            renew: it is a result, or was passed to a function. A container that the operation had to do with holds this
                now; one that it had not stays what it was, and this is another that stands for the same.
        """
        if type(number) is not int or type(contents) not in BASES:
            raise BadData("an object that is none")
        known = self._derived.get(number)
        if known is None or (isinstance(known, Container) and renew and number not in self._touched):
            make = container_of if can_change(contents) else value_of
            made: Value | Container = make(self, number, *kind, contents)
            self._derived[number] = made
            return made
        if base_of(known) is not type(contents):
            raise BadData("an object that changed its kind")
        if renew and isinstance(known, Container):
            keep(known, contents)
        return known

    def computed(self, operation: str, args: tuple[Any, ...]) -> Any:
        """Return what an operator gives. A literal it may not be: the operands are what it would be compared with."""
        value = self.ask(operation, args)
        if not isinstance(value, Stub):
            raise refusal(next(arg for arg in args if isinstance(arg, Handle)), f"`{operation}`")
        return Handle(self, _number(value), object.__getattribute__(value, "_ponder_label"), computed=True)


def _number(stub: Stub) -> int:
    number: int = object.__getattribute__(stub, "_ponder_id")
    return number


def why_gone(kind: bytes, payload: bytes) -> str:
    """Return what a message says that comes instead of an answer."""
    known = kind in (b"L", b"D", b"X")
    return payload.decode("utf-8", "replace") if known else "the program's side sent a message out of turn"
