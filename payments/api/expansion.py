"""`expand[]`: what belongs to an order, shown in the same answer; one query for each name, however long the page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import ErrorDetail
from rest_framework.request import Request

from payments.api.errors import ParameterError
from payments.api.projections import (
    CustomerProjection,
    DisputeProjection,
    EventProjection,
    OrderProjection,
    PaymentProjection,
    RefundProjection,
)
from payments.models import Customer, Dispute, Event, Operation, Order

PARAMETER = "expand[]"
MAX_EVENTS = 100  # of one order; the rest is in GET events


def read_expand(request: Request) -> list[str]:
    """The names asked for, each once. Raises `ParameterError` for an unknown one."""
    names = list(dict.fromkeys(request.query_params.getlist(PARAMETER)))
    if not set(names) <= set(EXPANSIONS):
        message = f"Expand any of {', '.join(EXPANSIONS)}; they hold nothing further to expand."
        raise ParameterError({PARAMETER: [ErrorDetail(message, code="unknown_expansion")]})
    return names


def render_orders(orders: Sequence[Order], names: Iterable[str]) -> list[dict[str, Any]]:
    """The orders of one client, with what was asked for; wants payment and account at hand."""
    rendered = [dict(OrderProjection(order).data) for order in orders]
    for name in names:
        found = EXPANSIONS[name](orders)
        for data in rendered:
            data[name] = found(data["id"])
    return rendered


Lookup = Callable[[str], Any]


def _expand_payments(orders: Sequence[Order]) -> Lookup:
    payments = [order.payment for order in orders]
    operations = _group(
        Operation.objects.filter(payment__in=payments).order_by("id"), lambda operation: operation.payment_id
    )
    by_order = {}
    for order in orders:
        order.payment.order = order  # so that nothing is asked for again
        shown = PaymentProjection(order.payment, context={"operations": operations[order.payment.pk]})
        by_order[order.pk] = shown.data
    return by_order.__getitem__


def _expand_refunds(orders: Sequence[Order]) -> Lookup:
    refunds = Operation.objects.refunds().filter(payment__order__in=orders).select_related("payment")
    return _show(refunds.order_by("id"), lambda refund: refund.payment.order_id, RefundProjection)


def _expand_disputes(orders: Sequence[Order]) -> Lookup:
    disputes = Dispute.objects.filter(payment__order__in=orders).select_related("payment").order_by("id")
    return _show(disputes, lambda dispute: dispute.payment.order_id, DisputeProjection)


def _expand_events(orders: Sequence[Order]) -> Lookup:
    events = Event.objects.filter(order__in=orders, is_public=True, sequence__lte=MAX_EVENTS)
    return _show(events.order_by("order_id", "sequence"), lambda event: event.order_id, EventProjection)


def _expand_customers(orders: Sequence[Order]) -> Lookup:
    """By the storefront's own id, among its client's; null for guests and for whom we have forgotten."""
    names = {order.customer_id for order in orders if order.customer_id}
    clients = {order.client_id for order in orders}
    known = Customer.objects.known().filter(client__in=clients, storefront_id__in=names)
    customers = {
        (customer.client_id, customer.storefront_id): CustomerProjection(customer).data for customer in known
    }
    by_order = {order.pk: customers.get((order.client_id, order.customer_id)) for order in orders}
    return by_order.__getitem__


def _show(rows: QuerySet[Any], order_of: Callable[[Any], str], projection: type[Any]) -> Lookup:
    grouped = _group(rows, order_of)
    return lambda order_id: projection(grouped[order_id], many=True).data


def _group(rows: Iterable[Any], key: Callable[[Any], str]) -> defaultdict[str, list[Any]]:
    grouped: defaultdict[str, list[Any]] = defaultdict(list)
    for row in rows:
        grouped[key(row)].append(row)
    return grouped


EXPANSIONS: Mapping[str, Callable[[Sequence[Order]], Lookup]] = {
    "payment": _expand_payments,
    "refunds": _expand_refunds,
    "events": _expand_events,
    "disputes": _expand_disputes,
    "customer": _expand_customers,
}
EXPAND = OpenApiParameter(
    PARAMETER,
    {"type": "array", "items": {"type": "string", "enum": list(EXPANSIONS)}},
    explode=True,
    description=f"What belongs to the order, shown with it: the payment with its operations, refunds and disputes "
    f"oldest first, the first {MAX_EVENTS} events, the customer.",
)
