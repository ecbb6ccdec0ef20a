"""No endpoint leads inside: every way to write an address that is not public is refused."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from webhooks.addresses import RefusedAddressError, check_url, is_public, resolve_host

INSIDE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_that_is_not_a_public_host_is_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::200e"]
)
def test_a_public_host_is_allowed(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "2130706433",
        "017700000001",
        "0x7f000001",
        "127.1",
        "0",
        "localhost",
        "::1",
        "::ffff:127.0.0.1",
    ],
)
def test_a_host_that_resolves_to_this_machine_is_refused_however_it_is_written(host: str) -> None:
    with pytest.raises(RefusedAddressError, match="not a public address"):
        resolve_host(host, 443, allow_private=False)


def answer_with(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_one_private_address_among_public_ones_spoils_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, "93.184.216.34", "10.0.0.1")
    with pytest.raises(
        RefusedAddressError, match=r"^hooks\.example resolves to what is not a public address$"
    ):
        resolve_host("hooks.example", 443, allow_private=False)


def test_a_scoped_link_local_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, "fe80::1%eth0")
    with pytest.raises(RefusedAddressError):
        resolve_host("hooks.example", 443, allow_private=False)


def test_the_addresses_of_a_public_host_come_with_ipv4_first(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, "2606:4700::1111", "93.184.216.34")
    assert resolve_host("hooks.example", 443, allow_private=False) == ["93.184.216.34", "2606:4700::1111"]


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/",
        "https://hooks.example:8443/",
        "ftp://hooks.example/",
        "file:///etc/passwd",
        "https://",
        "https://user:secret@hooks.example/",
        "https://hooks.example:notaport/",
        "https://[::1/",
        "hooks.example",
        "",
    ],
)
def test_an_endpoint_is_plain_https(url: str) -> None:
    with pytest.raises(RefusedAddressError):
        check_url(url, allow_private=False)


def test_https_on_its_port_is_accepted() -> None:
    assert check_url("https://hooks.example./in?a=1", allow_private=False) == ("https", "hooks.example", 443)


def test_in_development_plain_http_on_any_port_is_accepted() -> None:
    assert check_url("http://127.0.0.1:9000/", allow_private=True) == ("http", "127.0.0.1", 9000)
    assert resolve_host("127.0.0.1", 9000, allow_private=True) == ["127.0.0.1"]
