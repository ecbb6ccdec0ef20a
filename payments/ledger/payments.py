"""The entries that payments, refunds and disputes make, each in the transaction of the fact that it books."""

from __future__ import annotations

from collections.abc import Sequence

from payments import sql
from payments.ledger.chart import Account, Line, transfer
from payments.ledger.journal import post
from payments.models import Dispute, Payment
from payments.money import Money


def post_authorization(payment: Payment, operation_id: str, money: Money) -> None:
    lines = transfer(debit=Account.AUTHORIZED, credit=Account.AUTHORIZED_CONTRA, money=money)
    _post_operation(payment, lines, "authorization", operation_id)


def post_release(payment: Payment, operation_id: str, money: Money) -> None:
    """A void, or an authorization that expired: what the hold may still capture, and no more."""
    lines = transfer(debit=Account.AUTHORIZED_CONTRA, credit=Account.AUTHORIZED, money=money)
    _post_operation(payment, lines, "release", operation_id)


def post_capture(payment: Payment, operation_id: str, money: Money, *, released: Money) -> None:
    """The sale, the receivable it settles, and the part of the authorization memo that is over with it.

    `released` is the captured amount when more captures follow, the whole open hold when this one is the last.
    """
    lines = _sell(money)
    if released:
        lines += transfer(debit=Account.AUTHORIZED_CONTRA, credit=Account.AUTHORIZED, money=released)
    _post_operation(payment, lines, "capture", operation_id)


def post_capture_reversed(
    payment: Payment, operation_id: str, money: Money, *, restored: Money | None = None
) -> None:
    """A capture that the gateway took back: no sale. `restored` may be captured again, where the hold still stands."""
    lines = _sell(-money)
    if restored:
        lines += transfer(debit=Account.AUTHORIZED, credit=Account.AUTHORIZED_CONTRA, money=restored)
    _post_operation(payment, lines, "capture_reversed", operation_id)


def _sell(money: Money) -> list[Line]:
    return [
        *transfer(debit=Account.RECEIVABLE, credit=Account.SALES, money=money),
        *transfer(debit=Account.CLEARING, credit=Account.RECEIVABLE, money=money),
    ]


_AGAIN = ":again"  # of the entries of a refund that was given up, and done after all


def post_refund_asked(payment: Payment, operation_id: str, money: Money, *, again: bool = False) -> None:
    """`again`: it was withdrawn when it was given up, and is owed after all."""
    lines = transfer(debit=Account.REFUNDS, credit=Account.REFUNDS_PAYABLE, money=money)
    _post_operation(payment, lines, "refund_asked", operation_id, suffix=_AGAIN if again else "")


def post_refund_settled(payment: Payment, operation_id: str, money: Money) -> None:
    lines = transfer(debit=Account.REFUNDS_PAYABLE, credit=Account.CLEARING, money=money)
    _post_operation(payment, lines, "refund_settled", operation_id)


def post_refund_withdrawn(payment: Payment, operation_id: str, money: Money, *, was_settled: bool) -> None:
    """A refund that failed: before it was settled it is only asked back, after it the money returns."""
    lines = transfer(debit=Account.REFUNDS_PAYABLE, credit=Account.REFUNDS, money=money)
    if was_settled:
        lines += transfer(debit=Account.CLEARING, credit=Account.REFUNDS_PAYABLE, money=money)
    again = payment.ledger_entries.filter(external_id=f"{operation_id}:refund_asked{_AGAIN}")
    suffix = _AGAIN if was_settled and again.exists() else ""
    _post_operation(payment, lines, "refund_failed", operation_id, suffix=suffix)


def _post_operation(
    payment: Payment, lines: Sequence[Line], event: str, operation_id: str, *, suffix: str = ""
) -> None:
    post(
        payment.account,
        lines,
        event=event,
        source="operation",
        external_id=f"{operation_id}:{event}{suffix}",
        payment=payment,
    )


# --- disputes: what the books hold already decides, so that a fact told twice is booked once ------------------
# The payment must be locked by the caller.


def post_dispute_opened(dispute: Dispute) -> bool:
    """The amount leaves our balance; False when it is out already.

    Each withdrawal after a reinstatement (a chargeback won, then pre-arbitration) is an entry of its own.
    """
    held, lost, _ = _read_dispute(dispute)
    if held or lost:
        return False
    lines = transfer(debit=Account.DISPUTES_HELD, credit=Account.CLEARING, money=dispute.money)
    return _post_dispute(dispute, lines, "dispute_opened")


def post_dispute_won(dispute: Dispute) -> bool:
    """What is out comes back, even after it had been written off; False when nothing is out."""
    held, lost, _ = _read_dispute(dispute)
    lines: list[Line] = []
    for source, amount in ((Account.DISPUTES_HELD, held), (Account.DISPUTE_LOSSES, lost)):
        if amount:
            lines += transfer(debit=Account.CLEARING, credit=source, money=Money(amount, dispute.currency))
    return bool(lines) and _post_dispute(dispute, lines, "dispute_won")


def post_dispute_lost(dispute: Dispute) -> bool:
    """What is out is a loss; False when nothing is out, or it was written off already."""
    held, _, _ = _read_dispute(dispute)
    if not held:
        return False
    lines = transfer(
        debit=Account.DISPUTE_LOSSES, credit=Account.DISPUTES_HELD, money=Money(held, dispute.currency)
    )
    return _post_dispute(dispute, lines, "dispute_lost")


def post_dispute_fee(dispute: Dispute) -> bool:
    """Bring the books to what the dispute has cost so far, its `fee`: charged, raised or given back."""
    *_, booked = _read_dispute(dispute)
    if dispute.fee == booked:
        return False
    money = Money(dispute.fee - booked, dispute.fee_currency or dispute.currency)
    lines = transfer(debit=Account.DISPUTE_FEES, credit=Account.CLEARING, money=money)
    return _post_dispute(dispute, lines, "dispute_fee")


_DISPUTE = """
SELECT coalesce(sum(posting.amount) FILTER (WHERE account.code = 1150), 0)::bigint,
    coalesce(sum(posting.amount) FILTER (WHERE account.code = 5100), 0)::bigint,
    coalesce(sum(posting.amount) FILTER (WHERE account.code = 5110), 0)::bigint
FROM payments_ledgerentry AS entry
JOIN payments_posting AS posting ON posting.entry_id = entry.id
JOIN payments_ledgeraccount AS account ON account.id = posting.account_id
WHERE entry.payment_id = %s AND entry.source = 'dispute' AND starts_with(entry.external_id, %s)
"""
_DISPUTE_NUMBER = """
SELECT count(*) FROM payments_ledgerentry
WHERE payment_id = %s AND source = 'dispute' AND starts_with(external_id, %s)
"""


def _read_dispute(dispute: Dispute) -> tuple[int, int, int]:
    """What the books hold of a dispute, in minor units: out of our balance, lost, and its fees."""
    row = sql.fetch_one(_DISPUTE, [dispute.payment_id, f"{dispute.pk}:"])
    assert row is not None, "an aggregate has one row"
    return row[0], row[1], row[2]


def _post_dispute(dispute: Dispute, lines: Sequence[Line], event: str) -> bool:
    earlier = sql.fetch_one(_DISPUTE_NUMBER, [dispute.payment_id, f"{dispute.pk}:{event}:"])
    assert earlier is not None, "an aggregate has one row"
    return post(
        dispute.account,
        lines,
        event=event,
        source="dispute",
        external_id=f"{dispute.pk}:{event}:{earlier[0] + 1}",
        payment=dispute.payment,
    )
