"""Erases a customer on request: their tokens, and what says who they are; amounts and ids stay for the books."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from django.db import connection, models, transaction
from django.db.models import Q
from django.utils import timezone

from payments import facts
from payments.cards_on_file import digest_of_customer, find_or_create_customer
from payments.models import (
    ApiClient,
    Customer,
    Event,
    IdempotencyKey,
    Operation,
    Order,
    OrderState,
    Payment,
    SavedPaymentMethod,
)
from payments.models.payment import OPEN_OPERATION_STATES
from payments.redaction import redact
from payments.retention import load_keepers
from payments.services.customers import check_storefront_id, forget_removed_methods

log = structlog.get_logger(__name__)

ORDERS_AT_ONCE = 100  # what a request blanks itself; the rest is left to the worker
ERASED_NOTE = "[erased]"
UNFINISHED = (OrderState.PLACED, OrderState.AWAITING_CUSTOMER, OrderState.REVIEW, OrderState.PROCESSING)


@dataclass(frozen=True, slots=True)
class Erasure:
    """How far it has come. It goes on by itself once the open orders have ended and the gateways have answered."""

    customer: Customer
    open_orders: int = 0
    open_tokens: int = 0

    @property
    def is_done(self) -> bool:
        return self.customer.erased_at is not None


def find_customer_to_erase(client: ApiClient, storefront_id: str) -> Customer:
    """The client's customer: a known one, one who has only ordered, or one asked for before.

    Raises `Customer.DoesNotExist` when nobody here was ever called so.
    """
    check_storefront_id(storefront_id)
    mine = Customer.objects.filter(client=client)
    known = mine.filter(storefront_id=storefront_id, erasure_requested_at__isnull=True).first()
    if known is not None:
        return known
    digest = digest_of_customer(client, storefront_id)
    asked = mine.filter(storefront_id__startswith=digest).order_by("-id").first()
    ordered = Order.objects.filter(client=client, customer_id=storefront_id)
    if asked is not None:  # and who has ordered again since is somebody new
        ordered = ordered.filter(created_at__gt=asked.erasure_requested_at)
    if ordered.exists():
        return find_or_create_customer(client, storefront_id)[0]
    if asked is None:
        raise Customer.DoesNotExist
    return asked


def erase_customer(customer: Customer, *, actor: str, reason: str) -> Erasure:
    """Forget the customer as far as that is possible now; asking again only tells how far it has come.

    The row and the saved methods are blank at once. An order is left alone until its sagas and disputes have ended,
    a token until its gateway has deleted it; `continue_erasures` comes back for them.
    """
    _begin(customer, actor=actor, reason=redact(reason))
    return _go_on(customer.pk)


def continue_erasures(*, limit: int = 500) -> int:
    """Go on with every erasure that is not finished; returns how many are now. Any number may run at once."""
    waiting = Customer.objects.being_erased().order_by("erasure_requested_at").values_list("pk", flat=True)
    return sum(_go_on(customer_id).is_done for customer_id in waiting[:limit])


def _begin(customer: Customer, *, actor: str, reason: str) -> None:
    now = timezone.now()
    with transaction.atomic():
        row = Customer.objects.locked(customer.pk)
        if row.erasure_requested_at is not None:
            return
        row.erasing_id = row.storefront_id
        # With its own id behind it: the same person may come back, and ask again.
        row.storefront_id = f"{digest_of_customer(row.client, row.storefront_id)}:{row.pk}"
        row.email = row.name = ""
        row.erasure_requested_at, row.erasure_requested_by, row.erasure_reason = now, actor, reason
        row.save()
        SavedPaymentMethod.objects.usable().filter(customer=row).update(removed_at=now, forget_at=now)
    log.info("customer_erasure_begun", customer=row.pk, actor=actor)


def _go_on(customer_id: str) -> Erasure:
    forget_removed_methods(Q(customer=customer_id))
    customer = Customer.objects.get(pk=customer_id)
    if customer.erased_at is not None:
        return Erasure(customer)
    left = _orders_of(customer)
    finished = left.exclude(state__in=UNFINISHED).order_by("id").values_list("pk", flat=True)
    batch = list(finished[:ORDERS_AT_ONCE])
    _bury_answers(batch)
    for order_id in batch:
        _blank_order(customer, order_id)
    open_tokens = customer.payment_methods.filter(forget_at__isnull=False).count()
    open_orders = left.count()
    if not (open_orders or open_tokens):
        _finish(customer)
    return Erasure(customer, open_orders, open_tokens)


def _orders_of(customer: Customer) -> models.QuerySet[Order]:
    """Their orders that still say so. Whoever orders again after asking is a new customer."""
    return Order.objects.filter(
        client=customer.client_id,
        customer_id=customer.erasing_id,
        created_at__lte=customer.erasure_requested_at,
    )


def _bury_answers(orders: list[str]) -> None:
    """Stored answers repeat the storefront's own metadata; their keys stay, so that none of them charges again."""
    if not orders:
        return
    made = [*orders, *Operation.objects.filter(payment__order__in=orders).values_list("pk", flat=True)]
    answered = IdempotencyKey.objects.filter(
        resource__in=made, is_tombstone=False, completed_at__isnull=False
    )
    answered.update(is_tombstone=True, answer=None, content_type="")


def _finish(customer: Customer) -> None:
    now = timezone.now()
    if Customer.objects.being_erased().filter(pk=customer.pk).update(erased_at=now, erasing_id=""):
        log.info("customer_erased", customer=customer.pk)
    customer.refresh_from_db()


# --- one order ----------------------------------------------------------------------------------------------


def _blank_order(customer: Customer, order_id: str) -> None:
    """Everything about one order in one commit, or nothing while it is not finished."""
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(order_id)
        order = payment.order
        if order.customer_id != customer.erasing_id or _is_open(order, payment):
            return
        _blank_columns(order, customer)
        _blank_notes(order, payment)
        for keeper in load_keepers():
            keeper.erase_order(order)
        facts.record_event(
            payment, "order.customer_erased", actor=customer.erasure_requested_by, customer=customer.pk
        )


def _is_open(order: Order, payment: Payment) -> bool:
    return (
        order.state in UNFINISHED
        or order.sagas.live().exists()
        or payment.operations.filter(state__in=OPEN_OPERATION_STATES).exists()
        or payment.disputes.open().exists()
    )


def _blank_columns(order: Order, customer: Customer) -> None:
    """The country stays: it decides which tax was owed, and is no address."""
    order.customer_id = customer.storefront_id
    order.customer_email = order.return_url = ""
    order.customer_created_at = None
    order.billing, order.shipping = _country(order.billing), _country(order.shipping)
    order.context, order.metadata = {}, {}
    order.save(
        update_fields=[
            "customer_id",
            "customer_email",
            "return_url",
            "customer_created_at",
            "billing",
            "shipping",
            "context",
            "metadata",
        ]
    )


def _country(address: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in address.items() if name == "country"}


def _blank_notes(order: Order, payment: Payment) -> None:
    """What people wrote about the order and its refunds."""
    payment.operations.exclude(note="").update(note=ERASED_NOTE)
    with connection.cursor() as cursor:
        # The outbox is append-only; its trigger lets exactly this through (payments/migrations/sql/data_life.sql).
        cursor.execute("SELECT set_config('countinghouse.data_life', 'erase', true)")
        notes = Event.objects.filter(order=order, type="order.note").values_list("pk", "data")
        for event_id, data in notes:
            Event.objects.filter(pk=event_id).update(data={**data, "note": ERASED_NOTE})
        cursor.execute("SELECT set_config('countinghouse.data_life', '', true)")
