"""The forms of an endpoint's pages: all that a storefront may ask for, and since when to catch up."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.utils import timezone
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminEmailInputWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from payments.admin.base import ActionForm
from payments.events import SUBSCRIBABLE
from payments.ids import EARLIEST
from payments.models import ApiClient
from webhooks.endpoints import HIGHEST_RATE
from webhooks.models import Endpoint


class EndpointForm(forms.Form):
    """Everything of an endpoint that may be changed."""

    url = forms.CharField(
        label="Address",
        max_length=500,
        help_text="https on port 443 at a public address.",
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "url", "autocomplete": "off"}),
    )
    description = forms.CharField(max_length=200, required=False, widget=UnfoldAdminTextInputWidget)
    event_types = forms.MultipleChoiceField(
        label="Event types",
        choices=[(name, name) for name in SUBSCRIBABLE],
        required=False,
        help_text="None means all.",
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )
    rate_per_second = forms.IntegerField(
        label="Deliveries a second",
        min_value=1,
        max_value=HIGHEST_RATE,
        required=False,
        help_text="At most so many; empty means as fast as it answers.",
        widget=UnfoldAdminIntegerFieldWidget,
    )
    is_ordered = forms.BooleanField(
        label="In order",
        required=False,
        help_text="One at a time: one that fails holds up the ones behind it.",
        widget=UnfoldBooleanWidget,
    )
    notify_email = forms.EmailField(
        label="E-mail",
        max_length=254,
        required=False,
        help_text="Who is told when deliveries there are stopped, or go on.",
        widget=UnfoldAdminEmailInputWidget,
    )


class NewEndpointForm(EndpointForm):
    field_order = ("client",)

    client = forms.ModelChoiceField(ApiClient.objects.all(), widget=UnfoldAdminSelectWidget)


def describe_fields(endpoint: Endpoint) -> dict[str, Any]:
    """What the form shows of an endpoint that is there."""
    return {name: getattr(endpoint, name) for name in EndpointForm.base_fields}


class SinceForm(ActionForm):
    """Since when an endpoint has missed something."""

    since = forms.DateTimeField(
        label="Since (UTC)", widget=UnfoldAdminTextInputWidget(attrs={"type": "datetime-local"})
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        began = self.row.failing_since or timezone.now() - timedelta(days=1)
        self.fields["since"].initial = f"{began:%Y-%m-%dT%H:%M}"

    def clean_since(self) -> datetime:
        since: datetime = self.cleaned_data["since"]
        if since > timezone.now():
            raise forms.ValidationError("This moment is yet to come. Nothing was sent.")
        if since < EARLIEST:
            raise forms.ValidationError("There were no events then. Nothing was sent.")
        return since
