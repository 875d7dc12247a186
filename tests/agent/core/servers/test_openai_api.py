"""The openai core against a server that fails in every way, and against `transformers serve`."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from ponder.core.servers.openai_api import OpenAICore
from ponder.core.servers.wire import OpenAISettings, parse_name
from ponder.errors import CoreError, UsageError
from ponder.records import Completion, Message, Prompt, SamplingParams

KEY = "sk-a-key-that-nobody-may-see"
PROMPT = Prompt(messages=(Message(role="user", content="Tell me of a lighthouse."),))
Open = Callable[..., OpenAICore]


@pytest.fixture
async def connect(stub: Any) -> AsyncIterator[Open]:
    """Return a maker of cores that ask the stub, in a hurry."""
    made: list[OpenAICore] = []

    def make(**settings: Any) -> OpenAICore:
        hurry = {"url": stub.url, "key": SecretStr(KEY), "back_off_s": 0.01, "first_token_s": 5.0, "attempts": 3}
        made.append(OpenAICore(OpenAISettings(**(hurry | settings))))
        return made[-1]

    yield make
    for core in made:
        await core.close()


async def story(reply: Any, asked: Any) -> None:
    """Answer well: every choice says its number."""
    await reply.begin()
    for i in range(asked.body.get("n", 1)):
        await reply.chunk("once", i)
        await reply.chunk(f" more {i}", i)
        await reply.chunk("", i, "stop")
    await reply.usage(12, 4 * asked.body.get("n", 1), cached=5)


async def one(core: OpenAICore, prompt: Prompt = PROMPT, **params: Any) -> Completion:
    ((done,),) = await core.sample([prompt], 1, SamplingParams(**params))
    return done


# --- names -------------------------------------------------------------------------------------------------


def test_names_hold_the_model_and_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    named = parse_name("openai:qwen@q4_k_m@http://127.0.0.1:8000/v1/")
    assert (named.model, named.url) == ("qwen@q4_k_m", "http://127.0.0.1:8000/v1")
    assert KEY not in repr(named)
    with pytest.raises(UsageError, match="OPENAI_BASE_URL"):
        parse_name("openai:qwen")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://here/v1")
    assert parse_name("openai:qwen").url == "http://here/v1"
    for secret in (f"http://user:{KEY}@here/v1", f"http://here/v1?key={KEY}", "http://"):
        with pytest.raises(UsageError) as caught:
            parse_name(f"openai:qwen@{secret}")
        assert KEY not in str(caught.value)


# --- what comes --------------------------------------------------------------------------------------------


async def test_n_choices_come_for_one_request_and_the_bill_adds_up(stub: Any, connect: Open) -> None:
    stub.plays = [story]
    ends: list[int] = []
    (done,) = await connect().sample([PROMPT], 3, SamplingParams(), lambda _p, i, _c: ends.append(i))
    assert [sample.text for sample in done] == ["once more 0", "once more 1", "once more 2"]
    assert len(stub.asked) == 1
    assert ends == [0, 1, 2]
    assert sum(sample.usage.tokens_out for sample in done) == 12
    assert all(sample.usage.tokens_in > 0 for sample in done)
    computed = [sample.usage.tokens_in - sample.usage.tokens_cached for sample in done]
    assert computed[1:] == [0, 0], "one prefill is charged once"


async def test_a_server_that_answers_once_whatever_n_says_is_asked_side_by_side(stub: Any, connect: Open) -> None:
    async def once(reply: Any, asked: Any) -> None:
        asked.body["n"] = 1
        await story(reply, asked)

    stub.plays = [once]
    core = connect()
    (done,) = await core.sample([PROMPT], 3, SamplingParams())
    assert [sample.text for sample in done] == ["once more 0"] * 3
    assert len(stub.asked) == 3
    await core.sample([PROMPT], 3, SamplingParams())
    assert len(stub.asked) == 6, "it is remembered"


@pytest.mark.parametrize("words", ["n must be 1", "Unsupported parameter: 'n'"])
async def test_a_server_that_refuses_n(stub: Any, connect: Open, words: str) -> None:
    async def refuse(reply: Any, asked: Any) -> None:
        if asked.body.get("n", 1) > 1:
            await reply.send(400, {"error": {"message": words}})
        else:
            await story(reply, asked)

    stub.plays = [refuse]
    (done,) = await connect().sample([PROMPT], 2, SamplingParams())
    assert [sample.text for sample in done] == ["once more 0"] * 2


async def test_fields_that_a_server_does_not_know_are_left_out(stub: Any, connect: Open) -> None:
    async def picky(reply: Any, asked: Any) -> None:
        unknown = {"stream_options", "logprobs"} & set(asked.body)
        if unknown:
            await reply.send(422, {"detail": f"Unexpected fields in the request: {unknown}"})
        elif "max_tokens" in asked.body:
            await reply.send(400, {"error": {"message": "'max_tokens' is not supported: use 'max_completion_tokens'"}})
        else:
            await story(reply, asked)

    stub.plays = [picky]
    assert (await one(connect(), max_tokens=77)).text == "once more 0"
    assert stub.asked[-1].body["max_completion_tokens"] == 77


async def test_what_the_server_refuses_is_an_answer(stub: Any, connect: Open) -> None:
    async def refuse(reply: Any, _asked: Any) -> None:
        await reply.send(400, {"error": {"message": "this model's maximum context length is 4096 tokens"}})

    stub.plays = [refuse]
    done = await one(connect())
    assert (done.finish_reason, done.error) == ("error", "this model's maximum context length is 4096 tokens")


async def test_an_answer_in_one_piece(stub: Any, connect: Open) -> None:
    async def whole(reply: Any, _asked: Any) -> None:
        choice = {"index": 0, "message": {"role": "assistant", "content": "all at once"}, "finish_reason": "length"}
        await reply.send(200, {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 3}})

    stub.plays = [whole]
    done = await one(connect())
    assert (done.text, done.finish_reason) == ("all at once", "length")
    assert (done.usage.tokens_in, done.usage.tokens_out) == (9, 3)


async def test_without_usage_tokens_are_counted(stub: Any, connect: Open) -> None:
    async def bare(reply: Any, _asked: Any) -> None:
        await reply.begin()
        for word in ("a", " b", " c"):
            await reply.chunk(word)
        await reply.chunk("", finish="length")
        await reply.raw("data: [DONE]\n\n")

    stub.plays = [bare]
    done = await one(connect())
    assert done.usage.tokens_out == 3
    assert 4 < done.usage.tokens_in < 20, "about a token for four characters"


async def test_a_stop_string_ends_an_answer_that_goes_on(stub: Any, connect: Open) -> None:
    async def chatter(reply: Any, _asked: Any) -> None:
        await reply.begin()
        while not reply.gone.is_set():
            await reply.chunk("word\n")
            await asyncio.sleep(0.001)

    stub.plays = [chatter]
    done = await one(connect(), stop=("\n",))
    assert (done.text, done.finish_reason) == ("word", "stop")
    await asyncio.wait_for(stub.gone[0].wait(), 1)


async def test_a_turn_that_cannot_be_begun_is_asked_for(stub: Any, connect: Open) -> None:
    async def polite(reply: Any, _asked: Any) -> None:
        await reply.begin()
        for piece in ("Sure!", "\n", "ANSWER", ":", " 42", "\n", "I hope that helps."):
            await reply.chunk(piece)
        await reply.chunk("", finish="stop")
        await reply.usage(20, 9)

    stub.plays = [polite]
    core = connect()
    done = await one(core, PROMPT.model_copy(update={"prefill": "ANSWER:"}), stop=("\n",))
    assert done.text == " 42"
    assert [message["role"] for message in stub.asked[0].body["messages"]] == ["user"]
    assert "ANSWER:" in stub.asked[0].body["messages"][0]["content"]
    assert core.manifest()["prefill"] == "told"


@pytest.mark.parametrize("fence", ["```python", "```py", "```"])
async def test_a_long_preamble_does_not_end_a_program_before_it_begins(stub: Any, connect: Open, fence: str) -> None:
    async def wordy(reply: Any, _asked: Any) -> None:
        await reply.begin()
        begun = ("To solve this, we think. " * 20, "\n\n", f"{fence}\n")
        for piece in (*begun, "print(", "42)", "\n```", "\nThat", " is it."):
            await reply.chunk(piece)
        await reply.chunk("", finish="stop")
        await reply.usage(20, 9)

    stub.plays = [wordy]
    done = await one(connect(), PROMPT.model_copy(update={"prefill": "```python\n"}), stop=("\n```",))
    assert done.text.strip() == "print(42)"


# --- what goes wrong ---------------------------------------------------------------------------------------


async def test_too_many_requests_and_then_fine(stub: Any, connect: Open) -> None:
    async def busy(reply: Any, _asked: Any) -> None:
        await reply.send(429, {"error": "slow down"}, Retry_After="0.3")

    stub.plays = [busy, story]
    began = time.monotonic()
    assert (await one(connect())).text == "once more 0"
    assert time.monotonic() - began >= 0.3, "Retry-After is honoured"


async def test_a_wait_that_is_too_long_is_an_error(stub: Any, connect: Open) -> None:
    async def busy(reply: Any, _asked: Any) -> None:
        await reply.send(503, {"error": "come back tomorrow"}, Retry_After="86400")

    stub.plays = [busy]
    with pytest.raises(CoreError, match="asks to wait 86400 s"):
        await one(connect())


async def test_broken_for_good(stub: Any, connect: Open) -> None:
    async def broken(reply: Any, _asked: Any) -> None:
        await reply.send(500, "Internal Server Error", "text/plain")

    stub.plays = [broken]
    ends: list[Completion] = []
    with pytest.raises(CoreError, match="failed 3 times: status 500"):
        await connect().sample([PROMPT], 2, SamplingParams(), lambda _p, _i, done: ends.append(done))
    assert [end.finish_reason for end in ends] == ["error", "error"]
    assert len(stub.asked) == 3


async def test_half_a_stream_is_asked_again_and_both_halves_are_charged(stub: Any, connect: Open) -> None:
    async def half(reply: Any, _asked: Any) -> None:
        await reply.begin()
        await reply.chunk("on")
        await reply.chunk("ce")

    stub.plays = [half, story]
    done = await one(connect())
    assert done.text == "once more 0"
    assert done.usage.tokens_out == 2 + 4


async def test_half_streams_for_ever(stub: Any, connect: Open) -> None:
    async def half(reply: Any, _asked: Any) -> None:
        await reply.begin()
        await reply.chunk("on")

    stub.plays = [half]
    with pytest.raises(CoreError, match="ended in its middle"):
        await one(connect())


@pytest.mark.parametrize(
    ("kind", "body"), [("text/html", "<html>Welcome</html>"), ("application/json", "[1, 2"), ("text/plain", "")]
)
async def test_rubbish(stub: Any, connect: Open, kind: str, body: str) -> None:
    async def rubbish(reply: Any, _asked: Any) -> None:
        await reply.send(200, body, kind)

    stub.plays = [rubbish]
    with pytest.raises(CoreError, match="answered rubbish"):
        await one(connect())


@pytest.mark.parametrize("line", ["data: {broken\n\n", "data: [1]\n\n", 'data: {"choices": [{"index": 7}]}\n\n'])
async def test_rubbish_in_the_stream(stub: Any, connect: Open, line: str) -> None:
    async def rubbish(reply: Any, _asked: Any) -> None:
        await reply.begin()
        await reply.chunk("on")
        await reply.raw(line)

    stub.plays = [rubbish]
    with pytest.raises(CoreError, match="answered rubbish"):
        await one(connect())


async def test_slow_to_the_first_token_and_between_tokens(stub: Any, connect: Open) -> None:
    async def silent(reply: Any, _asked: Any) -> None:
        await reply.begin()
        for _ in range(100):
            await reply.raw(": still here\n\n")
            await asyncio.sleep(0.02)

    async def stuck(reply: Any, asked: Any) -> None:
        await reply.begin()
        await reply.chunk("on")
        await silent(reply, asked)

    stub.plays = [silent, stuck]
    core = connect(first_token_s=0.2, between_tokens_s=0.1)
    with pytest.raises(CoreError, match=r"gave no token in 0\.2 s"):
        await one(core)
    with pytest.raises(CoreError, match=r"stopped in mid-answer for 0\.1 s"):
        await one(core)
    await asyncio.wait_for(stub.gone[1].wait(), 1)


async def test_a_server_that_does_one_request_at_a_time_is_alive(stub: Any, connect: Open) -> None:
    turn = asyncio.Lock()

    async def in_turn(reply: Any, asked: Any) -> None:
        if asked.body.get("n", 1) > 1:
            await reply.send(400, {"error": "n is not supported"})
            return
        async with turn:
            await reply.begin()
            for _ in range(6):
                await asyncio.sleep(0.05)
                await reply.chunk("word ")
            await reply.chunk("", finish="stop")
            await reply.usage(20, 6)

    stub.plays = [in_turn]
    (done,) = await connect(first_token_s=0.4).sample([PROMPT], 4, SamplingParams(max_tokens=9))
    assert [one.text.split() for one in done] == [["word"] * 6] * 4, "the last one waited for twice that time"


async def test_down(connect: Open, unused_port: int) -> None:
    with pytest.raises(CoreError, match="failed 3 times") as caught:
        await connect(url=f"http://127.0.0.1:{unused_port}/v1").start()
    assert "running at this address" in str(caught.value)


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_slow_to_connect(connect: Open) -> None:
    """A full backlog: the kernel answers nobody."""
    import socket

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        crowd = [socket.socket() for _ in range(4)]
        for one_of in crowd:
            one_of.setblocking(False)
            one_of.connect_ex(deaf.getsockname())
        began = time.monotonic()
        with pytest.raises(CoreError, match="failed 2 times"):
            await connect(url=f"http://127.0.0.1:{deaf.getsockname()[1]}/v1", connect_s=0.2, attempts=2).start()
        assert time.monotonic() - began < 3
        for one_of in crowd:
            one_of.close()


async def test_a_wrong_key_names_the_variable_and_shows_no_key(
    stub: Any, connect: Open, caplog: pytest.LogCaptureFixture
) -> None:
    async def forbid(reply: Any, asked: Any) -> None:
        await reply.send(401, {"error": {"message": f"Incorrect API key provided: {asked.headers['authorization']}"}})

    caplog.set_level(logging.DEBUG)
    stub.plays = [forbid]
    core = connect()
    with pytest.raises(CoreError, match="OPENAI_API_KEY") as caught:
        await one(core)
    trace = "".join(str(part) for part in (caught.value, caught.value.__cause__, core.manifest(), repr(core)))
    assert KEY not in trace
    assert KEY not in "".join(record.getMessage() for record in caplog.records if record.name.startswith("ponder"))


async def test_a_key_does_not_follow_a_redirect(stub: Any, connect: Open) -> None:
    async def elsewhere(reply: Any, _asked: Any) -> None:
        await reply.send(307, "", Location="http://127.0.0.1:9/steal")

    stub.plays = [elsewhere]
    with pytest.raises(CoreError, match="sends us elsewhere"):
        await one(connect())


async def test_no_such_model(stub: Any, connect: Open) -> None:
    async def unknown(reply: Any, _asked: Any) -> None:
        await reply.send(404, {"error": {"message": "model not found"}})

    stub.plays = [unknown]
    with pytest.raises(CoreError, match="has no model 'qwen'"):
        await one(connect(model="qwen"))


async def test_cancelling_closes_the_stream_and_tells_what_was_used(stub: Any, connect: Open) -> None:
    async def endless(reply: Any, asked: Any) -> None:
        await reply.begin()
        while not reply.gone.is_set():
            for i in range(asked.body["n"]):
                await reply.chunk("word ", i)
            await asyncio.sleep(0.01)

    stub.plays = [endless]
    ends: list[Completion] = []
    core = connect()
    call = asyncio.create_task(core.sample([PROMPT], 2, SamplingParams(), lambda _p, _i, done: ends.append(done)))
    while core.live().tokens_out < 10:  # noqa: ASYNC110 - the core has no event for tokens
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert [end.finish_reason for end in ends] == ["cancelled"] * 2
    assert all(end.usage.tokens_out >= 4 and end.text for end in ends)
    assert core.live().tokens_out == 0
    await asyncio.wait_for(stub.gone[0].wait(), 1)


# --- transformers serve ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def transformers_server(small_safetensors: Path) -> Iterator[str]:
    """Start `transformers serve`; return its name as a core."""
    for name in ("fastapi", "accelerate"):
        pytest.importorskip(name, reason="transformers serve needs fastapi, uvicorn, openai and accelerate")
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    program = Path(sys.executable).with_name("transformers")
    command = [str(program), "serve", str(small_safetensors), "--host", "127.0.0.1", "--port", str(port)]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    with (
        tempfile.TemporaryFile() as words,
        subprocess.Popen([*command, "--device", "cpu"], env=env, stdout=words, stderr=words) as process,
    ):
        try:
            deadline = time.monotonic() + 200
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    httpx.get(f"http://127.0.0.1:{port}/health", timeout=5, trust_env=False)
                    break
                except httpx.HTTPError:
                    time.sleep(0.5)
            else:
                words.seek(0)
                pytest.fail(f"transformers serve did not get ready: {words.read()[-500:].decode()}")
            yield f"openai:{small_safetensors}@http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


@pytest.mark.real
@pytest.mark.timeout(600)
async def test_transformers_serve(transformers_server: str) -> None:
    core = OpenAICore(parse_name(transformers_server))
    await core.start()
    assert core.manifest()["engine"] == "transformers serve"
    ends: list[int] = []
    (done,) = await core.sample([PROMPT], 2, SamplingParams(max_tokens=6), lambda _p, i, _c: ends.append(i))
    assert sorted(ends) == [0, 1]
    for sample in done:
        assert sample.text
        assert sample.finish_reason in ("length", "stop")
        assert 0 < sample.usage.tokens_out <= 6
        assert sample.usage.tokens_in > 10
    stopped = await one(core, stop=(" ",), max_tokens=20)
    assert " " not in stopped.text
    first, second = [await one(core, temperature=0.0, max_tokens=5) for _ in range(2)]
    assert first.text == second.text
    call = asyncio.create_task(core.sample([PROMPT], 1, SamplingParams(max_tokens=400)))
    await asyncio.sleep(2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await core.close()
