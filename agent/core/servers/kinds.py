"""Which chat server is at an address, and what it can do beyond the common ground: it is asked once, at the start."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Prefill = Literal["continues", "flags", "told"]
"""How the core's own turn is begun for it: the server goes on with a last message of the assistant by itself; it does
so when two flags say so; or the user's turn asks for that beginning, which a model may or may not follow."""

Look = Callable[[str], Awaitable[dict[str, Any] | None]]
"""Fetch one path of the server as a JSON object; None where there is no such thing."""

_UNKNOWN_FIELD = re.compile(
    r"un(?:known|expected|recogni[sz]ed|supported)|not (?:supported|permitted|allowed)|extra[_ ](?:inputs|forbidden)"
    r"|does not support|no longer supported",
    re.IGNORECASE,
)
_THINKS = re.compile(r"prefill\b.*\bincompatible with\b.*think", re.IGNORECASE)
"""llama.cpp's server, of a model that thinks before it answers: a turn that was begun for it would not begin so."""
THINKING, PREFILL = "thinking", "prefill"
"""What a server turns out not to do along with a turn that is begun: first thinking is put off, then that beginning."""
OPTIONAL = (
    "stream_options", "return_progress", "top_logprobs", "logprobs", "grammar", "structured_outputs",
    "guided_grammar", "ebnf", "generation_config", "continue_final_message", "add_generation_prompt", "seed", "top_p",
    "temperature", "n", "stop",
)  # fmt: skip
"""Fields that a request can do without, if need be."""


@dataclass(frozen=True)
class Server:
    """What a server is and can do. Frozen, but for `without`: what it turned out not to know."""

    engine: str = "OpenAI-compatible server"
    prefill: Prefill = "told"
    grammar: str | None = None
    """The field that takes a grammar: `grammar`, `structured_outputs`, `guided_grammar` or `ebnf`; None: none does."""
    usage_each: bool = False
    """A usage chunk follows every choice, not all of them."""
    progress: bool = False
    """It can report how far the prompt is computed."""
    must_be_told_to_sample: bool = False
    """It takes the likeliest token whatever the temperature says, unless its own switch is on."""
    facts: Mapping[str, str | int] = field(default_factory=dict)
    """What it says of the model: `sha256`, `revision`, `n_ctx`, `file`."""
    without: set[str] = field(default_factory=set)

    @property
    def begins(self) -> Prefill:
        """How a turn is begun, with what the server turned out not to know."""
        if PREFILL in self.without or (self.prefill == "flags" and "continue_final_message" in self.without):
            return "told"
        return self.prefill

    def fit(self, body: dict[str, Any], grammar: str | None) -> dict[str, Any]:
        """Return the request in this server's own words."""
        body = dict(body)
        if self.progress:
            body["return_progress"] = True
        if grammar and self.grammar == "structured_outputs":
            body["structured_outputs"] = {"grammar": grammar}
        elif grammar and self.grammar:
            body[self.grammar] = grammar
        if self.begins == "flags" and body["messages"][-1]["role"] == "assistant":
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if THINKING in self.without:
            body["chat_template_kwargs"] = {"enable_thinking": False}
        if self.must_be_told_to_sample and body["temperature"]:
            body["generation_config"] = json.dumps({"do_sample": True})
        if "max_tokens" in self.without:
            body["max_completion_tokens"] = body["max_tokens"]
        return {key: value for key, value in body.items() if key not in self.without}

    def learn(self, body: Mapping[str, Any], complaint: str) -> bool:
        """Note which field the server refuses; return whether the request is worth sending again without it."""
        if _THINKS.search(complaint):
            again = PREFILL not in self.without
            self.without.add(PREFILL if THINKING in self.without else THINKING)
            return again
        if not _UNKNOWN_FIELD.search(complaint):
            return False
        named = {name for name in (*OPTIONAL, "max_tokens") if re.search(rf"\b{name}\b", complaint)}
        new = named & set(body)
        if new == {"max_tokens"} and "max_completion_tokens" not in complaint:
            return False
        self.without.update(new)
        return bool(new)


async def identify(model: str, models: Mapping[str, Any], look: Look) -> Server:
    """Return what the server is.

    Args:
        models: what it answered to `GET /v1/models`; empty if nothing.
        look: fetches a path below its root (`/props`).
    """
    listed = [entry for entry in models.get("data") or () if isinstance(entry, dict)]
    own = next((entry for entry in listed if entry.get("id") == model), listed[0] if len(listed) == 1 else {})
    owner = str(own.get("owned_by", ""))
    if owner == "llamacpp":
        return await _llama_cpp(own, look)
    if owner == "library" and (version := await look("/api/version")):
        return await _ollama(model, version, look)
    if (info := await look("/info")) and "model_id" in info:
        facts = {"revision": info["model_sha"]} if isinstance(info.get("model_sha"), str) else {}
        return Server(engine=f"text-generation-inference {info.get('version', '')}".strip(), facts=facts)
    return await _by_schema(owner, own, look)


async def _llama_cpp(own: Mapping[str, Any], look: Look) -> Server:
    props = await look("/props") or {}
    facts: dict[str, str | int] = {}
    if isinstance(path := props.get("model_path"), str):
        facts["file"] = re.split(r"[/\\]", path)[-1]
    if isinstance(size := (own.get("meta") or {}).get("n_ctx"), int):
        facts["n_ctx"] = size
    return Server(
        engine=f"llama.cpp {props.get('build_info') or ''}".strip(),
        prefill="continues",
        grammar="grammar",
        usage_each=True,
        progress=True,
        facts=facts,
    )


async def _ollama(model: str, version: Mapping[str, Any], look: Look) -> Server:
    tags = await look("/api/tags") or {}
    digests = [tag.get("digest") for tag in tags.get("models") or () if tag.get("name") in (model, f"{model}:latest")]
    facts = {"sha256": digests[0]} if digests and isinstance(digests[0], str) else {}
    return Server(engine=f"ollama {version.get('version', '')}".strip(), prefill="continues", facts=facts)


async def _by_schema(owner: str, own: Mapping[str, Any], look: Look) -> Server:
    """vLLM, SGLang and `transformers serve` publish the schema of their requests: it says what they can do."""
    schema = await look("/openapi.json") or {}
    models = (schema.get("components") or {}).get("schemas") or {}
    fields = set((models.get("ChatCompletionRequest") or {}).get("properties") or ())
    facts: dict[str, str | int] = {}
    if isinstance(size := own.get("max_model_len"), int):
        facts["n_ctx"] = size
    if "/load_model" in (schema.get("paths") or {}):
        return Server(engine="transformers serve", must_be_told_to_sample=True)
    name = owner
    if owner in ("vllm", "sglang") and (version := await look("/version")):
        name = f"{owner} {version.get('version', '')}".strip()
    return Server(
        engine=name or Server.engine,
        prefill="flags" if "continue_final_message" in fields else "told",
        grammar=next((field for field in ("structured_outputs", "guided_grammar", "ebnf") if field in fields), None),
        facts=facts,
    )
