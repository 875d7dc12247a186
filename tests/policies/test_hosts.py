"""The rules of where a page may come from: every spelling of a forbidden place is refused, with a reason."""

from __future__ import annotations

import ipaddress

import pytest

from ponder.policies.hosts import HostRules, Target, canonical_host, classify

RULES = HostRules()


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        " file:///etc/passwd",
        "chrome://settings",
        "about:blank",
        "data:text/html,hi",
        "javascript:alert(1)",
        "view-source:http://example.org",
        "blob:http://example.org/1",
        "ftp://example.org",
        "ws://example.org",
        "filesystem:http://example.org/temporary/x",
        "example.org",
        "//example.org",
        "",
    ],
)
def test_only_http_and_https_may_be_visited(url: str) -> None:
    verdict = RULES.check_url(url)
    assert not verdict.allowed
    assert "Only http and https" in verdict.why


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0X7F.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",  # noqa: RUF001
        "10.1.2.3",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "169.254.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "0.0.0.0",
        "0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::10.0.0.1]",
        "[64:ff9b:1::a00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "[2001:db8::1]",
    ],
)
def test_addresses_that_are_not_public_are_refused_in_every_spelling(host: str) -> None:
    verdict = RULES.check_url(f"http://{host}/")
    assert not verdict.allowed
    assert "refused unless the user permits" in verdict.why


@pytest.mark.parametrize(
    "url", ["http://example.org", "https://example.org:8443/a?b#c", "http://8.8.8.8/", "https://[2606:4700::1111]/"]
)
def test_public_places_are_allowed(url: str) -> None:
    assert RULES.check_url(url).allowed


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://exa mple.org",
        "http://example.org:99999",
        "http://example.org:0",
        "http://1.2.3.4.5",
        "http://256.256.256.256",
        "http://1.2.3.09",
        "http://a..b",
        "http://[::1",
        "http://[fe80::1%25eth0]/",
        "http://example.org:abc",
        "http://user:secret@example.org",
        "http://example.org\\@127.0.0.1/",
    ],
)
def test_urls_that_two_readers_may_read_differently_are_refused(url: str) -> None:
    verdict = RULES.check_url(url)
    assert not verdict.allowed
    assert verdict.why.endswith(".")


def test_canonical_spellings() -> None:
    assert canonical_host("Example.ORG.") == "example.org"
    assert canonical_host("bücher.de") == "xn--bcher-kva.de"
    assert canonical_host("0x7f.1") == "127.0.0.1"
    assert canonical_host("[::FFFF:127.0.0.1]") == "::ffff:7f00:1"
    assert canonical_host("under_score.example") == "under_score.example"
    assert canonical_host("08.1.1.1") is None
    assert canonical_host("a" * 64 + ".org") is None


def test_a_name_is_judged_by_what_it_resolves_to() -> None:
    target = RULES.check_url("http://rebind.example/").target
    assert target is not None
    refused = RULES.check_addresses(target, ["127.0.0.1"])
    assert not refused.allowed
    assert "rebind.example (127.0.0.1) is a loopback address" in refused.why
    mixed = RULES.check_addresses(target, ["10.0.0.1", "8.8.8.8", "8.8.8.8"])
    assert mixed.addresses == ("8.8.8.8",)
    assert not RULES.check_addresses(target, []).allowed
    assert not RULES.check_addresses(target, ["fe80::1%eth0"]).allowed
    assert not RULES.check_addresses(target, ["nonsense"]).allowed


def test_a_permitted_origin_may_be_private_and_only_that_one() -> None:
    rules = HostRules(permitted=frozenset({"127.0.0.1:8000", "http://lab.example", "[::1]:9", "any.example"}))
    assert rules.check_url("http://127.0.0.1:8000/x").allowed
    assert rules.check_url("http://127.1:8000/x").allowed
    assert rules.check_url("http://[::1]:9").allowed
    assert not rules.check_url("http://127.0.0.1:8001/").allowed
    assert not rules.check_url("http://127.0.0.2:8000/").allowed
    assert rules.check_addresses(Target("http", "lab.example", 80), ["10.0.0.7"]).allowed
    assert not rules.check_addresses(Target("http", "lab.example", 81), ["10.0.0.7"]).allowed
    assert rules.check_addresses(Target("https", "any.example", 81), ["10.0.0.7"]).allowed


def test_allowing_private_addresses_opens_neither_metadata_nor_multicast() -> None:
    rules = HostRules(allow_private=True)
    for host in ("127.0.0.1", "10.0.0.1", "[fc00::1]", "100.64.1.1", "169.254.7.7", "[::ffff:10.0.0.1]"):
        assert rules.check_url(f"http://{host}").allowed, host
    for host in ("169.254.169.254", "[::ffff:169.254.169.254]", "224.0.0.1", "0.0.0.0", "240.0.0.1", "[fd00:ec2::254]"):
        assert not rules.check_url(f"http://{host}").allowed, host


def test_a_list_of_hosts_shuts_out_the_rest() -> None:
    rules = HostRules(only_hosts=frozenset({"Example.org", "*.wiki.example"}), permitted=frozenset({"127.0.0.1:1"}))
    assert rules.check_url("https://example.org/").allowed
    assert rules.check_url("https://en.wiki.example/").allowed
    assert rules.check_url("http://127.0.0.1:1/").allowed
    for url in ("https://sub.example.org", "https://wiki.example", "https://evilwiki.example", "https://8.8.8.8"):
        verdict = rules.check_url(url)
        assert not verdict.allowed
        assert "list of hosts" in verdict.why


def test_entries_that_are_no_host_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="not a host"):
        HostRules(permitted=frozenset({"not a host"}))
    with pytest.raises(ValueError, match="not a host"):
        HostRules(only_hosts=frozenset({"*."}))


def test_classify_says_what_an_address_is() -> None:
    assert classify(ipaddress.ip_address("1.1.1.1")) is None
    nat64 = classify(ipaddress.ip_address("64:ff9b::127.0.0.1"))
    assert nat64 is not None
    assert nat64.what == "a loopback address"
    assert classify(ipaddress.ip_address("64:ff9b::8.8.8.8")) is None
