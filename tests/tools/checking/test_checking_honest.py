"""Honest programs of the usual kinds, each with tests that it passes in two sandboxes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from ponder.records import Observation

Check = Callable[..., Awaitable[Observation]]

HONEST = {
    "sets": """
def f(x): return {n % 3 for n in x}
# tests
assert set(f([1, 2, 4])) == {1, 2}
assert f((1,)) == set([1])
""",
    "floats": """
def f(x): return x ** .5
# tests
import math
assert math.isclose(f(2), 1.41421356, rel_tol=1e-6)
assert abs(f(4) - 2) < 1e-9
assert round(f(2), 2) == 1.41
""",
    "large": """
def f(n): return 3 ** n
# tests
assert f(20000) == 3 ** 20000
assert f(0) == 1
""",
    "special": """
def f(): return [float('inf'), -0.0, 1j, b'x', None, True, ...]
# tests
x = f()
assert x[:6] == [float('inf'), 0, 1j, b'x', None, True]
assert x[5] is True
""",
    "library": """
import collections, datetime, decimal, fractions
def f():
    return (collections.Counter('aab'), datetime.date(2024, 2, 29), decimal.Decimal('1.10'), fractions.Fraction(1, 3),
            range(3), collections.deque([1]), collections.OrderedDict(a=1), collections.namedtuple('P', 'x y')(1, 2))
# tests
import datetime
from decimal import Decimal
from fractions import Fraction
c, d, e, g, r, q, o, p = f()
assert c.most_common(1) == [('a', 2)] and d.year == 2024 and e == Decimal('1.1') and g * 3 == 1
assert list(r) == [0, 1, 2] and q[0] == 1 and o == {'a': 1} and p == (1, 2)
assert f()[1] == datetime.date(2024, 2, 29)
""",
    "generators": """
def f(n):
    for i in range(n): yield i * i
def g():
    n = 0
    while True:
        yield n
        n += 1
# tests
import itertools
assert list(f(4)) == [0, 1, 4, 9]
assert sum(f(3)) == 5
assert list(itertools.islice(g(), 3)) == [0, 1, 2]
it = f(1)
assert next(it) == 0
try: next(it)
except StopIteration: pass
else: assert False
assert 9 in f(4) and 5 not in f(4)
""",
    "classes": """
class Stack:
    'A stack.'
    size = 0
    def __init__(self, *items): self.items = list(items)
    def push(self, x): self.items.append(x); return self
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __getitem__(self, i): return self.items[i]
    def __repr__(self): return f'Stack({self.items})'
    def __enter__(self): return self
    def __exit__(self, *a): self.items.clear()
    def __add__(self, o): return Stack(*self.items, *o.items)
    @property
    def top(self): return self.items[-1]
    @classmethod
    def of(cls, x): return cls(x)
class Empty(Stack): pass
# tests
s = Stack(1)
assert s.push(2).push(3).pop() == 3 and len(s) == 2 and s[0] == 1 and s.top == 2
assert repr(s) == str(s) == f'{s}' == 'Stack([1, 2])' and isinstance(s, Stack) and not isinstance(s, Empty)
assert issubclass(Empty, Stack) and isinstance(Empty(), Stack) and not isinstance(3, Stack)
s.name = 'n'
assert s.name == 'n' and Stack.of(5)[0] == 5 and Stack.__doc__ == 'A stack.'
assert hasattr(s, 'push') and not hasattr(s, 'shove') and s == s and list(s) == [1, 2]
assert (s + Stack(9)).items == [1, 2, 9] and s and not Stack() and Stack.size == 0
with s as t: assert t is s and 2 in t
assert s.items == []
""",
    "mutation": """
def sort(x): x.sort()
def rotate(m): m.reverse(); m[0].append(9); return m
def grow(d, s, b, q):
    d['k'] = 1; s.add(2); b.extend(b'!'); q.appendleft(0)
def same(x): return x
# tests
x = [3, 1, 2]
assert sort(x) is None
assert x == [1, 2, 3]
row = [1]
m = [row, [2]]
r = rotate(m)
assert r is m and m == [[2, 9], [1]] and m[1] is row
from collections import deque
d, s, b, q = {}, {1}, bytearray(b'a'), deque([1])
grow(d, s, b, q)
assert (d, s, b, list(q)) == ({'k': 1}, {1, 2}, b'a!', [0, 1])
loop = []
loop.append(loop)
assert same(loop) is loop
""",
    "callbacks": """
def apply(f, *xs, **k): return [f(x, **k) for x in xs]
def twice(f): return lambda x: f(f(x))
def guarded(f):
    try: return f()
    except ValueError as e: return str(e)
def kind(x): return type(x)
# tests
assert apply(lambda x: x + 1, 1, 2) == [2, 3]
assert apply(len, 'ab', [1]) == [2, 1]
assert apply(int, '7') == [7]
assert apply(int, '11', base=2) == [3]
assert twice(lambda x: x * 3)(2) == 18
assert twice(twice(abs))(-1) == 1
def bad(): raise ValueError('no')
assert guarded(bad) == 'no'
assert kind(3) is int
class Own(Exception): pass
def worse(): raise Own('mine')
try: guarded(worse)
except Own as e: assert e.args == ('mine',)
else: assert False
assert apply(iter([1]).__next__.__class__ and str, 1) == ['1']
""",
    "exceptions": """
import json
class Broke(ValueError):
    def __init__(self, need): super().__init__(f'need {need}'); self.need = need
class Other(Broke, KeyError): pass
def f(x):
    if x < 0: raise ValueError('negative')
    if x == 0: raise Broke(7)
    if x == 1: raise Other(8)
    return {}[x]
def g(x): return json.loads(x)
# tests
import unittest, json
t = unittest.TestCase()
with t.assertRaises(ValueError) as c: f(-1)
assert str(c.exception) == 'negative'
t.assertRaisesRegex(ValueError, 'neg', f, -1)
with t.assertRaises(Broke) as c: f(0)
assert c.exception.need == 7 and str(c.exception) == 'need 7'
try: f(1)
except Broke as e: assert isinstance(e, (KeyError, Broke, ValueError)) and type(e) is not Broke
else: assert False
try: f(5)
except KeyError as e: assert e.args == (5,)
else: assert False
t.assertRaises(json.JSONDecodeError, g, '{')
assert issubclass(Broke, ValueError)
""",
    "async": """
import asyncio
async def f(x):
    await asyncio.sleep(0)
    return x + 1
# tests
import asyncio
assert asyncio.run(f(1)) == 2
async def main():
    assert await f(2) == 3
    assert await asyncio.gather(f(1), f(2)) == [2, 3]
asyncio.run(main())
""",
    "printing": r"""
def f(): print('hello', 3)
# tests
import io, contextlib
out = io.StringIO()
with contextlib.redirect_stdout(out): f()
assert out.getvalue() == 'hello 3\n'
""",
    "enums": """
import enum
class Color(enum.Enum):
    RED = 1
    BLUE = 2
class Level(enum.IntEnum):
    LOW = 1
def f(x): return Color.RED if x else Color.BLUE
def g(): return Level.LOW
# tests
assert f(1) == Color.RED and f(0) is Color.BLUE and f(1).name == 'RED' and g() == 1
""",
    "builtin names": """
def sum(a, b): return a + b
# tests
assert sum(1, 2) == 3
""",
    "constants": """
import math
from math import sqrt
LIMIT = 10
NAMES = ['a']
_hidden = 1
def f(): return LIMIT
# tests
assert f() == LIMIT == 10 and NAMES == ['a'] and _hidden == 1 and math.pi > 3 and sqrt(4) == 2
""",
    "iterators": """
def f(xs): return [x for x in xs]
# tests
assert f(iter([1])) == f(x for x in [1]) == f({1: 2}.keys()) == [1]
assert f(map(str, [1])) == ['1']
assert f(range(2)) == [0, 1]
""",
    "subclasses": """
class N(int):
    def __eq__(self, o): return False
    __hash__ = None
def f(): return N(3)
# tests
assert f() == 3
""",
    "stacks": """
class Stack(list):
    'A stack.'
    def push(self, x): self.append(x); return self
    def peek(self): return self[-1]
    def pop(self): return super().pop() if self else None
    @property
    def size(self): return len(self)
def made(n): return Stack(range(n))
def grow(s): s.push(9)
def total(s): return s.size + len(s)
# tests
import copy, json
s = Stack()
assert not s and s == [] and isinstance(s, Stack) and isinstance(s, list) and s.pop() is None
assert s.push(1).push(2) is s and s == [1, 2] and s.peek() == 2 and s.size == len(s) == 2
assert s.pop() == 2 and list(s) == [1] and s[0] == 1 and 1 in s and 2 not in s
assert s + [5] == [1, 5] == [1] + s[1:] + [5]
s.extend([3, 2])
s.sort(key=lambda x: -x)
s[0] = 7
s += [4]
s *= 1
assert s == [7, 2, 1, 4] == copy.deepcopy(s) and json.dumps(list(s)) == '[7, 2, 1, 4]' and s != [7] and s > [6]
assert copy.copy(s).push(1).peek() == 1 and s.peek() == 4
del s[0]
grow(s)
assert s == [2, 1, 4, 9] and total(s) == 8 and sorted(s) == [1, 2, 4, 9] and repr(s) == '[2, 1, 4, 9]'
s.note = 'n'
assert s.note == 'n' and made(3) == [0, 1, 2] and [made(1)] == [[0]] and hasattr(s, 'push') and not hasattr(s, 'shove')
""",
    "caches": """
from collections import OrderedDict, defaultdict, Counter
class LRUCache(OrderedDict):
    def __init__(self, size): super().__init__(); self.size = size
    def get(self, key):
        if key not in self: return -1
        self.move_to_end(key)
        return self[key]
    def put(self, key, value):
        self[key] = value
        self.move_to_end(key)
        if len(self) > self.size: self.popitem(last=False)
class Squares(dict):
    def __missing__(self, key): self[key] = key * key; return self[key]
class Groups(defaultdict):
    def group(self, key, value): self[key].append(value)
class Bag(Counter):
    def most(self): return self.most_common(1)[0][0]
def plain():
    d = OrderedDict(a=1, b=2)
    d.move_to_end('a')
    return d
# tests
cache = LRUCache(2)
cache.put(1, 1)
cache.put(2, 2)
assert cache.get(1) == 1
cache.put(3, 3)
assert cache.get(2) == -1 and list(cache) == [1, 3] and cache == {1: 1, 3: 3} and len(cache) == 2 and 2 not in cache
cache.move_to_end(1)
assert list(cache.items()) == [(3, 3), (1, 1)] and dict(cache) == {3: 3, 1: 1} and list(plain()) == ['b', 'a']
squares = Squares()
assert squares[4] == 16 and squares == {4: 16}
groups = Groups(list)
groups.group('a', 1)
assert groups == {'a': [1]} and groups['b'] == []
bag = Bag('aab')
bag.update('bb')
assert bag.most() == 'b' and bag['z'] == 0 and bag == {'a': 2, 'b': 3}
""",
    "named tuples": """
from collections import namedtuple
from typing import NamedTuple
from urllib.parse import urlparse
Point = namedtuple('Point', 'x y')
class Item(NamedTuple):
    name: str
    count: int = 1
    def double(self): return self._replace(count=2 * self.count)
ORIGIN = Point(0, 0)
def right(p): return Point(p.x + 1, p.y)
def items(): return [Item('a'), Item('b', 3)]
def parts(u): return urlparse(u)
# tests
p = right(ORIGIN)
assert p == (1, 0) and p.x == 1 and p[1] == 0 and repr(p) == 'Point(x=1, y=0)' and p._asdict() == {'x': 1, 'y': 0}
assert right(p).x == 2 and isinstance(p, Point) and isinstance(p, tuple) and p == Point(1, 0) and p in {(1, 0): 5}
a, b = items()
assert b.count == 3 and b.double().count == 6 and b.name == 'b' and sorted(items(), key=lambda i: -i.count)[0] == b
name, count = a
assert (name, count) == ('a', 1) and max(items(), key=lambda i: i.count).name == 'b' and {a: 1}[('a', 1)] == 1
assert parts('http://h/p').netloc == 'h'
try: p.x = 5
except AttributeError: pass
else: assert False
""",
    "changes of what derives": """
from collections import deque, namedtuple
class Board(list):
    def put(self, i, j, v): self[i][j] = v
class Graph(dict):
    def add(self, u, v): self.setdefault(u, []).append(v); return self
class Queue(deque):
    def drain(self):
        while self: yield self.popleft()
    async def put(self, x): self.append(x)
Pair = namedtuple('Pair', 'nodes edges')
Node = namedtuple('Node', 'value next')
def board(n): return Board([0] * n for _ in range(n))
def place(b, i, j): b[i][j] = 1
def bump(things): things[0]['b'] = 2
def connect(pair, u, v): pair.edges.append((u, v))
def chain(n):
    node = None
    for i in range(n): node = Node(i, node)
    return node
def apply(f, x): f(x); return len(x)
def kept(x, known=[]): known.append(x); return known
# tests
import asyncio, copy
b = board(2)
b.put(0, 1, 5)
b.put(1, 0, 6)
place(b, 0, 0)
assert b == [[1, 5], [6, 0]] and b[0][1] == 5
b.put(0, 0, 2)
assert b[0] == [2, 5] and b[1:] == [[6, 0]]
g, h = Graph(), Graph()
g.add('x', 1).add('x', 2)
bump([h, g])
assert g == {'x': [1, 2]} and h == {'b': 2}
assert g.add('y', 4) == {'x': [1, 2], 'y': [4]} and sorted(g.keys()) == ['x', 'y'] and g.get('z') is None
q = Queue([1, 2])
assert list(q.drain()) == [1, 2] and not q
async def main(): await q.put(3)
asyncio.run(main())
assert list(q) == [3] and apply(lambda x: x.append(4), q) == 2 and q == deque([3, 4])
p = Pair([1], [])
connect(p, 1, 2)
nodes, edges = p
assert edges == [(1, 2)] == p.edges and copy.copy(p).nodes == [1] and copy.deepcopy(p) == ([1], [(1, 2)])
assert chain(40).next.value == 38 and kept(b)[0] is b and kept(q)[1] == deque([3, 4])
s = Board([1, 2, 3])
s[:] = [4]
del s[1:]
assert s == [4]
""",
    "told about once": """
from collections import namedtuple
Point = namedtuple('Point', 'x y')
class Illegal(Exception): pass
GRID = [Point(i, i) for i in range(11000)]
ORIGIN = Point(0, 0)
def play(moves, a, b):
    moves.append(Point(a, b))
    raise Illegal(Point(a, b))
def each(f): return f(ORIGIN) + f(GRID[5])
# tests
moves = []
try: play(moves, 1, 2)
except Illegal as e: assert e.args[0].x == 1
assert moves == [(1, 2)] and moves[0].y == 2 and ORIGIN.x == 0 and GRID[7].x == 7 and each(lambda p: p.x) == 5
""",
    "what is used as its base": """
from collections import Counter, namedtuple
class Bag(Counter):
    def top(self): return self.most_common(1)[0][0]
class Grid(list):
    def __init__(self, n): super().__init__([0] * n for _ in range(n))
class Rows(list):
    def total(self): return sum(map(sum, self))
class Names(set):
    def joined(self): return ','.join(sorted(self))
Graph = namedtuple('Graph', 'nodes edges')
BAG = Bag('aab')
def bag(): return BAG
def total(g): return sum(map(sum, g))
def rows(): return Rows([[1], [2, 3]])
def names(): return Names('ab')
def graph(): return Graph([1], [(1, 2)])
# tests
import json, pickle
assert bag() == {'a': 2, 'b': 1} == bag() == Counter('aab') and bag().top() == 'a' and not Counter('aab') - bag()
g = Grid(2)
g[0][1] = 5
assert total(g) == 5
r = rows()
assert [[0]] + r == [[0], [1], [2, 3]] and sum(r, []) == [1, 2, 3] and json.dumps({'r': r}) == '{"r": [[1], [2, 3]]}'
assert pickle.loads(pickle.dumps(r)) == [[1], [2, 3]] and r.total() == 6 and type(r).__name__ == 'Rows'
for i in range(300):
    r.append([i])
    assert len(r) == i + 3
n = m = names()
n |= {'c'}
assert m == {'a', 'b', 'c'} and n.joined() == 'a,b,c' and {'a'} <= n and n.union('d') == set('abcd')
assert ('x',) + graph() == ('x', [1], [(1, 2)]) and json.loads(json.dumps(graph())) == [[1], [[1, 2]]]
""",
    "slices": """
class Window:
    def __init__(self, items): self.items = items
    def __getitem__(self, i): return self.items[i]
# tests
w = Window('abcd')
assert w[1:3] == 'bc' and w[::-1] == 'dcba' and w[0] == 'a'
""",
    "numbers and texts of their own": """
import enum
class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2
class Color(str, enum.Enum):
    RED = 'red'
class Mod7(int):
    def __new__(cls, n): return super().__new__(cls, n % 7)
    def __add__(self, other): return Mod7(int(self) + int(other))
class Vector(tuple):
    def __add__(self, other): return Vector(a + b for a, b in zip(self, other))
    def __sub__(self, other): return Vector(a - b for a, b in zip(self, other))
    def __mul__(self, k): return Vector(k * a for a in self)
    def __abs__(self): return sum(a * a for a in self) ** .5
class Mode(enum.IntFlag):
    R = 4
    W = 2
class Money(float):
    def __sub__(self, other): return Money(float(self) - float(other))
class Loud(str):
    def shout(self): return self.upper() + '!'
class Title(str):
    def __str__(self): return self.title()
def level(x): return Level(x)
# tests
import json
assert level(1) is Level.LOW and level(2).name == 'HIGH' and level(2) > level(1) and level(1) + 1 == 2
assert Level.LOW == 1 and list(Level) == [1, 2] and Level['HIGH'] == 2
assert Color.RED == 'red' and Color.RED.value == 'red'
assert Color('red').name == 'RED' and json.dumps({'c': Color.RED}) == '{"c": "red"}' and {Color.RED: 1}['red'] == 1
v = Vector([3, 4])
assert v + v == (6, 8) and v - Vector([1, 1]) == (2, 3) and abs(v) == 5 and v[0] == 3 and abs(v + v) == 10
m, s = Money(5.5), Loud('ab')
assert Mode.R | Mode.W == 6 and (Mode.R | Mode.W) & Mode.R and abs(m - 5.5) < 1e-9 and m - m == 0
assert s.shout() == 'AB!' and s + 'c' == 'abc' and s[::-1] == 'ba' and ''.join([s, s]) == 'abab' and f'{s:>3}' == ' ab'
assert Mod7(9) == 2 and range(5)[Mod7(9)] == 2 and str(Title('a b')) == 'A B' and Title('a b').upper() == 'A B'
""",
}


@pytest.mark.real
@pytest.mark.parametrize("kind", HONEST)
async def test_honest_programs_pass(check: Check, kind: str) -> None:
    program, _, test = HONEST[kind].partition("# tests\n")
    seen = await check(program, test)
    assert seen.text == "1 of 1 tests passed."
