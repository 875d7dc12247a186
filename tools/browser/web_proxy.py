"""The one way from the browser to the network: a forward proxy on loopback that asks `HostRules` about every request.

Covered: absolute-form HTTP/1.1 and CONNECT (so https and WebSockets too); each name is resolved here, judged, and
connected to at the very address that was judged; every redirect and sub-resource is a request of its own. Each user of
the proxy (one per browser session) has a random name and password, a byte count, a byte allowance and a list of what
was refused or failed. Other local users cannot use it: they do not know a password.
Not covered: what goes through a tunnel is not seen; upstream proxies (connections are direct); HTTP keep-alive for
plain http (one request per connection: simple, and plain http is rare).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence

import h11

from ponder.policies.hosts import HostRules, Target, UrlVerdict
from ponder.tools.browser.web_exchange import CHUNK_BYTES, Exchange, NoAnswer, ProxyUser, Upstream, shut

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Return the addresses of a host. Raises OSError when there are none."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return a host's addresses as the system resolves them. Raises OSError when there are none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class WebProxy:
    """The proxy: `start`, `add_user` for each session, `close`. Lives in one event loop."""

    def __init__(self, rules: HostRules, *, resolver: Resolver = resolve, connect_s: float = 10.0) -> None:
        self._rules = rules
        self._resolve = resolver
        self._connect_s = connect_s
        self._users: dict[str, ProxyUser] = {}
        self._tasks: dict[asyncio.Task[None], ProxyUser | None] = {}
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Return the proxy's address, `http://127.0.0.1:PORT`. Raises RuntimeError before `start`."""
        if self._server is None:
            raise RuntimeError("the proxy is not running")
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        """Listen on a free port of loopback. Raises OSError when none can be had."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=CHUNK_BYTES)

    def add_user(self) -> ProxyUser:
        """Open an account with a name and password that cannot be guessed."""
        user = ProxyUser(secrets.token_hex(8), secrets.token_hex(16))
        self._users[user.name] = user
        return user

    def remove_user(self, user: ProxyUser) -> None:
        """Close an account and cut its connections."""
        self._users.pop(user.name, None)
        for task, owner in list(self._tasks.items()):
            if owner is user:
                task.cancel()

    async def close(self) -> None:
        """Stop listening and cut every connection. Safe to call twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = None
        try:
            with contextlib.suppress(OSError, TimeoutError, h11.ProtocolError, asyncio.CancelledError):
                await Exchange(self, reader, writer).run()
        finally:
            del self._tasks[task]
            await shut(writer)

    def authenticate(self, header: str) -> ProxyUser | None:
        """Return the user whose credentials this `Proxy-Authorization` value holds."""
        scheme, _, encoded = header.partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode("ascii").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        user = self._users.get(name)
        task = asyncio.current_task()
        if user is None or task is None or not hmac.compare_digest(user.password, password):
            return None
        self._tasks[task] = user
        return user

    def judge(self, method: str, target: str) -> UrlVerdict:
        """Ask the rules about a request as its first line puts it."""
        if method != "CONNECT":
            if target.lower().startswith("https:"):
                return UrlVerdict(False, "https goes through a tunnel.")
            return self._rules.check_url(target)
        host, _, port = target.rpartition(":")
        return self._rules.check_target("https", host, int(port) if port.isascii() and port.isdigit() else 0)

    async def connect(self, user: ProxyUser, target: Target) -> Upstream:
        """Resolve, judge, and connect to an address that was judged. Raises NoAnswer."""
        try:
            async with asyncio.timeout(self._connect_s):
                addresses = await self._resolve(target.host, target.port)
        except TimeoutError:
            raise _failed(user, target, f"Looking up {target.host} took more than {self._connect_s:g} s.") from None
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise _failed(user, target, f"There is no host {target.host} ({why}).") from None
        verdict = self._rules.check_addresses(target, addresses)
        if not verdict.allowed:
            user.note("refused", target.origin, verdict.why)
            raise NoAnswer(403, verdict.why)
        why = ""
        for address in verdict.addresses:
            try:
                async with asyncio.timeout(self._connect_s):
                    reader, writer = await asyncio.open_connection(address, target.port, limit=CHUNK_BYTES)
                if _is_this_machine(writer) and not self._rules.opens_this_machine(target):
                    writer.close()
                    refusal = f"{target.origin} is this machine's own address."
                    user.note("refused", target.origin, refusal)
                    raise NoAnswer(403, refusal)
                return Upstream(user, target, reader, writer)
            except TimeoutError:
                why = f"no answer in {self._connect_s:g} s"
            except OSError as error:
                why = error.strerror or str(error)
        raise _failed(user, target, f"{target.origin} could not be reached ({why}).")


def _is_this_machine(writer: asyncio.StreamWriter) -> bool:
    """Return whether a connection goes to an address of this machine's own: a public one is none of the outside's."""
    peer, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    return bool(peer and own and peer[0] == own[0])


def _failed(user: ProxyUser, target: Target, why: str) -> NoAnswer:
    user.note("failed", target.origin, why)
    return NoAnswer(502, why)
