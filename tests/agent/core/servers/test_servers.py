"""What a server is taken for, from what it says of itself, and how requests are worded for it."""

from __future__ import annotations

from typing import Any

from ponder.core.servers.kinds import Server, identify

BODY = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "A:"}], "temperature": 0.8}


async def seen(owner: str, pages: dict[str, Any], model: str = "m", **entry: Any) -> Server:
    async def look(path: str) -> dict[str, Any] | None:
        return pages.get(path)

    return await identify(model, {"data": [{"id": model, "owned_by": owner, **entry}]}, look)


def schema(*fields: str) -> dict[str, Any]:
    return {"components": {"schemas": {"ChatCompletionRequest": {"properties": dict.fromkeys(fields)}}}}


async def test_llama_cpp() -> None:
    props = {"build_info": "b7000-abc", "model_path": "/home/me/models/small.gguf"}
    server = await seen("llamacpp", {"/props": props}, meta={"n_ctx": 4096})
    assert server.engine == "llama.cpp b7000-abc"
    assert server.facts == {"file": "small.gguf", "n_ctx": 4096}, "no folder of the server's own"
    body = server.fit(BODY, "root ::= x")
    assert (body["grammar"], body["return_progress"]) == ("root ::= x", True)


async def test_vllm_says_in_its_schema_what_it_knows() -> None:
    pages = {"/openapi.json": schema("continue_final_message", "structured_outputs"), "/version": {"version": "0.12"}}
    server = await seen("vllm", pages, max_model_len=8192)
    assert (server.engine, server.facts["n_ctx"], server.begins) == ("vllm 0.12", 8192, "flags")
    body = server.fit(BODY, "root ::= x")
    assert body["structured_outputs"] == {"grammar": "root ::= x"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    older = await seen("vllm", {"/openapi.json": schema("guided_grammar")})
    assert older.fit(BODY, "root ::= x")["guided_grammar"] == "root ::= x"


async def test_ollama_tells_the_digest() -> None:
    pages = {"/api/version": {"version": "0.9"}, "/api/tags": {"models": [{"name": "m:latest", "digest": "abc"}]}}
    server = await seen("library", pages)
    assert (server.engine, server.begins, server.facts) == ("ollama 0.9", "continues", {"sha256": "abc"})
    assert "grammar" not in server.fit(BODY, "root ::= x")


async def test_tgi_and_the_unknown() -> None:
    tgi = await seen("m", {"/info": {"model_id": "m", "model_sha": "c0ffee", "version": "3.0"}})
    assert (tgi.engine, tgi.facts, tgi.begins) == ("text-generation-inference 3.0", {"revision": "c0ffee"}, "told")
    unknown = await seen("", {})
    assert (unknown.engine, unknown.begins, unknown.grammar) == (Server.engine, "told", None)


def test_what_is_refused_is_left_out_and_a_prefill_is_then_asked_for() -> None:
    server = Server(prefill="flags", grammar="guided_grammar")
    body = server.fit(BODY, "root ::= x")
    assert not server.learn(body, "failed to parse grammar"), "that is the request's fault"
    assert server.learn(body, "continue_final_message: Extra inputs are not permitted")
    assert server.begins == "told"
    assert "continue_final_message" not in server.fit(BODY, None)


def test_a_model_that_thinks_is_told_not_to_where_its_turn_is_begun() -> None:
    server, words = Server(prefill="continues"), "Assistant response prefill is incompatible with enable_thinking."
    assert "chat_template_kwargs" not in server.fit(BODY, None)
    assert server.learn(BODY, words)
    assert server.fit(BODY, None)["chat_template_kwargs"] == {"enable_thinking": False}
    assert server.begins == "continues"
    assert server.learn(BODY, words), "it thinks all the same"
    assert server.begins == "told"
    assert not server.learn(BODY, words)
