"""Other frameworks, each as its users set it up, asked one question at a time in a process of its own.

Each gets the same model through its OpenAI-compatible address, and those that use tools the same one: a Python program
that runs in ponder's sandbox. What they decide by themselves (prompts, temperature, number of steps) is left to them.
smolagents runs the model's code in our sandbox instead of in its own process, which its makers call no sandbox.
"""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any

from ponder.background import BackgroundLoop
from ponder.bench.grading import last_number
from ponder.bench.problems import ReplyKind
from ponder.bench.solvers import read_plain
from ponder.errors import PonderError
from ponder.parts import open_tools
from ponder.policies.hosts import HostRules
from ponder.records import ExecResult, Limits, Record, Usage
from ponder.sandboxes.groups import group_factory
from ponder.tools.python import one_after_the_other

SAMPLES = 8
"""Of its_hub: its own examples' budget."""
TEMPERATURE = 0.7
"""Of its_hub's samples, which would else be whatever the server takes: that of its own examples."""
SHOWN = 8000
"""Characters of what a program printed, at most."""
MARK = "\x1eponder-peer "
"""Before what the driver of smolagents' code says in the end."""


RAISED = "Code execution failed"
"""In what it says of a snippet that raised: smolagents' own words."""


class Where(Record):
    """The server that all ask."""

    url: str
    key: str
    model: str


class Said(Record):
    """What came of a question."""

    answer: str | None
    error: str = ""
    """Why there is none, where the framework raised."""
    broken: str = ""
    """What failed here and is none of the framework's doing: the task is to be asked again."""
    usage: Usage = Usage()
    """Of the programs that ran."""
    programs: int = 0


class Sandboxed:
    """Runs programs in ponder's sandbox, for code that is not async, and adds up what they took."""

    def __init__(self) -> None:
        self._loop = BackgroundLoop("peer-sandbox")
        self._box = self._loop.submit(open_tools(("python",), group_factory(), HostRules())).result()
        self.bills: list[Usage] = []
        self.broken = ""

    def run(self, code: str) -> ExecResult:
        """Run a program under the limits that ponder gives its own."""
        assert self._box.sandbox is not None
        try:
            return self._loop.submit(
                self._box.sandbox.exec(code, files={}, limits=Limits(), on_usage=self.bills.append)
            ).result()
        except PonderError as error:
            self.broken = str(error)
            raise

    def take(self) -> tuple[Usage, int]:
        """Return what ran since the last time, added up, and how many programs that were."""
        bills, self.bills = self.bills, []
        return one_after_the_other(bills), len(bills)

    def close(self) -> None:
        """End it."""
        self._loop.submit(self._box.close()).result()
        self._loop.close()


Ask = Callable[[str, ReplyKind], str | None]
"""Asks a question, whose answer is of that kind."""


# --- smolagents --------------------------------------------------------------------------------------------

DRIVER = '''
import ast, contextlib, io, json, sys, traceback
class _Final(BaseException): pass
def final_answer(answer=None): raise _Final(answer)
_space = {"__name__": "__main__", "final_answer": final_answer}
def _run(source):
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<code>", "exec"), _space)
    return eval(compile(ast.Expression(last.value), "<code>", "eval"), _space) if last else None
_before, _now = json.loads(%(snippets)r)
for _one in _before:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception, _Final):
        _run(_one)
_final = False
try:
    _value = _run(_now)
except _Final as _end:
    _final, _value = True, _end.args[0]
except Exception as _error:
    _lines = [one.lineno for one in traceback.extract_tb(_error.__traceback__) if one.filename == "<code>"]
    _place = f" at line {_lines[-1]}" if _lines else ""
    sys.exit(f"%(raised)s{_place} due to: {type(_error).__name__}: {_error}")
print(%(mark)r + json.dumps({"final": _final, "value": None if _value is None else str(_value)}))
'''


class Snippets:
    """Runs each snippet after those that came before it, so that their variables are there.

    One that met a limit, or left the interpreter, is not run again: it would end all that come after it.
    """

    def __init__(self, run: Callable[[str], ExecResult]) -> None:
        self._run = run
        self.all: list[str] = []

    def add(self, code: str) -> tuple[str, str | None, bool]:
        """Return what a snippet printed, the value of its last line, and whether that is the final answer.

        Raises:
            RuntimeError: it ended otherwise; the message is what was printed, and the traceback.
        """
        ran = self._run(DRIVER % {"snippets": json.dumps([self.all, code]), "mark": MARK, "raised": RAISED})
        printed, _, told = ran.stdout.rpartition(MARK)
        if told or RAISED in ran.stderr:
            self.all.append(code)
        if ran.outcome != "ok" or not told:
            raise RuntimeError(f"{ran.stdout}\n{ran.stderr or ran.outcome}"[-SHOWN:])
        end = json.loads(told)
        return printed, end["value"], end["final"]

    def functions(self) -> str:
        """Return the snippets that define functions, as one program."""
        return "\n\n".join(snippet for snippet in self.all if "def " in snippet)


def program_in(source: str) -> str | None:
    """Return what source text defines, without the calls at its outside; None: it is no Python that defines a function.

    Such calls try a function out, or give it as the final answer, which only the framework knows.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    if not any(isinstance(one, ast.FunctionDef) for one in tree.body):
        return None
    tree.body = [one for one in tree.body if not isinstance(one, ast.Expr)]
    return ast.unparse(tree)


def smolagents_code_agent(where: Where, sandbox: Sandboxed) -> Ask:
    """Return smolagents' CodeAgent, without further tools."""
    from smolagents import CodeAgent, LogLevel, OpenAIModel
    from smolagents.local_python_executor import CodeOutput, InterpreterError, PythonExecutor

    class InSandbox(PythonExecutor):  # type: ignore[misc]
        def __init__(self) -> None:
            self.snippets = Snippets(sandbox.run)

        def send_tools(self, tools: dict[str, Any]) -> None:
            """There is `final_answer` only."""

        def send_variables(self, variables: dict[str, Any]) -> None:
            """None are used."""

        def __call__(self, code_action: str) -> Any:
            try:
                printed, value, final = self.snippets.add(code_action)
            except RuntimeError as error:
                raise InterpreterError(str(error)) from error
            return CodeOutput(output=value, logs=printed, is_final_answer=final)

    def ask(question: str, kind: ReplyKind) -> str | None:
        executor = InSandbox()
        model = OpenAIModel(where.model, api_base=where.url, api_key=where.key)
        agent = CodeAgent(tools=[], model=model, executor=executor, verbosity_level=LogLevel.OFF)
        said = agent.run(question)
        text = "" if said is None else str(said)
        if kind != "program":
            return read_plain(text, kind) if text else None
        # It may give the program in a fence or as it is; or it means what it has run, and names its result.
        fenced = read_plain(text, kind) if text else None
        return fenced or program_in(text) or program_in(executor.snippets.functions())

    return ask


# --- LangChain ---------------------------------------------------------------------------------------------


def langchain_create_agent(where: Where, sandbox: Sandboxed) -> Ask:
    """Return LangChain's `create_agent` on LangGraph, with a Python tool."""
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    def run_python(code: str) -> str:
        """Run a Python program in a sandbox and return what it prints."""
        ran = sandbox.run(code)
        return (ran.stdout + (f"\n{ran.stderr}" if ran.stderr else ""))[-SHOWN:] or f"[{ran.outcome}, nothing printed]"

    model = ChatOpenAI(model=where.model, base_url=where.url, api_key=where.key)  # type: ignore[arg-type]
    agent = create_agent(model, tools=[run_python])

    def ask(question: str, kind: ReplyKind) -> str | None:
        ended = agent.invoke({"messages": [{"role": "user", "content": question}]})
        return read_plain(str(ended["messages"][-1].text), kind)

    return ask


# --- its_hub -----------------------------------------------------------------------------------------------


def _its_hub(where: Where, make: Callable[[Any, ReplyKind], Any]) -> Ask:
    from its_hub.core.lms.openai_lm import OpenAICompatibleLanguageModel

    loop = asyncio.new_event_loop()
    model = OpenAICompatibleLanguageModel(
        endpoint=where.url, api_key=where.key, model_name=where.model, temperature=TEMPERATURE
    )

    def ask(question: str, kind: ReplyKind) -> str | None:
        reply = loop.run_until_complete(make(model, kind).ainfer(model, question, SAMPLES))
        return read_plain(reply.get("content") or "", kind)

    return ask


def its_hub_best_of_n(where: Where, sandbox: Sandboxed) -> Ask:  # noqa: ARG001
    """Return its_hub's best-of-N, judged by the same model."""
    from its_hub.core.algorithms.bon import BestOfN
    from its_hub.core.reward_models.llm_judge import LLMJudge

    return _its_hub(where, lambda model, kind: BestOfN(LLMJudge(model)))  # noqa: ARG005


def its_hub_self_consistency(where: Where, sandbox: Sandboxed) -> Ask:  # noqa: ARG001
    """Return its_hub's self-consistency over what the replies answer."""
    from its_hub.core.algorithms.self_consistency import SelfConsistency

    def answer_in(kind: ReplyKind) -> Callable[[str], str]:
        def read(reply: str) -> str:
            answer = read_plain(reply, kind) or ""
            return str(last_number(answer)) if kind == "number" else answer

        return read

    return _its_hub(where, lambda model, kind: SelfConsistency(answer_in(kind)))  # noqa: ARG005


# --- the process -------------------------------------------------------------------------------------------

PEERS: dict[str, tuple[Callable[[Where, Sandboxed], Ask], tuple[str, ...]]] = {
    "smolagents": (smolagents_code_agent, ("smolagents",)),
    "langchain": (langchain_create_agent, ("langchain", "langgraph", "langchain-openai")),
    "its_hub best-of-n": (its_hub_best_of_n, ("its_hub",)),
    "its_hub self-consistency": (its_hub_self_consistency, ("its_hub",)),
}
"""By name how it is made, and the packages that it is."""


def packages(name: str) -> dict[str, str]:
    """Return the versions of a peer's packages. Raises PackageNotFoundError: it is not installed."""
    return {package: version(package) for package in PEERS[name][1]}


def serve_questions(name: str, where: Where, line: Connection) -> None:
    """Answer questions from the other end of a line, until it closes."""
    sandbox = Sandboxed()
    ask = PEERS[name][0](where, sandbox)
    line.send("ready")
    with suppress(EOFError):
        while True:
            question, kind = line.recv()
            answer, error = None, ""
            try:
                answer = ask(question, kind)
            except Exception as failure:  # whatever a framework raises is its answer to this task
                error = f"{type(failure).__name__}: {failure}"[:500]
            usage, programs = sandbox.take()
            line.send(Said(answer=answer, error=error, broken=sandbox.broken, usage=usage, programs=programs))
            sandbox.broken = ""
    sandbox.close()
