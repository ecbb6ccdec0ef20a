"""The reconciliation panel of the order page: its discrepancies, the open ones first."""

from __future__ import annotations

from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from payments.admin.panels import panel
from payments.admin.words import age, link, money, state_badge
from payments.models import Order
from reconciliation.admin.discrepancy import STATE_TONES
from reconciliation.models import Discrepancy


@panel("Reconciliation", order=40)
def reconciliation_panel(order: Order, request: HttpRequest) -> SafeString | None:
    """Nothing for an order that every report agreed with, or for who may not see discrepancies."""
    if not request.user.has_perm("reconciliation.view_discrepancy"):
        return None
    items = sorted(
        Discrepancy.objects.of_order(order), key=lambda item: (not item.is_unsettled, item.first_seen)
    )
    rows = [
        {
            "title": link("reconciliation_discrepancy", item.pk, item.get_kind_display()),
            "key": item.key,
            "stake": money(item.amount, item.currency),
            "state": state_badge(item.get_state_display(), STATE_TONES[item.state]),
            "age": age(item.first_seen, is_open=item.is_unsettled),
        }
        for item in items
    ]
    return (
        render_to_string("admin/reconciliation/panel.html", {"rows": rows}, request=request) if rows else None
    )
