"""The grammar of programs takes what Python takes, and little else: tried with llguidance, byte by byte."""

from __future__ import annotations

import ast
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ponder.actions import compile_error
from ponder.program_grammar import DEPTH, program_grammar

PROGRAM = program_grammar(["math", "re"])
ANYTHING = program_grammar(sorted(sys.stdlib_module_names))
DEFINITIONS = program_grammar(["math", "re"], only_definitions=True)
BODY = program_grammar(["math", "re"], only_definitions=True, in_function=True)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("import math\nprint(math.pi)\n```", True),
        ("import math, re as r \nx\n```", True),
        ("from math import (\n    pi,\n    e as f,\n)\n\nfor i in range(3):\n    print(i)\n```", True),
        ("def f():\n    import re\n    return re\n```", True),
        ("x = '`'\n```", True),
        ("import sympy\n```", False),
        ("if x:\n    import sympy\n```", False),
        ("import mathx\n```", False),
        ("import math, numpy\n```", False),
        ("from numpy import *\n```", False),
        ("important = 1\n```", True),
        ("fro = 1\n```", True),
        ("```", False),
        ("\n```", False),
        ("# Only words\n```", False),
        ("print(1)```", False),
    ],
)
def test_a_program_imports_what_exists_says_something_and_ends_with_its_fence(
    reader: Any, text: str, right: bool
) -> None:
    assert reader.takes(PROGRAM, text) is right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("import re\n\ndef f(x):\n    print(x)\n    return x\n```", True),
        ("# A comment first\nMOD = 7\nclass A:\n    pass\n```", True),
        ("@cache\ndef f(\n    x,\n) -> int:\n    return x\n```", True),
        ("TABLE: dict = {\n    1: 2,\n}\ndef f():\n    pass\n```", True),
        ("def f():\n    pass\n\nimport re\n\ndef g():\n    pass\n```", True),
        ("def f(x):\n    return x\nprint(f(1))\n```", False),
        ("def f(x):\n    return x\n# Example\n```", False),
        ("def f(x):\n    return x\nassert f(1) == 1\n```", False),
        ("def f(x):\n    return x\nif __name__ == '__main__':\n    f(1)\n```", False),
        ("import re\n```", False),
        ("def f(x):\n    return x\nn = f(1)\n```", False),
        ("def f(x):\n```", False),
        ("def f():\n    pass\n\n" * 8 + "```", True),
        ("def f():\n    pass\n\n" * 9 + "```", False),
    ],
)
def test_a_program_that_is_the_answer_only_defines(reader: Any, text: str, right: bool) -> None:
    assert reader.takes(DEFINITIONS, text) is right


RIGHT = [
    "a, (b, *c) = 1, (2, 3)",
    "x.y[1].z += 3",
    "n = m = 0",
    "total: int = 3",
    "b'c' + rb'd'",
    "x[1:2, ::3]",
    "d = {'a': 1, **b}\ns = {1, 2}",
    "f(*a, b, c=1, **d)",
    "[x for x in y if x if not z for w in x]",
    "sum(x for x in y)",
    "x = [1,  # one\n     2]\n",
    r"""print('a' "b" r'\d' " \t\x41" f'{x:.2f}{y!r:>{w}} {{}} {z=} {d["k"]}')""",
    """print(f"it's {a['k']}")""",
    "'''A text\nover lines, \"so\" to say.'''",
    "1_000 + 0x1f - .5e-3 * 2j // 7 ** -x",
    "(n := 3) if a is not None and b not in c else lambda x, *y: -x",
    "class A(B, metaclass=C):\n    '''doc'''\n    x = 1\n\n    def f(self):\n        # note\n        pass\n\n# end",
    "async def f():\n    async with a as b:\n        return await g()",
    "@dec\ndef f(a, /, b: int = 2, *, c): pass",
    "try:\n    x\nexcept (A, B) as e:\n    raise X from e\nelse:\n    y\nfinally:\n    z",
    "with open(f) as g, h:\n    del g, h",
    "match x:\n    case [1, y]:\n        z\n    case _ if w:\n        w",
    "while (n := n - 1) > 0:\n    if n in (1, 2):\n        continue\n    elif n: break\n    else:\n        pass",
    "x = 1; y = 2  # two",
    "x = a + \\\n    b",
    "matches = defined = returned = iff = Nones = 1",
]

WRONG = [
    "Ella took 4 more questions than Marion.",
    "The answer is 4",
    "print 'x'",
    "print(1",
    "x = (1]",
    "x = 2y",
    "x = 007",
    r"x = 'C:\Users'",
    "print('it's')",
    "print(f'{x')",
    "f(x) = 3",
    "if x = 3:\n    pass",
    "def = 1",
    "def area:",
    "def f():\nreturn 1",
    "for i in range(3):\nprint(i)",
    "for i in range(3):\n    # nothing",
    "if x:\n    a\n      b",
    "  x = 1",
    "else:\n    x",
    "try:\n    x\ny",
    "return 1",
    "class A:\n    return 1",
    "def f():\n    class A:\n        yield 1",
    "f(a=1, 2)",
    "f(x for x in y, 1)",
    "x = [1, 2",
    "x + ",
    "'''never ended",
]


@pytest.mark.parametrize("program", RIGHT + WRONG)
def test_what_python_takes_is_taken_and_what_it_refuses_is_not(reader: Any, program: str) -> None:
    assert (compile_error(program) is None) is (program in RIGHT)
    assert reader.takes(ANYTHING, f"{program}\n```") is (program in RIGHT)


def test_comments_and_empty_lines_come_to_an_end(reader: Any) -> None:
    assert reader.takes(PROGRAM, "if x:\n" + "    # note\n\n" * 4 + "    x\n```")
    assert not reader.begins(PROGRAM, "if x:\n" + "    # note\n\n" * 4 + "    #")
    assert not reader.begins(PROGRAM, "x\n" + "# note\n" * 9)


def test_a_text_over_lines_has_no_fence(reader: Any) -> None:
    assert reader.takes(PROGRAM, "x = '''See `f` and ``g``.'''\n```")
    assert not reader.begins(PROGRAM, "x = '''Example:\n```")


def test_blocks_are_as_deep_as_it_says(reader: Any) -> None:
    def nested(depth: int) -> str:
        return "".join(f"{'    ' * level}if x:\n" for level in range(depth)) + "    " * depth + "x\n```"

    assert reader.takes(PROGRAM, nested(DEPTH))
    assert not reader.takes(PROGRAM, nested(DEPTH + 1))


@pytest.mark.parametrize("module", ["textwrap", "heapq", "fractions", "statistics", "calendar", "shlex"])
def test_the_standard_library_is_taken(reader: Any, module: str) -> None:
    """Every statement of a module, as `ast.unparse` writes it: in Python's own style, without comments."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    for node in ast.parse(Path(spec.origin).read_text("utf-8")).body:
        source = ast.unparse(node)
        assert reader.takes(ANYTHING, f"{source}\n```"), source


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("    return x\n```", True),
        ("    # first\n    for i in x:\n        yield i\n\n\ndef helper():\n    pass\n```", True),
        ('    """What it does."""\n    return x\n```', True),
        ("\n    import re\n    return re\n```", True),
        ("return x\n```", False),
        ("```", False),
        ("    return x\nprint(f(1))\n```", False),
        ("def f(x):\n    return x\n```", False),
    ],
)
def test_a_body_is_completed(reader: Any, text: str, right: bool) -> None:
    assert reader.takes(BODY, text) is right
