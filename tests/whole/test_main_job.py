"""The main job on real parts: real model, real sandbox, real browser. Reads as a tutorial."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ponder import Agent, SuccessCriterion, Task
from ponder.models import ensure
from ponder.policies.hosts import HostRules
from ponder.store import open_store

pytestmark = pytest.mark.real

SMALL = "qwen2.5-coder-0.5b"  # where no answer is looked at; the default core answers the questions
PONDER = str(Path(sys.executable).parent / "ponder")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """One agent for the module: its engine and browser stay warm."""
    with Agent(home=tmp_path_factory.mktemp("home"), hosts=HostRules(allow_private=True)) as agent:
        yield agent


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<title>Museum</title><h1>Museum</h1><p>The keeper's code word was <b>quillfish</b>.</p>"
            self.send_response(200 if self.path == "/" else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def test_a_question_that_a_program_answers(agent: Agent) -> None:
    result = agent.run("What is 17.5% of 2480?")
    assert result.answer == "434"
    assert result.stop_reason in ("confident", "not_worth_it", "exhausted")
    assert result.ledger.by_tool["python"].cpu_s > 0
    assert result.ledger.by_tool["core"].tokens_out > 0


def test_a_question_that_only_a_page_answers(agent: Agent, site: str) -> None:
    result = agent.run(Task(prompt="Which code word did the keeper use?", urls=(site,)))
    assert "quillfish" in (result.answer or "").lower()
    assert result.ledger.by_tool["browser"].cpu_s > 0
    assert result.ledger.by_tool["browser"].bytes > 0


def test_a_page_that_is_not_there_is_told(agent: Agent) -> None:
    result = agent.run(Task(prompt="Which code word?", urls=("http://127.0.0.1:9/",)))
    assert (result.answer, result.stop_reason) == (None, "error")
    assert "127.0.0.1:9" in result.warnings[-1]


def test_a_function_that_visible_tests_check(agent: Agent) -> None:
    visible = ("assert double(2) == 4", "assert double(-3) == -6")
    criterion = SuccessCriterion(kind="tests", visible=visible, hidden=("assert double(0) == 0",))
    result = agent.run(Task(prompt="Write double(x), which returns two times x.", success=criterion))
    assert result.stop_reason in ("confident", "exhausted")
    assert "def double" in (result.answer or "")


def ask(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PONDER_HOME": str(home)}
    return subprocess.run([PONDER, "ask", *arguments], capture_output=True, text=True, env=environment, check=False)


def test_json_and_a_bill_that_agrees_with_the_system(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = ask("What is 17.5% of 2480?", "--tools", "python", "--json", home=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["answer"] == "434"
    total, by_tool = result["ledger"]["total"], result["ledger"]["by_tool"]
    for key in ("cpu_user_s", "cpu_system_s", "tokens_in", "tokens_out", "calls", "cost"):
        assert sum(row[key] for row in by_tool.values()) == pytest.approx(total[key])
    billed = total["cpu_user_s"] + total["cpu_system_s"]
    counted = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert billed == pytest.approx(counted, rel=0.05, abs=0.3)


def test_a_spent_budget_is_exit_code_3(tmp_path: Path) -> None:
    ensure(SMALL)  # the first use would fetch the weights, which is no part of the question
    story = "Write a story of at least 400 words about a lighthouse."  # what is shorter does not end a search
    done = ask(story, "--core", SMALL, "--budget-cpu", "8", "--json", home=tmp_path)
    assert done.returncode == 3, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["stop_reason"] == "budget"
    total = result["ledger"]["total"]
    assert total["cpu_user_s"] + total["cpu_system_s"] < 8 + 2


def test_ctrl_c_gives_the_best_answer_so_far_and_leaves_nothing_running(tmp_path: Path) -> None:
    environment = {**os.environ, "PONDER_HOME": str(tmp_path)}
    argv = [PONDER, "ask", "Write a long story about a lighthouse.", "--core", SMALL, "--json", "-n", "64"]
    started = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    store = open_store(tmp_path / "runs.sqlite")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not store.runs():
        time.sleep(0.2)
    time.sleep(2)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=30)
    assert started.returncode == 130, err
    assert "Traceback" not in err
    assert json.loads(out)["stop_reason"] == "interrupted"
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in listing


def test_a_run_that_is_killed_goes_on_from_its_last_event(tmp_path: Path) -> None:
    script = f"""
import os, signal
from ponder import Agent
def hear(event):
    if event.kind == "observed":
        os.kill(os.getpid(), signal.SIGKILL)
Agent(tools=["python"], home={str(tmp_path)!r}).run("What is 17.5% of 2480?", on_event=hear)
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    store = open_store(tmp_path / "runs.sqlite")
    (cut_off,) = store.runs()
    assert cut_off.stop_reason is None
    before = [event for event in store.events(cut_off.id) if event.kind == "observed"]
    with Agent(tools=["python"], home=tmp_path) as agent:
        result = agent.resume(cut_off.id)
    assert result.answer == "434"
    observed = [event.node for event in store.events(cut_off.id) if event.kind == "observed"]
    assert observed.count(before[0].node) == 1, "a finished tool call is not run again"


def test_the_ten_lines_of_the_readme(readme: str, tmp_path: Path) -> None:
    block = re.search(r"<!-- library -->\s*```python\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    assert len(block.group(1).strip().splitlines()) <= 10
    environment = {**os.environ, "PONDER_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", block.group(1)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "1366" in done.stdout
