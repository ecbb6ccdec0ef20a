"""What is kept for the record: what orders share, and the events behind every velocity figure."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from fraud.admin.capped import CappedPaginator
from fraud.facts import DIMENSIONS
from fraud.models import EntityLink, VelocityEvent
from payments.admin.base import BackOfficeAdmin, age, column, link, money


class OrderRecordAdmin(BackOfficeAdmin):
    """Rows of one order each, the newest first; found by the order, for the values themselves are not kept."""

    list_select_related = ["order"]
    sortable_by = ()
    ordering = ["-id"]
    paginator = CappedPaginator
    search_fields = ["=order__id", "=order__reference"]
    search_help_text = "Search by order or reference"

    @column("Order")
    def order_text(self, row: Any) -> SafeString:
        return link("payments_order", row.order_id, row.order.reference)

    @column("When")
    def at_text(self, row: Any) -> SafeString:
        return age(row.at)


@admin.register(EntityLink)
class EntityLinkAdmin(OrderRecordAdmin):
    """What each order shares; one click further, who shares it."""

    list_display = ["kind", "order_text", "others", "at_text"]
    list_display_links = ["kind"]
    list_filter = ["kind"]
    fields = ["kind", "order_text", "others", "at"]
    readonly_fields = fields
    empty_text = "No order was linked yet."

    def lookup_allowed(self, lookup: str, value: str, request: Any = None) -> bool:
        """By the hash too: the link of `others`."""
        return lookup == "value_hash" or bool(super().lookup_allowed(lookup, value, request))

    @column("Who shares it")
    def others(self, row: EntityLink) -> SafeString:
        query = urlencode({"kind__exact": row.kind, "value_hash": row.value_hash})
        url = f"{reverse('admin:fraud_entitylink_changelist')}?{query}"
        return format_html('<a class="bo-link" href="{}">All orders with this {}</a>', url, row.kind)


@admin.register(VelocityEvent)
class VelocityEventAdmin(OrderRecordAdmin):
    """Each attempt, decline, approval and chargeback, and by what it was counted."""

    list_display = ["kind", "order_text", "amount_text", "counted_by", "at_text"]
    list_display_links = ["kind"]
    list_filter = ["kind"]
    fields = ["kind", "order_text", "amount_text", "counted_by", "at"]
    readonly_fields = fields
    empty_text = "No order was counted yet."

    @column("Amount")
    def amount_text(self, row: VelocityEvent) -> str:
        return money(row.amount, row.currency)

    @column("Counted by")
    def counted_by(self, row: VelocityEvent) -> str:
        return ", ".join(name for name in DIMENSIONS if getattr(row, name))
