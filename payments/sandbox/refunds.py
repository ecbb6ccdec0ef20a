"""Refunds: money that goes back, at once or, when it bounces, not at all."""

from . import wire
from .balance import book
from .books import Session, new_id
from .cards import find_card
from .wire import Doc, StateError

REFUND: wire.Spec = {
    "payment_intent": wire.string,
    "charge": wire.string,
    "amount": wire.amount,
    "reason": wire.choice("duplicate", "fraudulent", "requested_by_customer"),
    "metadata": wire.metadata,
    "instructions_email": wire.string,
    "expand": wire.strings,
}
FAILURE_SECONDS = 2


def create_refund(session: Session, params: Doc) -> Doc:
    given = wire.check_params(params, REFUND)
    intent, charge = load_refundable(session, given)
    left = charge["amount_captured"] - charge["amount_refunded"]
    if left == 0:
        raise StateError(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
    amount = given.get("amount", left)
    if amount > left:
        message = f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
        raise StateError(message, param="amount", code="amount_too_large")
    later = find_card(intent["_token"]).refund_fails_later
    refund = build_refund(session, charge, given, amount, status="pending" if later else "succeeded")
    refund["balance_transaction"] = book(session, intent, refund, "refund", -amount)["id"]
    session.put(refund)
    change_refunded(session, charge, amount)
    session.record("refund", intent, amount, refund["id"])
    session.emit("refund.created", refund, intent)
    session.emit("charge.refunded", charge, intent)
    if later:
        session.set_timer(FAILURE_SECONDS, "fail_refund", refund["id"])
    return refund


def load_refundable(session: Session, given: Doc) -> tuple[Doc, Doc]:
    if ("payment_intent" in given) == ("charge" in given):
        raise wire.invalid(
            "One of the following params should be provided: payment_intent or charge.", "payment_intent"
        )
    if "charge" in given:
        charge = session.get(given["charge"], "charge", "charge")
        intent = session.get(charge["payment_intent"], "payment_intent")
    else:
        intent = session.get(given["payment_intent"], "payment_intent", "payment_intent")
        charge = session.find(intent["latest_charge"] or "", "charge") or {}
    if not charge.get("captured"):
        raise StateError(
            f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.",
            code="payment_intent_unexpected_state",
            param="payment_intent",
        )
    if charge["disputed"]:
        raise StateError(f"Charge {charge['id']} has been charged back.", code="charge_disputed")
    return intent, charge


def build_refund(session: Session, charge: Doc, given: Doc, amount: int, *, status: str) -> Doc:
    return {
        "id": new_id("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": charge["id"],
        "created": session.now,
        "currency": charge["currency"],
        "destination_details": {"card": {"type": "refund", "reference_status": "pending"}, "type": "card"},
        "metadata": {key: value for key, value in given.get("metadata", {}).items() if value},
        "payment_intent": charge["payment_intent"],
        "reason": given.get("reason"),
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": status,
        "transfer_reversal": None,
    }


def change_refunded(session: Session, charge: Doc, amount: int) -> None:
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]
    session.put(charge)


def fail_refund(session: Session, identity: str) -> None:
    """A pending refund bounces: the money is the shop's again."""
    refund = session.get(identity, "refund")
    if refund["status"] != "pending":
        return
    charge = session.get(refund["charge"], "charge")
    intent = session.get(refund["payment_intent"], "payment_intent")
    transaction = book(session, intent, refund, "refund_failure", refund["amount"])
    refund |= {"status": "failed", "failure_reason": "lost_or_stolen_card"}
    refund["failure_balance_transaction"] = transaction["id"]
    session.put(refund)
    change_refunded(session, charge, -refund["amount"])
    session.record("refund_failed", intent, refund["amount"], refund["id"])
    session.emit("refund.updated", refund, intent)
    session.emit("refund.failed", refund, intent)
