"""What orders are counted and linked by: an order's values, normalised, as keyed hashes by dimension."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fraud.facts import DIMENSIONS, EVENT_KINDS, Measure, VelocityKey
from fraud.lists.values import normalise, spell_code, spell_street
from fraud.told import text_of
from payments.encryption import keyed_hash
from payments.errors import InvalidRequestError
from payments.models import Order, Payment

MIN_SECONDS = 60
MAX_SECONDS = 30 * 24 * 60 * 60
# Always counted and kept with the screening, so that a draft rule can be tried on history.
STANDARD = tuple(VelocityKey(name, seconds) for name in DIMENSIONS for seconds in (600, 3600, 86400))


def values_of(order: Order, payment: Payment) -> dict[str, str]:
    """The order's value in each dimension, in its one spelling; empty where it has none.

    A card is its token, as it is known before the gateway is asked. A customer is told apart by shop.
    """
    ip = text_of(order.context, "ip")
    return {
        "card": payment.payment_method,
        "email": _normalise("email", order.customer_email),
        "ip": _normalise("ip", ip),
        "network": _normalise("network", ip, otherwise=""),
        "device": text_of(order.context, "device"),
        "customer": f"{order.client_id}:{order.customer_id}" if order.customer_id else "",
        "address": address_of(order.shipping) or address_of(order.billing),
    }


def hash_values(values: Mapping[str, str], *, purpose: str = "velocity") -> dict[str, str]:
    """The keyed hash of each value that is there, by dimension."""
    return {
        name: keyed_hash(values[name], purpose=f"{purpose}:{name}") for name in DIMENSIONS if values.get(name)
    }


def address_of(postal: Mapping[str, object]) -> str:
    """Spelt as on a list (see fraud.lists.values), the country known or not.

    Empty without a street or a code: half an address is many people's.
    """
    street, code = spell_street(text_of(postal, "line1")), spell_code(text_of(postal, "postal_code"))
    return f"{text_of(postal, 'country').upper()}|{code}|{street}" if street and code else ""


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


def _normalise(kind: str, value: str, *, otherwise: str | None = None) -> str:
    try:
        return normalise(kind, value) if value.strip() else ""
    except InvalidRequestError:
        # Misspelt, but still the same each time.
        return value.strip().casefold() if otherwise is None else otherwise
