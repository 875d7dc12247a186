"""What chat servers have in common: a request's body, the stream of chunks, and what they say of each sample."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from ponder.records import Completion, Prompt, SamplingParams, Usage

OnDone = Callable[[int, int, Completion], None]
_SHOWN = 300
"""Characters of a server's own words in an error."""


class Refused(Exception):
    """The server answered with an error of its own: the request was wrong, the server lives."""


class Rubbish(Exception):
    """What came is no answer of a chat server."""


@dataclass(eq=False)
class Sample:
    """One continuation on its way."""

    text: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[dict[str, float]] = field(default_factory=list)
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    computed: float = 0.0
    """Prompt tokens computed for it: its share, where siblings have one prefill."""
    finish: str | None = None
    done: bool = False


_S = TypeVar("_S", bound=Sample)


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """Yield lines as server-sent events have them. httpx's own also end at U+2028 and its like, which answers hold."""
    rest = b""
    async for piece in response.aiter_bytes():
        *whole_ones, rest = (rest + piece).split(b"\n")
        for line in whole_ones:
            yield line.rstrip(b"\r").decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def ignore(_prompt: int, _sample: int, _completion: Completion) -> None:
    """Be the `on_done` of a caller who has none."""


async def all_or_none(requests: Iterable[Coroutine[Any, Any, list[Completion]]]) -> list[list[Completion]]:
    """Await requests side by side; when one fails, or this is cancelled, the others end before the error goes on."""
    tasks = [asyncio.ensure_future(request) for request in requests]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def request_body(prompt: Prompt, n: int, params: SamplingParams) -> dict[str, Any]:
    """Return the body that every chat server understands; a prefill is its last, unfinished message."""
    messages = [message.model_dump() for message in prompt.messages]
    if prompt.prefill:
        messages.append({"role": "assistant", "content": prompt.prefill})
    body: dict[str, Any] = {
        "messages": messages,
        "n": n,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "max_tokens": params.max_tokens,
        "stop": list(params.stop),
        "logprobs": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if params.alternatives:
        body["top_logprobs"] = params.alternatives
    if params.seed is not None:
        body["seed"] = params.seed
    return body


async def chunks(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Yield the chunks of a streamed answer (server-sent events).

    Raises:
        Refused: an error came in the stream.
        Rubbish: a line is no JSON object.
        httpx.HTTPError: the connection broke.
    """
    async for line in _lines(response):
        if line.startswith("error: "):
            raise Refused(error_text(line.removeprefix("error: ").encode()))
        if not line.startswith("data:"):
            continue  # an empty line, a comment that keeps the connection open, or a field that we have no use for
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        try:
            chunk = json.loads(data)
        except ValueError:
            chunk = None
        if not isinstance(chunk, dict):
            raise Rubbish(shorten(data))
        if chunk.get("error"):
            raise Refused(error_text(data.encode()))
        yield chunk


def whole(body: bytes) -> dict[str, Any]:
    """Return an answer that came in one piece as if it were a chunk. Raises Refused, Rubbish."""
    said = whole_object(body)
    if "choices" not in said:
        raise Rubbish(shorten(body.decode(errors="replace")))
    return said


def whole_object(body: bytes) -> dict[str, Any]:
    """Return a JSON object that came in one piece. Raises Refused, Rubbish."""
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise Rubbish(shorten(body.decode(errors="replace")) or "nothing")
    if said.get("error"):
        raise Refused(error_text(body))
    return said


def take(chunk: dict[str, Any], samples: Sequence[_S], *, usage_each: bool) -> list[_S]:
    """Note what a chunk brings; return the samples that it completes.

    Args:
        usage_each: the server sends a usage chunk after every choice (llama.cpp). Elsewhere one comes at the end for
            all, so that only the last sample to finish waits for it and the others count their own tokens.

    Raises:
        Rubbish: the chunk is not shaped like one.
    """
    try:
        return _take(chunk, samples, usage_each)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise Rubbish(shorten(json.dumps(chunk))) from error


def _take(chunk: dict[str, Any], samples: Sequence[_S], usage_each: bool) -> list[_S]:
    ended = []
    usage = chunk.get("usage")
    choices = chunk.get("choices") or []
    if progress := chunk.get("prompt_progress"):
        _note_progress(progress, samples)
    for choice in choices:
        sample = samples[choice.get("index", 0)]
        _note_choice(choice, sample)
        if sample.done or not sample.finish:
            continue
        if usage:
            _note_usage(usage, sample, 0 if usage_each else _of_others(samples, sample))
        if usage or (not usage_each and any(not other.finish for other in samples)):
            ended.append(sample)
    if usage and not choices:
        # This chunk names no index. Where choices finish one after the other, it belongs to the one that has its
        # finish reason and no usage yet; where it comes once, it is the sum.
        waiting = [sample for sample in samples if sample.finish and not sample.done]
        if waiting:
            _note_usage(usage, waiting[0], 0 if usage_each else _of_others(samples, waiting[0]))
            ended.append(waiting[0])
    for sample in ended:
        sample.done = True
    return ended


def _note_progress(progress: dict[str, Any], samples: Sequence[Sample]) -> None:
    # Siblings share one prefill: its work is divided among them, and all but the first have it from the cache.
    fresh = (progress["processed"] - progress["cache"]) / len(samples)
    for i, sample in enumerate(samples):
        sample.tokens_in = progress["total"]
        sample.tokens_cached = progress["total"] if i else progress["cache"]
        sample.computed = max(sample.computed, fresh)


def _note_choice(choice: dict[str, Any], sample: Sample) -> None:
    delta = choice.get("delta") or choice.get("message") or {}
    tokens = (choice.get("logprobs") or {}).get("content") or ()
    if piece := delta.get("content") or choice.get("text"):  # `text`: a stream of completions without a chat
        sample.text.append(piece)
    if tokens or piece:
        sample.tokens_out += len(tokens) or 1
    for token in tokens:
        sample.logprobs.append(min(0.0, float(token["logprob"])))
        if others := token.get("top_logprobs"):
            sample.alternatives.append({other["token"]: float(other["logprob"]) for other in others})
    sample.finish = choice.get("finish_reason") or sample.finish


def _of_others(samples: Sequence[Sample], one: Sample) -> int:
    return sum(sample.tokens_out for sample in samples if sample is not one)


def _note_usage(usage: dict[str, Any], sample: Sample, others: int) -> None:
    sample.tokens_out = max(usage["completion_tokens"] - others, 0) or sample.tokens_out
    if not sample.tokens_in:  # nothing was said of the prompt until now
        details = usage.get("prompt_tokens_details") or {}
        sample.tokens_in = usage["prompt_tokens"]
        sample.tokens_cached = min(details.get("cached_tokens") or 0, sample.tokens_in)


def completion(sample: Sample, text: str, usage: Usage, *, finish: str, error: str | None = None) -> Completion:
    """Return the record of a sample that ended; a finish reason of the server's own invention means `stop`."""
    if finish == "content_filter" and error is None:
        finish, error = "error", "the server's content filter ended this answer"
    return Completion(
        text=text,
        finish_reason=finish if finish in ("stop", "length", "cancelled", "error") else "stop",  # type: ignore[arg-type]
        logprobs=tuple(sample.logprobs),
        alternatives=tuple(sample.alternatives),
        usage=usage,
        error=error,
    )


def refusal(prompt: Prompt) -> str | None:
    """Return why no server should be asked this, or None: some continue nothing with anything."""
    return None if prompt.messages else "the prompt has no messages"


def error_text(body: bytes) -> str:
    """Return the words of an error that a server sent, in any of the shapes in use."""
    try:
        said = json.loads(body)
    except ValueError:
        return shorten(body.decode(errors="replace"))
    for key in ("error", "detail", "message"):
        if isinstance(said, dict) and said.get(key):
            said = said[key]
    return shorten(said if isinstance(said, str) else json.dumps(said))


def shorten(text: str) -> str:
    """Return one line of at most 300 characters."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
