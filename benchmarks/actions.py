"""How many sampled steps are valid actions, and whether the grammar costs right answers.

    python benchmarks/actions.py --data FOLDER --core qwen2.5-coder-0.5b --core smollm2-135m    500 completions each
    python benchmarks/actions.py --data FOLDER --core qwen2.5-coder-0.5b --accuracy             90 MBPP tasks, twice
    python benchmarks/actions.py --data FOLDER --core qwen2.5-coder-0.5b --after                40 steps
    python benchmarks/actions.py --report                                           writes the tables of docs/actions.md

Steps are asked for as a run asks for them: by our prompts, with our grammar, first steps and steps after an
observation, a quarter each from MBPP (train), GSM8K (train), reasoning-gym and made-up pages; only the temperature is
0.8 for all, and a step has 224 tokens (a run: 512), so that a full run is affordable. What is done is kept in JSON
lines: a run that was stopped goes on where it was. FOLDER holds mbpp_train.jsonl, mbpp_validation.jsonl and
gsm8k_train_2000.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from action_report import write_report
from action_tasks import Case, gsm8k_cases, gym_cases, mbpp_cases, mbpp_task, page_cases, rows

from ponder.actions import compile_error
from ponder.ledger import Ledger
from ponder.parts import file_name_of, open_core
from ponder.prompting import Prompting, Reading, StepRequest
from ponder.prompts import prompts_for
from ponder.protocols import Core
from ponder.records import Answer, Completion, Limits, Reason, Repair, RunCode
from ponder.sandboxes import open_sandbox
from ponder.sandboxes.groups import group_factory
from ponder.tools.python import PythonTool
from ponder.tree import Tree

TEMPERATURE = 0.8
TOKENS, ACCURACY_TOKENS = 224, 400
SEED = 2026


class Records:
    """Rows on disk, one JSON object a line; what is there is not made again."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.done = {row["key"] for row in rows(path)} if path.exists() else set()

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; it is on disk before this returns."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.done.add(row["key"])


def cases(data: Path, each: int) -> list[Case]:
    """Return `each` cases of every suite, in turn, so that a short run sees all of them."""
    suites: list[Iterable[Case]] = [
        mbpp_cases(data / "mbpp_train.jsonl"),
        gsm8k_cases(data / "gsm8k_train_2000.jsonl"),
        gym_cases(SEED, each),
        page_cases(SEED, each),
    ]
    picked = [list(itertools.islice(suite, each)) for suite in suites]
    return [case for group in zip(*picked, strict=True) for case in group]


async def in_turn(work: list[Callable[[], Awaitable[None]]], width: int) -> None:
    """Do it all, `width` at a time."""
    gate = asyncio.Semaphore(width)

    async def one(task: Callable[[], Awaitable[None]]) -> None:
        async with gate:
            await task()

    await asyncio.gather(*(one(task) for task in work))


def at(request: StepRequest, *, temperature: float, grammar: bool = True) -> StepRequest:
    """Return the request at another temperature, and perhaps without its grammar."""
    update: dict[str, Any] = {"temperature": temperature} | ({} if grammar else {"grammar": None})
    return request.model_copy(update={"params": request.params.model_copy(update=update)})


def describe(request: StepRequest, completion: Completion, reading: Reading) -> dict[str, Any]:
    """Return what a table needs of one completion."""
    action = reading.action
    code = action.code if isinstance(action, RunCode) else action.text if request.kind == "code" else ""  # type: ignore[union-attr]
    error = compile_error(code) if code and not isinstance(action, Reason) else None
    return {
        "text": request.prompt.prefill + completion.text,
        "finish": completion.finish_reason,
        "act": action.type,
        "wrong": reading.wrong,
        "compile_error": error,
        "parses": reading.wrong is None or (error is not None and not reading.cut),
        "valid": reading.wrong is None,
        "tokens_in": completion.usage.tokens_in,
        "tokens_out": completion.usage.tokens_out,
        "cpu_s": round(completion.usage.cpu_s, 4),
    }


async def sample_steps(core: Core, name: str, options: argparse.Namespace) -> None:
    """Sample the steps of one core."""
    grammar = not options.no_grammar
    records = Records(options.records / f"{file_name_of(name)}{'' if grammar else '.free'}.steps.jsonl")
    prompting = _prompting(core, TOKENS)
    each = -(-options.completions // (4 * options.samples))
    todo = [(case, f"{case.name}#{sample}") for case in cases(options.data, each) for sample in range(options.samples)]
    todo = [(case, key) for case, key in todo[: options.completions] if key not in records.done]
    todo = [(case, key) for case, key in todo if options.suite in (None, case.name.split("/")[0])]
    todo = todo[: options.limit]

    async def one(case: Case, key: str) -> None:
        request = at(prompting.step(case.tree, case.parent, case.kind), temperature=TEMPERATURE, grammar=grammar)
        began = time.monotonic()
        completion, reading = await _ask(core, prompting, case.tree, request)
        row = describe(request, completion, reading) | {"repaired": None}
        if reading.wrong is not None:
            repair = Repair(kind=request.kind, text=str(row["text"]), wrong=reading.wrong)
            again = at(prompting.repair(case.tree, case.parent, repair), temperature=TEMPERATURE, grammar=grammar)
            row["repaired"] = describe(again, *await _ask(core, prompting, case.tree, again))
        about = {"key": key, "core": name, "suite": case.name.split("/")[0], "kind": case.kind}
        prompts = {"first": not case.parent, "prompts": prompting.prompts.version, "grammar": grammar}
        records.add(about | prompts | row | {"wall_s": round(time.monotonic() - began, 2)})

    await in_turn([lambda case=case, key=key: one(case, key) for case, key in todo], options.width)  # type: ignore[misc]


async def count_after(core: Core, name: str, options: argparse.Namespace) -> None:
    """Count the tokens that are paid for after an act's end, with any engine, from outside.

    A step is sampled greedily; then again with one token less, two less, until it does not end by itself any more:
    the last token that it cannot do without is the one that completes the mark of its end. One at a time: batches
    change the last bits, and then the text.
    """
    records = Records(options.records / f"{file_name_of(name)}.after.jsonl")
    prompting = _prompting(core, TOKENS)
    todo = [case for case in cases(options.data, 10)[: options.limit or 40] if case.name not in records.done]

    async def one(case: Case) -> None:
        request = at(prompting.step(case.tree, case.parent, case.kind), temperature=0.0)
        whole, _ = await _ask(core, prompting, case.tree, request)
        row = {"key": case.name, "core": name, "kind": case.kind, "tokens_out": whole.usage.tokens_out}
        if whole.finish_reason != "stop":
            records.add(row | {"after": None, "why": "it met the limit of tokens"})
            return
        for after in range(4):
            tokens = whole.usage.tokens_out - after - 1
            if tokens < 1:
                break
            less = request.model_copy(update={"params": request.params.model_copy(update={"max_tokens": tokens})})
            short, _ = await _ask(core, prompting, case.tree, less)
            if not whole.text.startswith(short.text[: len(whole.text)]):
                records.add(row | {"after": None, "why": "another text came: batches change the last bits"})
                return
            if short.finish_reason == "length":
                records.add(row | {"after": after})
                return
        records.add(row | {"after": after})

    await in_turn([lambda case=case: one(case) for case in todo], 1)  # type: ignore[misc]


async def check_accuracy(core: Core, name: str, options: argparse.Namespace) -> None:
    """Let one core write the validation programs greedily, with and without grammar; hidden tests grade them."""
    records = Records(options.records / f"{file_name_of(name)}.accuracy.jsonl")
    prompting, sandbox = _prompting(core, ACCURACY_TOKENS), await open_sandbox()
    python = PythonTool(sandbox)
    tasks = [mbpp_task(row) for row in rows(options.data / "mbpp_validation.jsonl")]

    async def one(index: int, grammar: bool) -> None:
        task, tree = tasks[index], Tree(tasks[index])
        assert task.success is not None
        request = at(prompting.step(tree, 0, "code"), temperature=0.0, grammar=grammar)
        completion, reading = await _ask(core, prompting, tree, request)
        passed = False
        if isinstance(reading.action, Answer):
            tests = [*task.success.visible, *task.success.hidden]
            seen = await python.check(reading.action.text, tests, limits=Limits(), on_usage=lambda _usage: None)
            passed = seen.ok
        about = {"key": f"{task.id}/{grammar}", "task": task.id, "core": name, "grammar": grammar, "passed": passed}
        records.add(about | {"prompts": prompting.prompts.version} | describe(request, completion, reading))

    todo = [(i, grammar) for i in range(len(tasks)) for grammar in (True, False)]
    todo = [(i, grammar) for i, grammar in todo if f"{tasks[i].id}/{grammar}" not in records.done][: options.limit]
    try:
        await in_turn([lambda i=i, g=g: one(i, g) for i, g in todo], options.width)  # type: ignore[misc]
    finally:
        await python.close()


async def _ask(core: Core, prompting: Prompting, tree: Tree, request: StepRequest) -> tuple[Completion, Reading]:
    ((completion,),) = await core.sample([request.prompt], 1, request.params)
    if completion.finish_reason == "error":
        raise SystemExit(f"the core failed: {completion.error}")
    cut = completion.finish_reason == "length"
    return completion, prompting.read(tree, request, completion.text, cut=cut)


def _prompting(core: Core, tokens: int) -> Prompting:
    return Prompting(["python", "browser"], prompts=prompts_for(core.manifest()), max_tokens=tokens)


async def measure(options: argparse.Namespace) -> None:
    """Measure the cores one after the other."""
    for name in options.core:
        core = await open_core(name, group_factory(), None, Ledger())
        try:
            await core.start()
            work = check_accuracy if options.accuracy else count_after if options.after else sample_steps
            await work(core, name, options)
        finally:
            await core.close()


def main() -> None:
    """Measure what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the task files")
    parser.add_argument("--core", action="append", default=[], help="a core; may be repeated")
    parser.add_argument("--records", type=Path, default=Path("benchmarks/records/actions"), help="where rows are kept")
    parser.add_argument("--completions", type=int, default=500, help="completions of each core")
    parser.add_argument("--samples", type=int, default=2, help="completions of each step")
    parser.add_argument("--width", type=int, default=12, help="branches at once")
    parser.add_argument("--limit", type=int, help="at most so many completions in this run")
    parser.add_argument("--suite", choices=("mbpp", "gsm8k", "gym", "page"), help="only the steps of this suite")
    parser.add_argument("--no-grammar", action="store_true", help="leave the grammar out: what the parser reads then")
    parser.add_argument("--accuracy", action="store_true", help="MBPP validation, with and without grammar")
    parser.add_argument("--after", action="store_true", help="count the tokens paid for after an act's end, 40 steps")
    parser.add_argument("--report", action="store_true", help="write the tables into docs/actions.md")
    options = parser.parse_args()
    if options.core:
        if options.data is None:
            parser.error("--data names the folder with the tasks")
        asyncio.run(measure(options))
    write_report(options.records, Path("docs/actions.md") if options.report else None)


if __name__ == "__main__":
    main()
