"""Posting: `post()` is the only way an entry is made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date

from django.utils import timezone

from payments import sql
from payments.ledger.chart import Account, Line
from payments.models import GatewayAccount, LedgerAccount, Payment


def post(
    account: GatewayAccount,
    lines: Sequence[Line],
    *,
    event: str,
    source: str,
    external_id: str,
    payment: Payment | None = None,
    note: str = "",
    actor: str = "",
    booked_on: date | None = None,
) -> bool:
    """Post one balanced entry in the caller's transaction; False when (source, external_id) is posted already.

    `booked_on` is the day it belongs to, today (UTC) without one. When that day is closed, the entry goes on the
    first open day after it, and its note says so. Raises `ValueError` for lines that do not balance per currency;
    the database refuses them too.
    """
    _check_balance(lines)
    now = timezone.now()
    about = [account.pk, payment.pk if payment else None, event, source, external_id, actor, now]
    row = sql.fetch_one(_ENTRY, [*about, note, account.pk, booked_on or now.date()])
    if row is None:
        return False
    if _insert_postings(account, row[0], lines) < len(lines):
        _open_chart(account, {line.money.currency for line in lines})
        _insert_postings(account, row[0], lines)
    return True


def _check_balance(lines: Sequence[Line]) -> None:
    totals: dict[str, int] = {}
    for line in lines:
        totals[line.money.currency] = totals.get(line.money.currency, 0) + line.money.minor
    if any(totals.values()) or len(lines) < 2:
        raise ValueError(f"the entry does not balance: {totals}")


_ENTRY = """
INSERT INTO payments_ledgerentry (gateway_account_id, payment_id, event, source, external_id, actor, created_at,
    note, booked_on)
SELECT %s, %s, %s, %s, %s, %s, %s, left(concat(open.late, %s::text), 200), open.day
FROM ledger_open_day(%s, %s) AS open ON CONFLICT (source, external_id) DO NOTHING RETURNING id
"""
_POSTINGS = """
INSERT INTO payments_posting (entry_id, line, account_id, currency, amount)
SELECT %s::bigint, given.line, account.id, given.currency, given.amount
FROM jsonb_to_recordset(%s::jsonb) AS given(line smallint, code smallint, currency text, amount bigint)
JOIN payments_ledgeraccount AS account
    ON account.gateway_account_id = %s AND account.code = given.code AND account.currency = given.currency
ON CONFLICT (entry_id, line) DO NOTHING
"""


def _insert_postings(account: GatewayAccount, entry_id: int, lines: Sequence[Line]) -> int:
    given = [
        {
            "line": number,
            "code": int(line.account),
            "currency": line.money.currency,
            "amount": line.money.minor,
        }
        for number, line in enumerate(lines, start=1)
    ]
    return sql.run(_POSTINGS, [entry_id, json.dumps(given), account.pk])


def _open_chart(account: GatewayAccount, currencies: set[str]) -> None:
    LedgerAccount.objects.bulk_create(
        [
            LedgerAccount(gateway_account=account, code=code, currency=currency)
            for currency in sorted(currencies)
            for code in Account
        ],
        ignore_conflicts=True,
    )
