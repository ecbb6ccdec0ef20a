"""The forms of the fraud pages: decisions, lists, rules."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from fraud import lists
from fraud.models import APPROVE_REASONS, REJECT_REASONS, ListEntry, ReasonCode
from fraud.services import MAX_NOTE_LENGTH, case_values
from payments.admin.base import ActionForm
from payments.errors import PaymentError


class DecisionForm(ActionForm):
    """A reason from the list and a note, which “Other” requires."""

    reasons: tuple[ReasonCode, ...] = ()

    reason_code = forms.ChoiceField(label="Reason", widget=UnfoldAdminSelectWidget)
    note = forms.CharField(
        required=False,
        max_length=MAX_NOTE_LENGTH,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="Kept with the decision. Required for “Other”.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["reason_code"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [(reason.value, reason.label) for reason in self.reasons]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("reason_code") == ReasonCode.OTHER and not cleaned.get("note", "").strip():
            self.add_error("note", "The reason “Other” needs a note.")
        return cleaned


class ApproveForm(DecisionForm):
    reasons = APPROVE_REASONS


class RejectForm(DecisionForm):
    reasons = REJECT_REASONS


class CaseListForm(ActionForm):
    """Put a value of the case on a list."""

    kind = forms.ChoiceField(label="What", widget=UnfoldAdminSelectWidget)
    list = forms.ChoiceField(choices=ListEntry.List.choices, widget=UnfoldAdminSelectWidget)
    days = forms.TypedChoiceField(
        label="For",
        coerce=int,
        choices=[(90, "90 days"), (30, "30 days"), (365, "one year"), (0, "ever")],
        widget=UnfoldAdminSelectWidget,
    )
    reason = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["kind"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [(kind, ListEntry.Kind(kind).label) for kind in case_values(self.row)]


class NewListEntryForm(forms.ModelForm):  # type: ignore[type-arg]
    """A plain value; what is kept is its keyed hash and a masked form."""

    value = forms.CharField(
        max_length=254,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="Kept as a keyed hash; only a masked form is shown later.",
    )

    class Meta:
        model = ListEntry
        fields = ["list", "kind", "reason", "expires_at"]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors:
            self._check_value(cleaned)
        return cleaned

    def _check_value(self, cleaned: dict[str, Any]) -> None:
        try:
            digest = lists.hash_value(cleaned["kind"], cleaned["value"])
        except PaymentError as error:
            self.add_error("value", error.message)
            return
        if ListEntry.objects.valid().filter(list=cleaned["list"], value_hash=digest).exists():
            self.add_error("value", "It is on this list already.")
