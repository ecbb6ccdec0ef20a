"""What a storefront may send, as closed serializers."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema_serializer
from rest_framework import serializers

from payments.api.fields import (
    AmountField,
    ChoiceNameField,
    ClosedSerializer,
    CountryField,
    CurrencyCodeField,
    EmailField,
    FlagField,
    IpAddressField,
    MetadataField,
    PaymentMethodField,
    PaymentMethodsField,
    RedirectResultField,
    ReturnUrlField,
    TextField,
    TimestampField,
    TrueOrFalseField,
    WholeNumberField,
)
from payments.money import MAX_MINOR_UNITS, Money
from payments.services import OrderDraft

REFUND_REASONS = ("requested_by_customer", "duplicate", "fraudulent")
CANCEL_REASONS = ("requested_by_customer", "duplicate", "fraudulent", "abandoned")
MAX_LINES = 100


class CustomerRequest(ClosedSerializer):
    id = TextField(required=False, max_length=100, allow_blank=True)
    email = EmailField(required=False, max_length=254, allow_blank=True)
    created_at = TimestampField(required=False, help_text="Since when the customer has an account with you.")


class AddressRequest(ClosedSerializer):
    name = TextField(required=False, max_length=100, allow_blank=True)
    line1 = TextField(required=False, max_length=200, allow_blank=True)
    line2 = TextField(required=False, max_length=200, allow_blank=True)
    city = TextField(required=False, max_length=100, allow_blank=True)
    state = TextField(required=False, max_length=100, allow_blank=True)
    postal_code = TextField(required=False, max_length=20, allow_blank=True)
    country = CountryField(required=False)
    phone = TextField(required=False, max_length=30, allow_blank=True)


class LineRequest(ClosedSerializer):
    sku = TextField(max_length=64)
    name = TextField(required=False, max_length=200, allow_blank=True)
    quantity = WholeNumberField(min_value=1, max_value=1_000_000)
    unit_amount = WholeNumberField(
        required=False,
        min_value=-MAX_MINOR_UNITS,
        max_value=MAX_MINOR_UNITS,
        help_text="Minor units; a discount is negative. Either every line has one, or none.",
    )


class ContextRequest(ClosedSerializer):
    ip = IpAddressField(required=False)
    user_agent = TextField(required=False, max_length=500, allow_blank=True)
    device = TextField(required=False, max_length=200, allow_blank=True)


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "A mug, twice",
            request_only=True,
            value={
                "reference": "web-1001",
                "amount": 12950,
                "currency": "EUR",
                "payment_method": "pm_card_visa",
                "capture": "automatic",
                "return_url": "https://shop.example/return",
                "customer": {
                    "id": "cus_42",
                    "email": "buyer@example.com",
                    "created_at": "2026-01-05T10:00:00Z",
                },
                "billing": {"country": "DE", "postal_code": "10115"},
                "shipping": {"country": "DE"},
                "lines": [{"sku": "MUG-1", "quantity": 2, "unit_amount": 6475}],
                "context": {"ip": "198.51.100.7", "user_agent": "Mozilla/5.0", "device": "d_abc"},
                "metadata": {"cart": "c-9"},
            },
        )
    ]
)
class OrderRequest(ClosedSerializer):
    """An order to place and pay."""

    reference = TextField(max_length=100, help_text="Your own number; one living order each.")
    amount = AmountField(help_text="Minor units.")
    currency = CurrencyCodeField()
    payment_method = PaymentMethodField(help_text="The gateway's token, or a saved method (`spm_...`).")
    payment_methods = PaymentMethodsField(
        required=False,
        help_text="The same card at other gateways, where you have tokenized it there too: `gateway`, or "
        "`gateway/account name`, and the token. An order that one gateway cannot take goes to the next.",
    )
    save_payment_method = FlagField(
        default=False, help_text="Keep it for the customer, who has agreed; wants `customer.id`."
    )
    off_session = FlagField(
        default=False, help_text="The customer is not there: a charge that you initiate, on a saved method."
    )
    capture = ChoiceNameField(choices=["automatic", "manual"], default="automatic")
    return_url = ReturnUrlField(required=False, default="", allow_blank=True)
    customer = CustomerRequest(required=False)
    billing = AddressRequest(required=False)
    shipping = AddressRequest(required=False)
    lines = LineRequest(many=True, required=False, max_length=MAX_LINES)  # type: ignore[call-arg]
    context = ContextRequest(required=False)  # type: ignore[assignment]
    metadata = MetadataField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        _check_line_amounts(attrs.get("lines", []), attrs["amount"])
        if attrs["save_payment_method"] and not attrs.get("customer", {}).get("id"):
            raise serializers.ValidationError({"customer": {"id": ["Whose payment method is it to be?"]}})
        return attrs

    def to_draft(self) -> OrderDraft:
        """The validated order as the domain wants it."""
        valid = self.validated_data
        customer = valid.get("customer", {})
        return OrderDraft(
            reference=valid["reference"],
            amount=Money(valid["amount"], valid["currency"]),
            payment_method=valid["payment_method"],
            payment_methods=dict(valid.get("payment_methods", {})),
            lines=[dict(line) for line in valid.get("lines", [])],
            capture=valid["capture"],
            save_payment_method=valid["save_payment_method"],
            off_session=valid["off_session"],
            return_url=valid["return_url"],
            customer_id=customer.get("id", ""),
            customer_email=customer.get("email", ""),
            customer_created_at=customer.get("created_at"),
            billing=dict(valid.get("billing", {})),
            shipping=dict(valid.get("shipping", {})),
            context=dict(valid.get("context", {})),
            metadata=dict(valid.get("metadata", {})),
        )


def _check_line_amounts(lines: list[dict[str, Any]], amount: int) -> None:
    if not any("unit_amount" in line for line in lines):
        return
    missing = [
        {} if "unit_amount" in line else {"unit_amount": ["Either every line has one, or none."]}
        for line in lines
    ]
    if any(missing):
        raise serializers.ValidationError({"lines": missing})
    total = sum(line["quantity"] * line["unit_amount"] for line in lines)
    if total != amount:
        message = f"The lines add up to {total}, the order's amount is {amount}."
        raise serializers.ValidationError({"lines": [message]}, code="lines_do_not_add_up")


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "Another card, after a decline", request_only=True, value={"payment_method": "pm_card_mastercard"}
        )
    ]
)
class ConfirmRequest(ClosedSerializer):
    """After 3-D Secure: what the gateway added to the return address, if it did. After a decline: another method."""

    payment_method = PaymentMethodField(
        required=False, default="", help_text="Another token, after a decline."
    )
    redirect_result = RedirectResultField(
        required=False,
        default="",
        allow_blank=True,
        help_text="What the gateway added to your return address (Adyen's `redirectResult`); others need none.",
    )


@extend_schema_serializer(
    examples=[OpenApiExample("A part", request_only=True, value={"amount": 5000, "final": True})]
)
class CaptureRequest(ClosedSerializer):
    amount = AmountField(required=False, help_text="Minor units; without it, all that is left.")
    final = TrueOrFalseField(
        default=True,
        help_text="Nothing more follows: the rest of the hold is released. False: captures follow.",
    )


@extend_schema_serializer(
    examples=[
        OpenApiExample("The customer's wish", request_only=True, value={"reason": "requested_by_customer"})
    ]
)
class CancelRequest(ClosedSerializer):
    reason = ChoiceNameField(choices=CANCEL_REASONS, default="requested_by_customer")


@extend_schema_serializer(
    examples=[
        OpenApiExample("A part", request_only=True, value={"amount": 1500, "reason": "requested_by_customer"})
    ]
)
class RefundRequest(ClosedSerializer):
    amount = AmountField(required=False, help_text="Minor units; without it, all that is left.")
    reason = ChoiceNameField(choices=REFUND_REASONS, default="requested_by_customer")
    note = TextField(required=False, default="", allow_blank=True, max_length=500)
    capture = TextField(
        required=False,
        default="",
        max_length=32,
        help_text="The id of the capture to give back; without it, of whatever was captured.",
    )


class TokenRequest(serializers.Serializer[Any]):
    """RFC 6749, 4.4.2. For the schema alone: Authlib reads the form."""

    grant_type = ChoiceNameField(choices=["client_credentials"])
    scope = TextField(
        required=False, max_length=500, help_text="Separated by spaces; without it, all of the key's."
    )
    client_id = TextField(required=False, max_length=100, help_text="Unless sent by HTTP Basic.")
    client_secret = TextField(required=False, max_length=150, help_text="The API key, unless by HTTP Basic.")
