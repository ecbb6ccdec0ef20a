"""Balance transactions, fees and payouts: every change of what the gateway owes the shop."""

from typing import Any

from .books import Session, new_id
from .wire import Doc

DAY = 86_400
DISPUTE_FEE = 1_500
EUROPEAN_RATE, OTHER_RATE = 14, 29  # per thousand
FIXED_FEE = 25  # minor units
# Where a balance transaction's type has another name than its reporting category.
KINDS = {
    "partial_capture_reversal": "refund",
    "dispute": "adjustment",
    "dispute_reversal": "adjustment",
    "fee": "stripe_fee",
}


def charge_fee(amount: int, *, european: bool) -> int:
    """1.4 % for European cards, 2.9 % for others, plus 25; minor units, halves rounded up."""
    rate = EUROPEAN_RATE if european else OTHER_RATE
    return (amount * rate * 2 + 1000) // 2000 + FIXED_FEE


def book(session: Session, intent: Doc, source: Doc, category: str, amount: int, fee: int = 0) -> Doc:
    """Write what a payment's charge, refund or dispute does to the balance; amount is signed."""
    return write_transaction(
        session,
        category,
        amount,
        fee=fee,
        currency=intent["currency"],
        source=source["id"],
        description=intent["description"],
        _payment_intent=intent["id"],
        _charge=intent["latest_charge"],
    )


def book_fee(session: Session, amount: int, *, currency: str, description: str) -> Doc:
    """Charge the shop a fee that belongs to no payment; a row with neither source nor charge."""
    return write_transaction(session, "fee", -amount, currency=currency, description=description)


def write_transaction(session: Session, category: str, amount: int, *, fee: int = 0, **given: Any) -> Doc:
    """Write one balance transaction; amount is signed, net = amount - fee; minor units."""
    detail = {"amount": fee, "application": None, "currency": given["currency"], "type": "stripe_fee"}
    transaction = {
        "id": new_id("txn"),
        "object": "balance_transaction",
        "amount": amount,
        "available_on": session.now - session.now % DAY,
        "balance_type": "payments",
        "created": session.now,
        "description": None,
        "exchange_rate": None,
        "fee": fee,
        "fee_details": [detail | {"description": "Processing fees"}] if fee else [],
        "net": amount - fee,
        "reporting_category": category,
        "source": None,
        "status": "available",
        "type": KINDS.get(category, category),
        "_payment_intent": None,
        "_charge": None,
        "_payout": None,
    }
    return session.put(transaction | given)


def create_payouts(session: Session, day: int) -> list[Doc]:
    """Pay out, per currency, what was available at the start of `day` (Unix seconds) and is not yet paid out.

    A payment counts as available from the start of the day it was made on: the next day's payout holds it.
    A currency in which the shop owes the gateway waits until it is positive again.
    """
    rows = session.db.execute(
        "SELECT currency, sum(net) AS net FROM unpaid WHERE available_on <= ?"
        " GROUP BY currency HAVING sum(net) > 0 ORDER BY currency",
        (day,),
    ).fetchall()
    return [create_payout(session, day, row["currency"], row["net"]) for row in rows]


def create_payout(session: Session, day: int, currency: str, amount: int) -> Doc:
    payout = build_payout(session, day, currency, amount)
    session.db.execute(
        "UPDATE objects SET doc = json_set(doc, '$._payout', ?)"
        " WHERE id IN (SELECT id FROM unpaid WHERE available_on <= ? AND currency = ?)",
        (payout["id"], day, currency),
    )
    paid = write_transaction(
        session,
        "payout",
        -amount,
        currency=currency,
        source=payout["id"],
        description=payout["description"],
        available_on=day,
        _payout=payout["id"],
    )
    payout["balance_transaction"] = paid["id"]
    session.put(payout)
    session.emit("payout.created", payout)
    session.emit("payout.paid", payout)
    session.emit("payout.reconciliation_completed", payout)
    return payout


def build_payout(session: Session, day: int, currency: str, amount: int) -> Doc:
    identity = new_id("po")
    return {
        "id": identity,
        "object": "payout",
        "amount": amount,
        "arrival_date": day,
        "automatic": True,
        "balance_transaction": None,
        "created": session.now,
        "currency": currency,
        "description": "STRIPE PAYOUT",
        "destination": None,
        "failure_code": None,
        "failure_message": None,
        "livemode": False,
        "metadata": {},
        "method": "standard",
        "reconciliation_status": "completed",
        "source_type": "card",
        "statement_descriptor": None,
        "status": "paid",
        "trace_id": {"status": "supported", "value": "TRC" + identity[3:15].upper()},
        "type": "bank_account",
    }


def show_balance(session: Session) -> Doc:
    """GET /v1/balance: what is not yet paid out, per currency."""
    rows = session.db.execute(
        "SELECT json_extract(doc, '$.currency') AS currency, sum(json_extract(doc, '$.net')) AS net"
        " FROM objects WHERE kind = 'balance_transaction' GROUP BY 1 ORDER BY 1"
    )
    sums = {row["currency"]: row["net"] for row in rows}
    return {
        "object": "balance",
        "available": [describe_sum(currency, net) for currency, net in sums.items()],
        "livemode": False,
        "pending": [describe_sum(currency, 0) for currency in sums],
    }


def describe_sum(currency: str, net: int) -> Doc:
    return {"amount": net, "currency": currency, "source_types": {"card": net}}
