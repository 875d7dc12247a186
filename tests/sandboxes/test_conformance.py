"""What every sandbox does: programs run as they would anywhere, and their ends are told as they were."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ponder.protocols import Sandbox
from ponder.records import ExecResult

Run = Callable[..., Awaitable[ExecResult]]
pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


async def test_hello(sandbox: Sandbox, run: Run) -> None:
    result = await run("print('hello')")
    assert (result.outcome, result.exit_code, result.stdout, result.stderr) == ("ok", 0, "hello\n", "")
    assert (result.truncated, result.files, result.left_out) == (False, {}, ())
    assert result.backend == sandbox.name
    assert result.layers == sandbox.layers()
    assert {"seccomp", "no-network", "read-only-root"} <= set(result.layers.active)


@pytest.mark.parametrize(
    ("code", "exit_code", "stderr"),
    [
        ("pass", 0, ""),
        ("exit()", 0, ""),
        ("import sys; sys.exit(None)", 0, ""),
        ("exit(7)", 7, ""),
        ("exit(256 + 3)", 3, ""),
        ("exit(-1)", 255, ""),
        ("exit('a word')", 1, "a word\n"),
        ("raise SystemExit(4)", 4, ""),
        ("import os; os._exit(9)", 9, ""),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -15, ""),
        ("import os; os.abort()", -6, ""),
        ("import ctypes; ctypes.string_at(0)", -11, ""),
        ("def f(): f()\nf()", 1, "RecursionError: maximum recursion depth exceeded\n"),
        ("x =", 1, "SyntaxError: invalid syntax\n"),
    ],
)
async def test_ends(run: Run, code: str, exit_code: int, stderr: str) -> None:
    result = await run(code)
    assert result.exit_code == exit_code, result
    assert result.outcome == ("ok" if exit_code == 0 else "error")
    assert result.stderr.endswith(stderr)


async def test_a_program_that_was_killed_by_its_own_is_killed(run: Run) -> None:
    assert (await run("import os; os.kill(os.getpid(), 9)")).outcome == "killed"


async def test_traceback_shows_the_programs_own_frames(run: Run) -> None:
    code = """
        import helper
        def outer():
            helper.fail()
        try:
            outer()
        except KeyError as error:
            raise ValueError("second") from error
    """
    result = await run(code, files={"helper.py": b"def fail():\n    return {}['x']\n"})
    places = [line.strip() for line in result.stderr.splitlines() if line.startswith("  File")]
    assert places == [
        'File "/work/main.py", line 6, in <module>',
        'File "/work/main.py", line 4, in outer',
        'File "/work/helper.py", line 2, in fail',
        'File "/work/main.py", line 8, in <module>',
    ]
    assert "return {}['x']" in result.stderr  # with the lines themselves
    assert result.stderr.startswith("Traceback (most recent call last):\n")


async def test_it_is_a_main_module(run: Run) -> None:
    code = """
        import __main__, os, sys
        X = 1
        if __name__ == "__main__":
            print(sys.argv, __file__, __main__.X, os.getcwd(), sys.path[0], __doc__, [*globals()][:3])
    """
    result = await run(code)
    assert result.stdout == (
        "['main.py'] /work/main.py 1 /work /work None ['__name__', '__doc__', '__package__']\n"
    ), result.stderr


async def test_nothing_of_ours_is_in_it(run: Run) -> None:
    result = await run("import sys; print([n for n in sys.modules if 'ponder' in n], len(sys._current_frames()))")
    assert result.stdout == "[] 1\n"


async def test_stdin_files_and_working_directory(run: Run) -> None:
    code = "import os, helper\nprint(helper.TWICE(input()), sorted(os.listdir()), open('data/x.txt').read())"
    files = {"helper.py": b"TWICE = lambda s: s + s\n", "data/x.txt": b"content"}
    result = await run(code, files=files, stdin="grün\n".encode())
    assert result.stdout == "grüngrün ['data', 'helper.py', 'main.py'] content\n", result.stderr


async def test_input_has_an_end(run: Run) -> None:
    result = await run("import sys; print(len(sys.stdin.buffer.read()), sys.stdin.isatty())", stdin=b"x" * 3_000_000)
    assert result.stdout == "3000000 False\n"
    assert (await run("input()")).stderr.endswith("EOFError: EOF when reading a line\n")


async def test_streams_are_apart_and_are_bytes(run: Run) -> None:
    result = await run("import os; os.write(1, b'a\\xff\\n'); os.write(2, b'b'); print('ü')")
    assert (result.stdout, result.stderr) == ("a\ufffd\nü\n", "b")
    assert result.usage.bytes == 7


async def test_what_was_written_before_a_death_is_kept(run: Run) -> None:
    result = await run("import os, sys; print('last words'); sys.stdout.write('more'); os.kill(os.getpid(), 9)")
    assert result.stdout == "last words\nmore"


async def test_threads_and_exit_handlers_finish(run: Run) -> None:
    code = """
        import atexit, threading, time
        atexit.register(print, "at exit")
        threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
        print("main")
    """
    assert (await run(code)).stdout == "main\nthread\nat exit\n"


async def test_ordinary_python_works(run: Run) -> None:
    code = """
        import asyncio, ctypes, dataclasses, decimal, hashlib, inspect, json, sqlite3, ssl, subprocess, sys, tempfile
        import threading, zoneinfo

        @dataclasses.dataclass
        class Point:
            x: int = 3

        assert "x: int = 3" in inspect.getsource(Point)
        assert subprocess.run([sys.executable, "-c", "print(6)"], capture_output=True).stdout == b"6\\n"
        asyncio.run(asyncio.sleep(0))
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
        assert sqlite3.connect("x.db").execute("select 40 + 2").fetchone() == (42,)
        print(hashlib.sha256(b"").hexdigest()[:8], zoneinfo.ZoneInfo("Europe/Berlin"), open("/etc/passwd").read(4))
    """
    result = await run(code)
    assert (result.stdout, result.stderr) == ("e3b0c442 Europe/Berlin root\n", "")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_multiprocessing_works(run: Run, method: str) -> None:
    code = f"""
        import multiprocessing
        def twice(x):
            return 2 * x
        if __name__ == "__main__":
            with multiprocessing.get_context({method!r}).Pool(2) as pool:
                print(pool.map(twice, [1, 2]))
    """
    result = await run(code, wall_s=30, cpu_s=8)
    assert result.stdout == "[2, 4]\n", result.stderr


async def test_each_run_starts_afresh(run: Run) -> None:
    await run("open('/tmp/mark', 'w'); open('mark', 'w'); open('/dev/shm/mark', 'w')")
    result = await run("import os; print(os.listdir('/tmp'), os.listdir('/dev/shm'), os.listdir())")
    assert result.stdout == "[] [] ['main.py']\n"


async def test_calls_overlap_and_keep_apart(run: Run) -> None:
    code = "import time; time.sleep(0.1); print(open('x').read(), input())"
    asked = [run(code, files={"x": str(n).encode()}, stdin=str(-n).encode()) for n in range(8)]
    assert [r.stdout for r in await asyncio.gather(*asked)] == [f"{n} {-n}\n" for n in range(8)]


async def test_large_programs_and_strange_text(run: Run) -> None:
    assert (await run("x = 0\n" * 50_000 + "print('end')")).stdout == "end\n"
    assert (await run("print('\ud800'.encode())")).outcome == "ok"  # what is no text is replaced
    assert "null bytes" in (await run("print(1)\0")).stderr
    assert (await run("# -*- coding: latin-1 -*-\nprint(1)")).stdout == "1\n"
    assert (await run("")).outcome == "ok"
