"""The deliveries to storefronts: every try and its answer, and the resend."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from payments.admin.base import Action, OperatorAction, column, link, show_json
from webhooks import endpoints, outbound
from webhooks.admin.base import WebhookAdmin
from webhooks.models import Delivery, DeliveryState
from webhooks.tasks import outbound_bell

STATE_COLOURS: dict[str, str] = {
    DeliveryState.PENDING: "info",
    DeliveryState.DELIVERED: "success",
    DeliveryState.FAILED: "danger",
    DeliveryState.ABANDONED: "warning",
}


def resend_one(delivery: Delivery, action: Action) -> str:
    endpoints.resend_delivery(delivery)
    outbound_bell.ring_on_commit()
    return f"{delivery.pk} is on its way again."


RESEND = OperatorAction("resend", "Resend", "resend_delivery", resend_one)


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


@admin.register(Delivery)
class DeliveryAdmin(WebhookAdmin):
    list_display = (
        "type_text",
        "endpoint",
        "status",
        "attempts",
        "last_status",
        "last_error",
        "next_try_at",
        "order_link",
    )
    list_filter = (StateFilter, "endpoint__client", ("created_at", admin.DateFieldListFilter))
    list_select_related = ("endpoint", "event", "event__order")
    search_fields = ("id", "event__id", "event__order__id", "event__order__reference", "endpoint__url")
    operator_actions = (RESEND,)
    fields = readonly_fields = (
        "id",
        "type_text",
        "endpoint",
        "order_link",
        "status",
        "attempts",
        "next_try_at",
        "last_error",
        "created_at",
        "delivered_at",
        "body_text",
        "tries_text",
    )

    @column("Event")
    def type_text(self, delivery: Delivery) -> str:
        return delivery.event_type

    @column("State", ordering="state", label=STATE_COLOURS)
    def status(self, delivery: Delivery) -> tuple[str, str]:
        return delivery.state, delivery.get_state_display()

    @column("Order")
    def order_link(self, delivery: Delivery) -> SafeString | str:
        if delivery.event is None:
            return "–"
        return link("payments_order", delivery.event.order_id, delivery.event.order.reference)

    @column("Body")
    def body_text(self, delivery: Delivery) -> SafeString:
        return show_json(outbound.describe_message(delivery))

    @column("Tries")
    def tries_text(self, delivery: Delivery) -> SafeString | str:
        rows = (
            (f"{attempt.started_at:%Y-%m-%d %H:%M:%S} UTC", str(attempt), attempt.answer[:500])
            for attempt in delivery.tries.all()[:50]
        )
        return format_html_join("", "<p>{}: {}<br><code>{}</code></p>", rows) or "None yet."
