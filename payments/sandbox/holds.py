"""What becomes of an authorization: captured, canceled or expired, by Stripe's rules."""

from . import wire
from .balance import book, charge_fee
from .books import Session
from .cards import find_card
from .shapes import AUTHORIZATION_SECONDS
from .wire import CardError, Doc, StateError, public

CAPTURE: wire.Spec = {
    "amount_to_capture": wire.amount_or_nothing,
    "final_capture": wire.boolean,
    "metadata": wire.metadata,
    "statement_descriptor": wire.string,
    "statement_descriptor_suffix": wire.string,
    "expand": wire.strings,
}

MAX_CAPTURES = 50
CANCEL: wire.Spec = {
    "cancellation_reason": wire.choice("abandoned", "duplicate", "fraudulent", "requested_by_customer"),
    "expand": wire.strings,
}


def load_intent(session: Session, identity: str, param: str = "intent") -> Doc:
    """The intent as it stands now: an authorization older than seven days has expired."""
    intent = session.get(identity, "payment_intent", param)
    if intent["status"] == "requires_capture":
        charge = session.get(intent["latest_charge"], "charge")
        if session.now - charge["created"] >= AUTHORIZATION_SECONDS:
            release(session, intent, "automatic")
            session.emit("charge.expired", charge, intent)
    return intent


def unexpected_state(intent: Doc, verb: str, allowed: str) -> StateError:
    return StateError(
        f"This PaymentIntent could not be {verb} because it has a status of {intent['status']}."
        f" Only a PaymentIntent with one of the following statuses may be {verb}: {allowed}.",
        code="payment_intent_unexpected_state",
        payment_intent=public(intent),
    )


def merge_metadata(session: Session, intent: Doc, given: Doc) -> None:
    if "metadata" not in given:
        return
    previous = intent["metadata"]
    merged = previous | given["metadata"]
    intent["metadata"] = {key: value for key, value in merged.items() if value}
    session.index_metadata(intent, previous=previous)


def capture_intent(session: Session, identity: str, params: Doc) -> Doc:
    given = wire.check_params(params, CAPTURE)
    intent = load_intent(session, identity)
    if intent["status"] != "requires_capture":
        raise unexpected_state(intent, "captured", "requires_capture")
    charge = session.get(intent["latest_charge"], "charge")
    amount: int = given["amount_to_capture"] if "amount_to_capture" in given else intent["amount_capturable"]
    final = given.get("final_capture", True)
    check_capture(intent, charge, amount, final=final)
    fail_capture_as_told(session, intent)
    before = {name: intent[name] for name in ("amount_capturable", "amount_received", "metadata", "status")}
    merge_metadata(session, intent, given)
    if amount == 0:  # the last capture of nothing: what is left is let go
        return release(session, intent, None)
    settle(session, intent, charge, amount, final=final)
    tell_capture(session, intent, charge, amount, before, final=final)
    schedule_dispute(session, intent, final=final)
    return intent


def tell_capture(
    session: Session, intent: Doc, charge: Doc, amount: int, before: Doc, *, final: bool
) -> None:
    """Of a capture in parts the charge is only said to have changed, until the last one."""
    taken = {"amount_captured": charge["amount_captured"] - amount}
    session.emit("charge.captured" if final else "charge.updated", charge, intent, previous=taken)
    changed = {name: value for name, value in before.items() if intent[name] != value}
    kind = "succeeded" if final else "amount_capturable_updated"
    session.emit(f"payment_intent.{kind}", intent, intent, previous=changed)


def schedule_dispute(session: Session, intent: Doc, *, final: bool = True) -> None:
    if final and find_card(intent["_token"]).dispute:
        session.set_timer(1, "dispute", intent["id"])


def check_capture(intent: Doc, charge: Doc, amount: int, *, final: bool) -> None:
    if amount > intent["amount_capturable"]:
        raise StateError(
            f"The requested capture amount ({amount}) is greater than the amount you can capture"
            f" ({intent['amount_capturable']}) for this charge.",
            code="amount_too_large",
            param="amount_to_capture",
            payment_intent=public(intent),
        )
    if amount == 0 and not (final and intent["amount_received"]):
        raise wire.invalid(
            "This value must be greater than or equal to 1.", "amount_to_capture", "parameter_invalid_integer"
        )
    multicapture = charge["payment_method_details"]["card"].get("multicapture", {}).get("status")
    if not final and multicapture != "available":
        raise StateError("Multicapture is not available for this PaymentIntent.", param="final_capture")
    if not final and intent.get("_captures", 0) >= MAX_CAPTURES - 1:
        raise StateError(
            f"A PaymentIntent can be captured {MAX_CAPTURES} times at most.", param="final_capture"
        )


def fail_capture_as_told(session: Session, intent: Doc) -> None:
    if intent["_capture_failures"] >= find_card(intent["_token"]).capture_failures:
        return
    intent["_capture_failures"] += 1
    session.put(intent)
    session.record("capture_failed", intent, 0, intent["latest_charge"])
    raise CardError(
        "The capture was declined by the issuer.",
        code="card_declined",
        decline_code="generic_decline",
        charge=intent["latest_charge"],
        payment_intent=public(intent),
    )


def settle(session: Session, intent: Doc, charge: Doc, amount: int, *, final: bool) -> None:
    """Take `amount` of a hold. A single partial capture makes two balance transactions, as with Stripe."""
    whole, european = charge["amount"], charge["_european"]
    if final and not charge["captured"]:
        transaction = book(session, intent, charge, "charge", whole, charge_fee(whole, european=european))
        if rest := whole - amount:
            fee = charge_fee(amount, european=european) - transaction["fee"]
            book(session, intent, charge, "partial_capture_reversal", -rest, fee)
    else:
        transaction = book(session, intent, charge, "charge", amount, charge_fee(amount, european=european))
    intent["_captures"] = intent.get("_captures", 0) + 1
    charge["amount_captured"] += amount
    charge |= {"captured": True, "balance_transaction": charge["balance_transaction"] or transaction["id"]}
    intent["amount_received"] += amount
    intent["amount_capturable"] = 0 if final else intent["amount_capturable"] - amount
    intent["status"] = "succeeded" if final else "requires_capture"
    session.record("capture", intent, amount, charge["id"])
    session.put(charge)
    session.put(intent)


def cancel_intent(session: Session, identity: str, params: Doc) -> Doc:
    given = wire.check_params(params, CANCEL)
    intent = load_intent(session, identity)
    allowed = ("requires_payment_method", "requires_capture", "requires_confirmation", "requires_action")
    if intent["status"] not in allowed or intent["amount_received"]:
        raise unexpected_state(intent, "canceled", ", ".join(allowed))
    return release(session, intent, given.get("cancellation_reason"))


def release(session: Session, intent: Doc, reason: str | None) -> Doc:
    held = intent["amount_capturable"]
    # What was partly captured stays a success: only the rest of the hold is let go.
    status = "succeeded" if intent["amount_received"] else "canceled"
    intent |= {"status": status, "amount_capturable": 0, "next_action": None}
    if status == "canceled":
        intent |= {"canceled_at": session.now, "cancellation_reason": reason}
    session.put(intent)
    session.record("expire" if reason == "automatic" else "cancel", intent, held, intent["latest_charge"])
    session.emit(f"payment_intent.{status}", intent, intent)
    return intent


def expire_authorizations(session: Session) -> int:
    """Release every hold that is older than seven days."""
    held = session.select("payment_intent", "json_extract(doc, '$.status') = 'requires_capture'")
    return sum(load_intent(session, intent["id"])["status"] != "requires_capture" for intent in held)
