"""Ask a native engine that was just built a question, and put it in place when it answers. For build-native.sh."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path

from ponder.core.llama.engine import EngineSettings
from ponder.core.llama.llama_cpp import LlamaCppCore
from ponder.core.llama.native import PROGRAM, RECORD, Build, engine_dir
from ponder.errors import PonderError
from ponder.machine import this_cpu
from ponder.models import ensure, is_here, load_registry
from ponder.records import Message, Prompt, SamplingParams
from ponder.sandboxes.groups import group_factory

QUESTION = Prompt(messages=(Message(role="user", content="Is the sea wet? Answer yes or no."),))
ANSWERS = ("yes", "no")
GRAMMAR = 'root ::= "yes" | "no"\n'


def weights() -> Path:
    """Return the smallest weights that are here, else fetch the smallest there are (about 100 MB)."""
    models = sorted(load_registry().values(), key=lambda model: model.bytes)
    here = [model for model in models if is_here(model.name)]
    return ensure((here or models)[0].name)


async def ask(model: Path) -> None:
    """Raises PonderError: the engine does not start, or says what it should not."""
    core = LlamaCppCore(EngineSettings(model=model, engine="native", n_ctx=512), group_factory())
    try:
        await core.start()
        (said,) = await core.sample([QUESTION], 3, SamplingParams(max_tokens=8, temperature=1.0, grammar=GRAMMAR))
    finally:
        await core.close()
    for one in said:
        if one.error or one.text not in ANSWERS or not one.logprobs:
            raise PonderError(f"it said {one.error or one.text!r}, not yes or no")


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=Path, required=True)
    for name in ("version", "source", "sha256"):
        parser.add_argument(f"--{name}", required=True)
    options, flags = parser.parse_known_args()
    target = engine_dir()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="engine-new-") as folder:
        new = Path(folder)
        shutil.copy(options.program, new / PROGRAM)
        build = Build(
            version=options.version, source=options.source, sha256=options.sha256, flags=tuple(flags),
            cpu=this_cpu(), bytes=(new / PROGRAM).stat().st_size,
        )  # fmt: skip
        (new / RECORD).write_text(build.model_dump_json(indent=1))
        os.environ["PONDER_ENGINE_DIR"] = folder
        try:
            asyncio.run(ask(weights()))
        except PonderError as error:
            print(error, file=sys.stderr)
            return 5
        (target / RECORD).unlink(missing_ok=True)  # a program without its record is not used
        os.replace(new / PROGRAM, target / PROGRAM)
        os.replace(new / RECORD, target / RECORD)
    print(f"the native engine ({build.version}) is in {target}; ponder uses it from now on", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
