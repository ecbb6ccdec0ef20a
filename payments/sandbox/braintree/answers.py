"""What the endpoints share: refusals in Braintree's shape, ids, times, and a transaction's history."""

import secrets
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from payments.sandbox.books import Session
from payments.sandbox.wire import Doc

MESSAGES = {
    "81501": "Amount cannot be negative.",
    "81503": "Amount is an invalid format.",
    "91504": "Transaction can only be voided if status is authorized or submitted_for_settlement.",
    "91506": "Cannot refund transaction unless it is settled.",
    "91507": "Cannot submit for settlement unless status is authorized.",
    "91512": "Transaction has already been completely refunded.",
    "91521": "Refund amount is too large.",
    "91522": "Settlement amount is too large.",
    "91565": "Unknown or expired payment_method_nonce.",
    "91518": "Payment method token is invalid.",
    "91510": "Customer ID is invalid.",
    "91513": "Merchant account ID is invalid.",
    "915103": "Cannot submit for partial settlement.",
    "95701": "Evidence can only be attached to disputes that are in an Open state",
    "95704": "Disputes can only be accepted when they are in an Open state",
    "95705": "Disputes can only be finalized when they are in an Open state",
    "95713": "Evidence category is not valid for the reason code of the dispute",
}


class Status(Exception):
    """An answer that is a bare HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class Refusal(Exception):
    """A 422: validation errors, which change nothing, or (`transaction`) a decline, which is written down."""

    def __init__(
        self, *codes: str, subject: str = "transaction", message: str = "", transaction: Doc | None = None
    ) -> None:
        super().__init__(", ".join(codes) or message)
        self.codes, self.subject, self.transaction = codes, subject, transaction
        self.message = message or " ".join(MESSAGES.get(code, code) for code in codes)

    def describe(self) -> Doc:
        errors = [
            {"code": code, "attribute": "base", "message": MESSAGES.get(code, code)} for code in self.codes
        ]
        answer: Doc = {
            "errors": {"errors": [], self.subject: {"errors": errors}},
            "params": {"action": "create"},
            "message": self.message,
        }
        return answer if self.transaction is None else answer | {"transaction": self.transaction}


def new_id() -> str:
    return secrets.token_hex(5)


def stamp(session: Session) -> str:
    return datetime.fromtimestamp(session.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def minor(amount: str) -> int:
    """The digits alone: amounts are written with all the digits of their currency."""
    return int(amount.replace(".", ""))


def amount_of(text: Any) -> Decimal:
    """Raises Refusal for what is no positive amount."""
    try:
        amount = Decimal(str(text))
    except ArithmeticError:
        raise Refusal("81503") from None
    if not amount.is_finite() or amount < 0:
        raise Refusal("81501")
    return amount


def move(session: Session, transaction: Doc, status: str) -> Doc:
    """Into another status, with its line in the history."""
    now = stamp(session)
    transaction["status"] = status
    transaction["updated_at"] = now
    event = {"status": status, "timestamp": now, "amount": transaction["amount"], "user": "api"}
    transaction["status_history"] = [*transaction["status_history"], event]
    return session.put(transaction)


def record(session: Session, operation: str, transaction: Doc, amount: str) -> None:
    """Into the journal, under the order id that the authorization had."""
    subject = {"id": transaction["_operation"], "currency": transaction["currency_iso_code"]}
    session.record(operation, subject, minor(amount), transaction["id"])
