"""Which entries of the lists fit an order, in one index look-up, and how often each entry fitted."""

from __future__ import annotations

from collections.abc import Mapping

from django.db import connection, transaction
from django.utils import timezone

from fraud.facts import FraudContext, ListMatch
from fraud.lists.values import Kind, domain_of, domains_above, hashes_of, join_address, networks_around
from fraud.models import ListHit
from fraud.told import text_of
from payments import sql
from payments.decisions import Stage
from payments.errors import InvalidRequestError
from payments.models import Order, Payment

FOLD_AT_ONCE = 100_000

# A client's allow entry is for its own orders: no storefront lets another one's customers through.
_MATCH = """
SELECT id, list, kind, value_masked, value_hash FROM fraud_listentry
WHERE value_hash = ANY(%(hashes)s) AND (expires_at IS NULL OR expires_at > %(now)s)
  AND (list <> 'allow' OR client_id IS NULL OR client_id = %(client)s)
ORDER BY id
"""
_FOLD = """
WITH folded AS (
    DELETE FROM fraud_listhit WHERE id IN (
        SELECT id FROM fraud_listhit ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
    ) RETURNING entry_id, at
), total AS (SELECT entry_id, count(*) AS hits, max(at) AS at FROM folded GROUP BY entry_id),
counted AS (
    UPDATE fraud_listentry entry SET hits = entry.hits + total.hits, last_hit_at = greatest(entry.last_hit_at, total.at)
    FROM total WHERE entry.id = total.entry_id
)
SELECT count(*) FROM folded
"""


def find_matches(values: Mapping[str, set[str]], *, client_id: str = "") -> tuple[ListMatch, ...]:
    """The valid entries for these values by kind, in one query; a malformed value fits no entry.

    A value that is on a list twice, by the house and by a client or by two clients, is one match: the older.
    """
    hashes = sorted(
        {digest for kind, texts in values.items() for text in texts for digest in hashes_of(kind, text)}
    )
    if not hashes:
        return ()
    arguments = {"hashes": hashes, "now": timezone.now(), "client": client_id}
    found: dict[tuple[str, str], ListMatch] = {}
    for entry, list_name, kind, masked, digest in sql.fetch_all(_MATCH, arguments):
        found.setdefault((list_name, digest), ListMatch(list_name, kind, masked, entry))
    return tuple(found.values())


def order_values(order: Order, payment: Payment) -> dict[str, set[str]]:
    """What of an order is looked up before the gateway has named the card."""
    ip = text_of(order.context, "ip")
    places = [order.billing, order.shipping]
    return {
        Kind.EMAIL: {order.customer_email},
        Kind.DOMAIN: set(domains_above(domain_of(order.customer_email))),
        Kind.IP: {ip},
        Kind.NETWORK: _networks(ip),
        Kind.DEVICE: {text_of(order.context, "device")},
        Kind.CUSTOMER: {order.customer_id},
        Kind.PHONE: {text_of(place, "phone") for place in places},
        Kind.ADDRESS: {_address(place) for place in places},
        Kind.CARD: {payment.card_fingerprint},
        Kind.COUNTRY: {text_of(place, "country") for place in [*places, payment.card]},
    }


def card_values(payment: Payment) -> dict[str, set[str]]:
    """What the gateway's answer adds to `order_values`."""
    return {Kind.CARD: {payment.card_fingerprint}, Kind.COUNTRY: {text_of(payment.card, "country")}}


def record_hits(order: Order, context: FraudContext) -> None:
    """Note which entries fitted a screening, in the transaction that keeps it; `fold_hits` counts them.

    An entry that the screening before the authorization knew is not counted again after it. Inserts only: orders
    that fit the same entry at the same time do not wait for each other.
    """
    entries = {match.entry for match in context.list_matches if match.entry}
    if entries and context.stage is Stage.AFTER_AUTHORIZATION:
        entries -= _known_before(order)
    now = timezone.now()
    ListHit.objects.bulk_create(ListHit(entry_id=entry, at=now) for entry in sorted(entries))


def _known_before(order: Order) -> set[int]:
    before = order.assessments.filter(stage=Stage.BEFORE_AUTHORIZATION).first()
    matches = before.context.get("list_matches", ()) if before else ()
    return {match.get("entry", 0) for match in matches}


def fold_hits() -> int:
    """Add what was noted to the entries' own counts; the number of hits. Each is added once, whoever else is at it."""
    folded = 0
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_FOLD, [FOLD_AT_ONCE])
            count = int(cursor.fetchone()[0])
        folded += count
        if count < FOLD_AT_ONCE:
            return folded


def _networks(ip: str) -> set[str]:
    try:
        return set(networks_around(ip))
    except InvalidRequestError:
        return set()


def _address(place: Mapping[str, object]) -> str:
    return join_address(text_of(place, "country"), text_of(place, "postal_code"), text_of(place, "line1"))
