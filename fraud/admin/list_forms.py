"""The forms of the lists' pages: a new entry, its renewal and end, and a file of entries."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any

from django import forms
from django.utils import timezone
from unfold.widgets import (
    UnfoldAdminSelectWidget,
    UnfoldAdminSingleDateWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from fraud.lists import entries, files
from fraud.lists.values import MAX_VALUE_LENGTH, read_value
from fraud.models import ListEntry
from payments.admin.base import ActionForm
from payments.admin.forms import ReasonForm
from payments.errors import PaymentError

MAX_REASON = entries.MAX_REASON_LENGTH
LIFETIMES = [
    (90, "90 days"),
    (30, "30 days"),
    (365, "one year"),
    (0, "ever"),
]  # in days; the first is the default


class NewListEntryForm(forms.ModelForm):  # type: ignore[type-arg]
    """A plain value; what is kept is its keyed hash and a masked form."""

    value = forms.CharField(
        max_length=MAX_VALUE_LENGTH,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="Kept as a keyed hash; only a masked form is shown later. A network is 203.0.113.0/24, an address "
        "is DE, 10115, Invalidenstr. 7.",
    )
    expires_at = forms.SplitDateTimeField(
        required=False, label="Ends", help_text="UTC. Empty: never.", widget=UnfoldAdminSplitDateTimeWidget
    )

    class Meta:
        model = ListEntry
        fields = ["list", "kind", "reason", "owner", "expires_at"]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors:
            self._check_value(cleaned)
        return cleaned

    def clean_expires_at(self) -> datetime | None:
        moment: datetime | None = self.cleaned_data["expires_at"]
        try:
            entries.check_future(moment)
        except PaymentError as error:
            raise forms.ValidationError(error.message) from None
        return moment

    def _check_value(self, cleaned: dict[str, Any]) -> None:
        try:
            digest = read_value(cleaned["kind"], cleaned["value"]).hash
        except PaymentError as error:
            self.add_error("value", error.message)
            return
        house = ListEntry.objects.valid().filter(client__isnull=True)
        if house.filter(list=cleaned["list"], value_hash=digest).exists():
            self.add_error("value", "It is on this list already.")


class RenewForm(ReasonForm):
    """Until when an entry lasts."""

    until = forms.DateField(
        required=False,
        label="Until the end of",
        widget=UnfoldAdminSingleDateWidget,
        help_text="A day in UTC. Empty: for ever.",
    )

    def clean_until(self) -> datetime | None:
        day = self.cleaned_data["until"]
        if day is None:
            return None
        if day < timezone.now().date():
            raise forms.ValidationError("The day has passed. Nothing was changed.")
        return timezone.make_aware(datetime.combine(day, time())) + timedelta(days=1)


class ChangeForm(ReasonForm):
    """Why it is there, and who answers for it."""

    owner = forms.CharField(required=False, max_length=150, widget=UnfoldAdminTextInputWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].initial = self.row.reason
        self.fields["owner"].initial = self.row.owner


class SeenForm(ActionForm):
    """A decision about a dry run names the one that was on the page."""

    seen = forms.CharField(max_length=120, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["seen"].initial = self.row.seen

    def preview(self) -> list[str]:
        return [
            f"{self.row.added:,} added",
            f"{self.row.renewed:,} renewed",
            "everything else is left as it is",
        ]


_IN_FILE = [("", "As the file says")]


class ImportForm(forms.Form):
    """A file, and what holds for lines that do not say it themselves."""

    file = forms.FileField(
        label="CSV file",
        help_text=f"UTF-8, at most {files.MAX_BYTES // 1_048_576} MiB and {files.MAX_LINES:,} lines. Columns: "
        "list, kind, value, reason, expires_at; or values alone.",
        widget=forms.ClearableFileInput(attrs={"accept": ".csv,.txt,text/csv"}),
    )
    list = forms.ChoiceField(
        required=False, choices=[*_IN_FILE, *ListEntry.List.choices], widget=UnfoldAdminSelectWidget
    )
    kind = forms.ChoiceField(
        required=False, choices=[*_IN_FILE, *ListEntry.Kind.choices], widget=UnfoldAdminSelectWidget
    )
    reason = forms.CharField(
        required=False,
        max_length=MAX_REASON,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="For lines without one.",
    )
    days = forms.TypedChoiceField(
        label="For",
        coerce=int,
        choices=LIFETIMES,
        widget=UnfoldAdminSelectWidget,
        help_text="Lines without an end of their own.",
    )
    owner = forms.CharField(
        required=False, max_length=150, widget=UnfoldAdminTextInputWidget, help_text="Who answers for them."
    )

    def read_defaults(self) -> files.Defaults:
        valid = self.cleaned_data
        return files.Defaults(valid["list"], valid["kind"], valid["reason"], end_after(valid["days"]))


def end_after(days: int) -> datetime | None:
    """When an entry ends that lasts for so long; 0: never."""
    return timezone.now() + timedelta(days=days) if days else None
