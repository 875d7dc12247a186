"""`ponder ask`: one question, one search, one answer with its bill."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from ponder.billing import Prices
from ponder.errors import UsageError
from ponder.policies.hosts import HostRules
from ponder.records import Budget, SuccessCriterion, Task

EPILOG = """Examples:

  ponder ask "What is the 2000th prime number?"

  ponder ask "Write add(a, b)" --tests test_add.py --budget-cpu 60 --budget-tool python=20

  ponder ask "Which year is named on the page?" --url http://127.0.0.1:8000/ --allow-private

  ponder ask "How long is the coast of Norway in km?" --risk 0.1

  ponder ask "What is the 2000th prime number?" --value 3000 --price python=10

  ponder ask "How many days from 1999-12-31 to 2026-11-22?" --json | python -m json.tool
"""


CORE_HELP = (
    "A model's name (`ponder models list`), a .gguf file, openai:MODEL@URL (any OpenAI-compatible server), "
    "transformers:FOLDER, or cassette:FILE (replay of --record FILE)."
)
VALUE_HELP = "What a right answer is worth, in CPU seconds: the learned stop weighs it."
RISK_HELP = "Of what a full search gets right, lose at most this share by stopping early (0.1, or 10%)."
SAMPLES_HELP = "Branches at most; by default 16 of auto, 6 or 8 of the others."
PRICE_HELP = "What a CPU second of this tool (core, python, browser) counts, instead of 1; may be repeated."


def ask(
    question: Annotated[str, typer.Argument(help="What you want to know. `-` reads it from standard input.")],
    core: Annotated[str | None, typer.Option(help=CORE_HELP)] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Write all that the core, its tools and the run do into this new file: a cassette."),
    ] = None,
    budget_cpu: Annotated[float | None, typer.Option(help="Stop after this many CPU seconds.")] = None,
    budget_wall: Annotated[float | None, typer.Option(help="Stop after this many seconds.")] = None,
    budget_tokens: Annotated[int | None, typer.Option(help="Stop after this many computed tokens.")] = None,
    budget_cost: Annotated[float | None, typer.Option(help="Stop at this cost (1 is a CPU second).")] = None,
    budget_tool: Annotated[
        list[str] | None,
        typer.Option(metavar="TOOL=CPU_S", help="CPU seconds of one tool (core, python, browser); may be repeated."),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(help="How to search: auto (default), best-of-n, self-consistency, revision, mcts or ab-mcts."),
    ] = None,
    value: Annotated[float | None, typer.Option(help=VALUE_HELP)] = None,
    risk: Annotated[float | None, typer.Option(help=RISK_HELP, parser=share, metavar="SHARE")] = None,
    price: Annotated[list[str] | None, typer.Option(metavar="TOOL=X", help=PRICE_HELP)] = None,
    samples: Annotated[int | None, typer.Option("-n", "--samples", min=1, max=64, help=SAMPLES_HELP)] = None,
    tools: Annotated[str, typer.Option(help="Tools the core may use, comma-separated.")] = "python,browser",
    url: Annotated[list[str] | None, typer.Option(help="A page to answer from; may be repeated.")] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Permit pages on private and loopback addresses.")
    ] = False,
    allow_host: Annotated[list[str] | None, typer.Option(help="Permit this HOST[:PORT]; may be repeated.")] = None,
    tests: Annotated[Path | None, typer.Option(help="A Python file of asserts that the answer must pass.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> int:
    """Search for the answer to a question, and stop when another step is not worth its cost.

    Exit codes: 0 answered; 2 bad input; 3 stopped by a budget; 4 no answer; 5 something on this machine is missing
    or broke; 130 interrupted. Ctrl-C gives the best answer so far.
    """
    task = _task(question, url or [], tests)
    budget = _budget(budget_cpu, budget_wall, budget_tokens, budget_cost, budget_tool or [])
    prices = prices_of(price or [])
    from ponder.agent import Agent
    from ponder.cli.view import search_and_print
    from ponder.parts import DEFAULT_CORE, DEFAULT_STRATEGY, check_tools, make_strategy

    hosts = _hosts(task, allow_private, allow_host or [])
    names = check_tools([name.strip() for name in tools.split(",") if name.strip()])
    make = partial(
        Agent,
        core or DEFAULT_CORE,
        tools=names,
        strategy=make_strategy(names, strategy or DEFAULT_STRATEGY, samples),
        value=value,
        risk=risk,
        prices=prices,
        hosts=hosts,
        record=record,
    )
    return search_and_print(
        make, lambda agent, hear: agent.run(task, budget=budget, on_event=hear), as_json=as_json, quiet=quiet
    )


def _task(question: str, urls: list[str], tests: Path | None) -> Task:
    prompt = _read_question() if question == "-" else question
    success = SuccessCriterion(kind="tests", visible=_read_tests(tests)) if tests else None
    try:
        return Task(prompt=prompt, urls=tuple(urls), success=success)
    except ValidationError as error:
        raise UsageError(_words(error)) from error


def _read_question() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UsageError(f"the question on standard input is not text in {error.encoding}") from error


def _budget(
    cpu: float | None, wall: float | None, tokens: int | None, cost: float | None, tools: list[str]
) -> Budget:
    try:
        per_tool = {tool: Budget.model_validate({"cpu_seconds": seconds}) for tool, seconds in _by_tool(tools)}
        return Budget(cpu_seconds=cpu, wall_seconds=wall, tokens=tokens, cost=cost, per_tool=per_tool)
    except ValidationError as error:
        why = f"a budget must be a number greater than zero ({_words(error)})"
        raise UsageError(why, fix="leave it out for none") from error


def share(text: str) -> float:
    """Return a share that is written as 0.05 or as 5%. Raises BadParameter."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no share: write 0.05 or 5%") from None


def prices_of(texts: list[str]) -> Prices:
    """Return the prices in `TOOL=X` words. Raises UsageError."""
    try:
        return Prices(per_tool={tool: Prices.model_validate({"cpu_second": x}) for tool, x in _by_tool(texts)})
    except ValidationError as error:
        why = f"a price is a tool's name and a number, as in python=10 ({_words(error)})"
        raise UsageError(why, fix="leave it out where a CPU second counts 1") from error


def _by_tool(texts: list[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        tool, _, number = text.partition("=")
        yield tool.strip(), number.strip()


def _words(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return message if not where or "empty" in message else f"{where}: {message}"


def _read_tests(path: Path) -> tuple[str, ...]:
    """Return the file's checks: each top-level assert is one, with what stands before it that is no assert."""
    try:
        source = path.read_text("utf-8")
        tree = ast.parse(source, str(path))
    except OSError as error:
        raise UsageError(f"cannot read the tests file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the tests file {path} is not text") from error
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"the tests file {path} is not Python: {error}") from error
    if not tree.body:
        raise UsageError(f"the tests file {path} is empty")
    if not all(isinstance(statement, ast.Assert) for statement in tree.body):
        return (source,)
    return tuple(ast.get_source_segment(source, statement) or "" for statement in tree.body)


def _hosts(task: Task, allow_private: bool, allowed: list[str]) -> HostRules:
    try:
        hosts = HostRules(allow_private=allow_private, permitted=frozenset(allowed))
    except ValueError as error:
        raise UsageError(f"--allow-host: {error}") from error
    for url in task.urls:
        verdict = hosts.check_url(url)
        if not verdict.allowed:
            raise UsageError(f"cannot open {url}: {verdict.why}", fix="see --allow-private and --allow-host")
    return hosts
