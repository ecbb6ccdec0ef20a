"""The forms of the review queue: decisions one by one and many at once, hand-overs, what goes on a list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib.auth import get_user_model
from django.utils import timezone
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from fraud.admin.list_forms import LIFETIMES
from fraud.models import APPROVE_REASONS, REJECT_REASONS, ListEntry, ReasonCode
from fraud.policy import SNOOZE_MARGIN
from fraud.services import MAX_NOTE_LENGTH, case_values
from payments.admin.base import ActionForm, describe_span
from payments.redaction import redact

Options = Sequence[tuple[str, str]]
LATER_HOURS = (1, 2, 4, 8, 24, 48, 72)
REASONS: dict[str, tuple[ReasonCode, ...]] = {"approve": APPROVE_REASONS, "reject": REJECT_REASONS}


class MaskedCharField(forms.CharField):
    """Free text that is kept for ever: card data in it is masked before anything else sees it."""

    def clean(self, value: Any) -> str:
        return redact(super().clean(value))[: self.max_length]


def note_field(help_text: str = "", *, required: bool = False, rows: int = 2) -> forms.CharField:
    return MaskedCharField(
        required=required,
        max_length=MAX_NOTE_LENGTH,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": rows}),
        help_text=help_text,
    )


class ListPart(ActionForm):
    """Which things of the case go on which list, for how long."""

    kinds = forms.MultipleChoiceField(required=False, widget=forms.CheckboxSelectMultiple)
    list = forms.ChoiceField(choices=ListEntry.List.choices, required=False, widget=UnfoldAdminSelectWidget)
    days = forms.TypedChoiceField(
        label="For",
        coerce=int,
        required=False,
        choices=LIFETIMES,
        widget=UnfoldAdminSelectWidget,
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kinds = [(kind, ListEntry.Kind(kind).label) for kind in case_values(self.row)]
        set_choices(self, "kinds", kinds)

    def clean_days(self) -> int:
        """Whatever is not said is 90 days; 0 is for ever."""
        days = self.cleaned_data["days"]
        return LIFETIMES[0][0] if days == "" else int(days)

    def clean_list(self) -> str:
        return str(self.cleaned_data["list"] or ListEntry.List.BLOCK)


class CaseListForm(ListPart):
    """Put values of the case on a list, apart from a decision."""

    reason = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)

    field_order = ["kinds", "list", "days", "reason"]

    def clean_kinds(self) -> Sequence[str]:
        kinds: Sequence[str] = self.cleaned_data["kinds"]
        if not kinds:
            raise forms.ValidationError("Choose at least one.")
        return kinds


class DecideForm(ListPart):
    """One choice is the decision with its reason, such as `reject:stolen_card`; a note; what goes on a list."""

    choice = forms.ChoiceField(
        widget=forms.RadioSelect, error_messages={"required": "Choose a decision with its reason."}
    )
    note = note_field()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        set_choices(self, "choice", [option for _, options in self.groups() for option in options])

    def groups(self) -> Sequence[tuple[str, Options]]:
        """The choices under their headings: a proposal is confirmed or returned, and any case can be rejected."""
        reject = ("Reject", _reasons("reject"))
        if self.row.proposed_by:
            return (
                ("Approve", [("confirm:", "Confirm the approval"), ("return:", "Return it, with a note")]),
                reject,
            )
        return ("Approve", _reasons("approve")), reject

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        verb, _, reason = cleaned.get("choice", "").partition(":")
        if not cleaned.get("note", "").strip():
            if reason == ReasonCode.OTHER:
                self.add_error("note", "The reason “Other” needs a note.")
            elif verb == "return":
                self.add_error("note", "Whose proposal it is needs to know why.")
        if cleaned.get("kinds"):
            self._check_list(verb, cleaned.get("list", ""))
        return cleaned

    def _check_list(self, verb: str, name: str) -> None:
        if verb == "reject" and name == ListEntry.List.ALLOW:
            self.add_error("list", "What is rejected does not belong on the allow list.")
        elif verb in ("approve", "confirm") and name == ListEntry.List.BLOCK:
            self.add_error("list", "What is approved does not belong on the block list.")


class EscalateForm(ActionForm):
    note = note_field("Why a supervisor should look.", required=True)


class SnoozeForm(ActionForm):
    """For some hours, as far as they end before the case does."""

    hours = forms.TypedChoiceField(label="Back in", coerce=int, widget=UnfoldAdminSelectWidget)
    note = note_field("For the history of the case.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        left = self.row.expires_at - timezone.now() - SNOOZE_MARGIN
        fitting = [hours for hours in LATER_HOURS if timedelta(hours=hours) < left]
        set_choices(self, "hours", [(hours, describe_span(timedelta(hours=hours))) for hours in fitting])


class HandOverForm(ActionForm):
    """To whoever may claim reviews."""

    to: forms.ModelChoiceField[Any] = forms.ModelChoiceField(
        queryset=None, label="To", widget=UnfoldAdminSelectWidget
    )
    note = note_field("What they should know.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["to"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = get_user_model()._default_manager.with_perm(
            "fraud.claim_review", backend="django.contrib.auth.backends.ModelBackend"
        )


class BulkForm(forms.Form):
    """One decision with one reason for the selected cases."""

    decision = forms.ChoiceField(
        choices=[("approve", "Approve"), ("reject", "Reject")], widget=forms.HiddenInput
    )
    reviews = forms.TypedMultipleChoiceField(coerce=str, widget=forms.MultipleHiddenInput)
    reason_code = forms.ChoiceField(label="Reason", widget=UnfoldAdminSelectWidget)
    note = note_field("Kept with each decision. Required for “Other”.")

    def __init__(self, *args: Any, decision: str, reviews: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        set_choices(self, "reviews", [(review_id, review_id) for review_id in reviews])
        set_choices(self, "reason_code", _plain_reasons(decision))

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("reason_code") == ReasonCode.OTHER and not cleaned.get("note", "").strip():
            self.add_error("note", "The reason “Other” needs a note.")
        return cleaned


def set_choices(form: forms.Form, name: str, choices: Iterable[tuple[Any, str]]) -> None:
    field = form.fields[name]
    assert isinstance(field, forms.ChoiceField)
    field.choices = list(choices)


def _plain_reasons(verb: str) -> Options:
    return [(reason.value, reason.label) for reason in REASONS.get(verb, ())]


def _reasons(verb: str) -> Options:
    return [(f"{verb}:{code}", label) for code, label in _plain_reasons(verb)]
