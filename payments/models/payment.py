"""Payments, their attempts and their operations: every money movement is a row before it is a call."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import F, Q

from payments.kinds import OperationKind
from payments.models.fields import CurrencyField, MinorUnitsField, PrefixedIdField
from payments.models.gateway import GatewayAccount
from payments.models.order import CaptureMethod, Order
from payments.money import Money


class PaymentState(models.TextChoices):
    REQUIRES_PAYMENT_METHOD = "requires_payment_method", "Requires payment method"
    REQUIRES_ACTION = "requires_action", "Requires customer action"
    PROCESSING = "processing", "Processing"
    REQUIRES_REVIEW = "requires_review", "Requires review"
    REQUIRES_CAPTURE = "requires_capture", "Requires capture"
    PARTIALLY_CAPTURED = "partially_captured", "Partially captured"
    SUCCEEDED = "succeeded", "Succeeded"
    CANCELED = "canceled", "Canceled"


class OperationState(models.TextChoices):
    CREATED = "created", "Created"
    SENT = "sent", "Sent"
    PENDING = "pending", "Pending"
    SUCCEEDED = "succeeded", "Succeeded"
    DECLINED = "declined", "Declined"
    FAILED = "failed", "Failed"
    UNKNOWN = "unknown", "Unknown"
    REVERSED = "reversed", "Reversed"
    REQUIRES_REVIEW = "requires_review", "Requires review"


class OperationSource(models.TextChoices):
    SAGA = "saga", "Saga"
    API = "api", "API"
    OPERATOR = "operator", "Operator"
    COMPENSATION = "compensation", "Compensation"
    EXTERNAL = "external", "Seen at the gateway"


class AttemptState(models.TextChoices):
    LIVE = "live", "Live"
    DECLINED = "declined", "Declined"
    VOIDED = "voided", "Voided"
    DONE = "done", "Done"


class PaymentQuerySet(models.QuerySet["Payment"]):
    def locked(self, payment_id: str) -> Payment:
        """The payment under a row lock; taken after its order's, before its saga's and the ledger's."""
        return self.select_for_update(of=("self",)).get(pk=payment_id)

    def with_order(self, order_id: str) -> Payment:
        """The order's payment with its order and account, in one query."""
        return self.select_related("order", "account").get(order_id=order_id)

    def locked_with_order(self, order_id: str) -> Payment:
        """The order's payment with its order, both under row locks, taken in that order."""
        return (
            self.select_related("order", "account")
            .select_for_update(of=("order", "self"))
            .get(order_id=order_id)
        )


class Payment(models.Model):
    """The money side of one order. Totals are minor units, computed from the operations by one function."""

    id = PrefixedIdField(prefix="pay")
    order = models.OneToOneField(Order, on_delete=models.PROTECT, related_name="payment")
    account = models.ForeignKey(GatewayAccount, on_delete=models.PROTECT, related_name="payments")
    state = models.CharField(max_length=30, choices=PaymentState.choices, default=PaymentState.PROCESSING)
    amount = MinorUnitsField()
    currency = CurrencyField()
    capture_method = models.CharField(
        max_length=10, choices=CaptureMethod.choices, default=CaptureMethod.AUTOMATIC
    )
    payment_method = models.CharField(max_length=200, help_text="The gateway's token.")
    authorized = MinorUnitsField(default=0)
    captured = MinorUnitsField(default=0)
    refunded = MinorUnitsField(default=0)
    refund_pending = MinorUnitsField(default=0)
    disputed_lost = MinorUnitsField(default=0)
    gateway_reference = models.CharField(max_length=100, blank=True)
    next_action = models.JSONField(null=True, blank=True)
    last_error = models.JSONField(null=True, blank=True)
    cancel_reason = models.CharField(max_length=40, blank=True)
    card = models.JSONField(default=dict, blank=True)
    card_fingerprint = models.CharField(
        max_length=64, blank=True, help_text="Keyed hash of the gateway's fingerprint."
    )
    authorization_expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    objects = PaymentQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="payment_amount_positive"),
            models.CheckConstraint(condition=Q(state__in=PaymentState.values), name="payment_state_known"),
            models.CheckConstraint(
                condition=Q(captured__gte=0, captured__lte=F("authorized")),
                name="payment_captured_within_authorized",
            ),
            models.CheckConstraint(
                condition=Q(refunded__gte=0, refund_pending__gte=0, disputed_lost__gte=0)
                & Q(captured__gte=F("refunded") + F("refund_pending") + F("disputed_lost")),
                name="payment_refunded_within_captured",
            ),
        ]
        indexes = [
            models.Index(fields=["state", "-id"], name="payment_state_newest"),
            models.Index(fields=["gateway_reference"], name="payment_gateway_reference"),
            models.Index(fields=["card_fingerprint"], name="payment_card_fingerprint"),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def total(self) -> Money:
        return Money(self.amount, self.currency)

    @property
    def refundable(self) -> int:
        """Minor units that may still be refunded: captured less refunded, pending and lost disputes."""
        return self.captured - self.refunded - self.refund_pending - self.disputed_lost

    @property
    def net(self) -> int:
        """Minor units that we keep."""
        return self.captured - self.refunded - self.disputed_lost

    @property
    def refund_state(self) -> str:
        """Derived, never stored: none, pending, partial or full."""
        if self.refunded and self.refunded >= self.captured:
            return "full"
        if self.refunded:
            return "partial"
        return "pending" if self.refund_pending else "none"


class Attempt(models.Model):
    """One try with one payment method at one account; a decline ends it, another method begins the next."""

    id = PrefixedIdField(prefix="att")
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="attempts", db_index=False)
    account = models.ForeignKey(GatewayAccount, on_delete=models.PROTECT, related_name="attempts")
    number = models.PositiveSmallIntegerField()
    state = models.CharField(max_length=10, choices=AttemptState.choices, default=AttemptState.LIVE)
    payment_method = models.CharField(max_length=200)
    gateway_reference = models.CharField(max_length=100, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["payment", "number"]
        constraints = [
            models.UniqueConstraint(fields=["payment", "number"], name="attempt_number"),
            models.UniqueConstraint(fields=["payment"], condition=Q(state="live"), name="attempt_one_live"),
            models.UniqueConstraint(
                fields=["account", "gateway_reference"],
                condition=~Q(gateway_reference=""),
                name="attempt_gateway_reference",
            ),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number} of {self.payment_id}"


class OperationQuerySet(models.QuerySet["Operation"]):
    def refunds(self) -> OperationQuerySet:
        return self.filter(kind=OperationKind.REFUND)

    def doubtful(self) -> OperationQuerySet:
        """Sent, and nobody knows what became of them."""
        return self.filter(state=OperationState.UNKNOWN)


class Operation(models.Model):
    """One authorize, capture, void or refund: committed before the call, with its own gateway key for ever."""

    id = PrefixedIdField(prefix="op")
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="operations", db_index=False)
    attempt = models.ForeignKey(Attempt, on_delete=models.PROTECT, related_name="operations")
    account = models.ForeignKey(GatewayAccount, on_delete=models.PROTECT, related_name="operations")
    kind = models.CharField(
        max_length=10, choices=[(kind.value, kind.value.title()) for kind in OperationKind]
    )
    state = models.CharField(max_length=16, choices=OperationState.choices, default=OperationState.CREATED)
    amount = MinorUnitsField()
    currency = CurrencyField()
    gateway_key = models.CharField(
        max_length=80, unique=True, help_text="The idempotency key sent to the gateway."
    )
    gateway_reference = models.CharField(max_length=100, blank=True)
    source = models.CharField(max_length=12, choices=OperationSource.choices, default=OperationSource.SAGA)
    reason = models.CharField(max_length=40, blank=True)
    note = models.TextField(blank=True)
    requested_by = models.CharField(max_length=150, blank=True)
    error = models.JSONField(null=True, blank=True)
    negatives = models.PositiveSmallIntegerField(
        default=0, help_text="Times the gateway said that it knows nothing of it."
    )
    created_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True, blank=True)

    objects = OperationQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        permissions = [("resolve_operation", "Can ask the gateway about an operation")]
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="operation_amount_positive"),
            models.CheckConstraint(
                condition=Q(state__in=OperationState.values), name="operation_state_known"
            ),
            models.UniqueConstraint(
                fields=["account", "gateway_reference"],
                condition=Q(kind="refund") & ~Q(gateway_reference=""),
                name="operation_one_refund_reference",
            ),
            models.UniqueConstraint(
                fields=["attempt"],
                condition=Q(kind="authorize"),
                name="operation_one_authorization_per_attempt",
            ),
        ]
        indexes = [
            models.Index(fields=["payment", "kind"], name="operation_payment_kind"),
            models.Index(fields=["created_at"], name="operation_created"),
            models.Index(fields=["account", "gateway_reference"], name="operation_gateway_reference"),
            models.Index(
                fields=["state"], condition=Q(state__in=["sent", "pending", "unknown"]), name="operation_open"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    @property
    def money(self) -> Money:
        return Money(self.amount, self.currency)

    @property
    def is_final(self) -> bool:
        return self.state in FINAL_OPERATION_STATES

    def describe(self) -> dict[str, Any]:
        """A JSON-safe summary for events and timelines."""
        return {
            "id": self.id,
            "kind": self.kind,
            "state": self.state,
            "amount": self.amount,
            "currency": self.currency,
        }


FINAL_OPERATION_STATES = frozenset(
    {OperationState.SUCCEEDED, OperationState.DECLINED, OperationState.FAILED, OperationState.REVERSED}
)
