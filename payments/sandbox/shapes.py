"""A payment intent and a charge as they are written first; private fields begin with an underscore."""

from typing import Any

from .balance import DAY
from .books import Session, new_id
from .cards import Card
from .wire import Doc

AUTHORIZATION_SECONDS = 7 * DAY
STORED = (
    "customer",
    "description",
    "receipt_email",
    "shipping",
    "statement_descriptor",
    "statement_descriptor_suffix",
)


def build_intent(session: Session, given: Doc) -> Doc:
    identity = new_id("pi")
    return {
        "id": identity,
        "object": "payment_intent",
        "amount": given["amount"],
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "automatic_payment_methods": given.get("automatic_payment_methods"),
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": given.get("capture_method", "automatic_async"),
        "client_secret": f"{identity}_secret_{new_id('s')[2:]}",
        "confirmation_method": given.get("confirmation_method", "automatic"),
        "created": session.now,
        "currency": given["currency"],
        **{name: given.get(name) for name in STORED},
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": {key: value for key, value in given.get("metadata", {}).items() if value},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_options": given.get("payment_method_options") or {"card": {}},
        "payment_method_types": given.get("payment_method_types", ["card"]),
        "processing": None,
        "review": None,
        "setup_future_usage": given.get("setup_future_usage"),
        "source": None,
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": given.get("transfer_group"),
        "_token": None,
        "_return_url": None,
        "_capture_failures": 0,
        "_captures": 0,
    }


def build_charge(session: Session, intent: Doc, card: Card, *, authenticated: bool) -> Doc:
    address = (intent["shipping"] or {}).get("address")
    details: dict[str, Any] = card.describe(authenticated=authenticated)
    details |= {"capture_before": session.now + AUTHORIZATION_SECONDS, "amount_authorized": intent["amount"]}
    asked = intent["payment_method_options"].get("card", {}).get("request_multicapture") == "if_available"
    details["multicapture"] = {"status": "available" if asked and card.multicapture else "unavailable"}
    return {
        "id": new_id("ch"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": 0,
        "amount_refunded": 0,
        "balance_transaction": None,
        "billing_details": {
            "address": address,
            "email": intent["receipt_email"],
            "name": None,
            "phone": None,
        },
        "captured": False,
        "created": session.now,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": None,
        "failure_message": None,
        "livemode": False,
        "metadata": intent["metadata"],
        "outcome": {
            "network_status": "approved_by_network",
            "reason": None,
            **card.risk(),
            "seller_message": "Payment complete.",
            "type": "authorized",
        },
        "paid": True,
        "payment_intent": intent["id"],
        "payment_method": intent["payment_method"],
        "payment_method_details": {"card": details, "type": "card"},
        "receipt_email": intent["receipt_email"],
        "refunded": False,
        "shipping": intent["shipping"],
        "status": "succeeded",
        "_european": card.european,
    }
