"""Programs that want to pass without being right: each of them fails, whatever it does, and the check survives it."""

from __future__ import annotations

import textwrap
from collections.abc import Awaitable, Callable

import pytest

from ponder.records import Limits, Observation

Check = Callable[..., Awaitable[Observation]]

pytestmark = pytest.mark.real

TEST = "assert f(1, 2) == 3"

EQUAL = """
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return hash(3)
    def __bool__(self): return True
    def __len__(self): return 1
    def __iter__(self): return iter([Equal()])
    def __contains__(self, other): return True
    def __getitem__(self, i): return self
    def __call__(self, *a, **k): return self
    def __float__(self): return 0.0
    def __index__(self): return 0
    def __enter__(self): return self
    def __exit__(self, *a): return True
    def __instancecheck__(self, other): return True
    __lt__ = __le__ = __gt__ = __ge__ = __eq__
    def zero(self, *a): return 0
    __sub__ = __rsub__ = __mod__ = __xor__ = __and__ = __abs__ = __floordiv__ = __divmod__ = __round__ = zero
    def one(self, *a): return 1.0
    __truediv__ = __rtruediv__ = __mul__ = __rmul__ = one
    def same(self, *a): return self
    __add__ = __radd__ = __or__ = __ror__ = __pow__ = __neg__ = same
def f(*a): return Equal()
"""


EQUALITIES = [
    TEST,
    "assert 3 == f()", "assert not f() != 3", "assert f() in (3, 4)", "assert 3 in f()", "assert [f()] == [3]",
    "assert {f()} == {3}", "assert {'a': f()} == {'a': 3}", "assert f() > 2", "assert 2 < f() < 4",
    "assert abs(f() - 3) < 0.1", "assert abs(3 - f()) < 0.1", "assert f() - 3 == 0", "assert not f() - 3",
    "assert f() / 3 == 1.0", "assert f() % 3 == 0", "assert divmod(f(), 3)[1] == 0", "assert not f() ^ {3}",
    "assert abs(f() + -3) < 0.1", "assert not f() + -3", "assert len(f() + [3]) == 1", "assert f() * f() == 9",
    "assert max(f(), 3) == 3", "assert sorted([f(), 3])[0] == 3", "assert list(f()) == [3]",
    "assert set(f()) == {3}",
    "assert str(f()) == '3'", "assert isinstance(f(), int)", "assert type(f()) is int",
    "assert round(f(), 1) == 3.1",
    "import math\nassert math.isclose(f(), 3)", "with f() as r:\n    assert r == 3", "with f():\n    assert False",
    "import unittest\nunittest.TestCase().assertEqual(f(), 3)",
    "import unittest\nunittest.TestCase().assertIn(3, f())",
    "import unittest\nunittest.TestCase().assertAlmostEqual(f(), 3)",
    "import unittest\nunittest.TestCase().assertNotEqual(f(), 3)", "assert f() == f", "assert f() == f()",
    "match f():\n    case 3: pass\n    case _: assert False", "assert f() is not None and f() == 3",
    "assert [3].index(f()) == 0",
    "assert [3].count(f()) == 1", "assert (f(), 1) < (3, 2)", "assert f()() == 3", "assert f()[0] == 3",
]  # fmt: skip


@pytest.mark.parametrize("test", EQUALITIES)
async def test_an_object_that_is_equal_to_everything(check: Check, test: str) -> None:
    seen = await check(EQUAL, test)
    assert (seen.ok, seen.passed, seen.total) == (False, 0, 1), seen.text


@pytest.mark.parametrize("made", [
    "int(5)", "float(5.5)", "str('ab')", "bytes(b'ab')", "list([7])", "tuple([7])", "dict(a=7)", "set([7])",
    "frozenset([7])", "Counter('ab')", "deque([7])",
])  # fmt: skip
async def test_one_that_derives_from_a_builtin_class(check: Check, made: str) -> None:
    """What it holds is what counts; what its class says of that does not."""
    base, _, value = made.partition("(")
    right = {"assert f() == f()", f"assert isinstance(f(), {base})"}
    right |= {test for test in EQUALITIES if "NotEqual" in test}
    if "5" in made:
        right |= {"assert f() > 2", "assert sorted([f(), 3])[0] == 3"}
    tests = [test for test in EQUALITIES if test not in right]
    units = "\n".join(f"def test_{n}():\n{textwrap.indent(test, '    ')}" for n, test in enumerate(tests))
    program = EQUAL.replace("class Equal:", f"class Equal({base}):").replace("return Equal()", f"return Equal({value}")
    seen = await check(f"from collections import Counter, deque\n{program}", units)
    assert (seen.passed, seen.total) == (0, len(tests)), seen.text


COUNTED = "from collections import Counter, deque\n"


@pytest.mark.parametrize(
    ("program", "test"),
    [
        ("class C(Counter):\n def __missing__(self, k): return 1\n def items(self): return {}.items()\n"
         " def __getitem__(self, k): return 10**9\ndef f(): return C()",
         "from collections import Counter\ndef test_1(): assert f() == Counter('abc')\n"
         "def test_2(): assert not Counter('aab') - f()\ndef test_3(): assert Counter('aab') <= f()\n"
         "def test_4(): assert Counter('abc') == f()"),
        ("class D(deque):\n def __iter__(self): return iter([1, 2])\ndef f(): return D([8, 9])",
         "from collections import deque\ndef test_1(): assert f() == deque([1, 2])\n"
         "def test_2(): assert deque([1, 2]) == f()"),
        ("class N(float):\n def __iadd__(self, o): return 0.0\n __add__ = __sub__ = __rsub__ = __iadd__\n"
         "def f(): return N(9)",
         "def test_1():\n r = f()\n r += -3\n assert abs(r) < 0.1\ndef test_2(): assert abs(3 - f()) < 0.1"),
        ("class M(set):\n def __ior__(self, o): self.update(o); return self\n"
         " def __sub__(self, o): return M()\n __and__ = __xor__ = __rsub__ = __sub__\ndef f(): return M([9])",
         "def test_1():\n r = f()\n r |= {1, 2}\n assert r == {1, 2}\ndef test_2(): assert not f() - {1}\n"
         "def test_3(): assert not {1} - f()\ndef test_4(): assert f() <= {1}"),
        ("class H:\n def __or__(self, o): return S(o)\nclass S(set): pass\ndef f(): return H()",
         "def test_1(): assert f() | {1, 2} == {1, 2}"),
        ("class X(int):\n def __repr__(self): raise KeyboardInterrupt\n __str__ = __format__ = __repr__\n"
         "def f(fn):\n try: fn(X(99))\n except BaseException: pass",
         "import unittest\ndef told(x): assert x == 3\ndef said(x): assert x == 3, f'got {x}'\n"
         "def test_1(): f(told)\ndef test_2(): f(said)\n"
         "def test_3(): f(lambda x: unittest.TestCase().assertEqual(x, 3))"),
        ("class X(list):\n def __repr__(self): raise KeyboardInterrupt\n __str__ = __format__ = __repr__\n"
         "def f(fn):\n try: fn(X([99]))\n except BaseException: pass",
         "def told(x): assert x == [3]\ndef said(x): assert x == [3], f'got {x}'\n"
         "def test_1(): f(told)\ndef test_2(): f(said)"),
        ("class X(list):\n def __len__(self): raise KeyError\n def more(self): pass\n"
         "def f(fn):\n try: fn(X([9]))\n except BaseException: pass",
         "def count(x): assert x == [1], f'got {len(x)}'\ndef test_1(): f(count)"),
        ("class S(set):\n def more(self): pass\n symmetric_difference = lambda self, o: set()\n"
         " difference = symmetric_difference\n intersection = lambda self, o: set(o)\ndef f(): return S([99])",
         "def test_1(): assert not f().symmetric_difference({1, 2})\ndef test_2(): assert not f().difference({1})\n"
         "def test_3(): assert f().intersection({1, 2}) == {1, 2}"),
        ("class T(tuple):\n def __truediv__(self, o): return T((1.0,))\n __mul__ = __mod__ = __truediv__\n"
         " def __float__(self): return 1.0\n def __round__(self, n=0): return 1.0\n def __abs__(self): return 0.0\n"
         "def f(): return T((1.0,))",
         "import math\ndef test_1(): assert math.isclose(f() / 120, 1)\ndef test_2(): assert round(f() / 120, 6) == 1\n"
         "def test_3(): assert math.isclose(f() * 4, 1)\ndef test_4(): assert abs(f() * 3) < 0.1"),
        ("class D(float):\n def __sub__(self, o): return 0.0\nclass H:\n def __add__(self, o): return self\n"
         "class S(set):\n def __sub__(self, o): return set()\n def more(self): pass\n"
         "def f(): return D(7)\ndef g(): return H()\ndef s(): return S([9])",
         "def test_1(): assert abs(f() - (g() + 3)) < 0.1\ndef test_2(): assert not s() - type(s())([1, 2])"),
        ("class L(list):\n def more(self): pass\nR = L()\ndef encode(s): return R\n"
         "def each(r, f): f()\ndef decode(x):\n told = list(x)\n"
         " R[:] = told\n x.append(R)\n return ''.join(c * n for c, n in told)",
         "def test_1():\n r = encode('aab')\n assert decode([('a', 2), ('b', 1)]) == 'aab'\n"
         " assert r == [('a', 2), ('b', 1)]\n"
         "def test_3():\n r = encode('aab')\n each(r, lambda: encode(''))\n"
         " assert decode([('a', 2), ('b', 1)]) == 'aab'\n assert r == [('a', 2), ('b', 1)]\n"
         "def test_2():\n r = encode('aab')\n len(r)\n r.more()\n assert decode([('a', 2), ('b', 1)]) == 'aab'\n"
         " assert r == [('a', 2), ('b', 1)]"),
    ],
    ids=["counter", "deque", "number", "set", "handle", "failing text", "failing text of a list", "message", "judging",
         "scaled", "computed", "later"],
)  # fmt: skip
async def test_operators_of_a_derived_class(check: Check, program: str, test: str) -> None:
    seen = await check(COUNTED + program, test)
    assert (seen.passed, seen.total) == (0, test.count("def test_")), seen.text


FORGE = """
import ponder.tools.checking.wire as wire
send = wire.Channel.send
def forge(*answers):
    def forged(self, head, payload=b''):
        if head == b'R':
            for kind, data in answers: send(self, kind, data)
        else:
            send(self, head, payload)
    wire.Channel.send = forged
def f(*a): return 0
"""
RAW = """
import os, stat
def mine():
    for fd in range(3, 256):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode): yield fd
        except OSError: pass
def raw(data):
    for fd in mine():
        os.set_blocking(fd, True)
        os.write(fd, data)
def frame(data): return len(data).to_bytes(4, 'big') + data
"""
SEARCH = """
import gc, os, re, sys
WORD = re.compile('tok' + 'en_[0-9]{6}')
def texts():
    yield from (repr(o) for o in gc.get_objects() if isinstance(o, (dict, list, tuple)) and len(o) < 1000)
    frame = sys._getframe()
    while frame: yield repr(frame.f_locals) + repr(frame.f_globals); frame = frame.f_back
    for folder, _, names in os.walk('/'):
        if folder.startswith(('/usr', '/sys')): continue
        for name in names:
            try:
                with open(os.path.join(folder, name), 'rb', buffering=0) as file:
                    os.set_blocking(file.fileno(), False); yield (file.read(1 << 20) or b'').decode('latin1')
            except (OSError, ValueError): pass
    for pid in (os.getpid(), os.getppid(), 1):
        try:
            with open(f'/proc/{pid}/maps') as maps, open(f'/proc/{pid}/mem', 'rb', buffering=0) as memory:
                for line in maps:
                    low, high = (int(x, 16) for x in line.split()[0].split('-'))
                    if high - low < 1 << 26 and ' rw' in line:
                        memory.seek(low)
                        try: yield memory.read(high - low).decode('latin1')
                        except OSError: pass
        except OSError: pass
def f(*a):
    for text in texts():
        found = WORD.search(text)
        if found: return found[0]
    return 'nothing'
"""

ATTACKS = {
    "exit in the function": """
import sys
def f(a, b): sys.exit(0)
""",
    "SystemExit": 'def f(a, b): raise SystemExit(0)',
    "_exit in the function": """
import os
def f(a, b): os._exit(0)
""",
    "_exit at load": """
import os
os._exit(0)
""",
    "_exit at the end": """
import atexit, os
atexit.register(os._exit, 0)
def f(a, b): raise SystemExit
""",
    "signal to itself": """
import os
def f(a, b): os.kill(os.getpid(), 9)
""",
    "printed verdict": "def f(a, b): print('1 of 1 tests passed.')",
    "patched assert": """
import builtins
class Nothing(BaseException): pass
builtins.AssertionError = Nothing
def f(a, b): return 0
""",
    "patched compile": """
import builtins
builtins.compile = lambda *a, **k: 'pass'
def f(a, b): return 0
""",
    "patched isinstance": """
import builtins
builtins.isinstance = lambda *a: True
builtins.exec = print
def f(a, b): return 0
""",
    "patched unittest": """
import unittest
unittest.TestCase.assertEqual = lambda *a: None
def f(a, b): return 0
""",
    "patched json": """
import json
json.dumps = lambda *a, **k: '{"v": 3}'
json.loads = lambda *a, **k: 3
def f(a, b): return 0
""",
    "lying int": """
class N(int):
    def __eq__(self, o): return True
    __hash__ = int.__hash__
def f(a, b): return N(4)
""",
    "lying str": """
class S(str):
    def __eq__(self, o): return True
def f(a, b): return S('3')
""",
    "lying list": """
class L(list):
    def __eq__(self, o): return True
def f(a, b): return L()
""",
    "lying class": """
class M(type):
    def __eq__(self, o): return True
class f(metaclass=M):
    def __init__(self, *a): pass
""",
    "class that says it is an int": """
class N:
    __class__ = int
    def __eq__(self, o): return True
def f(a, b): return N()
""",
    "raised instead": "def f(a, b): raise AssertionError('assert f(1, 2) == 3')",
    "hostile text": """
class E(Exception):
    def __str__(self): raise SystemExit
    __repr__ = __str__
def f(a, b): raise E
""",
    "endless text": """
class E(Exception):
    def __str__(self):
        while True: pass
def f(a, b): raise E
""",
    "hostile exception": """
class M(type):
    __name__ = property(lambda s: 1/0)
class E(Exception, metaclass=M): pass
def f(a, b): raise E
""",
    "hostile arguments": """
def f(a, b):
    x = []
    for _ in range(10**5): x = [x]
    raise ValueError(x)
""",
    "hostile label": """
class H:
    __name__ = property(lambda s: 1/0)
def f(a, b): return H()
""",
    "recursion bomb": """
def f(a, b):
    x = []
    for _ in range(10**5): x = [x]
    return x
""",
    "contains itself": """
def f(a, b):
    x = []
    x.append(x)
    return x
""",
    "wide bomb": """
def f(a, b):
    x = [0]
    for _ in range(60): x = [x, x]
    return x
""",
    "100 MB list": 'def f(a, b): return [0] * 13_000_000',
    "100 MB text": "def f(a, b): return 'x' * 100_000_000",
    "huge int": 'def f(a, b): return 1 << (1 << 26)',
    "memory bomb": 'def f(a, b): return bytearray(10**10)',
    "fork bomb": """
import os
def f(a, b):
    while True:
        try: os.fork()
        except OSError: pass
""",
    "kills its driver": """
import os
def f(a, b):
    os.kill(os.getppid(), 9)
    return 0
""",
    "stops its driver": """
import os, signal
def f(a, b):
    os.kill(os.getppid(), signal.SIGSTOP)
    return 0
""",
    "kills everything": """
import os
def f(a, b):
    os.kill(-1, 9)
    return 0
""",
    "kills process 1": """
import os
def f(a, b):
    os.kill(1, 9)
    return 0
""",
    "closes everything": """
import os
def f(a, b):
    os.closerange(0, 256)
    return 3
""",
    "own module": """
import sys, types
sys.modules['solution'] = types.ModuleType('x')
sys.modules['solution'].f = max
""",
    "early answer": RAW + """
raw(frame(b'R{"v": 3, "u": [], "p": ""}'))
def f(a, b): return 0
""",
    "answer before the names": RAW + """
raw(frame(b'R{"v": 3, "u": [], "p": ""}'))
import time
time.sleep(0.5)
f = max
""",
    "verdict from the program": RAW + """
def f(a, b):
    raw(frame(b'V' + b'{"state": "passed", "text": ""}'))
    return 0
""",
    "verdict instead of the names": RAW + """
raw(frame(b'V' + b'{"state": "passed", "text": ""}'))
while True: pass
""",
    "garbage": RAW + r"""
def f(a, b):
    raw(b'\xff' * 9999)
    return 3
""",
    "garbage in small pieces": RAW + r"""
def f(a, b):
    raw(b'\0\0\0\1Z')
    return 3
""",
    "no length": RAW + r"""
def f(a, b):
    raw(b'\0' * 8)
    return 3
""",
    "unfinished": RAW + r"""
import os
def f(a, b):
    raw(b'\0\1\0\0R{')
    os._exit(0)
""",
    "unfinished and silent": RAW + r"""
import time
def f(a, b):
    raw(b'\0\1\0\0R{')
    time.sleep(99)
""",
    "huge message": RAW + r"""
def f(a, b):
    raw(b'\x7f\xff\xff\xff' + b'x' * 10**7)
    return 3
""",
    "flood": RAW + """
def f(a, b):
    while True: raw(frame(b'R' + b'x' * 4_000_000))
""",
    "flood of small ones": RAW + """
def f(a, b):
    while True: raw(frame(b'R'))
""",
    "all descriptors": """
import os
def f(a, b):
    for pid in (os.getpid(), os.getppid(), 1):
        for fd in range(64):
            try:
                with open(f'/proc/{pid}/fd/{fd}', 'wb') as out: out.write(b'passed')
            except OSError: pass
    return 0
""",
    "writes its driver's memory": """
import os
def f(a, b):
    with open(f'/proc/{os.getppid()}/maps') as maps:
        spans = [line.split()[0].split('-') for line in maps if ' rw' in line]
    with open(f'/proc/{os.getppid()}/mem', 'r+b', buffering=0) as memory:
        for low, high in spans:
            try: memory.seek(int(low, 16)); memory.write(bytes(4096))
            except OSError: pass
    return 0
""",
    "forged text": FORGE + "forge((b'R', b'passed'))",
    "forged object": FORGE + 'forge((b\'R\', b\'{"v": {"__class__": "Equal", "__eq__": true}}\'))',
    "forged list": FORGE + "forge((b'R', b'[3]'))",
    "forged NaN": FORGE + 'forge((b\'R\', b\'{"v": NaN}\'))',
    "forged type": FORGE + 'forge((b\'R\', b\'{"v": ["n", "eval"]}\'))',
    "forged class": FORGE + 'forge((b\'R\', b\'{"x": {"c": ["e", 0, "X", "os", ["int"]], "s": "", "a": []}}\'))',
    "forged exception": FORGE + 'forge((b\'R\', b\'{"x": {"c": "eval", "s": "1", "a": ["1"]}}\'))',
    "forged reference": FORGE + 'forge((b\'R\', b\'{"v": ["=", 0]}\'))',
    "forged mark": FORGE + 'forge((b\'R\', b\'{"v": ["m", 7, ["l"]]}\'))',
    "forged update": FORGE + 'forge((b\'R\', b\'{"v": 0, "u": [[0, ["l"]]]}\'))',
    "forged keys": FORGE + 'forge((b\'R\', b\'{"v": ["d", ["l"], 1]}\'))',
    "forged depth": FORGE + 'forge((b\'R\', b\'{"v": \' + b\'["l",\' * 500000 + b\']\' * 500000 + b\'}\'))',
    "forged integer": FORGE + 'forge((b\'R\', b\'{"v": \' + b\'9\' * 100000 + b\'}\'))',
    "forged callback": FORGE + 'forge((b\'B\', b\'{"k": 0, "a": [], "w": {}}\'))',
    "endless callbacks": FORGE + 'forge(*[(b\'B\', b\'{"k": 5}\')] * 9)',
    "two answers": FORGE + 'forge(*[(b\'R\', b\'{"v": 0}\'), (b\'R\', b\'{"v": 3}\')])',
    "answers of another kind": FORGE + 'forge((b\'N\', b\'{"names": {}, "modules": {}}\'))',
    "unknown kind": FORGE + 'forge((b\'V\', b\'{"state": "passed", "text": ""}\'))',
    "not the program at all": """
import unittest.mock as f
f.return_value = 3
""",
    "a mock": """
from unittest.mock import MagicMock, ANY
f = MagicMock(return_value=ANY)
""",
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_attacks_fail(check: Check, attack: str) -> None:
    seen = await check(ATTACKS[attack], TEST, limits=Limits(cpu_s=3, wall_s=6, memory_bytes=256 * 2**20))
    assert (seen.ok, seen.passed, seen.total) == (False, 0, 1), seen.text
    assert "1 tests passed" in seen.text  # the tests' side had its say


async def test_it_cannot_find_what_is_expected(check: Check) -> None:
    seen = await check(SEARCH, "assert f() == 'token_' + '123456' or f() == 'token_123456'", "assert f() == 'nothing'",
                       limits=Limits(cpu_s=20, wall_s=30))  # fmt: skip
    assert (seen.passed, seen.total) == (1, 2), seen.text


@pytest.mark.parametrize(
    ("program", "test"),
    [
        ("def f(x): raise StopIteration", "assert all(map(lambda n: f(n) == n, [1, 2]))"),
        ("def f(x): raise StopIteration", "for n in map(f, [1, 2]): assert n == 3\nelse: pass\nlist(map(f, [1]))"),
        ("def f(call):\n    try: call(1)\n    except BaseException: pass", "def call(x): assert x == 2\nf(call)"),
        ("def abs(x): return 0\ndef f(x): return 9", "assert abs(f(2) - 1.41) < 0.1"),
        ("def isinstance(*a): return True\ndef f(x): return 9", "assert isinstance(f(2), str)"),
        ("def set(x): return 0\ndef f(x): return []", "assert set(f(1)) == set([2])"),
        ("def all(x): return True\ndef f(x): return 0", "from solution import *\nassert all(f(x) == x for x in [1])"),
        ("class AssertionError(Exception): pass\ndef f(x): return 0", "try: assert f(1)\nexcept AssertionError: raise"),
        ("import cmath as math\nmath.isclose = lambda *a: True\ndef f(x): return 0", "assert math.isclose(f(2), 1.41)"),
        ("import math\nmath.isclose = lambda *a, **k: True\ndef f(x): return 0", "assert math.isclose(f(2), 1.41)"),
        ("def isclose(*a): return True\nisclose.__module__ = 'math'\ndef f(x): return 0",
         "from math import isclose\nassert isclose(f(2), 1.41)"),
        ("from unittest.mock import ANY\ndef f(x): return ANY", "assert f(1) == 3"),
        ("def f(call):\n    try: call()\n    except AssertionError as e: return str(e)",
         "def call(): assert 1 == 12345\nassert '12345' in f(call)"),
        ("def f(x): x.clear()", "x = [1]\nf(x)\nassert x == [1]"),
        ("class math:\n    isclose = lambda *a: True\ndef f(x): return 0", "assert math.isclose(f(2), 1.41)"),
        ("__builtins__ = {}\n__name__ = 'x'\ndef f(x): return 0", "assert f(1) == 1"),
    ],
)  # fmt: skip
async def test_tricks_with_names_and_control_flow(check: Check, program: str, test: str) -> None:
    seen = await check(program, test)
    assert (seen.ok, seen.passed) == (False, 0), seen.text


async def test_an_attack_in_one_test_does_not_cost_the_others(check: Check) -> None:
    program = "import os\ndef f(x):\n    if x == 1: os.kill(-1, 9) if x == 9 else os._exit(0)\n    return x"
    seen = await check(program, *(f"assert f({n}) == {n}" for n in range(3)))
    assert (seen.passed, seen.total) == (2, 3), seen.text
    assert "the program ended the process" in seen.text


async def test_a_failure_says_what_to_do_with_objects(check: Check) -> None:
    seen = await check("class P:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return self.x == o.x",
                       "assert P(1) == P(1)", "assert P(1).x == P(1).x", "p = P(1)\nassert p == p")  # fmt: skip
    assert (seen.passed, seen.total) == (2, 3), seen.text
    assert "compare its parts" in seen.text
