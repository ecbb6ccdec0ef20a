"""Which orders share a card, an e-mail address, a device, a network, an address or a customer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fraud.labels import find_frauds
from fraud.velocity.keys import hash_values, values_of
from payments import sql
from payments.models import Order, Payment

MOST_PER_KEY = 500  # orders; what more of them share is common, such as a company's IP address
MOST_SHOWN = 100  # of each key in the queue, which must not be slowed down by what very many share
STRONG = [
    "card",
    "email",
    "ip",
    "device",
    "customer",
    "address",
]  # a network alone is no link for people's eyes
LinkKey = tuple[str, str]  # kind and keyed hash
Links = Mapping[str, set[str]]  # the ids of other orders, with the kinds that they share


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


def count_linked(order: Order, payment: Payment) -> LinkCount:
    """The facts `linked_orders` and `linked_fraud`."""
    orders = find_linked(order, payment).orders
    return LinkCount(len(orders), len(find_frauds(orders)) if orders else 0)


# The newest orders of each value that an order shares.
_FIND_MANY = """
SELECT mine.order_id, other.order_id, mine.kind
FROM fraud_entitylink mine CROSS JOIN LATERAL (
    SELECT order_id FROM fraud_entitylink same
    WHERE same.kind = mine.kind AND same.value_hash = mine.value_hash AND same.order_id <> mine.order_id
    ORDER BY same.order_id DESC LIMIT %(most)s) other
WHERE mine.order_id = ANY(%(orders)s) AND mine.kind = ANY(%(kinds)s)
"""


def find_links(order_ids: Sequence[str]) -> dict[str, Links]:
    """For each order, the newest others that share something, with what they share: one query for all."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    wish = {"orders": list(order_ids), "kinds": STRONG, "most": MOST_SHOWN}
    for order_id, other_id, kind in sql.fetch_all(_FIND_MANY, wish):
        found[order_id][other_id].add(kind)
    return {order_id: dict(others) for order_id, others in found.items()}


def count_links(order_ids: Sequence[str]) -> dict[str, LinkCount]:
    """For each order, how many others share something and how many were fraud: two queries for all."""
    links = find_links(order_ids)
    frauds = find_frauds({other for others in links.values() for other in others})
    return {
        order_id: LinkCount(len(others), len(frauds & others.keys())) for order_id, others in links.items()
    }


def list_keys(order: Order, payment: Payment) -> list[LinkKey]:
    """By what the order is linked. Its card is the gateway's fingerprint, once that is known."""
    values = {**values_of(order, payment), "card": payment.card_fingerprint}
    return list(hash_values(values, purpose="link").items())


def find_customer_key(order: Order, payment: Payment) -> LinkKey | None:
    """Who bought: the customer, or the e-mail address of a guest."""
    keys = dict(list_keys(order, payment))
    kind = next((kind for kind in ("customer", "email") if kind in keys), None)
    return (kind, keys[kind]) if kind else None
