"""The catalogue of public events: what each means, the JSON Schema of its data, and an example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from payments.errors import InvalidRequestError
from payments.kinds import DisputeStage, DisputeState, OperationKind
from payments.models import OperationState, OrderState, PaymentState

Schema = dict[str, Any]
_MOMENT = "2026-03-02T10:15:30.123456Z"


# --- the parts of which data is made --------------------------------------------------------------------------


def _describe_object(members: Mapping[str, Schema], **more: Any) -> Schema:
    """All members are always there. Others may come later, so the object stays open."""
    return {"type": "object", "properties": dict(members), "required": list(members), **more}


def _text(description: str = "") -> Schema:
    return {"type": "string"} | ({"description": description} if description else {})


def _one_of(names: Iterable[str]) -> Schema:
    return {"type": "string", "enum": [str(name) for name in names]}


_MINOR = {"type": "integer", "minimum": 0, "description": "Minor units."}
_CURRENCY = {"type": "string", "pattern": "^[A-Z]{3}$"}
_TIME = {"type": ["string", "null"], "format": "date-time"}
_SEQUENCE = {"type": "integer", "minimum": 1, "description": "Counts up per order, without gaps."}

_ORDER = _describe_object(
    {
        "id": _text(),
        "reference": _text("Your own number."),
        "state": _one_of(OrderState.values),
        "amount": _MINOR,
        "currency": _CURRENCY,
    },
    description="The order as it was at that moment.",
)
_PAYMENT = _describe_object(
    {
        "id": _text(),
        "state": _one_of(PaymentState.values),
        "authorized": _MINOR,
        "capturable": _MINOR,
        "captured": _MINOR,
        "refunded": _MINOR,
        "last_error": {"type": ["object", "null"], "description": "Why the last attempt failed."},
    },
    description="Its money at that moment.",
)
_OPERATION = _describe_object(
    {
        "id": _text(),
        "kind": _one_of(OperationKind),
        "state": _one_of(OperationState.values),
        "amount": _MINOR,
        "currency": _CURRENCY,
    }
)
_DISPUTE = _describe_object(
    {
        "id": _text(),
        "stage": _one_of(DisputeStage),
        "state": _one_of(DisputeState),
        "amount": _MINOR,
        "currency": _CURRENCY,
        "reason": _text(),
        "due_by": _TIME | {"description": "Until when it must be answered."},
    }
)
_ENDPOINT = _describe_object({"id": _text(), "url": _text(), "reason": _text("Why.")})
_MONEY: dict[str, Schema] = {"order": _ORDER, "payment": _PAYMENT}
_WITH_OPERATION = _MONEY | {"operation": _OPERATION}
_WITH_REFUND = _MONEY | {"refund": _OPERATION}
_WITH_DISPUTE = _MONEY | {"dispute": _DISPUTE}
# What is sent in place of the data of an event that is too large for one message.
_THIN = _describe_object(
    {"order": _describe_object({"id": _text()}), "sequence": _SEQUENCE, "truncated": {"const": True}},
    description="In place of data that is too large for a message: read the order, or the event.",
)


def _tell_order(order_state: str, **payment: Any) -> dict[str, Any]:
    """An example's order of 129.50 EUR in this state, with its payment."""
    totals = {"authorized": 0, "capturable": 0, "captured": 0, "refunded": 0, "last_error": None}
    order = {"id": "ord_06c1v7v0g8s3q5n2k4m6p8r0t1", "reference": "1001", "state": order_state}
    return {
        "order": order | {"amount": 12950, "currency": "EUR"},
        "payment": {"id": "pay_06c1v7v0g8t2r4q6n8m0k1j3h5"} | totals | payment,
    }


_PLACED = _tell_order("placed", state="requires_payment_method")
_HELD = _tell_order("processing", state="requires_capture", authorized=12950, capturable=12950)
_PAID = _tell_order("paid", state="succeeded", authorized=12950, captured=12950)
_IN_REVIEW = _tell_order("review", state="requires_review", authorized=12950, capturable=12950)
_REFUNDED = _tell_order("paid", state="succeeded", authorized=12950, captured=12950, refunded=1500)
_VOIDED = _tell_order("canceled", state="canceled", authorized=12950)
_DECLINE = {"code": "card_declined", "decline_code": "expired_card", "message": "The card has expired."}
_REFUSED = _tell_order("declined", state="requires_payment_method", last_error=_DECLINE)


def _tell_operation(kind: str, state: str = "succeeded", amount: int = 12950) -> dict[str, Any]:
    prefix = "re" if kind == "refund" else "op"
    told = {"id": f"{prefix}_06c1v7v0g9a1b2c3d4e5f6g7h8", "kind": kind, "state": state}
    return told | {"amount": amount, "currency": "EUR"}


def _tell_dispute(state: str) -> dict[str, Any]:
    told = {"id": "dp_06c1v7v0gaz8y6x4w2v0u1t3s5", "stage": "chargeback", "state": state}
    money = {"amount": 12950, "currency": "EUR"}
    return told | money | {"reason": "not_received", "due_by": "2026-03-16T23:59:59+00:00"}


_ENDPOINT_ID = "whe_06c1v7v0gcm1n2b3v4c5x6z7l8"


# --- the catalogue ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EventType:
    """One kind of public event. `members` are those of its data, beside `sequence`.

    One that is not `subscribable` is a message of its own, whatever types an endpoint has asked for.
    """

    name: str
    description: str
    data: Mapping[str, Any]  # the example's
    members: Mapping[str, Schema] = field(default_factory=lambda: _MONEY)
    is_subscribable: bool = True

    @property
    def schema(self) -> Schema:
        """Of the whole message, as the body of a delivery has it."""
        whole = _describe_object(self._numbered)
        envelope = {
            "type": {"const": self.name},
            "timestamp": {"type": "string", "format": "date-time", "description": "When it happened."},
            "data": {"anyOf": [whole, _THIN]} if self.is_subscribable else whole,
        }
        return _describe_object(envelope, title=self.name)

    @property
    def example(self) -> dict[str, Any]:
        data = {**self.data, "sequence": 4} if self.is_subscribable else dict(self.data)
        return {"type": self.name, "timestamp": _MOMENT, "data": data}

    @property
    def _numbered(self) -> dict[str, Schema]:
        return {**self.members, "sequence": _SEQUENCE} if self.is_subscribable else dict(self.members)


def _refund(name: str, description: str, state: str, order: Mapping[str, Any]) -> EventType:
    data = {**order, "refund": _tell_operation("refund", state, 1500)}
    return EventType(name, description, data, _WITH_REFUND)


def _operation(name: str, description: str, told: dict[str, Any], order: Mapping[str, Any]) -> EventType:
    return EventType(name, description, {**order, "operation": told}, _WITH_OPERATION)


def _dispute(name: str, description: str, state: str) -> EventType:
    return EventType(name, description, {**_PAID, "dispute": _tell_dispute(state)}, _WITH_DISPUTE)


def _endpoint(name: str, description: str, reason: str) -> EventType:
    told = {"id": _ENDPOINT_ID, "url": "https://shop.example/countinghouse/events", "reason": reason}
    return EventType(name, description, {"endpoint": told}, {"endpoint": _ENDPOINT})


def _message(name: str, description: str) -> EventType:
    """One that is about no order: it is sent to one endpoint, and is in no list of events."""
    members = {"endpoint": _text("The endpoint's id.")}
    return EventType(name, description, {"endpoint": _ENDPOINT_ID}, members, is_subscribable=False)


_TYPES = (
    EventType("order.placed", "The order was taken; nothing is charged yet.", _PLACED),
    EventType(
        "order.awaiting_customer",
        "The customer must act, as for 3-D Secure: send them to the payment's next action.",
        _tell_order("awaiting_customer", state="requires_action"),
    ),
    EventType("order.authorized", "The amount is held, and you decide when to capture it.", _HELD),
    EventType("order.paid", "All is captured and the order ships.", _PAID),
    EventType("order.declined", "The card was declined; confirm the order with another one.", _REFUSED),
    EventType(
        "order.blocked",
        "The screening, or a reviewer, refused the order; nothing stays charged.",
        _tell_order("blocked", state="canceled"),
    ),
    EventType("order.canceled", "The order was undone; nothing stays charged.", _VOIDED),
    EventType(
        "order.expired",
        "The customer, or the reviewer, did not act in time; nothing stays charged.",
        _tell_order("expired", state="canceled"),
    ),
    EventType(
        "order.customer_erased",
        "The customer's personal data was removed from the order; amounts and ids stay.",
        {**_PAID, "customer": "cus_06c1v7v0gbq2w3e4r5t6y7u8i9"},
        _MONEY | {"customer": _text("Our id of the erased customer.")},
    ),
    EventType("payment.authorized", "The card's issuer holds the amount.", _HELD),
    EventType("payment.declined", "An attempt to pay was declined; `last_error` says why.", _REFUSED),
    _operation("payment.captured", "An amount was captured.", _tell_operation("capture"), _PAID),
    _operation(
        "payment.capture_failed",
        "A capture did not succeed; the money did not come.",
        _tell_operation("capture", "failed"),
        _HELD,
    ),
    _operation("payment.voided", "A hold was released.", _tell_operation("void"), _VOIDED),
    _operation(
        "payment.requires_review",
        "The gateway's word does not fit what we know; a person looks at it.",
        _tell_operation("capture", "requires_review"),
        _HELD,
    ),
    EventType(
        "payment.authorization_expiring",
        "A hold ends soon: capture it, or let it go.",
        {**_HELD, "expires_at": "2026-03-09T10:15:30+00:00"},
        _MONEY | {"expires_at": _TIME},
    ),
    EventType(
        "payment.late_success_undone",
        "It succeeded after the order was given up, and the money went back.",
        _VOIDED,
    ),
    _refund("refund.created", "A refund was begun.", "created", _PAID),
    _refund("refund.pending", "The gateway has the refund; its end follows.", "pending", _PAID),
    _refund("refund.succeeded", "The refund is done.", "succeeded", _REFUNDED),
    _refund("refund.failed", "The refund failed; the money stays captured.", "failed", _PAID),
    _dispute("dispute.opened", "A cardholder's bank asks, or takes the money back.", "needs_response"),
    _dispute("dispute.updated", "An open dispute has another stage, state or deadline.", "under_review"),
    _dispute(
        "dispute.due_soon", "A dispute must be answered soon; `due_by` says until when.", "needs_response"
    ),
    _dispute("dispute.closed", "A dispute was decided.", "won"),
    EventType("review.opened", "A person must decide: do not ship.", _IN_REVIEW),
    EventType("review.approved", "The reviewer let the order go on.", _HELD),
    EventType(
        "review.rejected",
        "The reviewer refused the order; `order.blocked` follows.",
        {**_IN_REVIEW, "reason": "fraudulent"},
        _MONEY | {"reason": _text()},
    ),
    _endpoint(
        "webhook_endpoint.disabled",
        "One of your endpoints gets nothing any more; told to your others and in the list of events.",
        "the endpoint answered 410 Gone",
    ),
    _endpoint(
        "webhook_endpoint.enabled",
        "A disabled endpoint answered a probe, and is sent to again with what it has missed.",
        "it answers again",
    ),
    _message("endpoint.test", "The message that you ask for to try an endpoint."),
    _message("endpoint.probe", "Asks a disabled endpoint whether it is there again; a 2xx enables it."),
)
CATALOGUE: dict[str, EventType] = {kind.name: kind for kind in _TYPES}
SUBSCRIBABLE: tuple[str, ...] = tuple(kind.name for kind in _TYPES if kind.is_subscribable)


def check_event_types(types: Iterable[str]) -> None:
    """Raises `InvalidRequestError` for the first that no event has, with the name that was probably meant."""
    for position, name in enumerate(types):
        if name not in SUBSCRIBABLE:
            near = get_close_matches(name, SUBSCRIBABLE, n=1, cutoff=0)
            raise InvalidRequestError(
                f"there is no event type {name[:50]!r} to ask for, the nearest is {near[0]!r}; nothing was changed",
                pointer=f"/event_types/{position}",
            )
