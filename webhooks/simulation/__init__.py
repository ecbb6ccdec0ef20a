"""Makes deliveries as a gateway would send them of a payment, for trying out the receipt on a running site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta

from django.utils import timezone

from payments.errors import ConflictError, InvalidRequestError
from payments.models import Payment
from webhooks.accounts import load_receiver
from webhooks.simulation import adyen, braintree, stripe
from webhooks.simulation.subject import OUTSIDE, SimulatedDelivery, Simulator, Subject

SIMULATORS: Mapping[str, Simulator] = {"adyen": adyen, "braintree": braintree, "stripe": stripe}
# By how much what comes before is older, to the gateway's clock.
AGE = timedelta(minutes=1)

__all__ = ["OUTSIDE", "SIMULATORS", "SimulatedDelivery", "list_events", "simulate_deliveries"]


def list_events(gateway: str) -> Iterator[tuple[str, str]]:
    """What can be sent for a gateway: each name as `simulate_deliveries` takes it, and what it says."""
    for name, event in SIMULATORS[gateway].EVENTS.items():
        yield name, event.says


def simulate_deliveries(
    payment: Payment,
    event: str,
    *,
    operation_id: str = "",
    amount: int | None = None,
    duplicates: int = 0,
    late_seconds: int = 0,
    is_badly_signed: bool = False,
    is_out_of_order: bool = False,
) -> list[SimulatedDelivery]:
    """The event, `duplicates` repetitions, and behind them the one that should have come before, if wanted.

    `operation_id` says which capture or refund it is about: without it the newest, with `OUTSIDE` one made at the
    gateway's own pages. `amount` is minor units, for another than the operation's. A gateway that sends several
    events in one delivery takes their names joined by `+`.

    Raises `ConflictError` when the payment has come to where this cannot be said of it, or its account has no secret
    to sign with, and `InvalidRequestError` for what the gateway never sends.
    """
    simulator = _find_simulator(payment)
    if late_seconds and not simulator.HAS_WINDOW:
        gateway = payment.account.gateway
        raise InvalidRequestError(f"{gateway} signs no time, so nothing is too late there; nothing was sent")
    secret = _find_secret(payment)
    subject = Subject(payment, timezone.now(), operation_id, amount)
    bodies = [_write(simulator, event, subject)] * (1 + duplicates)
    if is_out_of_order:
        earlier = replace(subject, now=subject.now - AGE)
        bodies.append(_write(simulator, _find_before(simulator, event), earlier))
    path = f"/webhooks/{payment.account.gateway}/{payment.account.name}/"
    key = simulator.forge_secret(secret) if is_badly_signed else secret
    signed_at = int(subject.now.timestamp()) - late_seconds
    sealed = [simulator.seal(body, secret=key, signed_at=signed_at) for body in bodies]
    return [SimulatedDelivery(path, body, headers) for body, headers in sealed]


def _find_simulator(payment: Payment) -> Simulator:
    gateway = payment.account.gateway
    if gateway not in SIMULATORS:
        raise InvalidRequestError(f"events of {gateway} cannot be simulated; nothing was sent")
    return SIMULATORS[gateway]


def _find_secret(payment: Payment) -> str:
    secrets = load_receiver(payment.account).secrets
    if not secrets:
        raise ConflictError(
            f"the gateway account {payment.account} has no webhook secret to sign with; nothing was sent"
        )
    return secrets[0]


def _split(simulator: Simulator, event: str) -> list[str]:
    names = event.split("+") if simulator.SENDS_BATCHES else [event]
    for name in names:
        if name not in simulator.EVENTS:
            raise InvalidRequestError(f"{name} is not one of {', '.join(simulator.EVENTS)}; nothing was sent")
    return names


def _find_before(simulator: Simulator, event: str) -> str:
    before = simulator.EVENTS[_split(simulator, event)[0]].before
    if not before:
        raise InvalidRequestError(f"nothing comes before {event}; nothing was sent")
    return before


def _write(simulator: Simulator, event: str, subject: Subject) -> dict[str, object]:
    return simulator.write(_split(simulator, event), subject)
