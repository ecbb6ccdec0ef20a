"""Calls for on-call: written with the trouble itself, sent after, one for each cause and hour."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class OnCallPage(models.Model):
    """One call. Further trouble of the same cause within the hour is counted on it, not sent again."""

    cause = models.CharField(max_length=200)
    hour = models.DateTimeField()
    text = models.TextField()
    detail = models.JSONField(default=dict)
    path = models.CharField(
        max_length=200, blank=True, db_default="", help_text="The page of the admin that it is about."
    )
    count = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField()
    leased_until = models.DateTimeField(
        null=True, blank=True, help_text="Nobody sends it before: it is being sent, or waits after a failure."
    )
    tries = models.PositiveIntegerField(default=0)
    posted_at = models.DateTimeField(null=True, blank=True, help_text="When ONCALL_URL took it.")
    error = models.TextField(blank=True, help_text="Why ONCALL_URL did not.")
    mailed_at = models.DateTimeField(null=True, blank=True, help_text="When the mail server took it.")
    mail_error = models.TextField(blank=True, db_default="", help_text="Why the mail server did not.")
    sent_at = models.DateTimeField(null=True, blank=True, help_text="When every channel had taken it.")

    class Meta:
        ordering = ["-id"]
        verbose_name = "on-call page"
        constraints = [models.UniqueConstraint(fields=["cause", "hour"], name="oncall_page_once_per_hour")]
        indexes = [models.Index(fields=["id"], condition=Q(sent_at__isnull=True), name="oncall_page_unsent")]

    def __str__(self) -> str:
        return f"{self.cause} ({self.count})"
