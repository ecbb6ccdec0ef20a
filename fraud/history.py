"""What a customer did before, in one query: earlier orders, and what became of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from fraud.links import find_customer_key
from payments import sql
from payments.models import Order, Payment

MOST_ORDERS = 1000  # the newest ones


@dataclass(frozen=True, slots=True)
class History:
    """Earlier orders of one customer in one shop, 1,000 and 13 months back at most; None: nobody to ask for."""

    orders_before: int | None = None
    paid_before: int | None = None
    declined_before: int | None = None
    refunded_before: int | None = None
    chargebacks_before: int | None = None
    first_order_at: datetime | None = None

    def to_facts(self) -> dict[str, Any]:
        """By the names of `fraud.facts`; times are whole seconds since 1970."""
        first = self.first_order_at
        return {**asdict(self), "first_order_at": int(first.timestamp()) if first else None}


# The links give the orders by one index, in the order of time; each order and payment is one look by its key.
_READ = """
WITH earlier AS (
    SELECT order_id FROM fraud_entitylink
    WHERE kind = %(kind)s AND value_hash = %(hash)s AND order_id < %(order)s ORDER BY order_id DESC LIMIT %(most)s
)
SELECT count(*),
    count(*) FILTER (WHERE payment.captured > 0),
    count(*) FILTER (WHERE placed.state = 'declined' OR EXISTS (
        SELECT FROM payments_attempt attempt WHERE attempt.payment_id = payment.id AND attempt.state = 'declined')),
    count(*) FILTER (WHERE payment.refunded > 0),
    count(*) FILTER (WHERE EXISTS (
        SELECT FROM payments_dispute dispute WHERE dispute.payment_id = payment.id AND dispute.stage <> 'inquiry')),
    min(placed.created_at)
FROM earlier
JOIN payments_order placed ON placed.id = earlier.order_id AND placed.client_id = %(client)s
JOIN payments_payment payment ON payment.order_id = placed.id
"""


def read_history(order: Order, payment: Payment) -> History:
    """Of the customer by their id, or of a guest by their e-mail address; this order is left out.

    Reads what was linked (see `fraud.links`): a burst of the last seconds may be missing, velocity counts that.
    """
    key = find_customer_key(order, payment)
    if key is None:
        return History()
    kind, digest = key
    bounds = {"order": order.pk, "client": order.client_id, "most": MOST_ORDERS}
    row = sql.fetch_one(_READ, {"kind": kind, "hash": digest, **bounds})
    assert row is not None, "an aggregate has a row"
    return History(*row)
