"""The proxy lets through what the rules allow, pins the judged address, counts bytes, and refuses the rest aloud."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest

from ponder.policies.hosts import HostRules
from ponder.tools.browser.web_exchange import ProxyUser
from ponder.tools.browser.web_proxy import WebProxy

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """A server on loopback that hands every connection to `handler` and closes it afterwards."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def loopback(_host: str, _port: int) -> Sequence[str]:
    return ["127.0.0.1"]


async def read_head(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode()


def answering(text: bytes, seen: list[str] | None = None) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        if seen is not None:
            seen.append(head)
        writer.write(text)
        await writer.drain()

    return handler


@asynccontextmanager
async def proxying(*permitted: str, **options: object) -> AsyncIterator[tuple[WebProxy, ProxyUser]]:
    rules = HostRules(permitted=frozenset(permitted))
    proxy = WebProxy(rules, **options)  # type: ignore[arg-type]
    await proxy.start()
    try:
        yield proxy, proxy.add_user()
    finally:
        await proxy.close()


def client(proxy: WebProxy, user: ProxyUser) -> httpx.AsyncClient:
    via = httpx.Proxy(proxy.url, auth=(user.name, user.password))
    return httpx.AsyncClient(proxy=via, trust_env=False, timeout=10)


def basic(user: ProxyUser) -> str:
    return "Basic " + base64.b64encode(f"{user.name}:{user.password}".encode()).decode()


def asking(first: str, user: ProxyUser) -> str:
    return f"{first} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: {basic(user)}\r\n\r\n"


async def say(proxy: WebProxy, text: str) -> bytes:
    """Send raw text to the proxy and return all it answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    writer.write(text.encode())
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


async def test_a_request_goes_through_in_origin_form_without_the_proxys_headers() -> None:
    seen: list[str] = []
    async with (
        serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\n\r\nhello", seen)) as port,
        proxying(f"127.0.0.1:{port}") as (proxy, user),
        client(proxy, user) as http,
    ):
        answer = await http.get(f"http://127.0.0.1:{port}/path?q=1", headers={"X-Mine": "yes"})
        assert (answer.status_code, answer.text, answer.headers["set-cookie"]) == (200, "hello", "a=b")
        assert seen[0].startswith("GET /path?q=1 HTTP/1.1\r\n")
        assert f"host: 127.0.0.1:{port}\r\n" in seen[0].lower()
        assert "x-mine: yes" in seen[0].lower()
        assert "proxy-authorization" not in seen[0].lower()
        assert user.bytes >= len(seen[0]) + 5
        assert user.notes == []


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "abcde"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n", ""),
    ],
)
async def test_every_way_to_frame_an_answer_arrives(raw: bytes, body: str) -> None:
    async with (
        serving(answering(raw)) as port,
        proxying(f"127.0.0.1:{port}") as (proxy, user),
        client(proxy, user) as http,
    ):
        answer = await http.get(f"http://127.0.0.1:{port}/")
        assert answer.text == body
        assert answer.status_code in (200, 204, 302)


async def test_a_body_is_sent_on() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await read_head(reader)).lower()
        size = int(head.split("content-length: ")[1].split("\r\n")[0])
        body = await reader.readexactly(size)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (size, body))
        await writer.drain()

    async with (
        serving(echo) as port,
        proxying(f"127.0.0.1:{port}") as (proxy, user),
        client(proxy, user) as http,
    ):
        body = b"x" * 300_000
        answer = await http.post(f"http://127.0.0.1:{port}/", content=body)
        assert answer.content == body
        assert user.bytes >= 2 * len(body)


async def test_private_places_are_refused_with_a_reason() -> None:
    async with proxying() as (proxy, user), client(proxy, user) as http:
        answer = await http.get("http://127.0.0.1:9/")
        assert answer.status_code == 403
        assert "loopback" in answer.text
        assert user.notes[0].kind == "refused"
        with pytest.raises(httpx.ProxyError, match="403"):
            await http.get("https://10.0.0.1/")
        assert user.notes[1].origin == "10.0.0.1:443"
        assert (await http.post("http://[::1]/", content=b"x" * 200_000)).status_code == 403


async def test_a_name_that_resolves_to_a_private_address_is_refused() -> None:
    async with proxying(resolver=loopback) as (proxy, user), client(proxy, user) as http:
        answer = await http.get("http://rebind.example/")
        assert answer.status_code == 403
        assert "rebind.example (127.0.0.1) is a loopback address" in answer.text


async def test_a_name_is_looked_up_once_and_its_address_pinned() -> None:
    lookups: list[str] = []

    async def rebinding(host: str, _port: int) -> Sequence[str]:
        lookups.append(host)
        return ["127.0.0.1"] if len(lookups) == 1 else ["10.0.0.1"]

    async with (
        serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")) as port,
        proxying(f"name.example:{port}", resolver=rebinding) as (proxy, user),
        client(proxy, user) as http,
    ):
        assert (await http.get(f"http://name.example:{port}/")).text == "ok"
        assert lookups == ["name.example"]


async def test_failures_say_what_failed() -> None:
    async def nobody(_host: str, _port: int) -> Sequence[str]:
        raise OSError(-2, "Name or service not known")

    async with proxying("127.0.0.1", resolver=nobody) as (proxy, user), client(proxy, user) as http:
        answer = await http.get("http://nowhere.example/")
        assert answer.status_code == 502
        assert answer.text.startswith("There is no host nowhere.example")
    async with proxying("127.0.0.1") as (proxy, user), client(proxy, user) as http:
        answer = await http.get("http://127.0.0.1:1/")
        assert answer.status_code == 502
        assert "could not be reached" in user.notes[0].why
    async with (
        serving(answering(b"this is not HTTP\r\n\r\n")) as port,
        proxying("127.0.0.1") as (proxy, user),
        client(proxy, user) as http,
    ):
        assert "did not answer in HTTP" in (await http.get(f"http://127.0.0.1:{port}/")).text


async def test_this_machine_is_private_by_whatever_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A public address of the machine's own leads past its firewall to what listens on all addresses."""
    monkeypatch.setattr("ponder.policies.hosts.classify", lambda _address: None)  # as if 127.0.0.1 were a public one
    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")) as port:
        async with proxying() as (proxy, user), client(proxy, user) as http:
            answer = await http.get(f"http://127.0.0.1:{port}/")
            assert (answer.status_code, "this machine's own address" in answer.text) == (403, True)
            assert user.notes[0].kind == "refused"
        async with proxying("127.0.0.1") as (proxy, user), client(proxy, user) as http:
            assert (await http.get(f"http://127.0.0.1:{port}/")).text == "hi"


async def test_a_tunnel_carries_bytes_both_ways() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data.upper())
            await writer.drain()

    async with serving(echo) as port, proxying(f"127.0.0.1:{port}") as (proxy, user):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
        writer.write(asking(f"CONNECT 127.0.0.1:{port}", user).encode())
        assert "200" in await asyncio.wait_for(read_head(reader), 5)
        writer.write(b"hello")
        assert await asyncio.wait_for(reader.readexactly(5), 5) == b"HELLO"
        assert user.bytes == 10
        proxy.remove_user(user)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_without_the_password_nothing_goes_through() -> None:
    async with proxying("127.0.0.1") as (proxy, user):
        other = ProxyUser(user.name, "guess")
        for line in ("", f"Proxy-Authorization: {basic(other)}\r\n", "Proxy-Authorization: Basic %%%\r\n"):
            for first in ("GET http://127.0.0.1:9/", "CONNECT 127.0.0.1:9"):
                answer = await say(proxy, f"{first} HTTP/1.1\r\nHost: x\r\n{line}\r\n")
                assert answer.startswith(b"HTTP/1.1 407 ")
        assert user.notes == []


@pytest.mark.parametrize(
    "first",
    [
        "GET /",
        "GET file:///etc/passwd",
        "GET https://127.0.0.1/",
        "CONNECT 127.0.0.1",
        "CONNECT 127.0.0.1:x",
        "CONNECT :1",
    ],
)
async def test_odd_requests_are_refused(first: str) -> None:
    async with proxying("127.0.0.1") as (proxy, user):
        assert (await say(proxy, asking(first, user))).startswith(b"HTTP/1.1 403 ")


async def test_a_second_request_behind_the_first_is_not_sent_on() -> None:
    seen: list[str] = []
    async with (
        serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", seen)) as port,
        proxying("127.0.0.1") as (proxy, user),
    ):
        await say(proxy, "".join(asking(f"GET http://127.0.0.1:{port}/{n}", user) for n in (1, 2)))
        assert [head.split(" ")[1] for head in seen] == ["/1"]


async def test_an_allowance_cuts_an_endless_answer() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with serving(endless) as port, proxying("127.0.0.1") as (proxy, user), client(proxy, user) as http:
        user.allowance = 1_000_000
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(f"http://127.0.0.1:{port}/")
        assert user.bytes < 1_200_000
        assert user.notes[0].kind == "allowance"


async def test_when_the_browser_hangs_up_the_far_connection_ends_too() -> None:
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await reader.read()
        ended.set()

    async with serving(silent) as port, proxying("127.0.0.1") as (proxy, user):
        _, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
        writer.write(asking(f"GET http://127.0.0.1:{port}/", user).encode())
        await asyncio.sleep(0.2)
        assert not ended.is_set()
        writer.close()
        await asyncio.wait_for(ended.wait(), 5)


async def test_close_cuts_everything_and_can_be_called_twice() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(silent) as port, proxying("127.0.0.1") as (proxy, user):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
        writer.write(asking(f"CONNECT 127.0.0.1:{port}", user).encode())
        await asyncio.wait_for(read_head(reader), 5)
        await proxy.close()
        await proxy.close()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        with pytest.raises(RuntimeError, match="not running"):
            _ = proxy.url
