"""Disputes: raised and decided by the control API, defended or accepted through Adyen's own."""

from payments.sandbox.books import Session
from payments.sandbox.wire import invalid

from . import ledger, notifications
from .payments import check_account, find_payment
from .wire import Doc, format_time, new_reference, public, refuse, text

DEFENSE_SECONDS = 18 * 86_400
# What each event says of the dispute, and what it does to the money: -1 takes it, 1 gives it back.
EVENTS = {
    "REQUEST_FOR_INFORMATION": ("Unresponded", 0),
    "NOTIFICATION_OF_CHARGEBACK": ("Undefended", 0),
    "CHARGEBACK": ("Undefended", -1),
    "CHARGEBACK_REVERSED": ("Pending", 1),
    "SECOND_CHARGEBACK": ("Lost", -1),
    "PREARBITRATION_OPEN": ("Undefended", 0),
    "PREARBITRATION_WON": ("Won", 1),
    "PREARBITRATION_LOST": ("Lost", -1),
    "ISSUER_RESPONSE_TIMEFRAME_EXPIRED": ("Won", 0),
    "DISPUTE_DEFENSE_PERIOD_ENDED": ("Lost", 0),
    "INFORMATION_SUPPLIED": ("Pending", 0),
}
RECORDS = {-1: "Chargeback", 1: "ChargebackReversed"}
REASONS = {"10.4": "Other Fraud-Card Absent Environment", "13.1": "Merchandise/Services Not Received"}
OPEN = ("Undefended", "Unresponded")
# Each defense with its document types: whether Adyen insists on the document.
DEFENSES = {
    "MerchandiseReceived": {"TIDorInvoice": False, "DefenseMaterial": True},
    "CancellationTermsFailed": {"DateMerchandiseShipped": True, "CancellationNeverAccepted": True},
}


def raise_dispute(session: Session, payment: Doc, *, code: str, value: int, reason: str) -> Doc:
    dispute = {
        "id": new_reference(),
        "object": "dispute",
        "created": session.now,
        "payment": payment["id"],
        "value": value,
        "reason": reason,
        "status": "",
        "due_by": session.now + DEFENSE_SECONDS,
        "documents": [],
        "_contents": [],
        "defense": "",
        "is_inquiry": code == "REQUEST_FOR_INFORMATION",
    }
    return tell(session, dispute, code)


def tell(session: Session, dispute: Doc, code: str, status: str = "") -> Doc:
    """Move the dispute on, and the money with it. Raises ApiError 400 for an event that is none."""
    if code not in EVENTS:
        raise invalid(f"Invalid event: must be one of {', '.join(EVENTS)}", "event")
    usual, sign = EVENTS[code]
    payment = find_payment(session, dispute["payment"])
    dispute["status"] = status or usual
    session.put(dispute)
    if sign:
        session.record("dispute" if sign < 0 else "dispute_reversed", payment, dispute["value"])
        ledger.write(session, payment, RECORDS[sign], own=dispute["id"], payable=sign * dispute["value"])
    prefix = "rfi" if dispute["is_inquiry"] else "chargeback"
    extra = {f"{prefix}ReasonCode": dispute["reason"], f"{prefix}SchemeCode": "visa"}
    extra["disputeStatus"] = dispute["status"]
    if dispute["status"] in OPEN:
        extra["defensePeriodEndsAt"] = format_time(dispute["due_by"])
    notifications.emit(
        session,
        code,
        payment,
        value=dispute["value"],
        own=dispute["id"],
        reason=REASONS.get(dispute["reason"], "Dispute"),
        extra=extra,
    )
    return public(dispute)


# --- Adyen's Disputes API -----------------------------------------------------------------------------------


def read_dispute(session: Session, body: Doc) -> Doc:
    check_account(body, "merchantAccountCode")
    dispute = session.find(text(body, "disputePspReference"), "dispute")
    if dispute is None:
        raise refuse("702", "Dispute not found")
    return dispute


def result(message: str = "") -> Doc:
    """A refusal comes with status 200 too."""
    return {
        "disputeServiceResult": {"success": not message, **({"errorMessage": message} if message else {})}
    }


def list_defenses(session: Session, body: Doc) -> Doc:
    dispute = read_dispute(session, body)
    if dispute["status"] not in OPEN:
        return {**result("Dispute is not open for defense"), "defenseReasons": []}
    return {**result(), "defenseReasons": [show_defense(code, types) for code, types in DEFENSES.items()]}


def show_defense(code: str, types: dict[str, bool]) -> Doc:
    shown = [
        {
            "defenseDocumentTypeCode": kind,
            "available": False,
            "requirementLevel": "Required" if is_required else "Optional",
        }
        for kind, is_required in types.items()
    ]
    return {"defenseReasonCode": code, "defenseDocumentTypes": shown, "satisfied": False}


def supply_documents(session: Session, body: Doc) -> Doc:
    dispute = read_dispute(session, body)
    if dispute["status"] not in OPEN:
        return result("Dispute is not open for defense")
    for document in body.get("defenseDocuments") or ():
        if document.get("contentType") not in ("application/pdf", "image/jpg", "image/tiff"):
            return result("Unsupported content type")
        dispute["documents"].append(document["defenseDocumentTypeCode"])
        dispute["_contents"].append(document["content"])
    session.put(dispute)
    return result()


def defend(session: Session, body: Doc) -> Doc:
    dispute = read_dispute(session, body)
    types = DEFENSES.get(str(body.get("defenseReasonCode")))
    if dispute["status"] not in OPEN or types is None:
        return result("Dispute is not open for defense")
    needed = {code for code, is_required in types.items() if is_required}
    if not needed <= set(dispute["documents"]):
        return result("Not all required documents were supplied")
    dispute["defense"] = str(body["defenseReasonCode"])
    tell(session, dispute, "INFORMATION_SUPPLIED")
    return result()


def accept(session: Session, body: Doc) -> Doc:
    dispute = read_dispute(session, body)
    if dispute["status"] not in OPEN:
        return result("Dispute is not open for acceptance")
    tell(session, dispute, "DISPUTE_DEFENSE_PERIOD_ENDED", "Accepted")
    return result()
