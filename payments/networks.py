"""Lists of IP networks, as an operator writes them."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks and single addresses, separated by commas or spaces. Raises `ValueError` naming the first bad one."""
    return tuple(map(_parse_network, text.replace(",", " ").split()))


def parse_address(text: str) -> Address:
    """An IPv4 address that is dressed as IPv6 comes out as what it is. Raises `ValueError`."""
    address = ip_address(text.strip())
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def is_within(text: str, networks: Iterable[Network]) -> bool:
    """Whether the address lies in one of the networks; what is no address lies in none."""
    try:
        address = parse_address(text)
    except ValueError:
        return False
    return any(address in network for network in networks)


def _parse_network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(
            f"“{text}” is no IP network: write it like 203.0.113.0/24 or 2001:db8::/32"
        ) from None
