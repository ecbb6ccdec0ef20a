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
_MISPLACED = """
SELECT posting.id, posting.entry_id FROM payments_posting AS posting
JOIN payments_ledgeraccount AS account ON account.id = posting.account_id
JOIN payments_ledgerentry AS entry ON entry.id = posting.entry_id
LEFT JOIN payments_payment AS payment ON payment.id = entry.payment_id AND entry.source = 'operation'
WHERE account.currency <> posting.currency OR account.gateway_account_id <> entry.gateway_account_id
    OR payment.currency <> posting.currency OR payment.account_id <> entry.gateway_account_id
ORDER BY posting.id
"""
# What the operations say that the books must hold, per payment, against what they do hold.
_DIFFERENCES = """
WITH operations AS (
    SELECT payment_id,
        greatest(coalesce(sum(amount) FILTER (WHERE kind = 'authorize' AND state = 'succeeded'), 0)
            - coalesce(sum(amount) FILTER (WHERE kind = 'void' AND state = 'succeeded'), 0), 0) AS authorized,
        coalesce(sum(amount) FILTER (WHERE kind = 'capture' AND state = 'succeeded'), 0) AS captured,
        coalesce(sum(amount) FILTER (WHERE kind = 'refund' AND state = 'succeeded'), 0) AS refunded,
        coalesce(sum(amount) FILTER (WHERE kind = 'refund'
            AND state IN ('created', 'sent', 'unknown', 'pending', 'requires_review')), 0) AS pending
    FROM payments_operation GROUP BY payment_id
), books AS (
    SELECT entry.payment_id,
        coalesce(sum(posting.amount) FILTER (WHERE account.code = 9000), 0) AS held,
        coalesce(sum(posting.amount) FILTER (WHERE account.code = 1100 AND entry.source = 'operation'), 0) AS clearing,
        coalesce(sum(posting.amount) FILTER (WHERE account.code = 4000), 0) AS sales,
        coalesce(sum(posting.amount) FILTER (WHERE account.code = 4900), 0) AS refunds,
        coalesce(sum(posting.amount) FILTER (WHERE account.code = 2100), 0) AS payable
    FROM payments_posting AS posting
    JOIN payments_ledgerentry AS entry ON entry.id = posting.entry_id
    JOIN payments_ledgeraccount AS account ON account.id = posting.account_id
    WHERE entry.payment_id IS NOT NULL GROUP BY entry.payment_id
)
SELECT payment.id, payment.authorized, payment.captured, payment.refunded, payment.refund_pending,
    coalesce(operations.authorized, 0), coalesce(operations.captured, 0), coalesce(operations.refunded, 0),
    coalesce(operations.pending, 0),
    coalesce(books.held, 0), coalesce(books.clearing, 0), coalesce(books.sales, 0), coalesce(books.refunds, 0),
    coalesce(books.payable, 0)
FROM payments_payment AS payment
LEFT JOIN operations ON operations.payment_id = payment.id
LEFT JOIN books ON books.payment_id = payment.id
WHERE payment.authorized <> coalesce(operations.authorized, 0)
    OR payment.captured <> coalesce(operations.captured, 0)
    OR payment.refunded <> coalesce(operations.refunded, 0)
    OR payment.refund_pending <> coalesce(operations.pending, 0)
    -- the first capture uses up the whole memo, a void releases it
    OR coalesce(books.held, 0) <> CASE WHEN payment.captured = 0 THEN payment.authorized ELSE 0 END
    OR coalesce(books.clearing, 0) <> payment.captured - payment.refunded
    OR coalesce(books.sales, 0) <> -payment.captured
    OR coalesce(books.refunds, 0) <> payment.refunded + payment.refund_pending
    OR coalesce(books.payable, 0) <> -payment.refund_pending
ORDER BY payment.id
"""
_TOTALS = ("authorized", "captured", "refunded", "pending")
_BALANCES = ("held", "clearing", "sales", "refunds", "payable")


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
        cursor.execute(_MISPLACED)
        found += [
            f"posting {posting} of entry {entry} is on an account of another currency or gateway account"
            for posting, entry in cursor.fetchall()
        ]
        cursor.execute(_DIFFERENCES)
        found += [_describe(row) for row in cursor.fetchall()]
    for difference in found:
        log.error("ledger_difference", difference=difference)
    return found


def _describe(row: tuple[object, ...]) -> str:
    payment, rest = row[0], row[1:]
    by_payment, by_operations, by_books = (
        ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
        for names, values in ((_TOTALS, rest[:4]), (_TOTALS, rest[4:8]), (_BALANCES, rest[8:]))
    )
    return (
        f"payment {payment} says {by_payment}; its operations say {by_operations}; the books hold {by_books}"
    )
