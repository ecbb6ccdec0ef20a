"""The pages of labels: what was said of which order, one more word by hand, and the measures made of them."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from fraud.admin.measure_words import label_badge
from fraud.admin.measures import MeasurePages
from fraud.admin.review_forms import MaskedCharField
from fraud.labels import MAX_REASON_LENGTH, record_label
from fraud.models import EffectiveLabel, Label, LabelSource, ReasonCode
from payments.admin.base import Fact, age, column, link, name_actor
from payments.admin.panels import panel
from payments.admin.words import tell_actor
from payments.models import Order


def tell_reason(label: Label) -> str:
    """In words: what a program says comes as a code."""
    if label.source == LabelSource.DECISION and label.reason in ReasonCode.values:
        return str(ReasonCode(label.reason).label)
    is_code = label.source in (LabelSource.DISPUTE, LabelSource.EARLY_WARNING)
    return label.reason.replace("_", " ") if is_code else label.reason


class NewLabelForm(forms.ModelForm):  # type: ignore[type-arg]
    """Which order, what it was, and how that is known."""

    order_id = forms.CharField(
        label="Order",
        max_length=32,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="Its id, ord_…",
    )
    verdict = forms.ChoiceField(
        label="It was",
        choices=[("", "Choose"), ("fraud", "Fraud"), ("genuine", "Genuine")],
        widget=UnfoldAdminSelectWidget,
    )
    reason = MaskedCharField(
        max_length=MAX_REASON_LENGTH,
        widget=UnfoldAdminTextInputWidget,
        help_text="How it is known. What others said of the order stays; a dispute or a warning counts more.",
    )

    class Meta:
        model = Label
        fields = ["reason"]

    def clean_order_id(self) -> str:
        order_id = str(self.cleaned_data["order_id"]).strip()
        if not Order.objects.filter(pk=order_id).exists():
            raise forms.ValidationError(f"There is no order {order_id}. Nothing was changed.")
        return order_id


@admin.register(Label)
class LabelAdmin(MeasurePages):
    """Every word, the newest first; of an order the page of orders shows which one counts."""

    list_display = ["badge", "order_text", "source", "reason_text", "actor_text", "age_text"]
    list_filter = ["is_fraud", "source", ("at", admin.DateFieldListFilter)]
    list_select_related = ["order"]
    search_fields = ["=order__id", "=order__reference"]
    search_help_text = "Search by order or reference"
    ordering = ["-id"]
    page_template = "admin/payments/page.html"
    empty_text = "Nobody has said of an order whether it was fraud. Disputes, decisions and time will."
    form = NewLabelForm
    fieldsets = [(None, {"fields": ["order_id", "verdict", "reason"]})]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, "add_label")

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"order_id": request.GET.get("order", "")}

    def save_model(self, request: HttpRequest, obj: Label, form: Any, change: bool) -> None:
        wish = form.cleaned_data
        made = record_label(
            Order.objects.get(pk=wish["order_id"]),
            is_fraud=wish["verdict"] == "fraud",
            source=LabelSource.MANUAL,
            reason=wish["reason"],
            actor=name_actor(request),
        )
        for field in Label._meta.concrete_fields:
            setattr(obj, field.attname, getattr(made, field.attname))
        obj._state.adding = False

    @column("Label", ordering="is_fraud")
    def badge(self, row: Label) -> SafeString:
        return label_badge(row.is_fraud)

    @column("Order")
    def order_text(self, row: Label) -> SafeString:
        return link("payments_order", row.order_id, row.order.reference)

    @column("Reason", ordering="reason")
    def reason_text(self, row: Label) -> str:
        return tell_reason(row)

    @column("By", ordering="actor")
    def actor_text(self, row: Label) -> str:
        return tell_actor(row.actor)

    @column("Known", ordering="at")
    def age_text(self, row: Label) -> SafeString:
        return age(row.at)

    def list_facts(self, row: Label) -> list[Fact]:
        return [
            ("Order", self.order_text(row)),
            ("Source", row.get_source_display()),
            ("Reason", tell_reason(row) or "–"),
            ("By", self.actor_text(row)),
            ("Evidence", row.evidence or "–"),
            ("Known", age(row.at)),
            ("Written", age(row.created_at)),
        ]

    def page_context(self, request: HttpRequest, row: Label) -> dict[str, Any]:
        return {"title": f"Label of {row.order.reference}", "badges": [self.badge(row)]}


@panel("Was it fraud?", order=21)
def label_panel(order: Order, request: HttpRequest) -> SafeString | None:
    """The label that counts and what else was said; nothing for who may not see labels, or before there is one."""
    if not request.user.has_perm("fraud.view_label"):
        return None
    labels = list(Label.objects.filter(order=order).order_by("precedence", "-at", "-id")[:20])
    can_add = request.user.has_perm("fraud.add_label")
    if not labels and not (can_add and order.assessments.exists()):
        return None
    counting = EffectiveLabel.objects.filter(order=order).first()
    lines = [
        {
            "source": label.get_source_display(),
            "reason": tell_reason(label),
            "badge": label_badge(label.is_fraud),
            "at": age(label.at),
        }
        for label in labels
    ]
    context = {
        "order": order,
        "badge": label_badge(counting.is_fraud if counting else None),
        "source": counting.get_source_display() if counting else "",
        "lines": lines,
        "can_add": can_add,
    }
    return render_to_string("admin/fraud/measures/panel.html", context, request=request)
