"""Files into a sandbox, and the changed ones out of it again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import pytest

from ponder.errors import UsageError
from ponder.protocols import Sandbox
from ponder.records import ExecResult, Usage

Run = Callable[..., Awaitable[ExecResult]]
pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

GIVEN = {"a": b"1", "d/b": b"2", "d/e/c": b"3"}


@pytest.mark.parametrize(
    ("code", "files"),
    [
        ("pass", {}),
        ("open('a').read(); os.stat('d/b')", {}),
        ("open('new', 'wb').write(bytes(range(256)))", {"new": bytes(range(256))}),
        ("os.makedirs('x/y'); open('x/y/z', 'w').write('deep')", {"x/y/z": b"deep"}),
        ("open('a', 'r+').write('9')", {"a": b"9"}),  # same inode, same size, at once
        ("open('a', 'w')", {"a": b""}),
        ("open('a', 'a').write('2')", {"a": b"12"}),
        ("os.remove('a')", {"a": None}),
        ("os.rename('a', 'z')", {"a": None, "z": b"1"}),
        ("os.replace('a', 'd/b')", {"a": None, "d/b": b"1"}),
        ("os.link('a', 'z')", {"a": b"1", "z": b"1"}),  # a link changes both
        ("os.mkdir('empty')", {}),
        ("shutil.rmtree('d')", {"d/b": None, "d/e/c": None}),
        ("shutil.rmtree('d'); open('d', 'w').write('f')", {"d": b"f", "d/b": None, "d/e/c": None}),
        ("os.remove('a'); os.mkdir('a'); open('a/a', 'w')", {"a": None, "a/a": b""}),
        ("open('s', 'w').write('x'); os.chmod('s', 0)", {"s": b"x"}),
        ("os.chmod('a', 0)", {"a": b"1"}),
        ("open('d/n', 'w'); os.chmod('d', 0); os.chmod('.', 0)", {"d/n": b""}),
        ("open('ü\\n\\'\\U0001f600', 'w')", {"ü\n'\U0001f600": b""}),
        ("open('main.py', 'w').write('other'); open('d/main.py', 'w')", {"d/main.py": b""}),
        ("os.remove('main.py')", {}),
        ("os.chdir('/tmp'); open('here', 'w')", {}),
        ("open('f', 'wb').truncate(3)", {"f": b"\0\0\0"}),
        ("open('x', 'w').write('1'); exit(3)", {"x": b"1"}),
        ("open('x', 'w').write('1'); os.kill(os.getpid(), 15)", {"x": b"1"}),
    ],
)
async def test_changed_files_come_back(run: Run, code: str, files: Mapping[str, bytes | None]) -> None:
    result = await run(f"import os, shutil\n{code}", files=GIVEN)
    assert result.files == files, result.stderr
    assert result.left_out == ()


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("os.symlink('/etc/passwd', 'l')", {"l"}),
        ("os.symlink('a', 'l'); os.symlink('d', 'm'); os.symlink('/etc', 'n')", {"l", "m", "n"}),
        ("os.mkfifo('f'); os.mkfifo('d/f')", {"f", "d/f"}),
        ("import socket; socket.socket(socket.AF_UNIX).bind('s')", {"s"}),
        ("open(b'\\xff', 'w'); open(b'\\xfe\\xf0\\x9f\\x98\\x80', 'w')", {"\ufffd", "\ufffd\U0001f600"}),
        ("os.remove('main.py'); os.mkdir('main.py'); open('main.py/x', 'w')", {"main.py/x"}),
        ("open('a', 'wb').truncate(7 * 2**20); open('big', 'wb').truncate(2 * 2**20)", {"big"}),
    ],
)
async def test_what_is_left_out_is_named(run: Run, code: str, names: set[str]) -> None:
    result = await run(f"import os\n{code}", files=GIVEN)
    assert result.outcome == "ok", result.stderr
    assert set(result.left_out) == names


async def test_a_folder_replaced_by_a_link_leads_nowhere(run: Run) -> None:
    code = "import os, shutil\nshutil.rmtree('d')\nos.mkdir('/tmp/d')\nopen('/tmp/d/b', 'w')\nos.symlink('/tmp/d', 'd')"
    result = await run(code, files=GIVEN)
    assert result.files == {"d/b": None, "d/e/c": None}
    assert result.left_out == ("d",)


async def test_many_files(run: Run) -> None:
    result = await run("for n in range(300): open(f'{n:03}', 'w').write('x')")
    assert sorted(result.files) == [f"{n:03}" for n in range(256)]
    assert result.left_out == tuple(f"{n:03}" for n in range(256, 300))
    result = await run("for n in range(30_000): open(str(n), 'w')", cpu_s=10, wall_s=30)
    assert len(result.files) == 256, result.outcome
    assert len(result.left_out) == 101
    assert result.left_out[-1] == "..."


async def test_deep_folders(run: Run) -> None:
    code = """
        import os
        for n in range(3000):
            os.mkdir("d")
            os.chdir("d")
            if n % 500 == 10:
                open("file", "w").write(str(n))
    """
    result = await run(code)
    assert result.outcome == "ok", result.stderr
    assert sorted(map(str, result.files.values())) == ["b'10'", "b'1010'", "b'1510'", "b'510'"]
    assert all(len(path) > 3990 for path in result.left_out)  # where no path leads


async def test_a_file_larger_than_memory_allows_to_hold(run: Run) -> None:
    """Process 1 passes files on in pieces: its own memory counts within the limit."""
    code = "with open('big', 'wb') as f:\n    for _ in range(40): f.write(bytes(2**20))"
    result = await run(code, disk_bytes=64 * 2**20, memory_bytes=64 * 2**20)
    assert result.outcome == "ok", result
    assert result.files == {"big": bytes(40 * 2**20)}


async def test_a_workspace_goes_round(run: Run) -> None:
    """Passing what changed to the next call makes a workspace; keeping two copies forks it."""
    workspace = {"log": b""}
    for n in range(3):
        result = await run(f"open('log', 'a').write('{n}')", files=workspace)
        workspace |= {path: data for path, data in result.files.items() if data is not None}
    assert workspace == {"log": b"012"}
    forks = [await run(f"open('log', 'a').write('{word}')", files=workspace) for word in "ab"]
    assert [fork.files["log"] for fork in forks] == [b"012a", b"012b"]


async def test_a_stopped_program_returns_none(run: Run) -> None:
    result = await run("open('x', 'w').write('1')\nwhile True: pass", cpu_s=0.3)
    assert (result.outcome, result.files) == ("cpu", {})


@pytest.mark.parametrize(
    "name",
    ["/etc/x", "../x", "a/../../x", "main.py", "./main.py", "main.py/x", ".", "a\0b", "\ud800", "x" * 256, "x/" * 2010],
)
async def test_paths_that_lead_outwards(sandbox: Sandbox, name: str) -> None:
    bills: list[Usage] = []
    with pytest.raises(UsageError):
        await sandbox.exec("", files={name: b""}, on_usage=bills.append)
    assert len(bills) == 1


async def test_files_below_files_are_refused(sandbox: Sandbox) -> None:
    with pytest.raises(UsageError, match="below a file"):
        await sandbox.exec("", files={"a": b"", "a/b": b""})


async def test_more_than_the_disk_holds(run: Run) -> None:
    result = await run("print(1)", files={"x": bytes(9 * 2**20)})
    assert (result.outcome, result.exit_code, result.stdout) == ("error", 1, "")
    assert "the working directory cannot hold its files: No space left" in result.stderr
    assert (await run("print(2)")).stdout == "2\n"
