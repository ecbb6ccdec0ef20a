"""Decides which addresses a storefront's endpoint may have, so that nobody steers our requests inside."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

import structlog
from django.conf import settings

from payments.errors import InvalidRequestError
from payments.networks import Address

logger = structlog.stdlib.get_logger(__name__)

MAX_URL_LENGTH = 500
LOOKUP_SECONDS = 5.0

# `ipaddress.is_global` alone lets through IPv4 addresses written inside IPv6 ones, and multicast. Of IPv6 only
# 2000::/3 is public at all, which leaves out the mapped, compatible, NAT64 (64:ff9b::/96, 64:ff9b:1::/48), SRv6
# (5f00::/16), local and multicast ones. Sources: IANA's special-purpose registries, RFC 6890, 6052 (NAT64), 3056
# (6to4), 4380 (Teredo), 5214 (ISATAP), 7534 and 7535 (AS112), 7450 (AMT), 9602 (SRv6), 9637 (documentation).
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
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "2620:4f:8000::/48",
        "3fff::/20",
    )
]
_GLOBAL_UNICAST_V6 = ipaddress.ip_network("2000::/3")
_ISATAP = (0x00005EFE, 0x02005EFE)  # the first half of such an interface identifier; an IPv4 address follows
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*", re.IGNORECASE)
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)


class RefusedAddressError(InvalidRequestError):
    """The endpoint's address is not one that we send to."""

    code = "refused_address"
    title = "The endpoint's address is not allowed"


def is_public(address: Address) -> bool:
    """Whether the address is a plain host on the public internet, and in no network that this site refuses."""
    if isinstance(address, ipaddress.IPv6Address) and not _is_plain_v6(address):
        return False
    refused = [*_REFUSED, *map(ipaddress.ip_network, settings.WEBHOOK_REFUSED_NETWORKS)]
    return address.is_global and not any(address in network for network in refused)


def _is_plain_v6(address: ipaddress.IPv6Address) -> bool:
    return address in _GLOBAL_UNICAST_V6 and (int(address) >> 32) & 0xFFFFFFFF not in _ISATAP


def is_own(address: Address) -> bool:
    """Whether the address is one of this machine's: the kernel would send from where it sends to."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))  # sends nothing
            return ipaddress.ip_address(probe.getsockname()[0]) == address
    except OSError:  # there is no way to it, so neither is it ours
        return False


def check_url(url: str, *, allow_private: bool) -> tuple[str, str, int]:
    """Scheme, host and port of an endpoint's address. Raises `RefusedAddressError`.

    Only https on port 443 at a name or a public address, unless private ones are allowed, as in development.
    """
    if len(url) > MAX_URL_LENGTH or not url.isascii() or not url.isprintable() or set(url) & set(" \\"):
        # A parser may drop or turn what another keeps: then one would judge, and the other connect.
        raise RefusedAddressError(
            f"{url[:100]!r} is not an address: at most {MAX_URL_LENGTH} plain ASCII characters, "
            "a host of other letters in its xn-- form"
        )
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").removesuffix("."), parts.port
    except ValueError:
        raise RefusedAddressError(f"{url!r} is not an address") from None
    if parts.scheme not in ("http", "https") or not host:
        raise RefusedAddressError("an endpoint needs an address that begins with https://")
    if "#" in url:
        raise RefusedAddressError("an endpoint's address has no fragment: nobody sends what is behind a #")
    if "@" in parts.netloc:
        raise RefusedAddressError("an endpoint's address cannot carry a user name or password")
    port = port or (443 if parts.scheme == "https" else 80)
    if not allow_private and (parts.scheme, port) != ("https", 443):
        raise RefusedAddressError("an endpoint must be https on port 443")
    _check_host(host, allow_private=allow_private)
    return parts.scheme, host, port


def _check_host(host: str, *, allow_private: bool) -> None:
    address = read_address(host)
    if address is None and (not _NAME.fullmatch(host) or _NUMBER.fullmatch(host.rpartition(".")[2])):
        # What ends in a number is an IPv4 address to some resolvers: decimal, octal, hexadecimal, shortened.
        raise RefusedAddressError(f"{host!r} is neither a host name nor a plainly written address")
    is_inside = not is_public(address) if address else host == "localhost" or host.endswith(".localhost")
    if is_inside and not allow_private:
        raise RefusedAddressError(f"{host} is not a public address")


def read_address(host: str) -> Address | None:
    """The address that the text is, or None for a name. A zone (`%eth0`) makes it neither."""
    try:
        return ipaddress.ip_address(host) if "%" not in host else None
    except ValueError:
        return None


def resolve_host(host: str, port: int, *, allow_private: bool, seconds: float = LOOKUP_SECONDS) -> list[str]:
    """Where to connect to, IPv4 first. Raises `OSError`, and `RefusedAddressError` if any is not public, or ours.

    The system's resolver reads decimal, octal and shortened forms too, and its answer is what is judged. The
    caller must connect to one of these and not resolve again, or the name could change its mind in between.
    """
    found = _look_up(host, port, seconds)
    addresses = sorted(set(found), key=lambda text: (":" in text, text))
    if not allow_private:
        for text in addresses:
            _check_address(host, text)
    return addresses


def _check_address(host: str, text: str) -> None:
    """The storefront reads the refusal: it must not learn our inner names' addresses from it."""
    address = read_address(text)
    if address is None or not is_public(address):
        logger.warning("webhook_address_refused", host=host, address=text)
        raise RefusedAddressError(f"{host} resolves to what is not a public address")
    if is_own(address):
        raise RefusedAddressError(f"{host} resolves to this machine")


def _look_up(host: str, port: int, seconds: float) -> Sequence[str]:
    """The resolver knows no deadline of ours, so it is asked in a thread that ends when the resolver gives up."""
    if read_address(host):
        return [host]
    answers: list[list[str]] = []
    failures: list[OSError] = []

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.append([str(info[4][0]) for info in found])
        except (OSError, UnicodeError) as error:  # a label of more than 63 letters is a UnicodeError
            failures.append(error if isinstance(error, OSError) else OSError(str(error)))

    thread = threading.Thread(target=ask, name="lookup", daemon=True)
    thread.start()
    thread.join(max(0.001, seconds))
    if failures:
        raise failures[0]
    if not answers:
        raise TimeoutError(f"no address of {host} within {seconds:g} s")
    return answers[0]
