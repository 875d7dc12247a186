"""What a token costs: CPU seconds of a prompt token, and of a written one by the number of branches together.

    python benchmarks/rates.py --core qwen2.5-coder-1.5b --write policies/weights/rates.json

`ponder policy eval` works out with these what a search would have cost that stopped earlier, or took fewer branches at
once. Widths take turns over the rounds; the median of the rounds counts. Run it on an idle machine: with --write the
core's figures are put beside those of other cores.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from pages import exit_status

from ponder.core.llama.llama_cpp import LlamaCppCore
from ponder.errors import UsageError
from ponder.ledger import Ledger
from ponder.machine import this_cpu
from ponder.parts import DEFAULT_CORE, open_core
from ponder.policies.replay.rates import Rates
from ponder.records import Message, Prompt, SamplingParams
from ponder.sandboxes.groups import group_factory

WIDTHS = (1, 2, 4, 8, 16, 32)
TOKENS = 64
_STORY = "A farmer counts {number} sheep on the first day, and each day he buys a few more and sells some. " * 14
"""Some 300 tokens, as long as a task with its instructions."""


async def measure(name: str, rounds: int) -> Rates:
    """Return the rates of one core. Raises PonderError."""
    core = await open_core(name, group_factory(), None, Ledger(), branches=max(WIDTHS))
    if not isinstance(core, LlamaCppCore):
        raise UsageError("rates are measured with the engine's own cores")
    await core.start()
    prompt_s: list[float] = []
    token_s: dict[int, list[float]] = defaultdict(list)
    try:
        for turn in range(rounds):
            for width in WIDTHS:
                text = _STORY.format(number=100 * turn + width) + "Write down, step by step, what he owns each day."
                prompt = Prompt(messages=(Message(role="user", content=text),))
                ((first,),) = await core.sample([prompt], 1, SamplingParams(temperature=1.0, max_tokens=1))
                fresh = first.usage.tokens_in - first.usage.tokens_cached
                prompt_s.append(first.usage.cpu_s / max(1, fresh))
                (said,) = await core.sample([prompt], width, SamplingParams(temperature=1.0, max_tokens=TOKENS))
                wrote = sum(one.usage.tokens_out for one in said)
                token_s[width].append(sum(one.usage.cpu_s for one in said) / wrote)
                told = f"{1000 * token_s[width][-1]:.0f} CPU-ms a token"
                print(f"round {turn + 1}, {width} wide: {told}", file=sys.stderr)
        facts = core.manifest()
    finally:
        await core.close()
    machine = f"{this_cpu().model}, {facts['threads']} thread(s), {facts['engine']}"
    return Rates(
        core=name, machine=machine, prompt_token_s=_short(prompt_s),
        token_s={width: _short(token_s[width]) for width in WIDTHS},
    )  # fmt: skip


def _short(values: list[float]) -> float:
    return float(f"{statistics.median(values):.3g}")


def main() -> None:
    """Measure, and print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", default=DEFAULT_CORE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="put the core's rates into this file")
    options = parser.parse_args()
    rates = asyncio.run(measure(options.core, options.rounds))
    if options.write:
        known = json.loads(options.write.read_text()) if options.write.exists() else {}
        known[options.core] = rates.model_dump(mode="json")
        options.write.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", "utf-8")
    print(rates.model_dump_json())


if __name__ == "__main__":
    sys.exit(exit_status(main))
