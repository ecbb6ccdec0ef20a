"""Which orders share a card, an e-mail address, a device, a network, an address or a customer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from fraud.velocity.keys import hash_values, values_of
from payments import sql
from payments.models import Order, Payment

MOST_PER_KEY = 500  # orders; what more of them share is common, such as a company's IP address
LinkKey = tuple[str, str]  # kind and keyed hash


@dataclass(frozen=True, slots=True)
class Linked:
    """Other orders with the kinds that they share, newest first, and the kinds that are too common to count."""

    orders: Mapping[str, frozenset[str]]
    common: frozenset[str]


@dataclass(frozen=True, slots=True)
class LinkCount:
    """How many other orders share something that is not common, and how many of them were fraud."""

    orders: int
    fraud: int


def record_links(order: Order, payment: Payment) -> int:
    """Write down what the order can share with others, each once; how many were new.

    Call it when the order comes and again after its authorization: only then is the card's fingerprint known.
    """
    keys = list_keys(order, payment)
    parameters = [order.pk, [kind for kind, _ in keys], [digest for _, digest in keys]]
    return sql.run(_RECORD, parameters) if keys else 0


_RECORD = """
INSERT INTO fraud_entitylink (kind, value_hash, order_id, at)
SELECT kind, value_hash, %s, clock_timestamp() FROM unnest(%s::text[], %s::text[]) AS key (kind, value_hash)
ON CONFLICT DO NOTHING
"""

# One look into the index per key: the newest orders of it, one more than are counted.
_FIND = """
WITH asked AS (
    SELECT * FROM unnest(%(kinds)s::text[], %(hashes)s::text[]) AS key (kind, value_hash)
    UNION SELECT kind, value_hash FROM fraud_entitylink WHERE order_id = %(order)s
)
SELECT asked.kind, array_agg(other.order_id) FROM asked CROSS JOIN LATERAL (
    SELECT order_id FROM fraud_entitylink link
    WHERE link.kind = asked.kind AND link.value_hash = asked.value_hash AND link.order_id <> %(order)s
    ORDER BY link.order_id DESC LIMIT %(most)s
) other GROUP BY asked.kind, asked.value_hash
"""


def find_linked(order: Order, payment: Payment) -> Linked:
    """The newest other orders that share something with this one: at most 500 of each key, in one query.

    A key of more is common: its orders are told only if they share something else too.
    """
    keys = list_keys(order, payment)
    asked = {
        "kinds": [kind for kind, _ in keys],
        "hashes": [digest for _, digest in keys],
        "order": order.pk,
        "most": MOST_PER_KEY + 1,
    }
    found = sql.fetch_all(_FIND, asked)
    common = frozenset(kind for kind, orders in found if len(orders) > MOST_PER_KEY)
    shares: dict[str, set[str]] = defaultdict(set)
    for kind, orders in found:
        for order_id in orders:
            shares[order_id].add(kind)
    newest = sorted((pk for pk, kinds in shares.items() if not kinds <= common), reverse=True)
    return Linked({pk: frozenset(shares[pk]) for pk in newest}, common)


def count_linked(order: Order, payment: Payment, count_fraud: Callable[[Collection[str]], int]) -> LinkCount:
    """The facts `linked_orders` and `linked_fraud`; `count_fraud` says how many of these orders were fraud."""
    orders = find_linked(order, payment).orders
    return LinkCount(len(orders), count_fraud(list(orders)) if orders else 0)


def list_keys(order: Order, payment: Payment) -> list[LinkKey]:
    """By what the order is linked. Its card is the gateway's fingerprint, once that is known."""
    values = {**values_of(order, payment), "card": payment.card_fingerprint}
    return list(hash_values(values, purpose="link").items())


def find_customer_key(order: Order, payment: Payment) -> LinkKey | None:
    """Who bought: the customer, or the e-mail address of a guest."""
    keys = dict(list_keys(order, payment))
    kind = next((kind for kind in ("customer", "email") if kind in keys), None)
    return (kind, keys[kind]) if kind else None
