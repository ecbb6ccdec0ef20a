"""The fraud panel of the order page: what was decided, why, and the case."""

from __future__ import annotations

from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from payments.admin.panels import panel
from payments.models import Order


@panel("Fraud", order=20)
def fraud_panel(order: Order, request: HttpRequest) -> SafeString | None:
    """Nothing for an order that was never screened, or for who may not see it."""
    if not request.user.has_perm("fraud.view_assessment"):
        return None
    assessments = list(order.assessments.order_by("id").prefetch_related("verdicts"))
    reviews = list(order.reviews.order_by("id"))
    if not assessments and not reviews:
        return None
    return render_to_string(
        "admin/fraud/panel.html", {"assessments": assessments, "reviews": reviews}, request=request
    )
