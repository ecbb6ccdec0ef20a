"""Placing and paying an order: the storefront's first request, and every return to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from payments import facts, idempotency, ids
from payments.errors import ConflictError, InvalidRequestError, NetworkError
from payments.models import (
    ApiClient,
    Attempt,
    Event,
    Order,
    OrderState,
    Payment,
    PaymentState,
    SagaState,
)
from payments.models.order import CaptureMethod
from payments.models.saga import DRIVEN_STATES
from payments.money import Money
from payments.redaction import redact
from payments.routing import Route, RouteSubject, choose_routes
from payments.sagas import engine
from payments.sagas.checkout import CHECKOUT
from payments.sagas.registry import find_recipe
from payments.services.customers import ChosenMethod, resolve_payment_method
from payments.services.doubts import complete_authentication


@dataclass(frozen=True, slots=True)
class OrderDraft:
    """What a storefront wants to be paid for; validated by the API. Amounts in lines are minor units."""

    reference: str
    amount: Money
    payment_method: str
    payment_methods: Mapping[str, str] = field(
        default_factory=dict
    )  # for failover: gateway or gateway/name -> token
    lines: Sequence[Mapping[str, Any]] = ()
    capture: str = CaptureMethod.AUTOMATIC
    return_url: str = ""
    customer_id: str = ""
    customer_email: str = ""
    customer_created_at: datetime | None = None
    billing: Mapping[str, Any] = field(default_factory=dict)
    shipping: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    save_payment_method: bool = False
    off_session: bool = False  # the customer is not there: a charge on a saved method
    metadata: Mapping[str, Any] = field(default_factory=dict)


def place_order(
    client: ApiClient, draft: OrderDraft, *, key: idempotency.Claim | None = None, drive: bool = True
) -> Order:
    """Order, payment and saga in one commit; then the saga's first stretch, unless `drive` is False.

    Raises `ConflictError` when a living order has the reference, `NetworkError` when no gateway account is active.
    A decline or a block is a state of the order that is returned, not an exception. A saved payment method is
    charged where its token is; see `resolve_payment_method` for what it raises.
    """
    chosen = resolve_payment_method(
        client, draft.payment_method, customer_id=draft.customer_id, off_session=draft.off_session
    )
    order_id = ids.new_id("ord")
    routes = _find_routes(client, draft, order_id, chosen)
    try:
        with transaction.atomic():
            order, payment = _create_order(client, draft, order_id, routes[0], chosen)
            attach_key(key, order.id)
            attempt = _create_attempt(payment, number=1, route=routes[0].why)
            facts.record_event(payment, "order.placed", actor=f"api:{client.name}")
            data = {"attempt": attempt.id, "routes": _describe_routes(routes[1:])}
            runner = engine.start_run(CHECKOUT, subject=order.id, order=order, payment=payment, data=data)
    except IntegrityError as error:
        if "order_one_living_per_reference" not in str(error):
            raise
        message = (
            f"There is a living order with the reference {draft.reference!r} already; nothing was charged."
        )
        raise ConflictError(message, reference=draft.reference) from None
    return drive_order(runner, order.id, drive)


def _find_routes(
    client: ApiClient, draft: OrderDraft, order_id: str, chosen: ChosenMethod | None
) -> list[Route]:
    """The accounts to try, best first. Raises `NetworkError` when there is none."""
    subject = RouteSubject(
        order_id=order_id,
        amount=draft.amount,
        country=str(draft.billing.get("country", "")),
        client_id=client.pk,
        is_merchant_initiated=draft.off_session,
        payment_method=draft.payment_method,
        payment_methods=draft.payment_methods,
        saved_account_id=chosen.account.pk if chosen else None,
    )
    routes = choose_routes(subject)
    if not routes:
        raise NetworkError("No gateway account takes this payment now; nothing was charged.")
    return routes


def _describe_routes(routes: Sequence[Route]) -> list[dict[str, str]]:
    """What the saga remembers of the accounts that are left to try."""
    return [{"account": route.account.pk, "token": route.token, "why": route.why} for route in routes]


def _create_order(
    client: ApiClient, draft: OrderDraft, order_id: str, route: Route, chosen: ChosenMethod | None
) -> tuple[Order, Payment]:
    now = timezone.now()
    order = Order.objects.create(
        id=order_id,
        client=client,
        reference=draft.reference,
        amount=draft.amount.minor,
        currency=draft.amount.currency,
        capture_method=draft.capture,
        customer_id=draft.customer_id,
        customer_email=draft.customer_email,
        customer_created_at=draft.customer_created_at,
        billing=dict(draft.billing),
        shipping=dict(draft.shipping),
        lines=[dict(line) for line in draft.lines],
        context=dict(draft.context),
        metadata=dict(draft.metadata),
        return_url=draft.return_url,
        created_at=now,
        updated_at=now,
    )
    payment = Payment.objects.create(
        order=order,
        account=route.account,
        amount=order.amount,
        currency=order.currency,
        capture_method=order.capture_method,
        payment_method=route.token,
        payment_methods=dict(draft.payment_methods),
        saved_method=chosen.method if chosen else None,
        save_method=draft.save_payment_method and chosen is None,
        is_merchant_initiated=draft.off_session,
        created_at=now,
        updated_at=now,
    )
    return order, payment


def _create_attempt(payment: Payment, *, number: int, route: str = "") -> Attempt:
    return Attempt.objects.create(
        payment=payment,
        account=payment.account,
        number=number,
        payment_method=payment.payment_method,
        route=route,
        created_at=timezone.now(),
    )


def drive_order(runner: engine.Runner, order_id: str, drive: bool = True) -> Order:
    if drive:
        runner.drive()
    else:
        runner.release()
    return find_order(order_id)


def find_order(order_id: str) -> Order:
    """The order with its payment and account, fresh. Raises `Order.DoesNotExist`."""
    return Order.objects.select_related("payment__account", "client").get(pk=order_id)


def resume_order(order: Order) -> Order:
    """Drive whatever is unfinished of an order whose first request died."""
    for run in order.sagas.filter(state__in=DRIVEN_STATES):
        engine.drive_run(run.pk, find_recipe)
    return find_order(order.pk)


def confirm_order(
    order: Order,
    *,
    payment_method: str = "",
    redirect_result: str = "",
    key: idempotency.Claim | None = None,
    drive: bool = True,
) -> Order:
    """Go on after 3-D Secure, or, after a decline, with another payment method; with `drive` False, by the sweeper.

    `redirect_result` is what the customer brought back, for gateways that need it handed in.
    Raises `ConflictError` when the order waits for neither, `InvalidRequestError` when a declined order is
    confirmed without another method.
    """
    if order.state == OrderState.AWAITING_CUSTOMER:
        if redirect_result:
            actor = f"api:{order.client.name}"
            complete_authentication(order, redirect_result=redirect_result, actor=actor)
        return _resume_customer(order, key, drive)
    if order.state == OrderState.DECLINED:
        return _try_again(order, payment_method, key, drive)
    raise ConflictError(
        f"Order {order.id} is {order.state}: there is nothing to confirm; nothing was charged."
    )


def _resume_customer(order: Order, key: idempotency.Claim | None, drive: bool) -> Order:
    with transaction.atomic():
        Order.objects.locked(order.pk)
        attach_key(key, order.pk)
        run = order.sagas.filter(kind=CHECKOUT.kind, state=SagaState.WAITING).first()
        if run is not None:
            engine.send_signal(run.pk, "customer", dedupe_id=ids.new_id("evt"), payload={})
    if run is not None and drive:
        engine.drive_run(run.pk, find_recipe)
    return find_order(order.pk)


def _try_again(order: Order, payment_method: str, key: idempotency.Claim | None, drive: bool) -> Order:
    if not payment_method:
        raise InvalidRequestError(
            f"Order {order.id} was declined: send another payment_method.", pointer="/payment_method"
        )
    chosen = resolve_payment_method(order.client, payment_method, customer_id=order.customer_id)
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(order.pk)
        order = payment.order
        if order.state != OrderState.DECLINED:
            raise ConflictError(f"Order {order.id} is {order.state} by now; nothing was charged.")
        if not _revive(order, payment):
            raise ConflictError(
                f"Another order with the reference {order.reference!r} is alive; nothing was charged."
            )
        payment.payment_method = payment_method
        payment.saved_method = chosen.method if chosen else None
        payment.account = chosen.account if chosen else payment.account
        payment.state = PaymentState.PROCESSING
        payment.last_error = None
        payment.save(update_fields=["payment_method", "saved_method", "account", "state", "last_error"])
        attach_key(key, order.pk)
        attempt = _create_attempt(payment, number=payment.attempts.count() + 1)
        runner = engine.start_run(
            CHECKOUT, subject=order.id, order=order, payment=payment, data={"attempt": attempt.id}
        )
    return drive_order(runner, order.id, drive)


def _revive(order: Order, payment: Payment) -> bool:
    try:
        with transaction.atomic():
            return order.move_to(OrderState.PLACED, unless=[])
    except IntegrityError:
        return False


def attach_key(key: idempotency.Claim | None, resource: str) -> None:
    if key is not None:
        idempotency.attach(key, resource)


def add_note(order: Order, *, text: str, actor: str) -> Event:
    """An operator's note in the order's timeline; card data in it is masked before it is kept."""
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(order.pk)
        return facts.record_event(payment, "order.note", is_public=False, actor=actor, note=redact(text))
