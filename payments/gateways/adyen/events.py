"""Adyen's webhooks read into facts about money: pure functions over plain dicts, no network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from payments.gateways.adyen.cards import read_card
from payments.gateways.adyen.declines import read_decline, read_failure
from payments.gateways.adyen.disputes import DISPUTE_EVENTS, read_dispute
from payments.gateways.adyen.results import AUTHORIZATION_HOLDS
from payments.gateways.adyen.wire import Doc, from_wire, trim
from payments.gateways.base import (
    ChargeResult,
    ChargeStatus,
    Decline,
    Fact,
    FraudWarning,
    GatewayFact,
    RefundResult,
    RefundStatus,
)
from payments.kinds import OperationKind


def read_items(event: Doc) -> Iterator[Doc]:
    """One webhook carries several notifications."""
    for item in event["notificationItems"]:
        yield item["NotificationRequestItem"]


def read_facts(event: Doc) -> list[Fact]:
    """The facts of every notification in a webhook; none for a code that says nothing of a payment's money."""
    return [fact for item in read_items(event) if (fact := read_fact(item))]


def read_fact(item: Doc) -> Fact | None:
    code = item["eventCode"]
    if code in DISPUTE_EVENTS:
        return read_dispute(item, when=read_time(item))
    if code == "NOTIFICATION_OF_FRAUD":
        return read_warning(item)
    reader = _READERS.get(code)
    return reader(item) if reader else None


def read_time(item: Doc) -> datetime:
    """Raises `ValueError` for a time without a zone."""
    when = datetime.fromisoformat(item["eventDate"])
    if when.tzinfo is None:
        raise ValueError("eventDate has no zone")
    return when


def is_success(item: Doc) -> bool:
    """Adyen writes a word, and the word is what it signs."""
    if item["success"] not in ("true", "false"):
        raise ValueError("success is neither true nor false")
    return bool(item["success"] == "true")


def build_fact(
    item: Doc, kind: OperationKind, result: ChargeResult | RefundResult, reference: str
) -> GatewayFact:
    """`merchantReference` is our operation's id; for a modification some accounts give the payment's instead,
    which fits no operation of its kind: then its own reference says which one it is.

    The payment's id in the extra data is not read: nothing signs it, so whoever saw one notification could turn it
    into the word of any other payment.
    """
    return GatewayFact(
        kind=kind,
        result=result,
        operation_id=item.get("merchantReference") or "",
        reference=reference,
        occurred_at=read_time(item),
    )


def read_warning(item: Doc) -> FraudWarning:
    """What the issuer has told Visa (TC40) or Mastercard (SAFE)."""
    return FraudWarning(
        reference=item["pspReference"],
        payment_reference=item.get("originalReference") or "",
        reason=item.get("reason") or "",
        occurred_at=read_time(item),
        raw=trim(item),
    )


# --- payments -----------------------------------------------------------------------------------------------


def read_authorisation(item: Doc) -> GatewayFact:
    """A refused authorization has a reference of its own, which nothing can be done with.

    A saved card's token is taken from Adyen's own answer only: nothing signs the one in a webhook, which could be
    another customer's.
    """
    done = is_success(item)
    result = ChargeResult(
        status=ChargeStatus.AUTHORIZED if done else ChargeStatus.DECLINED,
        reference=item["pspReference"],
        amount=from_wire(item["amount"]),
        card=read_card(item),
        decline=None if done else read_decline(item.get("reason") or ""),
        expires_at=read_time(item) + AUTHORIZATION_HOLDS if done else None,
        raw=trim(item),
    )
    return build_fact(item, OperationKind.AUTHORIZE, result, item["pspReference"])


def read_adjustment(item: Doc) -> GatewayFact | None:
    """We never ask for one: an amount changed elsewhere is told as it stands now, for the checks to find."""
    if not is_success(item):
        return None
    reference = item["originalReference"]
    amount = from_wire(item["amount"])
    result = ChargeResult(ChargeStatus.AUTHORIZED, reference, amount, raw=trim(item))
    return build_fact(item, OperationKind.AUTHORIZE, result, reference)


def read_change(item: Doc, kind: OperationKind, status: ChargeStatus) -> GatewayFact:
    """The end of a capture or a void: `status` if it was done, else failed."""
    done = is_success(item)
    reference = item.get("originalReference") or ""
    result = ChargeResult(
        status=status if done else ChargeStatus.FAILED,
        reference=reference,
        amount=from_wire(item["amount"]),
        decline=None if done else read_failure(item.get("reason") or ""),
        own_reference=item["pspReference"],
        raw=trim(item),
    )
    return build_fact(item, kind, result, reference)


def read_capture(item: Doc) -> GatewayFact:
    return read_change(item, OperationKind.CAPTURE, ChargeStatus.CAPTURED)


def read_capture_failed(item: Doc) -> GatewayFact:
    """The scheme refused a capture that Adyen had accepted: `success` only says that this is so."""
    return read_capture({**item, "success": "false", "reason": item.get("reason") or "Capture Failed"})


def read_cancellation(item: Doc) -> GatewayFact:
    return read_change(item, OperationKind.VOID, ChargeStatus.VOIDED)


def read_technical_cancel(item: Doc) -> GatewayFact:
    """Names our authorization, not the void: the references say which one it is."""
    return read_cancellation(item)


def read_expiry(item: Doc) -> GatewayFact:
    """What was left uncaptured is released. It has the payment's own reference, and no modification's."""
    reference = item.get("originalReference") or item["pspReference"]
    result = ChargeResult(ChargeStatus.VOIDED, reference, from_wire(item["amount"]), raw=trim(item))
    return build_fact({**item, "merchantReference": ""}, OperationKind.VOID, result, reference)


# --- refunds ------------------------------------------------------------------------------------------------


def read_refund_fact(item: Doc) -> GatewayFact:
    return build_refund_fact(item, done=is_success(item))


def read_refund_failed(item: Doc) -> GatewayFact:
    """Told of a refund that was a success before: the money has come back."""
    return build_refund_fact(item, done=False)


def build_refund_fact(item: Doc, *, done: bool) -> GatewayFact:
    reason = item.get("reason") or item["eventCode"]
    result = RefundResult(
        status=RefundStatus.SUCCEEDED if done else RefundStatus.FAILED,
        reference=item["pspReference"],
        amount=from_wire(item["amount"]),
        failure=None if done else Decline("refund_failed", reason, "refund_by_other_means", reason),
        raw=trim(item),
    )
    return build_fact(item, OperationKind.REFUND, result, item.get("originalReference") or "")


def read_reversal(item: Doc) -> GatewayFact | None:
    """CANCEL_OR_REFUND says in its extra data which of the two it became; when it failed it says nothing."""
    action = (item.get("additionalData") or {}).get("modification.action")
    if action == "refund":
        return read_refund_fact(item)
    return read_cancellation(item) if action == "cancel" else None


_READERS: dict[str, Callable[[Doc], GatewayFact | None]] = {
    "AUTHORISATION": read_authorisation,
    "AUTHORISATION_ADJUSTMENT": read_adjustment,
    "CAPTURE": read_capture,
    "CAPTURE_FAILED": read_capture_failed,
    "CANCELLATION": read_cancellation,
    "TECHNICAL_CANCEL": read_technical_cancel,
    "CANCEL_OR_REFUND": read_reversal,
    "EXPIRE": read_expiry,
    "REFUND": read_refund_fact,
    "REFUND_WITH_DATA": read_refund_fact,
    "REFUND_FAILED": read_refund_failed,
    "REFUNDED_REVERSED": read_refund_failed,
}
