"""What a storefront sees of our rows: one closed serializer each, which is also its schema."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from payments.api.fields import ClosedSerializer, OpenObjectField
from payments.models import Operation, OperationState, Order, OrderState, Payment, PaymentState

_PUBLIC_ERROR_MEMBERS = ("code", "decline_code", "gateway_code", "advice", "message")


class PaymentErrorProjection(ClosedSerializer):
    """Why the last attempt failed."""

    code = serializers.CharField(required=False)
    decline_code = serializers.CharField(required=False, help_text="Standardised over all gateways.")
    gateway_code = serializers.CharField(required=False, help_text="As the gateway said it.")
    advice = serializers.CharField(required=False, help_text="What may help.")
    message = serializers.CharField(required=False)


class PaymentSummary(ClosedSerializer):
    """The money side of an order; amounts are minor units of its currency."""

    id = serializers.CharField()
    state = serializers.ChoiceField(choices=PaymentState.choices)
    authorized = serializers.IntegerField()
    captured = serializers.IntegerField()
    refunded = serializers.IntegerField()
    gateway = serializers.CharField(source="account.gateway")
    gateway_reference = serializers.CharField(allow_blank=True)
    next_action = OpenObjectField(allow_null=True)
    last_error = serializers.SerializerMethodField()

    @extend_schema_field(PaymentErrorProjection(allow_null=True))
    def get_last_error(self, payment: Payment) -> dict[str, Any] | None:
        # A blocked order does not say why.
        return None if payment.order.state == OrderState.BLOCKED else select_public_error(payment.last_error)


class ReviewProjection(ClosedSerializer):
    state = serializers.ChoiceField(choices=["open"])


class OrderProjection(ClosedSerializer):
    """An order, as far as it has come."""

    id = serializers.CharField()
    state = serializers.ChoiceField(choices=OrderState.choices)
    reference = serializers.CharField()
    amount = serializers.IntegerField(help_text="Minor units.")
    currency = serializers.CharField()
    payment = PaymentSummary()
    review = serializers.SerializerMethodField()
    metadata = serializers.DictField(child=serializers.CharField())
    created_at = serializers.DateTimeField()

    @extend_schema_field(ReviewProjection(allow_null=True))
    def get_review(self, order: Order) -> dict[str, Any] | None:
        return {"state": "open"} if order.state == OrderState.REVIEW else None


class OperationProjection(ClosedSerializer):
    """One authorization, capture, void or refund."""

    id = serializers.CharField()
    kind = serializers.CharField()
    state = serializers.ChoiceField(choices=OperationState.choices)
    amount = serializers.IntegerField()
    currency = serializers.CharField()
    created_at = serializers.DateTimeField()


class PaymentProjection(PaymentSummary):
    """A payment with its operations, oldest first."""

    order = serializers.CharField(source="order_id")
    amount = serializers.IntegerField()
    currency = serializers.CharField()
    refund_pending = serializers.IntegerField()
    refund_state = serializers.ChoiceField(choices=["none", "pending", "partial", "full"])
    card = OpenObjectField()
    operations = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()

    @extend_schema_field(OperationProjection(many=True))
    def get_operations(self, payment: Payment) -> Any:
        return OperationProjection(payment.operations.order_by("id"), many=True).data


class RefundProjection(ClosedSerializer):
    """A refund; `pending` until the gateway has finished it."""

    id = serializers.CharField()
    order = serializers.CharField(source="payment.order_id")
    payment = serializers.CharField(source="payment_id")
    state = serializers.ChoiceField(choices=OperationState.choices)
    amount = serializers.IntegerField()
    currency = serializers.CharField()
    reason = serializers.CharField(allow_blank=True)
    error = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()

    @extend_schema_field(PaymentErrorProjection(allow_null=True))
    def get_error(self, refund: Operation) -> dict[str, Any] | None:
        return select_public_error(refund.error)


class EventProjection(ClosedSerializer):
    """What an outgoing webhook said. `sequence` counts up per order."""

    id = serializers.CharField()
    type = serializers.CharField()
    order = serializers.CharField(source="order_id")
    sequence = serializers.IntegerField()
    data = OpenObjectField()  # type: ignore[assignment]  # a member of the event, not the serializer's own
    created_at = serializers.DateTimeField()


class ProblemErrorProjection(ClosedSerializer):
    """One fault: where it is, and what it is."""

    pointer = serializers.CharField(required=False, help_text="JSON pointer into the body.")
    parameter = serializers.CharField(required=False, help_text="Name of the query parameter.")
    code = serializers.CharField()
    detail = serializers.CharField()


class ProblemProjection(ClosedSerializer):
    """RFC 9457 problem details."""

    type = serializers.CharField(help_text="Address of the explanation.")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField(help_text="Stable.")
    request_id = serializers.CharField()
    errors = ProblemErrorProjection(many=True)  # type: ignore[assignment]
    order = serializers.CharField(required=False, help_text="The order that was refused.")
    decline_code = serializers.CharField(required=False)
    gateway_code = serializers.CharField(required=False)
    advice = serializers.CharField(required=False)
    sku = serializers.CharField(required=False)
    country = serializers.CharField(required=False)
    state = serializers.CharField(required=False)
    left = serializers.IntegerField(required=False)


def render_order(order: Order) -> dict[str, Any]:
    """The order as the API, the webhooks and the documentation show it; wants payment and account at hand."""
    return dict(OrderProjection(order).data)


def render_payment(payment: Payment) -> dict[str, Any]:
    return dict(PaymentProjection(payment).data)


def render_refund(refund: Operation) -> dict[str, Any]:
    return dict(RefundProjection(refund).data)


def select_public_error(error: Any) -> dict[str, Any] | None:
    """What a storefront may know of a stored error."""
    if not error:
        return None
    return {name: str(error[name]) for name in _PUBLIC_ERROR_MEMBERS if error.get(name)}
