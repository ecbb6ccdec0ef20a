"""Proves the books: re-derives every balance from operations, disputes and closings, and says what differs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import structlog
from django.db import connection, transaction

from payments import ledger
from payments.models import GatewayAccount

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Days:
    """A part of the books: one gateway account's entries of these days, and the payments that they belong to."""

    account: GatewayAccount
    first: date
    last: date


def prove_ledger(days: Days | None = None) -> list[str]:
    """Every difference in words, of the whole books or of some days; empty when they hold.

    Proved are: each entry balances, has two lines or more, of its own book, currency and day, on the accounts that
    its event may touch; each book's debits equal its credits; each payment and each dispute equals its postings;
    and each closed period holds what it held when it was closed.
    """
    codes = [int(account) for account in ledger.Account]
    bit = {code: 1 << index for index, code in enumerate(codes)}
    shapes = {event: sum(bit[code] for code in accounts) for event, accounts in ledger.SHAPES.items()}
    known = {
        "codes": codes,
        "bits": list(bit.values()),
        "events": list(shapes),
        "shapes": list(shapes.values()),
    }
    scope = {"account": days.account.pk, "first": days.first, "last": days.last} if days else {}
    with _room_to_think() as cursor:
        cursor.execute(_OF_DAYS if days else _WHOLE, {**known, **scope})
        found = [
            _TOLD[kind](subject, json.loads(detail or "{}")) for kind, subject, detail in cursor.fetchall()
        ]
    for difference in found:
        log.error("ledger_difference", difference=difference)
    return found


@contextmanager
def _room_to_think() -> Iterator[Any]:
    """A cursor whose sums need not be spilt to the disk; only this transaction gets the memory."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL work_mem = '128MB'")
        cursor.execute("SET LOCAL jit = off")
        yield cursor


# One statement, so that it sees one moment while payments go on. Every posting is read once, into one row per entry,
# currency and book; all else is asked of those rows.
_PROOF = """
WITH scope AS (/*scope*/), slot AS (
    SELECT account.id, account.gateway_account_id, account.currency, account.code, coalesce(known.bit, 0) AS bit,
        dense_rank() OVER (ORDER BY account.gateway_account_id, account.currency)::int AS book
    FROM payments_ledgeraccount AS account
    LEFT JOIN unnest(%(codes)s::int[], %(bits)s::int[]) AS known(code, bit) ON known.code = account.code
), book AS (
    SELECT DISTINCT book, gateway_account_id, currency FROM slot
), part AS (
    SELECT posting.entry_id, slot.book, count(*) AS lines, sum(posting.amount) AS total, bit_or(slot.bit) AS bits,
        bool_and(slot.currency = posting.currency) AS is_in_place,
        min(posting.booked_on) AS first_day, max(posting.booked_on) AS last_day,
        sum(posting.amount) FILTER (WHERE slot.code = 9000) AS held,
        sum(posting.amount) FILTER (WHERE slot.code = 9001) AS contra,
        sum(posting.amount) FILTER (WHERE slot.code = 1100) AS clearing,
        sum(posting.amount) FILTER (WHERE slot.code = 4000) AS sales,
        sum(posting.amount) FILTER (WHERE slot.code = 4900) AS refunds,
        sum(posting.amount) FILTER (WHERE slot.code = 2100) AS payable,
        sum(posting.amount) FILTER (WHERE slot.code = 1150) AS withdrawn,
        sum(posting.amount) FILTER (WHERE slot.code = 5100) AS losses,
        sum(posting.amount) FILTER (WHERE slot.code = 5110) AS charged
    FROM payments_posting AS posting JOIN slot ON slot.id = posting.account_id /*postings*/
    GROUP BY posting.entry_id, slot.book
), line AS MATERIALIZED (
    SELECT entry.id, entry.payment_id, entry.source = 'operation' AS is_own,
        CASE WHEN entry.source = 'dispute' THEN split_part(entry.external_id, ':', 1) END AS dispute_id,
        part.book, part.total, part.held, part.clearing, part.sales, part.refunds, part.payable, part.withdrawn,
        part.losses, part.charged, coalesce(part.lines < 2, true) AS is_thin,
        book.gateway_account_id <> entry.gateway_account_id OR NOT part.is_in_place
            OR part.first_day <> entry.booked_on OR part.last_day <> entry.booked_on AS is_misplaced,
        CASE WHEN part.bits & ~shape.bits <> 0 THEN entry.event END AS misshapen,
        coalesce(part.held, 0) + coalesce(part.contra, 0) <> 0 AS is_half_memo
    FROM payments_ledgerentry AS entry
    LEFT JOIN part ON part.entry_id = entry.id
    LEFT JOIN book ON book.book = part.book
    LEFT JOIN unnest(%(events)s::text[], %(shapes)s::int[]) AS shape(event, bits) ON shape.event = entry.event
    /*entries*/
), suspect AS MATERIALIZED (
    SELECT * FROM line WHERE is_thin OR total <> 0 OR is_misplaced OR misshapen IS NOT NULL OR is_half_memo
), unbalanced AS (
    SELECT suspect.id, book.currency, sum(suspect.total) AS total FROM suspect JOIN book USING (book)
    GROUP BY suspect.id, book.currency HAVING sum(suspect.total) <> 0
), thin AS (
    SELECT DISTINCT id FROM suspect
    WHERE is_thin AND (SELECT count(*) FROM payments_posting WHERE entry_id = suspect.id) < 2
), trial AS (
    SELECT book.gateway_account_id, book.currency, found.total
    FROM (SELECT book, sum(total) AS total FROM line GROUP BY book) AS found JOIN book USING (book)
    WHERE found.total <> 0
), operation AS (
    -- a void releases no more than its own authorization; a hold stands while its attempt does
    SELECT payment_id, sum(authorized) AS authorized, sum(captured) AS captured, sum(refunded) AS refunded,
        sum(pending) AS pending,
        sum(greatest(authorized - captured, 0)) FILTER (WHERE state = 'live') AS capturable,
        sum(greatest(authorized - captured, 0)) FILTER (WHERE state IN ('live', 'late')) AS standing
    FROM (
        SELECT operation.payment_id, attempt.state,
            greatest(coalesce(sum(amount) FILTER (WHERE kind = 'authorize' AND operation.state = 'succeeded'), 0)
                - coalesce(sum(amount) FILTER (WHERE kind = 'void' AND operation.state = 'succeeded'), 0), 0)
                AS authorized,
            coalesce(sum(amount) FILTER (WHERE kind = 'capture' AND operation.state = 'succeeded'), 0) AS captured,
            coalesce(sum(amount) FILTER (WHERE kind = 'refund' AND operation.state = 'succeeded'), 0) AS refunded,
            coalesce(sum(amount) FILTER (WHERE kind = 'refund' AND operation.state
                IN ('created', 'sent', 'unknown', 'pending', 'requires_review')), 0) AS pending
        FROM payments_operation AS operation JOIN payments_attempt AS attempt ON attempt.id = operation.attempt_id
        /*operations*/ GROUP BY operation.payment_id, attempt.id, attempt.state
    ) AS tried GROUP BY payment_id
), booked AS (
    SELECT payment_id, min(book) FILTER (WHERE is_own) AS book, max(book) FILTER (WHERE is_own) AS other_book,
        coalesce(sum(held), 0) AS held, coalesce(sum(clearing) FILTER (WHERE is_own), 0) AS clearing,
        coalesce(sum(sales) FILTER (WHERE is_own), 0) AS sales,
        coalesce(sum(refunds) FILTER (WHERE is_own), 0) AS refunds,
        coalesce(sum(payable) FILTER (WHERE is_own), 0) AS payable,
        coalesce(sum(losses) FILTER (WHERE dispute_id IS NOT NULL), 0) AS losses
    FROM line WHERE payment_id IS NOT NULL GROUP BY payment_id
), derived AS (
    SELECT payment.id, payment.authorized, payment.capturable, payment.captured, payment.refunded,
        payment.refund_pending AS pending, payment.disputed_lost AS lost,
        coalesce(operation.authorized, 0) AS op_authorized,
        coalesce(operation.capturable, 0) AS op_capturable, coalesce(operation.standing, 0) AS op_standing,
        coalesce(operation.captured, 0) AS op_captured, coalesce(operation.refunded, 0) AS op_refunded,
        coalesce(operation.pending, 0) AS op_pending, coalesce(booked.held, 0) AS held,
        coalesce(booked.clearing, 0) AS clearing, coalesce(booked.sales, 0) AS sales,
        coalesce(booked.refunds, 0) AS refunds, coalesce(booked.payable, 0) AS payable,
        coalesce(booked.losses, 0) AS losses,
        booked.book <> booked.other_book OR book.currency <> payment.currency
            OR book.gateway_account_id <> payment.account_id AS is_stray
    FROM payments_payment AS payment
    LEFT JOIN operation ON operation.payment_id = payment.id
    LEFT JOIN booked ON booked.payment_id = payment.id
    LEFT JOIN book ON book.book = booked.book
    /*payments*/
), payment_off AS (
    SELECT * FROM derived
    WHERE authorized <> op_authorized OR capturable <> op_capturable OR captured <> op_captured
        OR refunded <> op_refunded OR pending <> op_pending OR held <> op_standing
        OR clearing <> captured - refunded OR sales <> -captured OR refunds <> refunded + pending
        OR payable <> -pending OR lost <> least(losses, captured - refunded - pending) OR is_stray
), dispute_booked AS (
    SELECT dispute_id AS id, coalesce(sum(withdrawn), 0) AS withdrawn, coalesce(sum(losses), 0) AS losses,
        coalesce(sum(charged), 0) AS fees
    FROM line WHERE dispute_id IS NOT NULL GROUP BY dispute_id
), dispute_off AS (
    SELECT coalesce(dispute.id, dispute_booked.id) AS id, coalesce(wanted.withdrawn, 0) AS withdrawn,
        coalesce(wanted.losses, 0) AS losses, coalesce(dispute.fee, 0) AS fees,
        coalesce(dispute_booked.withdrawn, 0) AS booked_withdrawn,
        coalesce(dispute_booked.losses, 0) AS booked_losses, coalesce(dispute_booked.fees, 0) AS booked_fees
    FROM dispute_booked FULL JOIN (SELECT * FROM payments_dispute /*disputes*/) AS dispute
        ON dispute.id = dispute_booked.id
    LEFT JOIN LATERAL (
        SELECT CASE WHEN dispute.is_withdrawn AND NOT is_lost THEN dispute.amount ELSE 0 END AS withdrawn,
            CASE WHEN dispute.is_withdrawn AND is_lost THEN dispute.amount ELSE 0 END AS losses
        FROM (VALUES (dispute.state IN ('lost', 'accepted', 'expired'))) AS judged(is_lost)
    ) AS wanted ON true
), period_off AS (
    SELECT period.id, period.first_day, period.last_day, period.gateway_account_id, period.postings,
        held.postings AS held_postings
    FROM payments_ledgerperiod AS period
    CROSS JOIN LATERAL ledger_digest(period.gateway_account_id, period.first_day, period.last_day) AS held
    WHERE period.reopened_at IS NULL AND (held.postings, held.digest) <> (period.postings, period.digest)
)
SELECT 'unbalanced', id::text, jsonb_build_object('total', total, 'currency', currency) FROM unbalanced
UNION ALL SELECT 'thin', id::text, NULL FROM thin
UNION SELECT 'misplaced', id::text, NULL FROM suspect WHERE is_misplaced
UNION SELECT 'misshapen', id::text, jsonb_build_object('event', misshapen) FROM suspect WHERE misshapen IS NOT NULL
UNION SELECT 'half_memo', id::text, NULL FROM suspect WHERE is_half_memo
UNION ALL SELECT 'trial', gateway_account_id, jsonb_build_object('total', total, 'currency', currency) FROM trial
UNION ALL SELECT CASE WHEN is_stray THEN 'stray' ELSE 'payment' END, id, to_jsonb(payment_off) FROM payment_off
UNION ALL SELECT 'dispute', id, to_jsonb(dispute_off) FROM dispute_off
    WHERE withdrawn <> booked_withdrawn OR losses <> booked_losses OR fees <> booked_fees
UNION ALL SELECT 'period', gateway_account_id, to_jsonb(period_off) FROM period_off
ORDER BY 1, 2
"""


def _narrow(statement: str, **places: str) -> str:
    for place, condition in places.items():
        statement = statement.replace(f"/*{place}*/", condition)
    return statement


_WHOLE = _narrow(_PROOF, scope="SELECT 1")
# The entries of those days, and every entry of a payment that has one there: its sums are proved whole.
_OF_DAYS = _narrow(
    _PROOF,
    scope="""
        SELECT id, payment_id FROM payments_ledgerentry
        WHERE gateway_account_id = %(account)s AND booked_on BETWEEN %(first)s AND %(last)s
        UNION
        SELECT other.id, other.payment_id FROM payments_ledgerentry AS entry
        JOIN payments_ledgerentry AS other ON other.payment_id = entry.payment_id
        WHERE entry.gateway_account_id = %(account)s AND entry.booked_on BETWEEN %(first)s AND %(last)s
    """,
    postings="WHERE posting.entry_id IN (SELECT id FROM scope)",
    entries="WHERE entry.id IN (SELECT id FROM scope)",
    operations="WHERE operation.payment_id IN (SELECT payment_id FROM scope)",
    payments="WHERE payment.id IN (SELECT payment_id FROM scope)",
    disputes="WHERE payment_id IN (SELECT payment_id FROM scope)",
)

# --- in words -----------------------------------------------------------------------------------------------

_SAID = ("authorized", "capturable", "captured", "refunded", "pending")
_HELD = ("held", "clearing", "sales", "refunds", "payable", "losses")


def _tell_payment(payment: str, found: dict[str, int]) -> str:
    says = ", ".join(f"{name} {found[name]}" for name in (*_SAID, "lost"))
    operations = ", ".join(f"{name} {found[f'op_{name}']}" for name in _SAID)
    books = ", ".join(f"{name} {found[name]}" for name in _HELD)
    return f"payment {payment} says {says}; its operations say {operations}; the books hold {books}"


def _tell_dispute(dispute: str, found: dict[str, int]) -> str:
    names = ("withdrawn", "losses", "fees")
    says = ", ".join(f"{name} {found[name]}" for name in names)
    books = ", ".join(f"{name} {found[f'booked_{name}']}" for name in names)
    return f"dispute {dispute} says {says}; the books hold {books}"


def _tell_period(account: str, found: dict[str, Any]) -> str:
    return (
        f"the closed period {found['first_day']} to {found['last_day']} of {account} is not what was closed: "
        f"{found['postings']} postings then, {found['held_postings']} now, or others"
    )


_TOLD: dict[str, Callable[[str, Any], str]] = {
    "unbalanced": lambda entry, found: (
        f"entry {entry} does not balance: {found['total']} {found['currency']}"
    ),
    "thin": lambda entry, _: f"entry {entry} has fewer than two postings",
    "misplaced": lambda entry, _: (
        f"entry {entry} has a posting on an account of another currency or gateway account, or of another day"
    ),
    "misshapen": lambda entry, found: (
        f"entry {entry} has a posting on an account that {found['event']} does not touch"
    ),
    "half_memo": lambda entry, _: f"entry {entry} moves one account of the memo pair without the other",
    "trial": lambda account, found: (
        f"the books of {account} do not balance: {found['total']} {found['currency']}"
    ),
    "stray": lambda payment, found: (
        f"{_tell_payment(payment, found)}, and in another currency or gateway account"
    ),
    "payment": _tell_payment,
    "dispute": _tell_dispute,
    "period": _tell_period,
}
