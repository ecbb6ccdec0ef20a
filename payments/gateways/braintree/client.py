"""Braintree's SDK as we use it: its addresses, its timing, and its answers as plain dicts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import braintree
from braintree.attribute_getter import AttributeGetter

Doc = dict[str, Any]
ENVIRONMENTS = {"production": braintree.Environment.Production, "sandbox": braintree.Environment.Sandbox}
PORTS = {"https": 443, "http": 80}


def build_client(
    merchant_id: str, public_key: str, private_key: str, *, api_base: str, timeout: tuple[float, float]
) -> braintree.BraintreeGateway:
    """One that never tries again by itself. Raises `ValueError` for an address that the SDK cannot reach."""
    return braintree.BraintreeGateway(
        braintree.Configuration(
            environment=find_environment(api_base),
            merchant_id=merchant_id,
            public_key=public_key,
            private_key=private_key,
            timeout=timeout,  # reaches requests as it is
        )
    )


def find_environment(api_base: str) -> Any:
    """Raises `ValueError` for an address that the SDK would reach by another scheme than it says."""
    if known := ENVIRONMENTS.get(api_base):
        return known
    parts = urlsplit(api_base)
    port = parts.port or PORTS.get(parts.scheme, 0)
    is_tls = parts.scheme == "https"
    if not parts.hostname or parts.scheme not in PORTS or is_tls != (port == PORTS["https"]):
        raise ValueError(
            "a Braintree address is sandbox, production, https:// on port 443, or http:// on any other port"
        )
    place = parts.hostname, str(port)
    return braintree.Environment("local", *place, "", is_tls, is_tls, *place)


def to_doc(answer: AttributeGetter) -> Doc:
    """The dict that the SDK made its object of, with times as text and amounts as they were written."""
    return {name: to_plain(getattr(answer, name)) for name in answer._setattrs}


def to_plain(value: Any) -> Any:
    match value:
        case AttributeGetter():
            return to_doc(value)
        case Mapping():
            return {name: to_plain(member) for name, member in value.items()}
        case list() | tuple():
            return [to_plain(member) for member in value]
        case Decimal():
            return str(value)
        case date():  # a datetime is one
            return value.isoformat()
    return value
