"""The chart of accounts, and the lines that move money between its accounts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

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


MEMO = frozenset({Account.AUTHORIZED, Account.AUTHORIZED_CONTRA})

# Which accounts an event may touch; the proof holds every entry of a known event against it.
_REFUND = frozenset({Account.REFUNDS, Account.REFUNDS_PAYABLE, Account.CLEARING})
_CAPTURE = frozenset({Account.RECEIVABLE, Account.SALES, Account.CLEARING}) | MEMO
SHAPES: dict[str, frozenset[Account]] = {
    "authorization": MEMO,
    "release": MEMO,
    "capture": _CAPTURE,
    "capture_reversed": _CAPTURE,
    "refund_asked": frozenset({Account.REFUNDS, Account.REFUNDS_PAYABLE}),
    "refund_settled": frozenset({Account.REFUNDS_PAYABLE, Account.CLEARING}),
    "refund_failed": _REFUND,
    "dispute_opened": frozenset({Account.DISPUTES_HELD, Account.CLEARING}),
    "dispute_won": frozenset({Account.DISPUTES_HELD, Account.DISPUTE_LOSSES, Account.CLEARING}),
    "dispute_lost": frozenset({Account.DISPUTES_HELD, Account.DISPUTE_LOSSES}),
    "dispute_fee": frozenset({Account.DISPUTE_FEES, Account.CLEARING}),
    "fee": frozenset({Account.FEES, Account.CLEARING}),
    "payout_sent": frozenset({Account.PAYOUT_IN_TRANSIT, Account.CLEARING}),
    "payout_on_bank": frozenset({Account.BANK, Account.PAYOUT_IN_TRANSIT}),
    "payout_returned": frozenset({Account.BANK, Account.PAYOUT_IN_TRANSIT, Account.CLEARING}),
    "reserve_held": frozenset({Account.RESERVE, Account.CLEARING}),
    "reserve_released": frozenset({Account.RESERVE, Account.CLEARING}),
    "settled_in_currency": frozenset({Account.FX_DIFFERENCE, Account.CLEARING}),
    "suspense": frozenset({Account.SUSPENSE, Account.CLEARING}),
    "write_off": frozenset({Account.ROUNDING, Account.CLEARING}),
    "adjustment": frozenset(Account) - MEMO,
}


@dataclass(frozen=True, slots=True)
class Line:
    """A debit (positive) or a credit (negative) on one account."""

    account: Account
    money: Money


def transfer(*, debit: Account, credit: Account, money: Money) -> list[Line]:
    """The pair of lines that moves `money` from the credited to the debited account."""
    return [Line(debit, money), Line(credit, -money)]
