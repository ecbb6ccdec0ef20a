"""Makes events as a gateway would send them, for trying out the receipt on a running site."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from payments.errors import ConflictError, InvalidRequestError
from payments.gateways.stripe_wire import CAPTURE_OPERATION_ID, OPERATION_ID, ORDER_ID, PAYMENT_ID, to_wire
from payments.models import Payment
from payments.money import Money
from webhooks.accounts import load_receiver
from webhooks.verifiers import stripe

# What each event of a payment intent says of its status, in the order in which they happen.
STRIPE_EVENTS = {
    "payment_intent.created": "requires_payment_method",
    "payment_intent.requires_action": "requires_action",
    "payment_intent.payment_failed": "requires_payment_method",
    "payment_intent.amount_capturable_updated": "requires_capture",
    "payment_intent.succeeded": "succeeded",
    "payment_intent.canceled": "canceled",
}
_BEFORE = {
    "payment_intent.succeeded": "payment_intent.amount_capturable_updated",
    "payment_intent.canceled": "payment_intent.amount_capturable_updated",
    "payment_intent.amount_capturable_updated": "payment_intent.created",
    "payment_intent.payment_failed": "payment_intent.created",
    "payment_intent.requires_action": "payment_intent.created",
}


@dataclass(frozen=True, slots=True)
class SimulatedDelivery:
    """One POST to `path`: the body and the headers that the gateway would send."""

    path: str
    body: bytes
    headers: Mapping[str, str]


def simulate_deliveries(
    payment: Payment,
    event_type: str,
    *,
    duplicates: int = 0,
    late_seconds: int = 0,
    is_badly_signed: bool = False,
    is_out_of_order: bool = False,
) -> list[SimulatedDelivery]:
    """The event, `duplicates` repetitions, and behind them the one that should have come before, if wanted.

    Raises `ConflictError` when the payment's account has no secret to sign with, and `InvalidRequestError` for
    an event type that cannot be made.
    """
    gateway = payment.account.gateway
    if gateway not in SIMULATORS:
        raise InvalidRequestError(f"events of {gateway} cannot be simulated; nothing was sent")
    bodies = [SIMULATORS[gateway](payment, event_type)] * (1 + duplicates)
    if is_out_of_order:
        bodies.append(SIMULATORS[gateway](payment, find_type_before(event_type)))
    signed_at = int(time.time()) - late_seconds
    return [_sign(payment, body, signed_at, is_badly_signed=is_badly_signed) for body in bodies]


def find_type_before(event_type: str) -> str:
    """The event type that comes before in a payment's life. Raises `InvalidRequestError` without one."""
    if event_type not in _BEFORE:
        raise InvalidRequestError(f"nothing comes before {event_type}; nothing was sent")
    return _BEFORE[event_type]


def _sign(payment: Payment, body: bytes, signed_at: int, *, is_badly_signed: bool) -> SimulatedDelivery:
    account = payment.account
    receiver = load_receiver(account)
    if not receiver.secrets:
        raise ConflictError(
            f"the gateway account {account} has no webhook secret to sign with; nothing was sent"
        )
    secret = "whsec_of_somebody_else" if is_badly_signed else receiver.secrets[0]
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Stripe-Signature": stripe.sign(body, secret=secret, timestamp=signed_at),
        "User-Agent": "Stripe/1.0 (simulated)",
    }
    return SimulatedDelivery(f"/webhooks/{account.gateway}/{account.name}/", body, headers)


def make_stripe_event(payment: Payment, event_type: str) -> bytes:
    """Raises `InvalidRequestError` for a type that is not in `STRIPE_EVENTS`."""
    if event_type not in STRIPE_EVENTS:
        raise InvalidRequestError(f"{event_type} is not one of {', '.join(STRIPE_EVENTS)}; nothing was sent")
    event = {
        "id": f"evt_{secrets.token_hex(12)}",
        "object": "event",
        "type": event_type,
        "created": int(time.time()),
        "livemode": False,
        "pending_webhooks": 1,
        "data": {"object": _make_intent(payment, STRIPE_EVENTS[event_type])},
    }
    return json.dumps(event, indent=2).encode()


def _make_intent(payment: Payment, status: str) -> dict[str, Any]:
    amount = to_wire(Money(payment.amount, payment.currency))
    latest = {operation.kind: operation.pk for operation in payment.operations.order_by("pk")}
    metadata = {
        ORDER_ID: payment.order_id,
        PAYMENT_ID: payment.pk,
        OPERATION_ID: latest.get("authorize", ""),
        CAPTURE_OPERATION_ID: latest.get("capture", ""),
    }
    failed = status == "requires_payment_method"
    return {
        "id": payment.gateway_reference or f"pi_simulated_{payment.pk}",
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": amount if status == "requires_capture" else 0,
        "amount_received": amount if status == "succeeded" else 0,
        "currency": payment.currency.lower(),
        "status": status,
        "created": int(payment.created_at.timestamp()),
        "latest_charge": None,
        "last_payment_error": {"type": "card_error", "code": "card_declined"} if failed else None,
        "metadata": {name: value for name, value in metadata.items() if value},
    }


SIMULATORS: Mapping[str, Callable[[Payment, str], bytes]] = {"stripe": make_stripe_event}
