"""The forms of the operators' dialogs: exact amounts, reason codes, notes without card data."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from payments import services
from payments.admin.base import ActionForm
from payments.admin.words import money
from payments.models import Payment
from payments.money import Money, exponent
from payments.redaction import redact

MAX_NOTE = 2000
REFUND_REASONS = {
    "requested_by_customer": "Requested by the customer",
    "duplicate": "Charged twice",
    "fraudulent": "Fraud",
}
CANCEL_REASONS = {
    "requested_by_customer": "Requested by the customer",
    "duplicate": "Ordered twice",
    "fraudulent": "Fraud",
    "abandoned": "Abandoned",
}


class NoteField(forms.CharField):
    """Free text that is kept for ever: card data in it is masked before anything else sees it."""

    def __init__(self, **kwargs: Any) -> None:
        widget = UnfoldAdminTextareaWidget(attrs={"rows": 3})
        super().__init__(max_length=MAX_NOTE, widget=widget, **kwargs)

    def clean(self, value: Any) -> str:
        return redact(super().clean(value))


class ReasonForm(ActionForm):
    """Why an operator does it."""

    reason = forms.CharField(
        max_length=200,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="Kept in the diary with your name.",
    )

    def clean_reason(self) -> str:
        return redact(str(self.cleaned_data["reason"]))


class NoteForm(ActionForm):
    note = NoteField(label="Note")


class AmountForm(ActionForm):
    """An amount in major units, read exactly, at most what is left. Subclasses name what is left and done."""

    action = ""
    done_word = ""
    left_word = ""

    amount = forms.CharField(
        label="Amount",
        max_length=30,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.payment: Payment = self.row.payment
        left = Money(self.left, self.payment.currency)
        field = self.fields["amount"]
        field.label = f"Amount in {self.payment.currency}"
        field.initial = f"{left.amount:f}"
        field.help_text = f"{left.format()} left. After this: {self.tell_after(left.minor)}."
        field.widget.attrs |= {
            "data-bo-exponent": exponent(self.payment.currency),
            "data-bo-currency": self.payment.currency,
            "data-bo-left": left.minor,
            "data-bo-done": self.done,
            "data-bo-words": f"{self.done_word}|{self.left_word}",
        }

    @property
    def left(self) -> int:
        raise NotImplementedError

    @property
    def done(self) -> int:
        raise NotImplementedError

    def tell_after(self, minor: int) -> str:
        currency = self.payment.currency
        return (
            f"{self.done_word} {money(self.done + minor, currency)}, "
            f"{self.left_word} {money(self.left - minor, currency)}"
        )

    def clean_amount(self) -> Money:
        typed = str(self.cleaned_data["amount"]).strip()
        currency = self.payment.currency
        try:
            wanted = Money.from_major(typed, currency)
        except ValueError as error:
            raise forms.ValidationError(f"{error}. Nothing was changed.") from None
        if not wanted.minor > 0:
            raise forms.ValidationError("The amount must be more than nothing. Nothing was changed.")
        if wanted.minor > self.left:
            text = (
                f"{wanted.format()} is more than the {money(self.left, currency)} left. Nothing was changed."
            )
            raise forms.ValidationError(text)
        return wanted


class CaptureForm(AmountForm):
    done_word, left_word = "captured", "not captured"

    rest = forms.ChoiceField(
        label="What is not captured",
        required=False,
        choices=[
            ("release", "Release it: this is the last capture"),
            ("keep", "Keep it for another capture"),
        ],
        widget=UnfoldAdminSelectWidget,
    )

    @property
    def left(self) -> int:
        return self.payment.capturable

    @property
    def done(self) -> int:
        return self.payment.captured


class RefundForm(AmountForm):
    done_word, left_word = "refunded or pending", "still refundable"

    reason = forms.ChoiceField(choices=list(REFUND_REASONS.items()), widget=UnfoldAdminSelectWidget)
    note = NoteField(label="Note", required=False)
    capture = forms.ChoiceField(label="Of the capture", required=False, widget=UnfoldAdminSelectWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        parts = services.refundable_captures(self.payment)
        if len(parts) < 2:
            del self.fields["capture"]
            return
        named = [
            (part.pk, f"{part.created_at:%F %R} UTC, {money(left, self.payment.currency)} left")
            for part, left in parts
        ]
        self.fields["capture"].choices = [("", "The first with enough left"), *named]  # type: ignore[attr-defined]

    @property
    def left(self) -> int:
        return self.payment.refundable

    @property
    def done(self) -> int:
        return self.payment.refunded + self.payment.refund_pending


class CancelForm(ActionForm):
    reason = forms.ChoiceField(choices=list(CANCEL_REASONS.items()), widget=UnfoldAdminSelectWidget)
