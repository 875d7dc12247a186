"""Which places on the network a page may be fetched from. Pure logic: nothing here touches the network.

Covered: schemes; host spellings (decimal, octal, hexadecimal, IPv4 inside IPv6, trailing dots, full-width letters);
private, loopback, link-local, multicast, reserved, carrier-grade NAT and cloud metadata addresses.
Not covered: what a permitted host answers, and other names behind a permitted host's certificate (a tunnel's content
is not seen). The caller resolves names itself, asks `check_addresses`, and connects to the address that it returns and
to no other: a second look-up could give another answer.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_PORTS = {"http": 80, "https": 443}

_METADATA = tuple(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")
)
"""Where clouds hand out a machine's own credentials. Refused even where private addresses are allowed."""


class _Range(NamedTuple):
    network: Network
    what: str
    private: bool
    """Whether `allow_private` opens it; the others stay shut unless the origin itself was permitted."""


_RANGES = tuple(
    _Range(ipaddress.ip_network(network), what, private)
    for network, what, private in (
        ("0.0.0.0/8", "an unspecified address", False),
        ("10.0.0.0/8", "a private address", True),
        ("100.64.0.0/10", "a carrier-grade NAT address", True),
        ("127.0.0.0/8", "a loopback address", True),
        ("169.254.0.0/16", "a link-local address", True),
        ("172.16.0.0/12", "a private address", True),
        ("192.168.0.0/16", "a private address", True),
        ("224.0.0.0/4", "a multicast address", False),
        ("::/128", "an unspecified address", False),
        ("::1/128", "a loopback address", True),
        ("fc00::/7", "a private address", True),
        ("fe80::/10", "a link-local address", True),
        ("fec0::/10", "a private address", True),
        ("ff00::/8", "a multicast address", False),
    )
)

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_V4_COMPATIBLE = ipaddress.IPv6Network("::/96")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")


class Target(NamedTuple):
    """Where a URL leads: scheme, canonical host (an IPv6 address without brackets), and port."""

    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> str:
        """Return `host:port`, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class UrlVerdict:
    """Whether a URL may be visited, before its name is resolved. `why` is a sentence, empty when allowed."""

    allowed: bool
    why: str = ""
    target: Target | None = None


@dataclass(frozen=True)
class AddressVerdict:
    """Whether a connection may be made, and to which addresses and no others. `why` is a sentence."""

    allowed: bool
    why: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostRules:
    """Which URLs may be visited: by default any public http or https host.

    `permitted` are origins that the user named: `host:port`, or `host` for every port of it; they may lie at private
    addresses. `only_hosts`, when given, is the list of hosts that may be visited at all: a name, or `*.name` for the
    names below it. Permitted origins need not be in it. Raises ValueError for an entry that is no host.
    """

    allow_private: bool = False
    permitted: frozenset[str] = frozenset()
    only_hosts: frozenset[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "permitted", frozenset(map(_canonical_origin, self.permitted)))
        if self.only_hosts is not None:
            object.__setattr__(self, "only_hosts", frozenset(map(_canonical_pattern, self.only_hosts)))

    def check_url(self, url: str) -> UrlVerdict:
        """Say whether this URL may be visited, as far as its text tells (a name is not resolved here)."""
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError as error:
            return UrlVerdict(False, f"The URL cannot be read: {error}.")
        scheme = parts.scheme.lower()
        if scheme not in DEFAULT_PORTS:
            named = f"{scheme}:" if scheme else "without a scheme"
            return UrlVerdict(False, f"Only http and https URLs may be visited, not one {named}.")
        if parts.username is not None or parts.password is not None:
            return UrlVerdict(False, "URLs that hold a user name or a password are refused.")
        return self.check_target(scheme, parts.hostname or "", DEFAULT_PORTS[scheme] if port is None else port)

    def check_target(self, scheme: str, host: str, port: int) -> UrlVerdict:
        """Say the same of a host and port, as a proxy gets them. `scheme` is `http` or `https`."""
        canonical = canonical_host(host)
        if canonical is None:
            return UrlVerdict(False, f"{_shown(host)} is not a host name or an address.")
        if not 0 < port < 65536:
            return UrlVerdict(False, f"{port} is not a port.")
        target = Target(scheme, canonical, port)
        if not self._listed(target):
            return UrlVerdict(False, f"{canonical} is not on the list of hosts that may be visited.", target)
        address = _as_address(canonical)
        if address is not None and (why := self._refusal(target, address)):
            return UrlVerdict(False, why, target)
        return UrlVerdict(True, "", target)

    def check_addresses(self, target: Target, addresses: Sequence[str]) -> AddressVerdict:
        """Say to which of a name's resolved addresses a connection may be made; refused when to none."""
        allowed: list[str] = []
        why = f"{target.host} has no address."
        for text in addresses:
            address = _as_address(text.partition("%")[0])
            refusal = self._refusal(target, address) if address else f"{_shown(text)} is not an address."
            if refusal:
                why = refusal
            elif text not in allowed:
                allowed.append(text)
        return AddressVerdict(True, "", tuple(allowed)) if allowed else AddressVerdict(False, why)

    def opens_this_machine(self, target: Target) -> bool:
        """Return whether a connection may be made that leads to this machine itself, by whatever address."""
        return self.allow_private or self._permits(target)

    def _permits(self, target: Target) -> bool:
        return target.host in self.permitted or target.origin in self.permitted

    def _listed(self, target: Target) -> bool:
        if self.only_hosts is None or self._permits(target) or target.host in self.only_hosts:
            return True
        return any(entry.startswith("*.") and target.host.endswith(entry[1:]) for entry in self.only_hosts)

    def _refusal(self, target: Target, address: Address) -> str:
        """Why no connection may be made to this address; empty when one may."""
        found = classify(address)
        if found is None or self._permits(target) or (found.private and self.allow_private):
            return ""
        at = "" if target.host == str(address) else f" ({address})"
        return f"{target.host}{at} is {found.what}, and those are refused unless the user permits {target.origin}."


class Kind(NamedTuple):
    """What is special about an address: words for a sentence, and whether `allow_private` opens it."""

    what: str
    private: bool


def classify(address: Address) -> Kind | None:
    """Return what keeps an address from being a public one, or None for a public one.

    An IPv6 address that carries an IPv4 one (mapped, compatible, NAT64, 6to4, Teredo) is as special as what it carries.
    """
    if address in _METADATA:
        return Kind("a cloud's metadata address", False)
    for entry in _RANGES:
        if address.version == entry.network.version and address in entry.network:
            return Kind(entry.what, entry.private)
    if isinstance(address, ipaddress.IPv6Address):
        carried = _carried(address)
        if carried:
            return next((kind for kind in map(classify, carried) if kind), None)
    if not address.is_global or address.is_reserved:
        return Kind("a reserved address", False)
    return None


def canonical_host(host: str) -> str | None:
    """Return a host in the one spelling that rules compare, or None for what is no host.

    Names become lower-case ASCII without the trailing dot; every spelling of an IPv4 address that browsers take
    (`127.1`, `0x7f000001`, `2130706433`, `0177.0.0.1`) becomes four decimal numbers; IPv6 is compressed, bare.
    """
    text = unquote(host).strip().lower()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    if ":" in text:
        address = _as_address(text)
        return str(address) if address else None
    try:
        name = text.encode("idna").decode("ascii").lower() if not text.isascii() else text
    except UnicodeError:
        return None
    name = name.removesuffix(".")
    if len(name) > 253 or not _NAME.fullmatch(name):
        return None
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(labels)
    return name


def _ipv4(labels: Sequence[str]) -> str | None:
    """Read an IPv4 address as browsers do: one to four numbers in any base, the last one filling what is left."""
    if len(labels) > 4 or not all(_NUMBER.fullmatch(label) for label in labels):
        return None
    try:
        numbers = [_number(label) for label in labels]
    except ValueError:
        return None
    *head, last = numbers
    if any(number > 255 for number in head) or last >= 256 ** (5 - len(numbers)):
        return None
    value = last + sum(number * 256 ** (3 - place) for place, number in enumerate(head))
    return str(ipaddress.IPv4Address(value))


def _number(label: str) -> int:
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8) if len(label) > 1 and label.startswith("0") else int(label)


def _as_address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _carried(address: ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address, ...]:
    if address.ipv4_mapped:
        return (address.ipv4_mapped,)
    if address.teredo:
        return address.teredo
    if address.sixtofour:
        return (address.sixtofour,)
    if address in _NAT64 or address in _V4_COMPATIBLE:
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    return ()


def _canonical_origin(entry: str) -> str:
    parts = urlsplit(entry if "://" in entry else f"//{entry}")
    host = canonical_host(parts.hostname or "")
    port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    if host is None:
        raise ValueError(f"{entry!r} is not a host or host:port")
    return host if port is None else Target("http", host, port).origin


def _canonical_pattern(entry: str) -> str:
    star, name = ("*.", entry[2:]) if entry.startswith("*.") else ("", entry)
    host = canonical_host(name)
    if host is None:
        raise ValueError(f"{entry!r} is not a host or *.host")
    return star + host


def _shown(text: str) -> str:
    return repr(text[:100])
