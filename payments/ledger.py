"""The books: the chart of accounts and post(), the only way an entry is made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from django.utils import timezone

from payments import sql
from payments.models import GatewayAccount, LedgerAccount, Payment
from payments.money import Money


class Account(IntEnum):
    """One chart per gateway account and currency. Debit is positive."""

    BANK = 1000
    PAYOUT_IN_TRANSIT = 1050
    CLEARING = 1100  # captured and not paid out: must equal the gateway's own balance
    DISPUTES_HELD = 1150
    RESERVE = 1190
    RECEIVABLE = 1200
    SUSPENSE = 1900
    REFUNDS_PAYABLE = 2100
    SALES = 4000
    REFUNDS = 4900
    FEES = 5000
    DISPUTE_LOSSES = 5100
    DISPUTE_FEES = 5110
    FX_DIFFERENCE = 5200
    ROUNDING = 5300
    AUTHORIZED = 9000  # memo pair, off the balance sheet
    AUTHORIZED_CONTRA = 9001


@dataclass(frozen=True, slots=True)
class Line:
    """A debit (positive) or a credit (negative) on one account."""

    account: Account
    money: Money


def transfer(*, debit: Account, credit: Account, money: Money) -> list[Line]:
    """The pair of lines that moves `money` from the credited to the debited account."""
    return [Line(debit, money), Line(credit, -money)]


def post(
    account: GatewayAccount,
    lines: Sequence[Line],
    *,
    event: str,
    source: str,
    external_id: str,
    payment: Payment | None = None,
    note: str = "",
) -> bool:
    """Post one balanced entry in the caller's transaction; False when (source, external_id) is posted already.

    Raises `ValueError` for lines that do not balance per currency; the database refuses them too.
    """
    _check_balance(lines)
    row = sql.fetch_one(
        _ENTRY,
        [account.pk, payment.pk if payment else None, event, source, external_id, note, timezone.now()],
    )
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
INSERT INTO payments_ledgerentry (gateway_account_id, payment_id, event, source, external_id, note, created_at)
VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (source, external_id) DO NOTHING RETURNING id
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


# --- the entries that payments make (chart and rules: docs/ledger.md) ---------------------------------------


def post_authorization(payment: Payment, operation_id: str, money: Money) -> None:
    lines = transfer(debit=Account.AUTHORIZED, credit=Account.AUTHORIZED_CONTRA, money=money)
    _post_operation(payment, lines, "authorization", operation_id)


def post_release(payment: Payment, operation_id: str, money: Money) -> None:
    """A void, or an authorization that expired."""
    lines = transfer(debit=Account.AUTHORIZED_CONTRA, credit=Account.AUTHORIZED, money=money)
    _post_operation(payment, lines, "release", operation_id)


def post_capture(payment: Payment, operation_id: str, money: Money, *, released: Money) -> None:
    """The sale, the receivable it settles, and the authorization memo that it uses up."""
    lines = [
        *transfer(debit=Account.RECEIVABLE, credit=Account.SALES, money=money),
        *transfer(debit=Account.CLEARING, credit=Account.RECEIVABLE, money=money),
        *transfer(debit=Account.AUTHORIZED_CONTRA, credit=Account.AUTHORIZED, money=released),
    ]
    _post_operation(payment, lines, "capture", operation_id)


def post_refund_asked(payment: Payment, operation_id: str, money: Money) -> None:
    lines = transfer(debit=Account.REFUNDS, credit=Account.REFUNDS_PAYABLE, money=money)
    _post_operation(payment, lines, "refund_asked", operation_id)


def post_refund_settled(payment: Payment, operation_id: str, money: Money) -> None:
    lines = transfer(debit=Account.REFUNDS_PAYABLE, credit=Account.CLEARING, money=money)
    _post_operation(payment, lines, "refund_settled", operation_id)


def post_refund_withdrawn(payment: Payment, operation_id: str, money: Money, *, was_settled: bool) -> None:
    """A refund that failed: before it was settled it is only asked back, after it the money returns."""
    lines = transfer(debit=Account.REFUNDS_PAYABLE, credit=Account.REFUNDS, money=money)
    if was_settled:
        lines += transfer(debit=Account.CLEARING, credit=Account.REFUNDS_PAYABLE, money=money)
    _post_operation(payment, lines, "refund_failed", operation_id)


def _post_operation(payment: Payment, lines: Sequence[Line], event: str, operation_id: str) -> None:
    post(
        payment.account,
        lines,
        event=event,
        source="operation",
        external_id=f"{operation_id}:{event}",
        payment=payment,
    )
