"""The deliveries to storefronts: every try and its answer, and the resend."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments.admin.base import Action, OperatorAction, age, column, link, show_json, state_badge
from payments.events import SUBSCRIBABLE
from webhooks import endpoints, outbound
from webhooks.admin.base import WebhookAdmin
from webhooks.models import Delivery, DeliveryAttempt, DeliveryState
from webhooks.tasks import outbound_bell

TRIES_SHOWN = 50
STATE_COLOURS: dict[str, str] = {
    DeliveryState.PENDING: "info",
    DeliveryState.DELIVERED: "success",
    DeliveryState.FAILED: "danger",
    DeliveryState.ABANDONED: "warning",
}


def explain_probe(delivery: Delivery) -> str:
    return "A probe is sent by itself, while its endpoint is disabled." if delivery.is_probe else ""


def resend_one(delivery: Delivery, action: Action) -> str:
    endpoints.resend_delivery(delivery)
    outbound_bell.ring_on_commit()
    return f"{delivery.pk} is on its way again."


RESEND = OperatorAction(
    "resend",
    "Resend",
    "resend_delivery",
    resend_one,
    explanation="The same message with the same id is sent again; the storefront knows it by that id.",
    why_not=explain_probe,
)


class StateFilter(admin.SimpleListFilter):
    """Which deliveries; those that have not arrived unless something else is asked for."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*((str(value), str(label)) for value, label in DeliveryState.choices), ("all", "All")]

    def choices(self, changelist: Any) -> Any:
        first, *rest = super().choices(changelist)
        yield {**first, "display": "Not delivered"}
        yield from rest

    def queryset(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> QuerySet[Delivery]:
        wanted = self.value()
        if wanted == "all":
            return queryset
        return queryset.filter(state=wanted) if wanted else queryset.exclude(state=DeliveryState.DELIVERED)


class TypeFilter(admin.SimpleListFilter):
    """By the kind of event; the names are the catalogue's, so no query asks for them."""

    title = "event type"
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in SUBSCRIBABLE]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> QuerySet[Delivery]:
        return queryset.filter(event__type=self.value()) if self.value() else queryset


@admin.register(Delivery)
class DeliveryAdmin(WebhookAdmin):
    list_display = (
        "type_text",
        "status",
        "error_text",
        "order_link",
        "attempts",
        "next_text",
        "created_text",
        "endpoint",
    )
    empty_text = "Every storefront has what was sent to it. What has not arrived shows here."
    list_filter = (
        StateFilter,
        TypeFilter,
        "endpoint__client",
        "endpoint",
        "is_probe",
        ("created_at", admin.DateFieldListFilter),
    )
    list_select_related = ("endpoint", "event", "event__order")
    search_fields = ("id", "event__id", "event__order__id", "event__order__reference", "endpoint__url")
    search_help_text = "Search by delivery, event, order, reference or address"
    page_template = "admin/webhooks/delivery/page.html"
    operator_actions = (RESEND,)
    facts = (
        "type_text",
        "order_link",
        "endpoint_link",
        "id",
        "message_text",
        "attempts",
        "next_text",
        "created_at",
        "delivered_at",
    )
    folded = ("body_text",)

    @column("Event")
    def type_text(self, delivery: Delivery) -> str:
        return delivery.event_type

    @column("State", ordering="state")
    def status(self, delivery: Delivery) -> SafeString:
        return state_badge(delivery.get_state_display(), STATE_COLOURS[delivery.state])

    @column("Last answer")
    def error_text(self, delivery: Delivery) -> SafeString:
        words = delivery.last_error or (f"answered {delivery.last_status}" if delivery.last_status else "–")
        return format_html('<span class="bo-clip" title="{0}">{0}</span>', words)

    @column("Next try", ordering="next_try_at")
    def next_text(self, delivery: Delivery) -> SafeString:
        return age(delivery.next_try_at) if delivery.state == DeliveryState.PENDING else SafeString("none")

    @column("Made", ordering="created_at")
    def created_text(self, delivery: Delivery) -> SafeString:
        return age(delivery.created_at)

    def page_context(self, request: HttpRequest, row: Delivery) -> dict[str, Any]:
        error = row.last_error if row.state != DeliveryState.DELIVERED else ""
        tries = [(one, *_show_try(one)) for one in row.tries.all()[:TRIES_SHOWN]]
        context = {"badges": [self.status(row)], "trouble": error, "tries": tries, "title": row.event_type}
        return {**super().page_context(request, row), **context}

    @column("Endpoint")
    def endpoint_link(self, delivery: Delivery) -> SafeString:
        return link("webhooks_endpoint", delivery.endpoint_id, delivery.endpoint.url)

    @column("webhook-id")
    def message_text(self, delivery: Delivery) -> str:
        return delivery.message_id

    @column("Order")
    def order_link(self, delivery: Delivery) -> SafeString | str:
        if delivery.event is None:
            return "–"
        return link("payments_order", delivery.event.order_id, delivery.event.order.reference)

    @column("Body")
    def body_text(self, delivery: Delivery) -> SafeString:
        return show_json(outbound.describe_message(delivery))


def _show_try(attempt: DeliveryAttempt) -> tuple[SafeString, SafeString]:
    """What came of it, and what was sent beside the body."""
    is_taken = attempt.status is not None and 200 <= attempt.status < 300
    words = str(attempt.status) if attempt.status else "no answer"
    return state_badge(words, "success" if is_taken else "danger"), show_json(attempt.headers)
