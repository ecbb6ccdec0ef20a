"""What became of orders: who says that one was fraud or genuine, and which word counts."""

from __future__ import annotations

from django.db import models
from django.db.models import Case, Q, Value, When
from django.utils import timezone

from payments.models import Order


class LabelSource(models.TextChoices):
    """Where a label comes from."""

    DISPUTE = "dispute", "Dispute"
    EARLY_WARNING = "early_warning", "Warning of the issuer"
    REFUND_AS_FRAUD = "refund_as_fraud", "Refunded as fraud"
    MANUAL = "manual", "By hand"
    API = "api", "API"
    DECISION = "decision", "Analyst's decision"
    MATURED = "matured", "No dispute in time"


# The lowest counts; of one precedence the newest. `docs/fraud.md` shows this table to analysts.
PRECEDENCE: dict[LabelSource, int] = {
    LabelSource.DISPUTE: 1,
    LabelSource.EARLY_WARNING: 2,
    LabelSource.REFUND_AS_FRAUD: 3,
    LabelSource.MANUAL: 4,
    LabelSource.API: 4,
    LabelSource.DECISION: 5,
    LabelSource.MATURED: 6,
}


class Label(models.Model):
    """One word about one order. Rows are only added: a correction is a newer row, what was said before stays.

    `evidence` is what says so: an event, a capture or a review; the same evidence labels an order once.
    """

    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="labels", db_index=False)
    is_fraud = models.BooleanField()
    source = models.CharField(max_length=16, choices=LabelSource.choices)
    reason = models.CharField(max_length=200, blank=True)
    actor = models.CharField(max_length=150, default="system")
    evidence = models.CharField(max_length=80, blank=True)
    at = models.DateTimeField(help_text="When it became known.")
    created_at = models.DateTimeField(default=timezone.now)
    precedence = models.GeneratedField(
        expression=Case(
            *(When(source=source.value, then=Value(rank)) for source, rank in PRECEDENCE.items()),
            output_field=models.SmallIntegerField(),
        ),
        output_field=models.SmallIntegerField(),
        db_persist=True,
    )

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(source__in=LabelSource.values), name="fraud_label_source_known"
            ),
            models.UniqueConstraint(
                fields=["source", "evidence"], condition=~Q(evidence=""), name="fraud_label_evidence_once"
            ),
        ]
        indexes = [
            models.Index(
                fields=["order", "precedence", "-at", "-id"],
                include=["is_fraud", "source"],
                name="fraud_label_effective",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.verdict} by {self.get_source_display().lower()}"

    @property
    def verdict(self) -> str:
        return "Fraud" if self.is_fraud else "Genuine"


class EffectiveLabel(models.Model):
    """The label of an order that counts: a view, one row for each labelled order.

    By SQL: `SELECT order_id, is_fraud, source, at FROM fraud_effective_label`.
    """

    order = models.OneToOneField(
        Order, on_delete=models.DO_NOTHING, primary_key=True, related_name="effective_label"
    )
    is_fraud = models.BooleanField()
    source = models.CharField(max_length=16, choices=LabelSource.choices)
    at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = "fraud_effective_label"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{'Fraud' if self.is_fraud else 'Genuine'} by {self.source}"
