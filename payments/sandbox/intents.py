"""Payment intents up to the authorization: create, confirm, authenticate, decline, by Stripe's rules."""

from . import wire
from .books import Session, new_id
from .cards import Card, find_card
from .customers import attach, check_owner
from .holds import load_intent, merge_metadata, schedule_dispute, settle, unexpected_state
from .shapes import STORED, build_charge, build_intent
from .wire import CardError, Doc, StateError, public

ADDRESS = wire.nested(
    dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"), wire.string)
)
SHIPPING = wire.nested(
    {
        "address": ADDRESS,
        "name": wire.string,
        "phone": wire.string,
        "carrier": wire.string,
        "tracking_number": wire.string,
    }
)
CARD_OPTIONS = {
    "capture_method": wire.choice("manual", ""),
    "request_three_d_secure": wire.choice("any", "automatic", "challenge"),
    "request_multicapture": wire.choice("if_available", "never"),
    "request_extended_authorization": wire.choice("if_available", "never"),
    "request_incremental_authorization": wire.choice("if_available", "never"),
    "statement_descriptor_suffix_kana": wire.string,
    "moto": wire.boolean,
    "network": wire.string,
    "setup_future_usage": wire.string,
}
CONFIRM: wire.Spec = {
    "payment_method": wire.string,
    "payment_method_options": wire.nested({"card": wire.nested(CARD_OPTIONS)}),
    "payment_method_types": wire.strings,
    "capture_method": wire.choice("automatic", "automatic_async", "manual"),
    "return_url": wire.string,
    "off_session": wire.boolean,
    "error_on_requires_action": wire.boolean,
    "setup_future_usage": wire.choice("off_session", "on_session"),
    "receipt_email": wire.string,
    "shipping": SHIPPING,
    "use_stripe_sdk": wire.boolean,
    "expand": wire.strings,
}
CHANGE: wire.Spec = {
    "amount": wire.amount,
    "currency": wire.currency,
    "customer": wire.string,
    "description": wire.string,
    "metadata": wire.metadata,
    "payment_method": wire.string,
    "receipt_email": wire.string,
    "shipping": SHIPPING,
    "statement_descriptor": wire.string,
    "statement_descriptor_suffix": wire.string,
    "transfer_group": wire.string,
    "expand": wire.strings,
}
STORED_AT_CONFIRMATION = (
    "receipt_email",
    "shipping",
    "capture_method",
    "payment_method_options",
    "setup_future_usage",
)
CREATE: wire.Spec = {
    **CONFIRM,
    **CHANGE,
    "confirm": wire.boolean,
    "confirmation_method": wire.choice("automatic", "manual"),
    "automatic_payment_methods": wire.nested(
        {"enabled": wire.boolean, "allow_redirects": wire.choice("always", "never")}
    ),
}


AUTHENTICATION_REQUIRED = (
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
)


def create_intent(session: Session, params: Doc) -> Doc:
    given = wire.check_params(params, CREATE, required=("amount", "currency"))
    if not given.get("confirm"):
        for name in ("error_on_requires_action", "off_session"):
            if name in given:
                raise wire.invalid(f"You may only use {name} with confirm=true.", name)
    token: str = given.get("payment_method", "")
    if given.get("confirm") and not token:
        raise wire.invalid("A payment_method is needed to confirm.", "payment_method", "parameter_missing")
    card = resolve_card(session, token) if token else None
    if given.get("customer"):
        session.get(given["customer"], "customer", "customer")
    intent = build_intent(session, given)
    if card:
        attach_card(session, intent, card, token)
    session.put(intent)
    session.index_metadata(intent)
    session.record("create", intent, intent["amount"])
    session.emit("payment_intent.created", intent, intent)
    return confirm(session, intent, given) if given.get("confirm") else intent


def resolve_card(session: Session, token: str) -> Card:
    """The card of a token, or of a payment method that an earlier intent was given."""
    saved = session.find(token, "payment_method")
    return find_card(saved["_token"] if saved else token)


def attach_card(session: Session, intent: Doc, card: Card, token: str) -> None:
    method = session.find(token, "payment_method") or {
        "id": new_id("pm"),
        "object": "payment_method",
        "billing_details": {"address": None, "email": None, "name": None, "phone": None},
        "card": card.describe(authenticated=False),
        "created": session.now,
        "customer": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
        "_token": card.token,
    }
    check_owner(method, intent["customer"])
    session.put(method)
    intent["payment_method"], intent["_token"] = method["id"], card.token
    intent["status"] = "requires_confirmation"


def update_intent(session: Session, identity: str, params: Doc) -> Doc:
    given = wire.check_params(params, CHANGE)
    intent = load_intent(session, identity)
    unpaid = intent["status"] in ("requires_payment_method", "requires_confirmation", "requires_action")
    for name in ("amount", "currency", "payment_method"):
        if name in given and not unpaid:
            raise unexpected_state(
                intent, "updated", "requires_payment_method, requires_confirmation, requires_action"
            )
    if "payment_method" in given:
        token = given["payment_method"]
        attach_card(session, intent, resolve_card(session, token), token)
    intent |= {name: given[name] for name in (*STORED, "amount", "currency") if name in given}
    merge_metadata(session, intent, given)
    return session.put(intent)


def confirm_intent(session: Session, identity: str, params: Doc) -> Doc:
    given = wire.check_params(params, CONFIRM)
    intent = load_intent(session, identity)
    allowed = ("requires_payment_method", "requires_confirmation", "requires_action")
    if intent["status"] not in allowed:
        raise unexpected_state(intent, "confirmed", ", ".join(allowed))
    if token := given.get("payment_method"):
        attach_card(session, intent, resolve_card(session, token), token)
    for name in STORED_AT_CONFIRMATION:
        if name in given:
            intent[name] = given[name]
    return confirm(session, intent, given)


def confirm(session: Session, intent: Doc, given: Doc) -> Doc:
    if not intent["_token"]:
        raise StateError(
            "You cannot confirm this PaymentIntent because it's missing a payment method.",
            code="payment_intent_unexpected_state",
            payment_intent=public(intent),
        )
    card = find_card(intent["_token"])
    asked = intent["payment_method_options"].get("card", {}).get("request_three_d_secure")
    if given.get("off_session"):
        if card.needs_holder_off_session or (card.three_d_secure == "required" and not intent["customer"]):
            return decline(session, intent, card, AUTHENTICATION_REQUIRED)
    elif card.three_d_secure == "required" or (
        card.three_d_secure == "optional" and asked in ("any", "challenge")
    ):
        if given.get("error_on_requires_action"):
            return decline(session, intent, card, AUTHENTICATION_REQUIRED)
        return require_action(session, intent, given.get("return_url"))
    return authorize(session, intent, card, authenticated=False)


def require_action(session: Session, intent: Doc, return_url: str | None) -> Doc:
    page = f"{session.request.base_url}/3ds/{intent['id']}?client_secret={intent['client_secret']}"
    intent["status"] = "requires_action"
    intent["next_action"] = {
        "type": "redirect_to_url",
        "redirect_to_url": {"return_url": return_url, "url": page},
    }
    intent["_return_url"] = return_url
    session.put(intent)
    session.emit("payment_intent.requires_action", intent, intent)
    return intent


def authenticate_intent(session: Session, identity: str, *, success: bool) -> Doc:
    """The customer passed or failed 3-D Secure. A decline that follows is told by the intent, not raised.

    Raises StateError when the intent does not wait for the customer.
    """
    intent = load_intent(session, identity)
    if intent["status"] != "requires_action":
        raise unexpected_state(intent, "authenticated", "requires_action")
    intent["next_action"] = None
    card = find_card(intent["_token"])
    try:
        if success:
            return authorize(session, intent, card, authenticated=True)
        message = "The provided PaymentMethod has failed authentication."
        return decline(session, intent, card, ("payment_intent_authentication_failure", "", message))
    except CardError:
        return session.get(identity, "payment_intent")


def authorize(session: Session, intent: Doc, card: Card, *, authenticated: bool) -> Doc:
    if card.decline:
        return decline(session, intent, card, card.decline, authenticated=authenticated)
    charge = session.put(build_charge(session, intent, card, authenticated=authenticated))
    intent |= {"latest_charge": charge["id"], "last_payment_error": None, "next_action": None}
    if intent["setup_future_usage"] and intent["customer"]:
        attach(session, intent["payment_method"], intent["customer"])
    session.record("authorize", intent, intent["amount"], charge["id"])
    if intent["capture_method"] == "manual":
        intent |= {"status": "requires_capture", "amount_capturable": intent["amount"]}
        session.put(intent)
        session.emit("charge.succeeded", charge, intent)
        session.emit("payment_intent.amount_capturable_updated", intent, intent)
        return intent
    settle(session, intent, charge, intent["amount"], final=True)
    session.emit("charge.succeeded", charge, intent)
    session.emit("payment_intent.succeeded", intent, intent)
    schedule_dispute(session, intent)
    return intent


def decline(
    session: Session, intent: Doc, card: Card, problem: tuple[str, str, str], *, authenticated: bool = False
) -> Doc:
    """Write the failed charge and raise its CardError."""
    code, decline_code, message = problem
    charge = build_charge(session, intent, card, authenticated=authenticated)
    charge |= {"status": "failed", "paid": False, "failure_code": code, "failure_message": message}
    charge["outcome"] |= {"network_status": "declined_by_network", "reason": decline_code or code}
    charge["outcome"] |= {
        "type": "issuer_declined",
        "seller_message": "The bank did not return any further details.",
    }
    session.put(charge)
    details = {"charge": charge["id"], "code": code, "decline_code": decline_code or None}
    method = session.get(intent["payment_method"], "payment_method")
    error: Doc = {"type": "card_error", "message": message, "payment_method": public(method), **details}
    intent |= {"latest_charge": charge["id"], "last_payment_error": error, "next_action": None}
    intent |= {"status": "requires_payment_method", "payment_method": None}
    session.put(intent)
    session.record("decline", intent, intent["amount"], charge["id"])
    session.emit("charge.failed", charge, intent)
    session.emit("payment_intent.payment_failed", intent, intent)
    raise CardError(message, payment_intent=public(intent), **details)
