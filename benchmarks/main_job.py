"""The twelve questions of the main job, asked through the command line as a user would, for one or more cores.

    python benchmarks/main_job.py --core qwen2.5-coder-0.5b --core qwen2.5-coder-1.5b --out docs/main_job.md

Every question is one `ponder ask --json` in a process of its own: start, model load, search and shutdown included.
The CPU that the operating system counted for the whole process tree is measured from outside (a cgroup's counter where
one can be made, else the children's rusage) and compared with the bill that ponder printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ponder.answers import normalise
from ponder.sandboxes import open_sandbox

PAGE = """<!doctype html><title>Harbour museum: visiting</title>
<h1>Visiting the harbour museum</h1>
<p>The museum is open from Tuesday to Sunday. The ferry <i>Marianne</i>, built in the yard next door,
can be boarded.</p>
<h2>Tickets</h2><table><tr><th>Who</th><th>Price</th></tr><tr><td>Adults</td><td>11 crowns</td></tr>
<tr><td>Children</td><td>4 crowns</td></tr></table>
<h2>History</h2><p>The lighthouse keeper's code word in the winter of 1911 was <b>quillfish</b>. It was changed in
spring.</p>"""

TESTS = '''assert run_length("") == ""
assert run_length("a") == "1a"
assert run_length("aaabcc") == "3a1b2c"
assert run_length("zzzzzzzzzzzz") == "12z"
'''

DOCSTRING = '''Write this function:

def run_length(text: str) -> str:
    """Return the run-length encoding of the text: each run of equal characters as its length and the character.

    run_length("aaabcc") returns "3a1b2c"; the empty text stays empty.
    """
'''

HIDDEN_TESTS = [("", ""), ("aab", "2a1b"), ("xyz", "1x1y1z"), ("  ", "2 "), ("11122", "3122")]


@dataclass(frozen=True)
class Question:
    """A question, the answer that counts as right, and the options that it needs."""

    name: str
    text: str
    expected: str
    page: bool = False
    tests: bool = False


QUESTIONS = [
    Question("2000th prime", "What is the 2000th prime number?", "17389"),
    Question("zeros of 1000!", "How many trailing zeros does 1000! (1000 factorial) have?", "249"),
    Question("digit sum", "What is the sum of the digits of 2**1000?", "1366"),
    Question("change", "In how many ways can 100 cents be changed with coins of 1, 5, 10, 25 and 50 cents?", "292"),
    Question("Fibonacci", "What is the 50th Fibonacci number, with F(1)=F(2)=1?", "12586269025"),
    Question("days", "How many days are there from 1999-12-31 to 2026-11-22?", "9823"),
    Question("letters", 'How many times does the letter r occur in "strawberry raspberry"?', "6"),
    Question("prime factor", "What is the largest prime factor of 600851475143?", "6857"),
    Question("percent", "What is 17.5% of 2480?", "434"),
    Question("palindromes", "How many positive integers below 10000 are palindromes and divisible by 11?", "107"),
    Question("function", DOCSTRING, "(passes the hidden tests)", tests=True),
    Question("page", "Which code word did the lighthouse keeper use in the winter of 1911?", "quillfish", page=True),
]


def palindromes_by_formula() -> int:
    """Count the palindromes below 10000 that 11 divides without trying the numbers.

    Two digits aa = 11a: 9. Three digits aba: 11 divides iff 2a - b is 0 or 11: b = 2a for a of 1-4, b = 2a - 11 for a
    of 6-9: 8. Four digits abba = 1001a + 110b, and 11 divides both: 90.
    """
    three = sum(1 for a in range(1, 10) for b in range(10) if (2 * a - b) % 11 == 0)
    return 9 + three + 9 * 10


def palindromes_by_trying() -> int:
    """Count them one by one."""
    return sum(1 for n in range(1, 10000) if n % 11 == 0 and str(n) == str(n)[::-1])


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = PAGE.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class OutsideMeter:
    """CPU seconds of a whole process tree, counted by the operating system and not by ponder."""

    def __init__(self) -> None:
        root = Path("/sys/fs/cgroup/cpuacct")
        self._group = root / f"measured-{time.time_ns()}" if root.is_dir() else None
        if self._group is not None:
            try:
                self._group.mkdir()
            except OSError:
                self._group = None
        self.method = "cgroup" if self._group else "rusage of children"
        self._before = resource.getrusage(resource.RUSAGE_CHILDREN)

    def command(self, argv: list[str]) -> list[str]:
        """Return the argv that runs inside the meter."""
        if self._group is None:
            return argv
        return ["/bin/sh", "-c", f'echo 0 > {self._group}/cgroup.procs; exec "$@"', "sh", *argv]

    def read(self) -> float:
        """Return CPU seconds since the meter was made, and remove it."""
        if self._group is None:
            now = resource.getrusage(resource.RUSAGE_CHILDREN)
            return now.ru_utime + now.ru_stime - self._before.ru_utime - self._before.ru_stime
        deadline, doors = time.monotonic() + 2, list(self._group.rglob("cgroup.procs"))
        while any(door.read_text().strip() for door in doors) and time.monotonic() < deadline:
            time.sleep(0.01)  # what was killed is gone a moment after its parent
        used = int((self._group / "cpuacct.usage").read_text()) / 1e9
        for folder in sorted(self._group.rglob("*"), reverse=True):
            if folder.is_dir():
                folder.rmdir()
        self._group.rmdir()
        return used


def ask(question: Question, core: str, url: str, home: Path) -> dict[str, object]:
    """Ask one question in a fresh process and return its row."""
    ponder = str(Path(sys.executable).parent / "ponder")
    argv = [ponder, "ask", question.text, "--core", core, "--json", "--quiet"]
    if question.page:
        argv += ["--url", url, "--allow-private"]
    if question.tests:
        tests = home / "tests.py"
        tests.write_text(TESTS)
        argv += ["--tests", str(tests)]
    meter = OutsideMeter()
    began = time.monotonic()
    done = subprocess.run(meter.command(argv), capture_output=True, text=True, check=False)
    wall = time.monotonic() - began
    counted = meter.read()
    result = json.loads(done.stdout) if done.stdout.strip() else {}
    total = result.get("ledger", {}).get("total", {})
    billed = total.get("cpu_user_s", 0.0) + total.get("cpu_system_s", 0.0)
    answer = result.get("answer") or ""
    return {
        "question": question.name,
        "expected": question.expected,
        "answer": answer if not question.tests else f"{len(answer.splitlines())} lines",
        "right": is_right(question, answer),
        "exit": done.returncode,
        "stop_reason": result.get("stop_reason"),
        "confidence": result.get("confidence"),
        "steps": result.get("nodes"),
        "cpu_s": billed,
        "cpu_counted_s": counted,
        "measured_by": meter.method,
        "wall_s": wall,
        "error": done.stderr.strip()[-300:] if done.returncode not in (0, 3, 4) else "",
    }


def is_right(question: Question, answer: str) -> bool:
    """Return whether the answer is right; a program is run against tests that the search never saw."""
    if not question.tests:
        return normalise(answer) == normalise(question.expected)
    checks = "\n".join(f"assert run_length({given!r}) == {wanted!r}" for given, wanted in HIDDEN_TESTS)
    return asyncio.run(_runs_in_sandbox(f"{answer}\n{checks}\nprint('all passed')\n"))


async def _runs_in_sandbox(program: str) -> bool:
    sandbox = await open_sandbox()
    try:
        result = await sandbox.exec(program)
        return result.outcome == "ok" and result.stdout.strip().endswith("all passed")
    finally:
        await sandbox.close()


def table(rows: list[dict[str, object]], core: str) -> str:
    """Return one core's rows as a Markdown table with a summary line."""
    lines = [
        f"### {core}",
        "",
        "| question | answer | right | stopped | confidence | steps | CPU s | counted by the system | wall s | exit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        answer = str(row["answer"]).replace("|", "\\|").replace("\n", " ")[:40]
        right = "yes" if row["right"] else f"no ({row['expected']})"
        lines.append(
            f"| {row['question']} | {answer} | {right} "
            f"| {row['stop_reason']} | {row['confidence'] or 0:.2f} | {row['steps']} | {row['cpu_s']:.1f} "
            f"| {row['cpu_counted_s']:.1f} | {row['wall_s']:.0f} | {row['exit']} |"
        )
    good = sum(bool(row["right"]) and row["exit"] == 0 for row in rows)
    within = sum(float(str(row["cpu_counted_s"])) <= 90 for row in rows)
    cpu = [float(str(row["cpu_counted_s"])) for row in rows]
    per_right = sum(cpu) / good if good else float("inf")
    lines += [
        "",
        f"**{good} of {len(rows)} right with exit code 0**, {within} of {len(rows)} within 90 CPU-seconds; "
        f"{sum(cpu) / len(cpu):.1f} CPU-seconds a question, {per_right:.1f} per right answer.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Ask, print a line a question, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", action="append", help="a core; may be repeated (default: the default core)")
    parser.add_argument("--only", action="append", help="a question's name; may be repeated")
    parser.add_argument("--out", type=Path, help="write the Markdown table here")
    options = parser.parse_args()
    assert palindromes_by_formula() == palindromes_by_trying() == 107
    from ponder.parts import DEFAULT_CORE

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/museum.html"
    parts = []
    summary = []
    with tempfile.TemporaryDirectory() as home:
        for core in options.core or [DEFAULT_CORE]:
            rows = []
            for question in QUESTIONS:
                if not options.only or question.name in options.only:
                    rows.append(ask(question, core, url, Path(home)))
                    print(json.dumps({"core": core, **rows[-1]}), flush=True)
            parts.append(table(rows, core))
            summary.append({"core": core, "right": sum(bool(r["right"]) for r in rows), "of": len(rows)})
    server.shutdown()
    if options.out:
        cpus = len(os.sched_getaffinity(0))
        made = f"Made by `benchmarks/main_job.py` on {platform.machine()}, {cpus} CPUs."
        head = f"# The main job: twelve questions\n\n{made}\n\n"
        options.out.write_text(head + "\n".join(parts))
    print(json.dumps({"summary": summary}))


if __name__ == "__main__":
    main()
