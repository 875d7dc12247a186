"""What each engine makes of this machine: prompt and decode tokens a second, CPU a token, and what starting costs.

    python benchmarks/engine_speed.py --rounds 2 --write docs/engine.md
    python benchmarks/engine_speed.py --models qwen2.5-coder-0.5b --ways wheel native --rounds 1

A way is an engine (`native`, `wheel`), with `-plain` after it when weights are used as they are in the file, and
`-stock` when llama.cpp's own matrix products are (docs/engine.md). Within a round the ways take turns on each model, so
that ratios are of one run. A measured cell (model, way, round) is a line of `--rows`, written at once: a run that was
stopped goes on from there. In each cell the engine is started afresh, then for each width: one prompt of some 400
tokens that it has not seen, and so many branches from it.

`--busy` measures four branches instead, with and without another process that keeps one CPU busy.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from pages import put
from platformdirs import user_cache_dir

from ponder.core.llama.engine import EngineSettings
from ponder.core.llama.llama_cpp import LlamaCppCore
from ponder.core.llama.native import NoNative, find_native
from ponder.machine import available_cpus, this_cpu
from ponder.models import ensure
from ponder.records import Message, Prompt, Record, SamplingParams
from ponder.sandboxes.groups import group_factory

MODELS = ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
WAYS = ("wheel", "native", "native-stock", "wheel-plain", "native-plain")
COMPARED = ("wheel", "native-stock")
"""What the native engine is set against."""
WIDTHS = (1, 2, 4, 8, 16)
BUSY_WIDTH = 4
BEGIN, END = "<!-- figures of benchmarks/engine_speed.py -->", "<!-- end of the figures -->"
VECTORS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
LEAST_KEPT = 0.4
"""Of its tokens per CPU-second, an engine keeps so much beside a busy process."""


class Rate(Record):
    """Tokens a second, and CPU milliseconds a token."""

    tokens_s: float
    cpu_ms: float


class Cell(Record):
    """One engine, started once. `prompt` and `decode` are by width."""

    model: str
    way: str
    round: int
    busy: bool | None
    """None: not a cell of `--busy`."""
    engine: str
    cpu: str
    start_wall_s: float
    start_cpu_s: float
    prompt: dict[int, Rate]
    decode: dict[int, Rate]

    @property
    def key(self) -> tuple[str, str, int, bool | None]:
        """What it is a measurement of."""
        return self.model, self.way, self.round, self.busy


# --- measuring --------------------------------------------------------------------------------------------------


async def measure(key: tuple[str, str, int, bool | None], widths: Sequence[int], tokens: int) -> Cell:
    """Start an engine, let it read and write, and end it."""
    model, way, number, busy = key
    engine, _, how = way.partition("-")
    settings = EngineSettings(model=ensure(model), engine=engine, repack=how != "plain")
    core = LlamaCppCore(settings, group_factory())
    os.environ["GGML_ROWS"] = str(int(how != "stock"))
    began = time.monotonic()
    try:
        await core.start()
        start_wall_s, start_cpu_s = time.monotonic() - began, core.read().cpu_s
        prompt, decode = {}, {}
        with spinning() if busy else contextlib.nullcontext():
            for width in widths:
                asked = unseen(f"{number} {width} {way}")
                prompt[width] = await rate(core, asked, 1, 1)
                decode[width] = await rate(core, asked, width, tokens)
        return Cell(
            model=model, way=way, round=number, busy=busy, engine=str(core.manifest()["engine"]), cpu=this_cpu().model,
            start_wall_s=start_wall_s, start_cpu_s=start_cpu_s, prompt=prompt, decode=decode,
        )  # fmt: skip
    finally:
        await core.close()


async def rate(core: LlamaCppCore, prompt: Prompt, width: int, tokens: int) -> Rate:
    """Sample; one token alone is a measure of reading, more are one of writing."""
    cpu_s, began = core.read().cpu_s, time.monotonic()
    (done,) = await core.sample([prompt], width, SamplingParams(max_tokens=tokens, temperature=1.0))
    wall_s, cpu_s = time.monotonic() - began, core.read().cpu_s - cpu_s
    read = sum(one.usage.tokens_in - one.usage.tokens_cached for one in done)
    count = read if tokens == 1 else sum(one.usage.tokens_out for one in done)
    return Rate(tokens_s=count / wall_s, cpu_ms=cpu_s / count * 1e3)


def unseen(mark: str) -> Prompt:
    """Return a prompt that no cache has the beginning of."""
    text = f"Note {mark}. " + "The fish swam around the old lighthouse and looked for the keeper's lost lamp. " * 22
    return Prompt(messages=(Message(role="user", content=f"{text}\nGo on with this story for many pages."),))


@contextlib.contextmanager
def spinning() -> Iterator[None]:
    """Keep one CPU busy."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measured(path: Path) -> list[Cell]:
    """Return the cells of earlier runs."""
    return [Cell.model_validate_json(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(keys: Sequence[tuple[str, str, int, bool | None]], path: Path, widths: Sequence[int], tokens: int) -> None:
    """Measure what is not there yet."""
    there = {cell.key for cell in measured(path)}
    path.parent.mkdir(parents=True, exist_ok=True)
    for key in keys:
        if key in there:
            continue
        print("measuring", *key, file=sys.stderr, flush=True)
        cell = asyncio.run(measure(key, widths, tokens))
        with path.open("a") as file:
            file.write(cell.model_dump_json() + "\n")


# --- reporting --------------------------------------------------------------------------------------------------


def median(cells: Sequence[Cell], value: Callable[[Cell], float]) -> float:
    """Return the median over rounds."""
    return statistics.median(value(cell) for cell in cells)


def table(cells: Sequence[Cell]) -> list[str]:
    """Return a table, a line for each model and way."""
    head = ["model", "engine", "start: wall s, CPU-s", "prompt: tokens/s, CPU-ms a token"]
    head += [f"{width} wide" for width in WIDTHS]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for model, way in product(MODELS, WAYS):
        mine = [cell for cell in cells if (cell.model, cell.way) == (model, way)]
        if not mine:
            continue
        reads = [rate for cell in mine for rate in cell.prompt.values()]
        columns = [
            model, way, f"{median(mine, lambda c: c.start_wall_s):.1f}, {median(mine, lambda c: c.start_cpu_s):.1f}",
            f"{statistics.median(r.tokens_s for r in reads):.0f}, {statistics.median(r.cpu_ms for r in reads):.1f}",
        ]  # fmt: skip
        for width in WIDTHS:
            writes = [cell.decode[width] for cell in mine]
            speed = statistics.median(r.tokens_s for r in writes)
            columns.append(f"{speed:.0f}, {statistics.median(r.cpu_ms for r in writes):.0f}")
        lines.append(f"| {' | '.join(columns)} |")
    return lines


def ratios(cells: Sequence[Cell], other: str) -> dict[str, dict[str, float]]:
    """Return native over another way, of the same round: tokens a second."""
    found: dict[str, dict[str, float]] = {}
    for model in MODELS:
        by = {(cell.way, cell.round): cell for cell in cells if cell.model == model}
        pairs = [(by["native", n], by[other, n]) for way, n in by if way == "native" and (other, n) in by]
        if pairs:
            reads = [a.prompt[w].tokens_s / b.prompt[w].tokens_s for a, b in pairs for w in WIDTHS]
            found[model] = {"prompt": round(statistics.median(reads), 2)}
            for w in WIDTHS:
                writes = [a.decode[w].tokens_s / b.decode[w].tokens_s for a, b in pairs]
                found[model][f"{w} wide"] = round(statistics.median(writes), 2)
    return found


def kept(cells: Sequence[Cell]) -> dict[str, float]:
    """Return, by model and way, what an engine keeps of its idle tokens per CPU-second beside a busy process."""
    found: dict[str, list[float]] = {}
    by = {cell.key: cell for cell in cells}
    for (model, way, number, busy), cell in by.items():
        if busy and (idle := by.get((model, way, number, False))):
            share = idle.decode[BUSY_WIDTH].cpu_ms / cell.decode[BUSY_WIDTH].cpu_ms
            found.setdefault(f"{model} {way}", []).append(share)
    return {name: round(statistics.median(shares), 2) for name, shares in found.items()}


def report(cells: Sequence[Cell]) -> list[str]:
    """Return the figures as a page's lines."""
    idle = [cell for cell in cells if cell.busy is None]
    cpu = this_cpu()
    can = [word for word in VECTORS if word in cpu.features]
    rounds = len({cell.round for cell in idle})
    engines = sorted({cell.engine for cell in cells})
    lines = [
        f"{cpu.model}, {available_cpus()} CPUs ({', '.join(can) or 'no vector extensions told'}), "
        f"{platform.system()}; {'; '.join(engines)}. Medians of {rounds} round(s); "
        "branches: tokens/s of all together, CPU-ms a token. `-plain`: weights are used as they are in the file; "
        "`-stock`: without matrix products of our own.",
        "", *table(idle), "",
    ]  # fmt: skip
    for other in COMPARED:
        for model, ratio in ratios(idle, other).items():
            said = ", ".join(f"{name} {value:.2f}" for name, value in ratio.items())
            lines.append(f"- native / {other}, tokens/s, {model}: {said}.")
    for name, share in kept(cells).items():
        lines.append(f"- {name}, {BUSY_WIDTH} wide beside a busy process: keeps {share:.0%} of its tokens per CPU-s.")
    return lines


def main() -> int:
    """Return the exit code: 1 when an engine keeps too little beside a busy process."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32, help="of each branch")
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--rows", type=Path, default=Path(user_cache_dir("ponder")) / "engine_speed.jsonl")
    parser.add_argument("--write", type=Path, help="page whose figures are replaced")
    options = parser.parse_args()
    ways = list(options.ways)
    try:
        find_native()
    except NoNative as missing:
        print(f"the native engine is left out: {missing}", file=sys.stderr)
        ways = [way for way in ways if not way.startswith("native")]
    states: tuple[bool | None, ...] = (False, True) if options.busy else (None,)
    keys = [(m, w, n, b) for n, m, w, b in product(range(options.rounds), options.models, ways, states)]
    run(keys, options.rows, (BUSY_WIDTH,) if options.busy else WIDTHS, options.tokens)
    cells = measured(options.rows)
    lines = report(cells)
    print("\n".join(lines), file=sys.stderr)
    if options.write:
        put("\n".join(lines), options.write, BEGIN, END)
    shares = kept(cells)
    idle = [cell for cell in cells if cell.busy is None]
    last: dict[str, Any] = {f"native_over_{other}": ratios(idle, other) for other in COMPARED}
    print(json.dumps(last | {"kept_beside_a_busy_process": shares}))
    return 1 if any(share < LEAST_KEPT for share in shares.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
