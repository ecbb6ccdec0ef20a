"""Disputes: what a cardholder says against a payment, until when we must answer, and what we answered."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from payments.kinds import DisputeStage, DisputeState
from payments.models.fields import CurrencyField, MinorUnitsField, PrefixedIdField
from payments.models.gateway import GatewayAccount
from payments.models.payment import Payment
from payments.money import Money

OPEN_DISPUTE_STATES = (DisputeState.NEEDS_RESPONSE, DisputeState.UNDER_REVIEW)
LOST_DISPUTE_STATES = (DisputeState.LOST, DisputeState.ACCEPTED, DisputeState.EXPIRED)


class DisputeQuerySet(models.QuerySet["Dispute"]):
    def locked(self, dispute_id: str) -> Dispute:
        """The dispute under a row lock; taken after its order's and its payment's."""
        return self.select_related("account").select_for_update(of=("self",)).get(pk=dispute_id)

    def open(self) -> DisputeQuerySet:
        return self.filter(state__in=OPEN_DISPUTE_STATES)

    def unanswered(self) -> DisputeQuerySet:
        return self.filter(state=DisputeState.NEEDS_RESPONSE)


class Dispute(models.Model):
    """One complaint at one gateway. Amounts are minor units; moved by the one function for dispute facts only."""

    id = PrefixedIdField(prefix="dp")
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="disputes")
    account = models.ForeignKey(GatewayAccount, on_delete=models.PROTECT, related_name="disputes")
    gateway_reference = models.CharField(max_length=100)
    stage = models.CharField(
        max_length=20, choices=[(s.value, s.value.replace("_", " ").capitalize()) for s in DisputeStage]
    )
    state = models.CharField(
        max_length=20, choices=[(s.value, s.value.replace("_", " ").capitalize()) for s in DisputeState]
    )
    amount = MinorUnitsField()
    currency = CurrencyField()
    fee = MinorUnitsField(default=0, help_text="What the dispute has cost so far, in minor units.")
    fee_currency = models.CharField(max_length=3, blank=True)
    is_withdrawn = models.BooleanField(default=False, help_text="The amount is out of our balance now.")
    reason = models.CharField(max_length=40, blank=True)
    network_code = models.CharField(max_length=20, blank=True)
    due_by = models.DateTimeField(null=True, blank=True)
    submitted_at = models.DateTimeField(null=True, blank=True)
    submitted_by = models.CharField(max_length=150, blank=True)
    warned_at = models.DateTimeField(null=True, blank=True, help_text="When its deadline was called out.")
    last_fact_at = models.DateTimeField(null=True, blank=True)
    last_money_at = models.DateTimeField(
        null=True, blank=True, help_text="Of the newest fact that said where the money is."
    )
    opened_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)

    objects = DisputeQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        permissions = [("answer_dispute", "Can add evidence, submit it, and accept a dispute")]
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="dispute_amount_positive"),
            models.CheckConstraint(
                condition=Q(state__in=[s.value for s in DisputeState]), name="dispute_state_known"
            ),
            models.CheckConstraint(
                condition=Q(stage__in=[s.value for s in DisputeStage]), name="dispute_stage_known"
            ),
            models.UniqueConstraint(
                fields=["account", "gateway_reference"], name="dispute_gateway_reference"
            ),
        ]
        indexes = [
            models.Index(fields=["due_by"], condition=Q(state="needs_response"), name="dispute_due"),
            models.Index(fields=["state", "-id"], name="dispute_state_newest"),
        ]

    def __str__(self) -> str:
        return f"dispute {self.id}"

    @property
    def money(self) -> Money:
        return Money(self.amount, self.currency)

    def describe(self) -> dict[str, object]:
        """A JSON-safe summary for events and timelines."""
        return {
            "id": self.id,
            "stage": self.stage,
            "state": self.state,
            "amount": self.amount,
            "currency": self.currency,
            "reason": self.reason,
            "due_by": self.due_by.isoformat() if self.due_by else None,
        }

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_DISPUTE_STATES

    @property
    def is_answerable(self) -> bool:
        """Evidence may still be sent: nobody has answered, and the deadline has not passed."""
        in_time = self.due_by is None or self.due_by > timezone.now()
        return self.state == DisputeState.NEEDS_RESPONSE and in_time


def evidence_path(evidence: DisputeEvidence, filename: str) -> str:
    """By ids alone: what a person called the file says nothing about where it lies."""
    return f"disputes/{evidence.dispute_id}/{evidence.sha256}"


class DisputeEvidence(models.Model):
    """One text or file for the bank; a draft until the dispute is submitted, never changed afterwards."""

    dispute = models.ForeignKey(Dispute, on_delete=models.PROTECT, related_name="evidence")
    kind = models.CharField(max_length=40, help_text="One of payments.kinds.EVIDENCE_KINDS.")
    text = models.TextField(blank=True)
    file = models.FileField(upload_to=evidence_path, blank=True)
    file_name = models.CharField(max_length=150, blank=True)
    content_type = models.CharField(max_length=50, blank=True)
    size = models.PositiveIntegerField(default=0, help_text="Bytes.")
    sha256 = models.CharField(max_length=64, blank=True)
    added_by = models.CharField(max_length=150)
    added_at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        verbose_name_plural = "dispute evidence"
        constraints = [
            models.UniqueConstraint(fields=["dispute", "kind"], name="dispute_evidence_once_per_kind"),
            models.CheckConstraint(condition=~Q(text="", file=""), name="dispute_evidence_not_empty"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} for {self.dispute_id}"
