"""The dialogs of a saga's page: each carries the epoch that the operator saw, so that nothing newer is touched."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from payments import services
from payments.admin.base import ActionForm
from payments.admin.forms import NoteField, ReasonForm
from payments.models import ForceRequest
from payments.redaction import redact


class SagaForm(ActionForm):
    """A dialog about the saga as it was shown."""

    epoch = forms.IntegerField(widget=forms.HiddenInput, required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["epoch"].initial = getattr(self.row, "epoch", None)


class SagaReasonForm(SagaForm, ReasonForm):
    """Retry and compensate."""


class SkipForm(SagaReasonForm):
    evidence = NoteField(
        label="Evidence",
        required=False,
        help_text="What the gateway's own pages show, with references. Needed when money may have moved, or stays.",
    )


class ExtendForm(SagaReasonForm):
    until = forms.DateTimeField(
        label="New deadline (UTC)",
        widget=UnfoldAdminTextInputWidget(attrs={"type": "datetime-local"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        latest = services.latest_deadline(self.row.order.payment if self.row.order else None)
        self.fields["until"].initial = f"{latest:%Y-%m-%dT%H:%M}"
        self.fields["until"].help_text = f"At the latest {latest:%Y-%m-%d %H:%M} UTC."


class ForceForm(SagaForm):
    target = forms.ChoiceField(
        label="The order becomes",
        choices=ForceRequest.Target.choices,
        widget=UnfoldAdminSelectWidget,
    )
    evidence = NoteField(label="Evidence", help_text="What the gateway's own pages show.")
    references = forms.CharField(
        label="References at the gateway",
        max_length=500,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="One a line, so that the second person can look them up.",
    )

    def clean_references(self) -> list[str]:
        return [redact(line.strip()) for line in self.cleaned_data["references"].splitlines() if line.strip()]


class SagaNoteForm(SagaForm):
    note = NoteField(label="Note")


class ApproveForm(ActionForm):
    """Carries the hash of what was shown: nothing else is approved."""

    payload_hash = forms.CharField(widget=forms.HiddenInput, max_length=64)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["payload_hash"].initial = getattr(self.row, "payload_hash", "")
