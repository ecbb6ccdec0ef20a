"""Proves the books: re-derives every balance from the operations and says what differs."""

from __future__ import annotations

import structlog
from django.db import connection

log = structlog.get_logger(__name__)

_UNBALANCED = """
SELECT entry_id, currency, sum(amount) FROM payments_posting GROUP BY entry_id, currency HAVING sum(amount) <> 0
"""
_EMPTY = """
SELECT entry.id FROM payments_ledgerentry AS entry LEFT JOIN payments_posting AS posting ON posting.entry_id = entry.id
GROUP BY entry.id HAVING count(posting.id) < 2
"""
# What the operations say that the books must hold, per payment, against what they do hold.
_DIFFERENCES = """
WITH operations AS (
    SELECT payment_id,
        coalesce(sum(amount) FILTER (WHERE kind = 'capture' AND state = 'succeeded'), 0) AS captured,
        coalesce(sum(amount) FILTER (WHERE kind = 'refund' AND state = 'succeeded'), 0) AS refunded,
        coalesce(sum(amount) FILTER (WHERE kind = 'refund'
            AND state IN ('created', 'sent', 'unknown', 'pending', 'requires_review')), 0) AS pending
    FROM payments_operation GROUP BY payment_id
), books AS (
    SELECT entry.payment_id,
        coalesce(sum(posting.amount) FILTER (WHERE account.code = 1100 AND entry.source = 'operation'), 0) AS clearing,
        coalesce(sum(posting.amount) FILTER (WHERE account.code = 4000), 0) AS sales,
        coalesce(sum(posting.amount) FILTER (WHERE account.code = 4900), 0) AS refunds,
        coalesce(sum(posting.amount) FILTER (WHERE account.code = 2100), 0) AS payable
    FROM payments_posting AS posting
    JOIN payments_ledgerentry AS entry ON entry.id = posting.entry_id
    JOIN payments_ledgeraccount AS account ON account.id = posting.account_id
    WHERE entry.payment_id IS NOT NULL GROUP BY entry.payment_id
)
SELECT payment.id, payment.captured, payment.refunded, payment.refund_pending,
    coalesce(operations.captured, 0), coalesce(operations.refunded, 0), coalesce(operations.pending, 0),
    coalesce(books.clearing, 0), coalesce(books.sales, 0), coalesce(books.refunds, 0), coalesce(books.payable, 0)
FROM payments_payment AS payment
LEFT JOIN operations ON operations.payment_id = payment.id
LEFT JOIN books ON books.payment_id = payment.id
WHERE payment.captured <> coalesce(operations.captured, 0)
    OR payment.refunded <> coalesce(operations.refunded, 0)
    OR payment.refund_pending <> coalesce(operations.pending, 0)
    OR coalesce(books.clearing, 0) <> payment.captured - payment.refunded
    OR coalesce(books.sales, 0) <> -payment.captured
    OR coalesce(books.refunds, 0) <> payment.refunded + payment.refund_pending
    OR coalesce(books.payable, 0) <> -payment.refund_pending
ORDER BY payment.id
"""


def prove_ledger() -> list[str]:
    """Every difference in words; empty when the books hold: each entry balances, each payment equals its postings."""
    found: list[str] = []
    with connection.cursor() as cursor:
        cursor.execute(_UNBALANCED)
        found += [
            f"entry {entry} does not balance: {total} {currency}"
            for entry, currency, total in cursor.fetchall()
        ]
        cursor.execute(_EMPTY)
        found += [f"entry {entry} has fewer than two postings" for (entry,) in cursor.fetchall()]
        cursor.execute(_DIFFERENCES)
        found += [_describe(row) for row in cursor.fetchall()]
    for difference in found:
        log.error("ledger_difference", difference=difference)
    return found


def _describe(row: tuple[object, ...]) -> str:
    payment, captured, refunded, pending, *rest = row
    by_operations, by_books = rest[:3], rest[3:]
    return (
        f"payment {payment} says captured {captured}, refunded {refunded}, pending {pending}; "
        f"its operations say {by_operations}; the books hold clearing, sales, refunds, payable {by_books}"
    )
