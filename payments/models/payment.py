"""Payments, their attempts and their operations: every money movement is a row before it is a call."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import models
from django.db.models import F, Q, Sum
from django.utils import timezone

from payments.kinds import OperationKind
from payments.models.customer import SavedPaymentMethod
from payments.models.fields import CurrencyField, MaskedJSONField, MinorUnitsField, PrefixedIdField
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
    NOT_SENT = "not_sent", "Never reached the gateway"
    LATE = "late", "Authorized after it was given up"


class PaymentQuerySet(models.QuerySet["Payment"]):
    def locked(self, payment_id: str) -> Payment:
        """The payment under a row lock; taken after its order's, before its saga's and the ledger's."""
        return self.select_for_update(of=("self",)).get(pk=payment_id)

    def holds_ending(self, *, within: timedelta) -> PaymentQuerySet:
        """Payments with something left to capture of a hold that ends so soon, the soonest first."""
        soon = timezone.now() + within
        return self.filter(capturable__gt=0, authorization_expires_at__lte=soon).order_by(
            "authorization_expires_at"
        )

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
    payment_methods = models.JSONField(
        default=dict,
        db_default={},
        blank=True,
        help_text="Tokens for other gateways or accounts, for failover: name to token.",
    )
    saved_method = models.ForeignKey(
        SavedPaymentMethod,
        on_delete=models.PROTECT,
        related_name="payments",
        null=True,
        blank=True,
        db_index=False,
    )
    save_method = models.BooleanField(
        default=False, db_default=False, help_text="The customer wants to pay with it again."
    )
    is_merchant_initiated = models.BooleanField(default=False, db_default=False)
    authorized = MinorUnitsField(default=0)
    capturable = MinorUnitsField(default=0, db_default=0)
    captured = MinorUnitsField(default=0)
    refunded = MinorUnitsField(default=0)
    refund_pending = MinorUnitsField(default=0)
    disputed = MinorUnitsField(default=0, db_default=0, help_text="In disputes that nobody has decided yet.")
    disputed_lost = MinorUnitsField(default=0)
    gateway_reference = models.CharField(max_length=100, blank=True)
    next_action = models.JSONField(null=True, blank=True)
    last_error = MaskedJSONField(null=True, blank=True)
    cancel_reason = models.CharField(max_length=40, blank=True)
    card = models.JSONField(default=dict, blank=True)
    card_fingerprint = models.CharField(
        max_length=64, blank=True, help_text="Keyed hash of the gateway's fingerprint."
    )
    authorization_expires_at = models.DateTimeField(null=True, blank=True)
    hold_warned_at = models.DateTimeField(null=True, blank=True, help_text="When its end was announced.")
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
            models.CheckConstraint(
                condition=Q(
                    disputed__gte=0, capturable__gte=0, capturable__lte=F("authorized") - F("captured")
                ),
                name="payment_capturable_within_authorized",
            ),
        ]
        indexes = [
            models.Index(fields=["state", "-id"], name="payment_state_newest"),
            models.Index(fields=["gateway_reference"], name="payment_gateway_reference"),
            models.Index(fields=["card_fingerprint"], name="payment_card_fingerprint"),
            models.Index(
                fields=["authorization_expires_at"],
                condition=Q(capturable__gt=0),
                name="payment_hold_expiring",
            ),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def total(self) -> Money:
        return Money(self.amount, self.currency)

    @property
    def refundable(self) -> int:
        """Minor units that may still be refunded: what was neither refunded, nor is under way, nor is disputed.

        What the bank has taken back for an open dispute would be paid twice by a refund.
        """
        taken = self.refunded + self.refund_pending + self.disputed + self.disputed_lost
        return max(self.captured - taken, 0)

    @property
    def returnable(self) -> int:
        """Minor units that a gateway may have given back besides what we know of, whatever is disputed."""
        return max(self.captured - self.refunded - self.refund_pending, 0)

    @property
    def dispute_state(self) -> str:
        """Derived, never stored: none, open or lost."""
        if self.disputed:
            return "open"
        return "lost" if self.disputed_lost else "none"

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
    route = models.CharField(
        max_length=200, blank=True, db_default="", help_text="Why it went to this account."
    )
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

    def count_hold(self) -> tuple[int, int]:
        """Minor units that were authorized under it, and captured of them."""
        done = self.operations.filter(state=OperationState.SUCCEEDED)
        sums = done.aggregate(
            held=Sum("amount", filter=Q(kind=OperationKind.AUTHORIZE)),
            captured=Sum("amount", filter=Q(kind=OperationKind.CAPTURE)),
        )
        return sums["held"] or 0, sums["captured"] or 0


class OperationQuerySet(models.QuerySet["Operation"]):
    def with_account(self) -> OperationQuerySet:
        """All that a call to the gateway needs, in one query."""
        return self.select_related("account", "attempt")

    def refunds(self) -> OperationQuerySet:
        return self.filter(kind=OperationKind.REFUND)

    def doubtful(self) -> OperationQuerySet:
        """Sent, and nobody knows what became of them."""
        return self.filter(state=OperationState.UNKNOWN)

    def escalated(self) -> OperationQuerySet:
        """Asked for in vain as often as the schedule says: a person's task now."""
        return self.filter(state__in=OPEN_OPERATION_STATES, escalated_at__isnull=False)


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
    capture = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        related_name="refunds",
        null=True,
        blank=True,
        db_index=False,
        help_text="Of a refund: the capture that it gives back.",
    )
    releases_rest = models.BooleanField(
        default=True, db_default=True, help_text="Of a capture: nothing more will be captured."
    )
    source = models.CharField(max_length=12, choices=OperationSource.choices, default=OperationSource.SAGA)
    reason = models.CharField(max_length=40, blank=True)
    note = models.TextField(blank=True)
    requested_by = models.CharField(max_length=150, blank=True)
    error = MaskedJSONField(null=True, blank=True)
    negatives = models.PositiveSmallIntegerField(
        default=0, help_text="Times the gateway said that it knows nothing of it."
    )
    asks = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Times that the schedule asked the gateway."
    )
    next_ask_at = models.DateTimeField(null=True, blank=True)
    escalated_at = models.DateTimeField(null=True, blank=True, help_text="Since when it is a person's task.")
    created_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True, blank=True)

    objects = OperationQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        permissions = [
            ("resolve_operation", "Can ask the gateway about an operation"),
            ("decide_operation", "Can decide an operation that the gateway does not tell of"),
        ]
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
            models.Index(
                fields=["next_ask_at"], condition=Q(next_ask_at__isnull=False), name="operation_ask_due"
            ),
            models.Index(
                fields=["escalated_at"], condition=Q(escalated_at__isnull=False), name="operation_escalated"
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
OPEN_OPERATION_STATES = frozenset(
    {
        OperationState.SENT,
        OperationState.PENDING,
        OperationState.UNKNOWN,
        OperationState.REQUIRES_REVIEW,
    }
)


class Inquiry(models.Model):
    """One question to a gateway about one operation, and its answer: the evidence an operator decides by."""

    operation = models.ForeignKey(Operation, on_delete=models.PROTECT, related_name="inquiries")
    actor = models.CharField(max_length=150, default="system")
    answer = models.CharField(max_length=30, help_text="What the gateway said, absent, or the error's code.")
    detail = MaskedJSONField(default=dict, blank=True)
    asked_at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        verbose_name_plural = "inquiries"

    def __str__(self) -> str:
        return f"{self.answer} about {self.operation_id}"
