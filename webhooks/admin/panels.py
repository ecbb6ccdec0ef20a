"""The webhooks of an order, in and out, on its page."""

from __future__ import annotations

from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from payments.admin.panels import panel
from payments.models import Order
from webhooks.models import Delivery

SHOWN = 50


@panel("Webhooks", order=40)
def webhooks_panel(order: Order, request: HttpRequest) -> SafeString | None:
    """Nothing for who may not see webhooks, or when there are none."""
    sees_in = request.user.has_perm("webhooks.view_inboundwebhook")
    sees_out = request.user.has_perm("webhooks.view_delivery")
    received = list(order.inbound_webhooks.order_by("id")[:SHOWN]) if sees_in else []
    deliveries = (
        Delivery.objects.filter(event__order=order).select_related("event", "endpoint").order_by("id")
    )
    sent = list(deliveries[:SHOWN]) if sees_out else []
    if not received and not sent:
        return None
    return render_to_string(
        "admin/webhooks/panel.html", {"received": received, "sent": sent}, request=request
    )
