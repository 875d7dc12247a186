"""The program's side of a check: loads it, and does with its objects what the tests ask. Sent into its sandbox.

A driver forks a child for each unit; the child loads the program anew. Nothing here is trusted: the program can take
over all of it, and still only answer questions. What it never learns is what an answer is compared with.
"""

from __future__ import annotations

import _thread
import builtins
import io
import operator
import sys
import types
from collections.abc import Callable

from ponder.tools.checking.changes import BadData, changed, copied, plain
from ponder.tools.checking.data import (
    ALIASES,
    OPEN_MODULES,
    Decoder,
    dumps,
    loads,
)
from ponder.tools.checking.errors import SOLUTION, describe
from ponder.tools.checking.objects import CONSTANT_NODES, Objects
from ponder.tools.checking.wire import (
    ENDING_S,
    HEAD,
    MESSAGE_BYTES,
    TALK_FD,
    TICK_MS,
    Channel,
    Gone,
    Stage,
    cpu_share_s,
    wait,
)

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers take this name for true; importing `typing` takes milliseconds
    from typing import Any

    from ponder.tools.checking.data import Json

CAPTURED = 1 << 16
"""Characters of output, at most, that one call gives to its test."""

FROM_CHILD = (b"N", b"L", b"R", b"B")


def serve() -> None:
    """Be the driver: one child per unit, whose messages are passed on, until the host says that it was all."""
    host = Channel(TALK_FD, HEAD)
    with open(SOLUTION, encoding="utf-8", errors="replace", newline="") as file:
        source = file.read()
    _import_ahead(source)
    stage: Stage | None = None
    unit = b""
    while True:
        host.flush()
        channels = [host] if stage is None else [host, stage.channel]
        ready = wait(channels, [c for c in channels if c.pending], TICK_MS if stage else None)
        if stage is not None:
            stage.channel.flush()
            stage = _from_child(stage, stage.channel.fd in ready, host, unit)
        if host.fd not in ready:
            continue
        for head, payload in host.take():
            kind, number = head[:1], head[1:]
            if kind == b"Q":
                return
            if kind in b"UE":
                if stage is not None:
                    stage.close()
                stage, unit = _begin(source, payload) if kind == b"U" else None, number
            elif stage is not None and number == unit:
                stage.channel.post(kind, payload)


def _begin(source: str, payload: bytes) -> Stage:
    total_s, waiting = payload.split()
    return Stage(lambda channel: _Child(channel).run(source), cpu_share_s(float(total_s), int(waiting)))


def _from_child(stage: Stage, ready: bool, host: Channel, unit: bytes) -> Stage | None:
    """Pass on what a child says; return None when it is gone."""
    dead = stage.ended()
    try:
        for kind, payload in stage.channel.take() if ready or dead else ():
            if kind not in FROM_CHILD:
                raise Gone("it sent what is no message")
            host.post(kind + unit, payload)
        if not dead:
            return stage
        reason = f"the program {stage.said()}"
    except Gone as gone:
        reason = f"the program {stage.said()}" if stage.ended(ENDING_S) else f"the program's process is lost: {gone}"
    host.post(b"D" + unit, reason.encode())
    stage.close()
    return None


def _import_ahead(source: str) -> None:
    """Import what the program imports at its top, once for all children. A line read wrongly costs time only."""
    for line in source.splitlines():
        first, _, rest = line.partition(" ")
        if first not in ("import", "from"):
            continue
        for part in rest.partition(" import ")[0].split(","):
            name = part.split()[0] if part.split() else ""
            if name and name.partition(".")[0] not in ("solution", "test", "main", "ponder"):
                try:
                    __import__(name)
                except BaseException:
                    continue


class _Child:
    """The process of one unit: the program's objects, by the number under which the tests know them."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.objects = Objects(self.callback)
        self.calling = _thread.RLock()
        self.loop: Any = None
        self.printed = sys.stdout = _Captured()

    def run(self, source: str) -> None:
        """Load the program, then answer until the driver ends this process."""
        self.objects.sources[SOLUTION] = source
        try:
            names = self.load(source)
        except BaseException as error:
            self.channel.send(b"L", describe(error, self.objects.sources).encode("utf-8", "replace"))
            return
        self.printed.take()
        self.channel.send(b"N", names)
        while True:
            _, payload = self.channel.receive()
            self.serve_call(payload)

    def load(self, source: str) -> bytes:
        """Run the program as module `solution`, its `__main__` block not; return its names, encoded."""
        module = types.ModuleType("solution")
        sys.modules["solution"] = module
        exec(compile(source, SOLUTION, "exec", dont_inherit=True), module.__dict__)
        names: dict[str, Json] = {}
        modules: dict[str, str] = {}
        for name, value in list(module.__dict__.items()):
            if name.startswith("__") and name.endswith("__"):
                continue
            if isinstance(value, types.ModuleType) and value.__name__ == ALIASES.get(name, name):
                modules[name] = value.__name__
            elif (home := _home(name, value)) is not None:
                modules[name] = home + ":"
            else:
                names[name] = self.constant(value)
        return dumps({"names": names, "modules": modules})

    def constant(self, value: object) -> Json:
        try:
            return self.objects.encoder(max_nodes=CONSTANT_NODES).encode(value)
        except BadData:
            return self.objects.encode_handle(value)

    # --- operations -------------------------------------------------------------------------------------------

    def serve_call(self, payload: bytes) -> None:
        """Do one operation and send its result, with what became of the mutable arguments."""
        reply: dict[str, Json]
        decoder = Decoder(self.objects.decode_other)
        before: list[Any] = []
        known: dict[int, int] = {}
        try:
            request = loads(payload)
            args = [decoder.decode(part) for part in request["a"]]
            keywords = {name: decoder.decode(part) for name, part in request["w"].items()}
            before = [copied(part) for part in decoder.marked]
            known = {id(part): number for number, part in enumerate(decoder.marked)}
            value = self.operation(request["o"])(*args, **keywords)
            reply = {"v": self.result(value, known)}
        except BaseException as error:
            reply = {"x": self.objects.encode_error(error)}
        try:
            reply["u"] = [
                [number, self.objects.encoder(known=known).contents(part)]
                for number, (part, old) in enumerate(zip(decoder.marked, before, strict=False))
                if changed(part, old)
            ]
        except BaseException as error:
            reply = {"x": self.objects.encode_error(error)}
        reply["p"] = self.printed.take()
        self.send_reply(reply)

    def result(self, value: object, known: dict[int, int]) -> Json:
        try:
            return self.objects.encoder(known=known).encode(value)
        except BadData as error:
            raise BadData(f"what it returned cannot be passed to the test: {error}") from None

    def send_reply(self, reply: dict[str, Json]) -> None:
        data = dumps(reply)
        if len(data) > MESSAGE_BYTES:
            error = BadData(f"what it returned is too large for the test: {len(data)} bytes as text")
            data = dumps({"x": self.objects.encode_error(error)})
        self.channel.send(b"R", data)

    def operation(self, name: str) -> Callable[..., Any]:
        """Return the function of an operation on objects of the program."""
        if name == "await":
            return self.wait_for
        if name.startswith("__"):
            return lambda target, *args: getattr(type(target), name)(target, *args)
        return OPERATIONS[name]

    def wait_for(self, awaitable: Any) -> Any:
        """Run an awaitable to its end, in a loop that stays."""
        import asyncio

        if self.loop is None:
            self.loop = asyncio.new_event_loop()

        async def result() -> Any:
            return await awaitable

        return self.loop.run_until_complete(result())

    # --- functions of the tests -----------------------------------------------------------------------------------

    def callback(self, number: int, name: str) -> Callable[..., Any]:
        """Return what calls a function of the tests."""

        def call(*args: Any, **keywords: Any) -> Any:
            encoder = self.objects.encoder()
            request = {"k": number, "a": [encoder.encode(part) for part in args],
                       "w": {key: encoder.encode(part) for key, part in keywords.items()}}  # fmt: skip
            with self.calling:
                self.channel.send(b"B", dumps(request))
                while True:
                    kind, payload = self.channel.receive()
                    if kind == b"A":
                        break
                    self.serve_call(payload)
            reply = loads(payload)
            if "n" not in reply:
                return Decoder(self.objects.decode_other).decode(reply["v"])
            error = self.error_of(reply)
            raise error

        call.__name__ = call.__qualname__ = name
        return call

    def error_of(self, reply: Json) -> BaseException:
        kind: Any = self.objects.known[reply["c"]] if isinstance(reply["c"], int) else getattr(builtins, reply["c"])
        try:
            error: BaseException = kind(reply["s"])
        except TypeError:
            error = Exception(reply["s"])
        error._ponder_number = reply["n"]  # type: ignore[attr-defined]
        return error


def _home(name: str, value: object) -> str | None:
    """Return the standard module whose own `name` this is."""
    for module in OPEN_MODULES:
        if module in sys.modules and getattr(sys.modules[module], name, _home) is value:
            return module
    return None


def _exit(target: Any, kind: type[BaseException] | None = None, text: str = "") -> Any:
    """Leave a `with` block; what it raised arrives as its class and text."""
    error = kind(text) if kind is not None else None
    return type(target).__exit__(target, kind, error, None)


def _copied(target: object, how: str) -> object:
    import copy  # seldom needed, and it takes a millisecond

    return getattr(copy, how)(target)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda target, *args, **keywords: target(*args, **keywords),
    **{function.__name__: function for function in (
        getattr, setattr, delattr, dir, len, bool, int, float, complex, abs, round, iter, next, reversed, bytes, str,
        repr, format, divmod, pow,
    )},
    **{name: getattr(operator, name) for name in (
        "index", "getitem", "setitem", "delitem", "neg", "pos", "invert", "add", "sub", "mul", "truediv", "floordiv",
        "mod", "matmul", "and_", "or_", "xor", "lshift", "rshift", "iadd", "imul",
        "ior", "iand", "isub", "ixor",
    )},
    "exit": _exit,
    "copy": lambda target: _copied(target, "copy"),
    "deepcopy": lambda target: _copied(target, "deepcopy"),
    "contents": plain,
    "is_instance": lambda kind, value: isinstance(value, kind),
    "is_subclass": lambda kind, value: issubclass(value, kind),
}  # fmt: skip


class _Captured(io.TextIOBase):
    """Standard output of the program, up to a limit, until it is taken."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.left = CAPTURED

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.left > 0:
            self.parts.append(text[: self.left])
            self.left -= len(text)
        return len(text)

    def take(self) -> str:
        text = "".join(self.parts)
        self.parts, self.left = [], CAPTURED
        return text
