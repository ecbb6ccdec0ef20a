"""The refusals: how often, from where and why; never what they said."""

from __future__ import annotations

from django.contrib import admin
from django.utils.safestring import SafeString

from payments.admin.base import age, column
from webhooks.admin.base import WebhookAdmin
from webhooks.models import RejectedDelivery


@admin.register(RejectedDelivery)
class RejectedDeliveryAdmin(WebhookAdmin):
    list_display = ("last_text", "account", "reason", "detail", "times", "ip", "size", "body_hash")
    list_filter = ("reason", "account", ("last_at", admin.DateFieldListFilter))
    list_select_related = ("account",)
    search_fields = ("sha256", "ip")
    empty_text = "No delivery was refused: every signature was right."
    facts = (
        "account",
        "hour",
        "last_at",
        "reason",
        "detail",
        "times",
        "ip",
        "size",
        "sha256",
    )

    @column("Last", ordering="last_at")
    def last_text(self, rejected: RejectedDelivery) -> SafeString:
        return age(rejected.last_at)

    @column("Body")
    def body_hash(self, rejected: RejectedDelivery) -> str:
        return rejected.sha256[:12] or "the rest of the hour"
