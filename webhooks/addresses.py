"""Decides which addresses a storefront's endpoint may have, so that nobody steers our requests inside."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from payments.errors import InvalidRequestError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# `ipaddress.is_global` alone lets through IPv4 addresses written inside IPv6 ones, and multicast.
# Sources: IANA's special-purpose registries, RFC 6890, 6052 (NAT64), 3056 (6to4), 4380 (Teredo), 9602 (SRv6).
_REFUSED = [
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )
]
_GLOBAL_UNICAST_V6 = ipaddress.ip_network("2000::/3")


class RefusedAddressError(InvalidRequestError):
    """The endpoint's address is not one that we send to."""

    code = "refused_address"
    title = "The endpoint's address is not allowed"


def is_public(address: Address) -> bool:
    """Whether the address is a plain host on the public internet."""
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST_V6:
        return False
    return address.is_global and not any(address in network for network in _REFUSED)


def check_url(url: str, *, allow_private: bool) -> tuple[str, str, int]:
    """Scheme, host and port of an endpoint's address. Raises `RefusedAddressError`.

    Only https on port 443, unless private addresses are allowed, as in development.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise RefusedAddressError(f"{url!r} is not an address") from None
    if parts.scheme not in ("http", "https") or not host:
        raise RefusedAddressError("an endpoint needs an address that begins with https://")
    if parts.username or parts.password:
        raise RefusedAddressError("an endpoint's address cannot carry a user name or password")
    port = port or (443 if parts.scheme == "https" else 80)
    if not allow_private and (parts.scheme, port) != ("https", 443):
        raise RefusedAddressError("an endpoint must be https on port 443")
    return parts.scheme, host, port


def resolve_host(host: str, port: int, *, allow_private: bool) -> list[str]:
    """Where to connect to, IPv4 first. Raises `OSError`, and `RefusedAddressError` if any is not public.

    The system's resolver reads decimal, octal and shortened forms too, and its answer is what is judged. The
    caller must connect to one of these and not resolve again, or the name could change its mind in between.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = sorted({str(info[4][0]) for info in found}, key=lambda text: (":" in text, text))
    if not allow_private:
        for text in addresses:
            if not is_public(ipaddress.ip_address(text.partition("%")[0])):
                raise RefusedAddressError(f"{host} resolves to {text}, which is not a public address")
    return addresses
