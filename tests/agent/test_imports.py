"""Imports that a program lacks."""

from __future__ import annotations

import pytest

from ponder.imports import with_imports
from ponder.prompting import Prompting
from ponder.records import RunCode

MODULES = ["math", "re", "typing", "collections"]


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("print(math.pi)", ["import math"]),
        ("def f(x: List[int]) -> Optional[str]:\n    return re.sub('a', 'b', x)",
         ["from typing import List", "from typing import Optional", "import re"]),
        ("print(Counter('aab'), ceil(1.5))", ["from collections import Counter", "from math import ceil"]),
        ("import math\nprint(math.pi)", []),
        ("from math import *\nprint(pi)", ["from math import pi"]),
        ("import math as m\nprint(m.pi)", []),
        ("math = 3\nprint(math)", []),
        ("def f(math):\n    return math", []),
        ("print([math for math in (1, 2)], len('a'))", []),
        ("try:\n    pass\nexcept ValueError as re:\n    print(re)", []),
        ("print(numpy.pi, heappush)", []),
        ("print(nothing_like_it)", []),
        ("from __future__ import annotations\nprint(math.pi)", []),
        ("print(math.pi", []),
    ],
)  # fmt: skip
def test_what_is_used_and_nowhere_bound_is_imported(code: str, lines: list[str]) -> None:
    assert with_imports(code, MODULES) == ("\n".join([*lines, "", code]) if lines else code)


def test_what_the_task_gives_is_there() -> None:
    assert with_imports("print(List, math.pi)", MODULES, "from typing import *\nimport math") == (
        "from typing import List\n\nprint(List, math.pi)"
    )
    assert with_imports("print(List)", MODULES, "from typing import List") == "print(List)"


def test_a_program_of_the_core_gets_them(grow) -> None:  # type: ignore[no-untyped-def]
    tree, prompting = grow().tree, Prompting(["python"])
    reading = prompting.read(tree, prompting.step(tree, 0, "code"), 'print("ANSWER:", math.pi)\n```')
    assert reading.action == RunCode(code='import math\n\nprint("ANSWER:", math.pi)')
