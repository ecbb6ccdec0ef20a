"""What orders are counted and linked by: an order's values, normalised, as keyed hashes by dimension."""

from __future__ import annotations

import ipaddress
import unicodedata
from collections.abc import Iterable, Mapping

from fraud.facts import DIMENSIONS, EVENT_KINDS, Measure, VelocityKey
from fraud.lists import normalise
from payments.encryption import keyed_hash
from payments.errors import InvalidRequestError
from payments.models import Order, Payment

MIN_SECONDS = 60
MAX_SECONDS = 30 * 24 * 60 * 60
# Always counted and kept with the screening, so that a draft rule can be tried on history.
STANDARD = tuple(VelocityKey(name, seconds) for name in DIMENSIONS for seconds in (600, 3600, 86400))
_NETWORK_BITS = {4: 24, 6: 48}


def values_of(order: Order, payment: Payment) -> dict[str, str]:
    """The order's value in each dimension, in its one spelling; empty where it has none.

    A card is its token, as it is known before the gateway is asked. A customer is told apart by shop.
    """
    ip = _try_normalise("ip", _text(order.context, "ip"))
    return {
        "card": payment.payment_method,
        "email": _try_normalise("email", order.customer_email),
        "ip": ip,
        "network": network_of(ip),
        "device": _text(order.context, "device"),
        "customer": f"{order.client_id}:{order.customer_id}" if order.customer_id else "",
        "address": address_of(order.shipping) or address_of(order.billing),
    }


def hash_values(values: Mapping[str, str], *, purpose: str = "velocity") -> dict[str, str]:
    """The keyed hash of each value that is there, by dimension."""
    return {
        name: keyed_hash(values[name], purpose=f"{purpose}:{name}") for name in DIMENSIONS if values.get(name)
    }


def network_of(ip: str) -> str:
    """The network that an address is in: its /24 (IPv4) or /48 (IPv6); empty for what is no address."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ""
    return str(ipaddress.ip_network((address, _NETWORK_BITS[address.version]), strict=False))


def address_of(postal: Mapping[str, object]) -> str:
    """Street, postal code and country without case, accents, blanks and punctuation.

    Empty without a street or a code: half an address is many people's.
    """
    parts = [_squeeze(_text(postal, name)) for name in ("line1", "postal_code", "country")]
    return "|".join(parts) if all(parts[:2]) else ""


def check_keys(keys: Iterable[VelocityKey]) -> None:
    """Raises `ValueError` for a figure that cannot be counted."""
    for key in keys:
        is_other = key.of in DIMENSIONS and key.of != key.dimension
        if (
            key.dimension not in DIMENSIONS
            or key.kind not in EVENT_KINDS
            or not MIN_SECONDS <= key.seconds <= MAX_SECONDS
            or (is_other if key.measure is Measure.DISTINCT else not key.of) is False
        ):
            raise ValueError(f"{key.name} cannot be counted: see fraud.facts.VelocityKey for what can")


def _try_normalise(kind: str, value: str) -> str:
    try:
        return normalise(kind, value) if value.strip() else ""
    except InvalidRequestError:
        return value.strip().casefold()  # misspelt, but still the same each time


def _squeeze(text: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFKD", text.casefold()) if letter.isalnum())


def _text(data: Mapping[str, object], name: str) -> str:
    value = data.get(name)
    return value.strip() if isinstance(value, str) else ""
