"""What is kept for the record, and the stock: events, idempotency keys, stock items."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from payments.admin.base import BackOfficeAdmin, Fact, age, column, link, show_json, state_badge
from payments.models import Event, IdempotencyKey, StockItem


@admin.register(Event)
class EventAdmin(BackOfficeAdmin):
    list_display = ["id", "type", "order_text", "actor", "is_public", "age_text"]
    list_filter = ["is_public", "type", ("created_at", admin.DateFieldListFilter)]
    list_select_related = ["order"]
    search_fields = ["=id", "=type", "=order__id", "=order__reference"]
    search_help_text = "Search by event, type, order or reference"
    ordering = ["-id"]
    page_template = "admin/payments/page.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        queryset: QuerySet[Event] = super().get_queryset(request)
        return queryset.select_related("order")

    @column("Order")
    def order_text(self, event: Event) -> SafeString:
        return link("payments_order", event.order_id, event.order.reference)

    @column("Age", ordering="id")
    def age_text(self, event: Event) -> SafeString:
        return age(event.created_at)

    def list_facts(self, row: Event) -> list[Fact]:
        return [
            ("Event", row.pk),
            ("Type", row.type),
            ("Order", self.order_text(row)),
            ("Number in the order", row.sequence),
            ("By", row.actor),
            ("Told to the storefront", "yes" if row.is_public else "no, internal"),
            ("When", age(row.created_at)),
            ("Data", show_json(row.data)),
        ]

    def page_context(self, request: HttpRequest, row: Event) -> dict[str, Any]:
        return {"title": row.type}


@admin.register(IdempotencyKey)
class IdempotencyKeyAdmin(BackOfficeAdmin):
    """The stored answers themselves are not shown: they are the client's."""

    list_display = ["key_text", "route", "scope", "state_text", "resource", "age_text"]
    list_filter = ["status", ("created_at", admin.DateFieldListFilter)]
    search_fields = ["=key", "=resource", "=scope"]
    search_help_text = "Search by key, client or what it made"
    ordering = ["-id"]
    page_template = "admin/payments/page.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[IdempotencyKey]:
        queryset: QuerySet[IdempotencyKey] = super().get_queryset(request)
        return queryset.defer("answer")

    @column("Key", ordering="key")
    def key_text(self, row: IdempotencyKey) -> str:
        return row.key if len(row.key) <= 40 else f"{row.key[:40]}…"

    @column("State")
    def state_text(self, row: IdempotencyKey) -> SafeString:
        if row.is_tombstone:
            return state_badge("Expired")
        return (
            state_badge(f"Answered {row.status}", "success")
            if row.completed_at
            else state_badge("In flight", "info")
        )

    @column("Age", ordering="id")
    def age_text(self, row: IdempotencyKey) -> SafeString:
        return age(row.created_at)

    def list_facts(self, row: IdempotencyKey) -> list[Fact]:
        return [
            ("Key", row.key),
            ("Client or function", row.scope),
            ("Route", row.route),
            ("Made", row.resource or "nothing"),
            ("Fingerprint of the payload", row.fingerprint),
            ("First seen", age(row.created_at)),
            ("Answered", age(row.completed_at)),
            ("Lease until", age(row.lease_expires_at)),
        ]

    def page_context(self, request: HttpRequest, row: IdempotencyKey) -> dict[str, Any]:
        return {"title": "Idempotency key", "badges": [self.state_text(row)]}


class StockForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = StockItem
        fields = ["sku", "on_hand"]

    def clean_on_hand(self) -> int:
        on_hand = int(self.cleaned_data["on_hand"])
        if on_hand < self.instance.reserved:
            text = f"{self.instance.reserved} are reserved for orders; {on_hand} would be too few. Nothing was changed."
            raise forms.ValidationError(text)
        return on_hand


@admin.register(StockItem)
class StockItemAdmin(BackOfficeAdmin):
    list_display = ["sku", "on_hand", "reserved", "free_text"]
    search_fields = ["sku"]
    form = StockForm
    fields = ["sku", "on_hand", "reserved"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, "add_stockitem")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.allows(request, "change_stockitem")

    def get_readonly_fields(self, request: HttpRequest, obj: StockItem | None = None) -> list[str]:
        return ["sku", "reserved"] if obj else ["reserved"]

    def save_model(self, request: HttpRequest, obj: StockItem, form: Any, change: bool) -> None:
        """Only what was typed is written: a reservation made meanwhile stays."""
        if change:
            obj.save(update_fields=["on_hand"])
        else:
            obj.save()

    @column("Free")
    def free_text(self, item: StockItem) -> int:
        return item.on_hand - item.reserved
