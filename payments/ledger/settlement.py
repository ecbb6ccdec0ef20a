"""The entries of reports, the bank and finance: fees, payouts, reserve, other currencies, corrections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from payments.errors import InvalidRequestError
from payments.ledger.chart import MEMO, Account, Line, transfer
from payments.ledger.journal import post
from payments.models import GatewayAccount, Payment
from payments.money import Money


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where a movement was read, which is also its identity: the kind of source, and the id there.

    The id is made unique within the gateway account by `post`'s callers below; `on` is the day of the movement,
    today without one.
    """

    source: str
    external_id: str
    on: date | None = None


def post_fee(
    account: GatewayAccount,
    money: Money,
    *,
    evidence: Evidence,
    payment: Payment | None = None,
    note: str = "",
) -> bool:
    """A gateway's fee, of a payment's report row or billed apart (no payment); a negative amount is given back."""
    lines = transfer(debit=Account.FEES, credit=Account.CLEARING, money=money)
    return _post(account, lines, "fee", evidence, payment=payment, note=note)


def post_payout_sent(account: GatewayAccount, money: Money, *, evidence: Evidence) -> bool:
    """The gateway has sent it: no longer its balance, not yet on our bank account."""
    lines = transfer(debit=Account.PAYOUT_IN_TRANSIT, credit=Account.CLEARING, money=money)
    return _post(account, lines, "payout_sent", evidence)


def post_payout_on_bank(account: GatewayAccount, money: Money, *, evidence: Evidence) -> bool:
    """The bank's line has come."""
    lines = transfer(debit=Account.BANK, credit=Account.PAYOUT_IN_TRANSIT, money=money)
    return _post(account, lines, "payout_on_bank", evidence)


def post_payout_returned(
    account: GatewayAccount, money: Money, *, evidence: Evidence, was_on_bank: bool = False
) -> bool:
    """It came back to the gateway's balance, from on its way or from our bank account."""
    credit = Account.BANK if was_on_bank else Account.PAYOUT_IN_TRANSIT
    lines = transfer(debit=Account.CLEARING, credit=credit, money=money)
    return _post(account, lines, "payout_returned", evidence)


def post_reserve_held(account: GatewayAccount, money: Money, *, evidence: Evidence) -> bool:
    """Kept back by the gateway as a security."""
    lines = transfer(debit=Account.RESERVE, credit=Account.CLEARING, money=money)
    return _post(account, lines, "reserve_held", evidence)


def post_reserve_released(account: GatewayAccount, money: Money, *, evidence: Evidence) -> bool:
    lines = transfer(debit=Account.CLEARING, credit=Account.RESERVE, money=money)
    return _post(account, lines, "reserve_released", evidence)


def post_settled_in_currency(
    account: GatewayAccount,
    charged: Money,
    settled: Money,
    *,
    rate: Decimal,
    evidence: Evidence,
    payment: Payment | None = None,
) -> bool:
    """What was captured in one currency is settled in another: each sums to zero through 5200, the rate is noted.

    The capture has debited clearing in the charged currency, so it is credited there. Negative for a refund.
    Raises `ValueError` for one and the same currency.
    """
    if charged.currency == settled.currency:
        raise ValueError(f"{charged} and {settled} are in one currency: there is no difference to book")
    lines = [
        *transfer(debit=Account.FX_DIFFERENCE, credit=Account.CLEARING, money=charged),
        *transfer(debit=Account.CLEARING, credit=Account.FX_DIFFERENCE, money=settled),
    ]
    note = f"{charged} settled as {settled}, rate {rate}"
    return _post(account, lines, "settled_in_currency", evidence, payment=payment, note=note)


def post_suspense(account: GatewayAccount, money: Money, *, evidence: Evidence, note: str = "") -> bool:
    """A movement that nobody can explain yet; positive came in. A period is closed only when none is left."""
    lines = transfer(debit=Account.CLEARING, credit=Account.SUSPENSE, money=money)
    return _post(account, lines, "suspense", evidence, note=note)


# --- what a person decides ----------------------------------------------------------------------------------


def post_write_off(
    account: GatewayAccount,
    money: Money,
    *,
    evidence: Evidence,
    reason: str,
    actor: str,
    payment: Payment | None = None,
) -> bool:
    """A difference too small to follow; positive is our loss. Raises `InvalidRequestError` without reason or actor."""
    _check_decision(reason, actor)
    lines = transfer(debit=Account.ROUNDING, credit=Account.CLEARING, money=money)
    return _post(account, lines, "write_off", evidence, payment=payment, note=reason, actor=actor)


def post_adjustment(
    account: GatewayAccount,
    money: Money,
    *,
    debit: Account,
    credit: Account,
    evidence: Evidence,
    reason: str,
    actor: str,
    payment: Payment | None = None,
) -> bool:
    """Any two accounts of the chart but the memo pair, which only authorizations move.

    Raises `InvalidRequestError` for such a pair, the same account twice, no amount, no reason, or nobody who says it.
    """
    _check_decision(reason, actor)
    if {debit, credit} & MEMO or debit == credit or not money:
        raise InvalidRequestError(
            f"{money} from {credit:d} to {debit:d} cannot be adjusted: choose two accounts of the balance sheet, "
            "and an amount. Nothing was booked."
        )
    lines = transfer(debit=debit, credit=credit, money=money)
    return _post(account, lines, "adjustment", evidence, payment=payment, note=reason, actor=actor)


def _check_decision(reason: str, actor: str) -> None:
    if not reason.strip() or not actor.strip():
        raise InvalidRequestError("A correction needs a reason and who decided it. Nothing was booked.")


def _post(
    account: GatewayAccount,
    lines: Sequence[Line],
    event: str,
    evidence: Evidence,
    *,
    payment: Payment | None = None,
    note: str = "",
    actor: str = "",
) -> bool:
    # The gateways' ids are unique within an account of theirs only; a payout has several events.
    return post(
        account,
        lines,
        event=event,
        source=evidence.source,
        external_id=f"{account.pk}:{evidence.external_id}:{event}",
        payment=payment,
        note=note,
        actor=actor,
        booked_on=evidence.on,
    )
