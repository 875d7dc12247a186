"""The tests' side of a check: runs them against stubs and says which passed. Sent into a sandbox of its own.

The program is never loaded here. A driver forks a child for each unit; the child runs the test, asks the program's
sandbox through its driver, and reports. The verdict is this side's alone.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
import sys
import time
import types
from collections.abc import Callable

from ponder.tools.checking.changes import BadData
from ponder.tools.checking.data import ALIASES, OPEN_MODULES, loads
from ponder.tools.checking.derived import held
from ponder.tools.checking.errors import TEST, describe, explain
from ponder.tools.checking.link import Link, why_gone
from ponder.tools.checking.wire import ENDING_S, HEAD, TALK_FD, TICK_MS, Channel, Gone, Stage, cpu_share_s, wait

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers take this name for true; importing `typing` takes milliseconds
    from typing import Any

JOB = "tests.json"
TEXT_CHARS = 1200
WORD = re.compile(r"[^\W\d]\w*")


def serve() -> None:
    """Be the driver: run each unit in a child, giving each an even share of the time that is left; then end."""
    with open(JOB, encoding="utf-8") as file:
        job = json.load(file)
    host = Channel(TALK_FD, HEAD)
    host.receive()  # both sandboxes run
    deadline = time.monotonic() + job["wall_s"]
    broken = ""
    for index, (source, function) in enumerate(job["units"]):
        waiting = len(job["units"]) - index
        left = deadline - time.monotonic()
        if broken or left <= 0:
            verdict = {"state": "failed", "text": broken} if broken else {"state": "lost", "text": "no time was left"}
        else:
            unit = _Unit(host, index.to_bytes(HEAD - 1, "big"), (source, function), job["cpu_s"], waiting)
            verdict = unit.run(left / waiting)
            if not unit.loaded:  # the program itself is broken: no test can tell more
                broken = str(verdict["text"])
        host.send(b"V" + index.to_bytes(HEAD - 1, "big"), json.dumps(verdict).encode())


class _Unit:
    """One unit while it runs: its child here, and what passes between it and the program."""

    def __init__(self, host: Channel, number: bytes, test: tuple[str, str], cpu_s: float, waiting: int) -> None:
        self.host, self.number = host, number
        self.loaded = False
        self.asking = True
        host.send(b"U" + number, b"%.3f %d" % (cpu_s, waiting))
        self.stage = Stage(lambda channel: run_child(channel, *test), cpu_share_s(cpu_s, waiting))

    def run(self, share_s: float) -> dict[str, str]:
        """Return the verdict, at most `share_s` seconds later."""
        deadline = time.monotonic() + share_s
        verdict: dict[str, str] | None = None
        try:
            while verdict is None:
                verdict = self._step(deadline)
        finally:
            self.stage.close()
            self.host.send(b"E" + self.number)
        if verdict["state"] == "late":
            who = "the program" if self.asking or not self.loaded else "the test"
            return {"state": "failed", "text": f"{who} did not end within {share_s:.1f} s"}
        return verdict

    def _step(self, deadline: float) -> dict[str, str] | None:
        """Pass on what there is; return the verdict when there is one."""
        left = deadline - time.monotonic()
        if left <= 0:
            return {"state": "late"}
        channels = (self.host, self.stage.channel)
        ready = wait(channels, [channel for channel in channels if channel.pending], min(TICK_MS, left * 1000))
        dead = self.stage.ended()
        if self.host.fd in ready:
            for head, payload in self.host.take():
                if head[1:] == self.number:
                    self.loaded = self.loaded or head[:1] == b"N"
                    self.asking = False
                    self.stage.channel.post(head[:1], payload)
        if self.stage.channel.fd in ready or dead:
            try:
                for kind, payload in self.stage.channel.take():
                    if kind == b"V":
                        return json.loads(payload)  # type: ignore[no-any-return]
                    self.asking = True
                    self.host.post(kind + self.number, payload)
            except Gone:
                dead = self.stage.ended(ENDING_S)
                if not dead:
                    return {"state": "failed", "text": "the test closed its connection"}
        if dead:
            return {"state": "failed", "text": f"the test {self.stage.said()}"}
        self.host.flush()
        self.stage.channel.flush()
        return None


def run_child(channel: Channel, source: str, function: str) -> None:
    """Run one unit and report it."""
    link = Link(channel)
    try:
        kind, payload = channel.receive()
        if kind != b"N":
            _report(channel, "failed", why_gone(kind, payload))
            return
        run_unit(source, function, read_names(payload, link))
        if link.gone is not None:
            raise Gone(link.gone)
        if link.failed is not None:
            raise link.failed
    except Gone as gone:
        _report(channel, "failed", str(gone))
    except BaseException as error:
        _report(channel, "failed", link.gone or describe(error, {TEST: source}))
    else:
        _report(channel, "passed", "")


def _report(channel: Channel, state: str, text: str) -> None:
    channel.send(b"V", json.dumps({"state": state, "text": text[:TEXT_CHARS]}).encode())


def read_names(payload: bytes, link: Link) -> dict[str, Any]:
    """Return what the program's names are here: stubs, constants, and `_Imported` for modules. Raises Gone."""
    try:
        table = loads(payload)
        names = {name: link.decode(value) for name, value in table["names"].items()}
        names.update((name, _Imported(home)) for name, home in table["modules"].items() if type(home) is str)
    except (BadData, TypeError, KeyError, AttributeError) as error:
        raise Gone(f"the program's names cannot be read: {error}") from None
    return {name: value for name, value in names.items() if name.isidentifier() and not _is_dunder(name)}


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


class _Imported:
    """A module that the program imported under its own name (`math`), or what it took from one (`math:`)."""

    def __init__(self, home: str) -> None:
        self.home = home
        self.is_module = ":" not in home

    def found(self, name: str) -> Any:
        """Import it here. Raises ImportError, AttributeError."""
        module, colon, _ = self.home.partition(":")
        top = module.partition(".")[0]
        # The program chooses the module only: what it is called must be what the module itself calls it.
        known = module in OPEN_MODULES if colon else module == ALIASES.get(name, name)
        if not known or (top not in sys.stdlib_module_names and top not in ALIASES.values()):
            raise ImportError(f"{self.home!r} is not taken over from the program")
        __import__(module)
        return getattr(sys.modules[module], name) if colon else sys.modules[module]


def run_unit(source: str, function: str, program: dict[str, Any]) -> None:
    """Run a test, with the program's names in reach and as module `solution`; what it raises is its failure."""
    solution = types.ModuleType("solution")
    solution.__dict__.update({name: value for name, value in program.items() if not isinstance(value, _Imported)})

    def imported(name: str) -> Any:
        if isinstance(program.get(name), _Imported):
            return program[name].found(name)
        raise AttributeError(f"module 'solution' has no attribute {name!r}")

    solution.__dict__["__getattr__"] = imported
    sys.modules["solution"] = solution
    tree = ast.parse(source, TEST)
    json.JSONEncoder.default = _json_default  # type: ignore[assignment, method-assign]
    names: dict[str, Any] = {"__name__": "test", "@explain": explain, "@message": message}
    for name, value in visible_names(tree, source, program).items():
        try:
            names[name] = value.found(name) if isinstance(value, _Imported) else value
        except (ImportError, AttributeError):
            continue  # the test will say that it has no such name
    solution.__dict__["__all__"] = [name for name in program if name in names]  # of what it hides, `*` takes nothing
    explained = ast.fix_missing_locations(_Explain(source).visit(tree))
    exec(compile(explained, TEST, "exec", dont_inherit=True), names)
    if function:
        _call(names, function)


def message(said: Callable[[], object]) -> object:
    """Return what a failed assertion says; what fails in that does not take the assertion's place."""
    try:
        return str(said())
    except Gone:
        raise
    except BaseException as error:
        return f"its message fails with {type(error).__name__}"


def visible_names(tree: ast.Module, source: str, program: dict[str, Any]) -> dict[str, Any]:
    """Return those of the program's names that a test sees: the ones in its text, builtin ones only if they are tested.

    A program may well be asked for a function `sum`. But one that also defines `abs` or `math` must not decide what a
    test means by these. So a builtin's name is the program's only where the test uses no other name of the program,
    and what the test uses like a module (`math.isclose`) is the module of that name.
    """
    own: set[str] = set()
    used: set[str] = set()
    bases: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else own).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.alias):
            own.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            bases.add(node.value.id)
    modules = {name: _Imported(name) for name in bases - own if name in sys.stdlib_module_names}
    program = {name: modules.get(name, value) for name, value in program.items()}
    modules_of_program = {name for name, value in program.items() if isinstance(value, _Imported) and value.is_module}
    tested = (used - own) & program.keys() - modules_of_program
    shadowing = {name for name in tested if hasattr(builtins, name)}
    meant = shadowing if len(shadowing) == len(tested) == 1 else set()
    mentioned = set(WORD.findall(source))
    return {
        name: value
        for name, value in program.items()
        if name in mentioned and (not hasattr(builtins, name) or name in meant)
    }


def _call(names: dict[str, Any], function: str) -> None:
    owner, _, method = function.rpartition(".")
    if not owner:
        outcome = names[method]()
    elif hasattr(names[owner], "debug"):  # a unittest.TestCase: with its setUp and tearDown, errors raised
        outcome = names[owner](method).debug()
    else:
        outcome = getattr(names[owner](), method)()
    if isinstance(outcome, types.CoroutineType):
        import asyncio

        asyncio.run(outcome)


def _json_default(_: json.JSONEncoder, value: object) -> Any:
    """Return what a container of the program holds, as json writes a list's or a dict's subclass, too."""
    contents = held(value)
    if contents is value:
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
    return contents


_HERE_ONLY = (ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
"""What means something else in a lambda."""


class _Explain(ast.NodeTransformer):
    """Makes `assert a == b` say what both sides were; the sides are still evaluated once, in order."""

    def __init__(self, source: str) -> None:
        self.source = source

    def visit_Assert(self, node: ast.Assert) -> Any:
        """Rewrite an assert of one comparison or call; of one that has a message, see to it that there is one."""
        text = ast.get_source_segment(self.source, node) or "assert"
        if node.msg is not None:
            if not any(isinstance(part, _HERE_ONLY) for part in ast.walk(node.msg)):
                nothing = ast.arguments([], [], None, [], [], None, [])
                node.msg = ast.Call(_name("@message"), [ast.Lambda(nothing, node.msg)], [])
            return node
        test, before = node.test, []
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            before = [_assign("@left", test.left), _assign("@right", test.comparators[0])]
            left, right = _name("@left"), _name("@right")
            test = ast.Compare(left, test.ops, [right])
            values: list[ast.expr] = [left, right]
        else:
            before = [_assign("@left", test)]
            test = _name("@left")
            values = [_name("@left")]
        message = ast.Call(_name("@explain"), [ast.Constant(text), *values], [])
        return [ast.copy_location(new, node) for new in (*before, ast.Assert(test, message))]


def _assign(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def _name(name: str) -> ast.expr:
    return ast.Name(name, ast.Load())
