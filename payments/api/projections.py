"""What a storefront sees of our rows: one closed serializer each, which is also its schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema_field
from rest_framework import serializers

from payments.api.fields import ClosedSerializer, OpenObjectField
from payments.kinds import EVIDENCE_KINDS, DisputeStage, DisputeState, OperationKind
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
    kind = serializers.ChoiceField(choices=[kind.value for kind in OperationKind])
    state = serializers.ChoiceField(choices=OperationState.choices)
    amount = serializers.IntegerField()
    currency = serializers.CharField()
    final = serializers.BooleanField(
        source="releases_rest", required=False, help_text="Of a capture: nothing more follows."
    )
    refundable = serializers.IntegerField(
        required=False, help_text="Of a capture: minor units that may still be refunded of it."
    )
    capture = serializers.CharField(
        source="capture_id",
        required=False,
        allow_null=True,
        help_text="Of a refund: the capture that it gives back.",
    )
    created_at = serializers.DateTimeField()

    def to_representation(self, operation: Operation) -> dict[str, Any]:
        """Each kind has its own members."""
        shown: dict[str, Any] = super().to_representation(operation)
        for name, kind in (("final", OperationKind.CAPTURE), ("capture", OperationKind.REFUND)):
            if operation.kind != kind:
                shown.pop(name)
        return shown


class PaymentProjection(PaymentSummary):
    """A payment with its operations, oldest first."""

    order = serializers.CharField(source="order_id")
    amount = serializers.IntegerField()
    currency = serializers.CharField()
    capturable = serializers.IntegerField(help_text="Authorized, and not captured or released yet.")
    refundable = serializers.IntegerField(help_text="Captured, less what went back or is on its way.")
    refund_pending = serializers.IntegerField()
    refund_state = serializers.ChoiceField(choices=["none", "pending", "partial", "full"])
    disputed = serializers.IntegerField(help_text="In disputes that nobody has decided yet.")
    dispute_state = serializers.ChoiceField(choices=["none", "open", "lost"])
    card = OpenObjectField()
    operations = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()

    @extend_schema_field(OperationProjection(many=True))
    def get_operations(self, payment: Payment) -> Any:
        """Those of the context, where somebody has loaded many payments' at once."""
        operations = self.context.get("operations")
        if operations is None:
            operations = list(payment.operations.order_by("id"))
        return OperationProjection(share_refunds(operations), many=True).data


def share_refunds(operations: Sequence[Operation]) -> Sequence[Operation]:
    """Tell every capture that stood what is left of it to refund.

    A refund that names no capture is taken from the oldest that has something left.
    """
    left = {o.pk: o.amount for o in operations if o.kind == OperationKind.CAPTURE and o.state in _STANDING}
    refunds = [o for o in operations if o.kind == OperationKind.REFUND and o.state not in _UNDONE]
    for refund in sorted(refunds, key=lambda refund: refund.capture_id is None):
        rest = refund.amount
        for capture in [refund.capture_id] if refund.capture_id else list(left):
            share = min(rest, left.get(capture, 0))
            left[capture] = left.get(capture, 0) - share
            rest -= share
    for operation in operations:
        if operation.pk in left and operation.kind == OperationKind.CAPTURE:
            operation.refundable = left[operation.pk]  # type: ignore[attr-defined]
    return operations


_STANDING = (OperationState.SUCCEEDED,)
_UNDONE = (OperationState.DECLINED, OperationState.FAILED, OperationState.REVERSED)


class RefundProjection(ClosedSerializer):
    """A refund; `pending` until the gateway has finished it."""

    id = serializers.CharField()
    order = serializers.CharField(source="payment.order_id")
    payment = serializers.CharField(source="payment_id")
    capture = serializers.CharField(
        source="capture_id", allow_null=True, help_text="The capture that it gives back, where one is known."
    )
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


class DisputeProjection(ClosedSerializer):
    """What a cardholder says against a payment; amounts are minor units."""

    id = serializers.CharField()
    order = serializers.CharField(source="payment.order_id")
    payment = serializers.CharField(source="payment_id")
    stage = serializers.ChoiceField(choices=[stage.value for stage in DisputeStage])
    state = serializers.ChoiceField(choices=[state.value for state in DisputeState])
    amount = serializers.IntegerField()
    currency = serializers.CharField()
    reason = serializers.CharField(
        allow_blank=True,
        help_text="One of fraudulent, not_received, not_as_described, canceled, credit_not_processed, duplicate, "
        "other.",
    )
    network_code = serializers.CharField(allow_blank=True, help_text="The card scheme's code of the reason.")
    is_withdrawn = serializers.BooleanField(help_text="The bank has the amount now.")
    fee = serializers.IntegerField(help_text="What the dispute has cost so far, in minor units.")
    fee_currency = serializers.CharField(allow_blank=True, help_text="Blank without a fee.")
    is_answerable = serializers.BooleanField(help_text="Evidence is still taken.")
    due_by = serializers.DateTimeField(allow_null=True, help_text="Until when it must be answered.")
    submitted_at = serializers.DateTimeField(allow_null=True, help_text="When the evidence was sent.")
    opened_at = serializers.DateTimeField()
    closed_at = serializers.DateTimeField(allow_null=True)


class EvidenceProjection(ClosedSerializer):
    """One text or file for the bank. A file is told by its SHA-256, and not shown."""

    kind = serializers.ChoiceField(choices=EVIDENCE_KINDS)
    text = serializers.CharField(allow_blank=True, help_text="Blank for a file.")
    file_name = serializers.CharField(allow_blank=True, help_text="Blank for a text.")
    content_type = serializers.CharField(allow_blank=True)
    size = serializers.IntegerField(help_text="Of the file, in bytes.")
    sha256 = serializers.CharField(allow_blank=True)
    added_at = serializers.DateTimeField()


class DisputeDetailProjection(DisputeProjection):
    """A dispute with the evidence that was added to it."""

    evidence = EvidenceProjection(many=True, source="evidence.all")


class CustomerProjection(ClosedSerializer):
    """A customer whom you have told us of, or who has saved a payment method."""

    id = serializers.CharField(source="storefront_id", help_text="Your own id.")
    email = serializers.CharField(allow_blank=True)
    name = serializers.CharField(allow_blank=True)
    created_at = serializers.DateTimeField()


class ExpandedOrderProjection(OrderProjection):
    """An order with what `expand[]` asked for; made by `expansion.render_orders`."""

    payment = serializers.SerializerMethodField()  # type: ignore[assignment]
    refunds = RefundProjection(many=True, required=False)
    events = EventProjection(many=True, required=False)
    disputes = DisputeProjection(many=True, required=False)
    customer = CustomerProjection(required=False, allow_null=True)

    @extend_schema_field(
        PolymorphicProxySerializer(
            component_name="OrderPayment",
            serializers=[PaymentSummary, PaymentProjection],
            resource_type_field_name=None,
        )
    )
    def get_payment(self, order: Order) -> dict[str, Any]:
        return dict(PaymentSummary(order.payment).data)


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


class TokenProjection(ClosedSerializer):
    """An access token. Ask for the next one before it expires; there is no refresh token."""

    access_token = serializers.CharField(
        help_text="A JWT by RFC 9068: `Authorization: Bearer <access_token>`."
    )
    token_type = serializers.ChoiceField(choices=["Bearer"])
    expires_in = serializers.IntegerField(help_text="Seconds.")
    scope = serializers.CharField(help_text="What the token may do, separated by spaces.", required=False)


class TokenErrorProjection(ClosedSerializer):
    """RFC 6749, 5.2."""

    error = serializers.CharField()
    error_description = serializers.CharField()


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
