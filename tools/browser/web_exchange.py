"""One connection of the browser to the proxy: one plain request, or one tunnel, streamed and counted.

Raw bytes on both sides; HTTP is read and written by h11, so a page cannot smuggle a second request behind the first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

import h11

from ponder.policies.hosts import Target, UrlVerdict

CHUNK_BYTES = 64 * 1024
_HEADER_BYTES = 256 * 1024
_REQUEST_S = 30.0
_NOTES = 200
_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)


class ProxyNote(NamedTuple):
    """One request that came to nothing here: refused by the rules, failed to connect, or over the allowance."""

    kind: Literal["refused", "failed", "allowance"]
    origin: str
    """`host:port`."""
    why: str


@dataclass
class ProxyUser:
    """One session's account with the proxy."""

    name: str
    password: str = field(repr=False)
    bytes: int = 0
    """Bytes moved to and from the network so far."""
    allowance: int | None = None
    """What `bytes` may come to; a connection that goes beyond is cut."""
    notes: list[ProxyNote] = field(default_factory=list)

    def note(self, kind: Literal["refused", "failed", "allowance"], origin: str, why: str) -> None:
        """Write down one request that came to nothing; a page that provokes many does not fill the memory."""
        if len(self.notes) < _NOTES:
            self.notes.append(ProxyNote(kind, origin, why))


class NoAnswer(Exception):
    """The request ends here, with this status and this sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Gate(Protocol):
    """What decides about a request, and opens the connection."""

    def authenticate(self, header: str) -> ProxyUser | None:
        """Return the user whose credentials this `Proxy-Authorization` value holds."""

    def judge(self, method: str, target: str) -> UrlVerdict:
        """Ask the rules about a request as its first line puts it."""

    async def connect(self, user: ProxyUser, target: Target) -> Upstream:
        """Resolve, judge, and connect to an address that was judged. Raises NoAnswer."""


class Upstream:
    """A connection to the network, with its bytes on the user's account."""

    def __init__(
        self, user: ProxyUser, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._user = user
        self._target = target
        self._reader = reader
        self.writer = writer

    async def read(self) -> bytes:
        data = await self._reader.read(CHUNK_BYTES)
        self._count(len(data))
        return data

    async def write(self, data: bytes) -> None:
        self._count(len(data))
        self.writer.write(data)
        await self.writer.drain()

    def _count(self, size: int) -> None:
        user = self._user
        user.bytes += size
        if size and user.allowance is not None and user.bytes > user.allowance:
            why = f"The page moved more bytes than one call may ({self._target.origin} was cut off)."
            user.note("allowance", self._target.origin, why)
            raise ConnectionAbortedError(why)


class Exchange:
    """One connection of the browser: one request, or one tunnel."""

    def __init__(self, gate: Gate, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._gate = gate
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEADER_BYTES)

    async def run(self) -> None:
        async with asyncio.timeout(_REQUEST_S):
            request = await self._next_event()
        if not isinstance(request, h11.Request):
            return
        headers = {name: value.decode("latin-1") for name, value in request.headers}
        user = self._gate.authenticate(headers.get(b"proxy-authorization", ""))
        if user is None:
            await self._answer(407, "This proxy is for one browser only.", (("Proxy-Authenticate", 'Basic realm="p"'),))
            return
        method, url = request.method.decode("ascii"), request.target.decode("latin-1")
        verdict = self._gate.judge(method, url)
        if not verdict.allowed or verdict.target is None:
            user.note("refused", verdict.target.origin if verdict.target else url[:200], verdict.why)
            await self._answer(403, verdict.why)
            return
        try:
            upstream = await self._gate.connect(user, verdict.target)
        except NoAnswer as ending:
            await self._answer(ending.status, ending.why)
            return
        try:
            if method == "CONNECT":
                await self._tunnel(upstream)
            else:
                await self._forward(user, upstream, request, verdict.target)
        finally:
            await shut(upstream.writer)

    async def _tunnel(self, upstream: Upstream) -> None:
        self._writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        early, _ = self._http.trailing_data
        if early:
            await upstream.write(early)

        async def send() -> None:
            while data := await self._reader.read(CHUNK_BYTES):
                await upstream.write(data)

        async def receive() -> None:
            while data := await upstream.read():
                self._writer.write(data)
                await self._writer.drain()

        # Browsers never half-close: when one side is done, so is the tunnel.
        await _first(send(), receive())

    async def _forward(self, user: ProxyUser, upstream: Upstream, request: h11.Request, target: Target) -> None:
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEADER_BYTES)
        parts = urlsplit(request.target.decode("latin-1"))
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        kept = [(name, value) for name, value in request.headers if name not in _HOP_BY_HOP and name != b"host"]
        # The length is the browser's own claim, which h11 holds it to; chunked uploads are chunked again.
        if any(name == b"transfer-encoding" for name, _ in request.headers):
            kept.append((b"transfer-encoding", b"chunked"))
        host = target.origin if target.port != 80 else target.origin.rpartition(":")[0]
        head = [(b"host", host.encode("ascii")), *kept, (b"connection", b"close")]
        outgoing = h11.Request(method=request.method, target=path.encode("latin-1"), headers=head)
        await upstream.write(http.send(outgoing) or b"")
        while not isinstance(event := await self._next_event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                return
            await upstream.write(http.send(event) or b"")
        await upstream.write(http.send(h11.EndOfMessage()) or b"")
        # The browser has nothing more to say; reading on only tells when it hangs up.
        await _first(self._respond(user, upstream, http, target), self._reader.read(1))

    async def _respond(self, user: ProxyUser, upstream: Upstream, http: h11.Connection, target: Target) -> None:
        try:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(await upstream.read())
                elif isinstance(event, h11.Response):
                    await self._send(_own_framing(event))
                elif isinstance(event, h11.Data):
                    await self._send(h11.Data(data=event.data))
                elif isinstance(event, h11.EndOfMessage):
                    await self._send(h11.EndOfMessage())
                    return
                elif not isinstance(event, h11.InformationalResponse):
                    return
        except h11.RemoteProtocolError:
            why = f"{target.origin} did not answer in HTTP."  # the error has the site's own words
            user.note("failed", target.origin, why)
            await self._answer(502, why)

    async def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(CHUNK_BYTES))
        return event

    async def _answer(self, status: int, why: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Send a page of our own, unless an answer is already under way."""
        if self._http.our_state is not h11.SEND_RESPONSE:
            return
        body = f"{why}\n".encode()
        ours = (
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Proxy-Status", "ponder"),
            ("Connection", "close"),
        )
        await self._send(h11.Response(status_code=status, headers=[*ours, *headers]))
        await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())
        self._writer.write_eof()
        # Closing with an upload still unread would reset the connection and lose the answer.
        async with asyncio.timeout(1):
            while await self._reader.read(CHUNK_BYTES):
                pass

    async def _send(self, event: h11.Event) -> None:
        self._writer.write(self._http.send(event) or b"")
        await self._writer.drain()


def _own_framing(response: h11.Response) -> h11.Response:
    """Drop what belongs to one connection only; h11 frames the body anew where its length is not given."""
    chunked = any(name == b"transfer-encoding" for name, _ in response.headers)
    drop = _HOP_BY_HOP | {b"content-length"} if chunked else _HOP_BY_HOP
    kept = [(name, value) for name, value in response.headers if name not in drop]
    return h11.Response(
        status_code=response.status_code, reason=response.reason, headers=[*kept, (b"connection", b"close")]
    )


async def _first(*sides: Awaitable[object]) -> None:
    """Run both sides until one is done, then end the other; raises what the one that is done raised."""
    tasks = [asyncio.ensure_future(side) for side in sides]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def shut(writer: asyncio.StreamWriter) -> None:
    """Close a connection, with a moment for what is still in its buffer."""
    writer.close()
    with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
        async with asyncio.timeout(2):
            await writer.wait_closed()
