"""Authorizations: /payments, the customer's challenge, and /payments/details."""

import secrets
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from payments.sandbox.books import Session

from . import ledger, notifications
from .cards import REFUSALS, Card, find_card
from .wire import AdyenError, Doc, amount, new_reference, refuse, show_amount, text

MERCHANT_INITIATED = ("Subscription", "UnscheduledCardOnFile")
IN_THE_CLEAR = ("number", "cvc", "expiryMonth", "expiryYear")


def check_account(body: Doc, name: str = "merchantAccount") -> str:
    """Raises ApiError 403 without one."""
    account = body.get(name)
    if not isinstance(account, str) or not account:
        raise AdyenError(403, "901", "Invalid Merchant Account", "security")
    return account


def find_payment(session: Session, reference: str) -> Doc:
    """Raises ApiError 422 for a reference of no payment."""
    payment = session.find(reference, "payment")
    if payment is None:
        raise refuse("167", "Original pspReference required for this operation")
    return payment


def find_by_own_reference(session: Session, reference: str) -> Doc | None:
    """The shop's newest payment under its own reference."""
    found = session.select(
        "payment", "json_extract(doc, '$.reference') = ?", (reference,), "seq DESC LIMIT 1"
    )
    return found[0] if found else None


def create_payment(session: Session, body: Doc, base_url: str) -> Doc:
    account = check_account(body)
    value, currency = amount(body)
    reference, card = text(body, "reference"), choose_card(session, body)
    payment: Doc = {
        "id": new_reference(),
        "object": "payment",
        "created": session.now,
        "status": "pending",
        "account": account,
        "reference": reference,
        "amount": value + card.wrong_amount,
        "currency": currency,
        "captured": 0,
        "refunded": 0,
        "released": 0,
        "metadata": body.get("metadata") or {},
        "_token": card.name,
        "_card": card.describe(offered=False, authenticated=False),
        "_shopper": body.get("shopperReference") or "",
        "_stores": bool(body.get("storePaymentMethod")),
        "_return_url": body.get("returnUrl") or "",
        "_challenge": "",
        "_exemption": (body.get("additionalData") or {}).get("scaExemption") or "",
    }
    if body.get("recurringProcessingModel") in MERCHANT_INITIATED:
        return finish_payment(session, payment, card, refusal=card.alone)
    if card.three_d_secure == "required" and wish(body) == "never":
        return finish_payment(session, payment, card, refusal="38")
    if needs_challenge(body, card):
        return start_challenge(session, payment, base_url)
    return finish_payment(session, payment, card)


def choose_card(session: Session, body: Doc) -> Card:
    method = body.get("paymentMethod")
    if not isinstance(method, dict):
        raise refuse("702", "Required field 'paymentMethod' is not provided.")
    if any(name in method for name in IN_THE_CLEAR):
        raise refuse("101", "Invalid card number")
    if "storedPaymentMethodId" not in method:
        return find_card(method.get("encryptedCardNumber"))
    shopper = text(body, "shopperReference")
    saved = session.find(str(method["storedPaymentMethodId"]), "token")
    if saved is None:
        return find_card(method["storedPaymentMethodId"])
    if saved["shopper"] != shopper or saved["is_deleted"]:
        raise refuse("803", "PaymentDetail not found")
    return find_card(saved["card"])


def needs_challenge(body: Doc, card: Card) -> bool:
    asked = wish(body) == "always"
    return card.three_d_secure == "required" or (card.three_d_secure == "optional" and asked)


def wish(body: Doc) -> str:
    """Whether the shop wants 3-D Secure: always, never, or ""."""
    return str((body.get("authenticationData") or {}).get("attemptAuthentication") or "")


def start_challenge(session: Session, payment: Doc, base_url: str) -> Doc:
    """The answer names no payment: there is none before the customer has come back."""
    if not payment["_return_url"]:
        raise refuse("702", "Required field 'returnUrl' is not provided.")
    payment["_challenge"] = secrets.token_hex(12)
    session.put(payment)
    action = {
        "paymentMethodType": "scheme",
        "url": f"{base_url}/3ds/{payment['_challenge']}",
        "method": "GET",
        "type": "redirect",
    }
    return {"resultCode": "RedirectShopper", "action": action}


def finish_payment(session: Session, payment: Doc, card: Card, *, refusal: str = "") -> Doc:
    """Authorise or refuse, and tell it by a webhook as well."""
    if refusal or card.refusal:
        return refuse_payment(session, payment, refusal or card.refusal)
    payment["status"] = "authorised"
    if payment["_stores"] and payment["_shopper"]:
        payment["_saved"] = store_token(session, payment["_shopper"], card)
    session.put(payment)
    session.record("authorize", payment, payment["amount"])
    ledger.write(session, payment, "Received", received=payment["amount"])
    ledger.write(session, payment, "Authorised", received=-payment["amount"], authorised=payment["amount"])
    extra = describe(payment)
    notifications.emit(
        session,
        "AUTHORISATION",
        payment,
        value=payment["amount"],
        reason=f"{extra['authCode']}:{extra['cardSummary']}:03/2030",
        extra={**extra, "totalFraudScore": str(card.score)},
    )
    return show_payment(payment)


def refuse_payment(session: Session, payment: Doc, code: str) -> Doc:
    payment |= {"status": "refused", "_refusal": code}
    session.put(payment)
    session.record("decline", payment, payment["amount"])
    ledger.write(session, payment, "Received", received=payment["amount"])
    ledger.write(session, payment, "Refused", received=-payment["amount"])
    reason = REFUSALS[code]
    notifications.emit(
        session, "AUTHORISATION", payment, value=payment["amount"], success=False, reason=reason
    )
    return show_payment(payment)


def store_token(session: Session, shopper: str, card: Card) -> str:
    token = session.put(
        {
            "id": new_reference(),
            "object": "token",
            "created": session.now,
            "shopper": shopper,
            "card": card.name,
            "is_deleted": False,
        }
    )
    return str(token["id"])


def describe(payment: Doc) -> Doc:
    extra = dict(payment["_card"])
    if payment.get("_exemption"):
        extra["scaExemptionRequested"] = payment["_exemption"]
    if payment.get("_saved"):
        extra["recurring.recurringDetailReference"] = payment["_saved"]
        extra["recurring.shopperReference"] = payment["_shopper"]
    return extra


def show_payment(payment: Doc) -> Doc:
    """The answer to a payment that is decided."""
    answer: Doc = {
        "additionalData": describe(payment),
        "pspReference": payment["id"],
        "resultCode": "Authorised",
        "amount": show_amount(payment["amount"], payment["currency"]),
        "merchantReference": payment["reference"],
        "paymentMethod": {"brand": payment["_card"]["paymentMethod"], "type": "scheme"},
        "fraudResult": {"accountScore": find_card(payment["_token"]).score, "results": []},
    }
    if payment["status"] == "refused":
        code = payment["_refusal"]
        answer |= {"resultCode": "Refused", "refusalReason": REFUSALS[code], "refusalReasonCode": code}
        del answer["amount"]
    return answer


# --- the challenge ------------------------------------------------------------------------------------------


def find_challenge(session: Session, challenge: str) -> Doc:
    found = session.select("payment", "json_extract(doc, '$._challenge') = ?", (challenge,))
    if not challenge or not found:
        raise refuse("702", "There is no such challenge.", status=404)
    return found[0]


def authenticate(session: Session, payment: Doc, *, success: bool) -> Doc:
    """Pass or fail the challenge; a second time changes nothing."""
    if payment["status"] != "pending":
        return payment
    card = find_card(payment["_token"])
    payment["_card"] = card.describe(offered=True, authenticated=success)
    if success:
        finish_payment(session, payment, card)
    else:
        refuse_payment(session, payment, "11")
    return payment


def find_onward(payment: Doc) -> str:
    """The shop's address with what proves that the customer was here."""
    parts = urlsplit(payment["_return_url"])
    query = [*parse_qsl(parts.query, keep_blank_values=True), ("redirectResult", payment["_challenge"])]
    return urlunsplit(parts._replace(query=urlencode(query)))


def submit_details(session: Session, body: Doc) -> Doc:
    details = body.get("details")
    payment = find_challenge(session, str((details or {}).get("redirectResult") or ""))
    if payment["status"] == "pending":
        raise refuse("702", "The shopper has not completed the challenge.")
    return show_payment(payment)


def delete_token(session: Session, identity: str, shopper: str) -> None:
    """Raises ApiError 422 for one that is not there."""
    token = session.find(identity, "token")
    if token is None or token["shopper"] != shopper or token["is_deleted"]:
        raise refuse("803", "PaymentDetail not found")
    session.put({**token, "is_deleted": True})
