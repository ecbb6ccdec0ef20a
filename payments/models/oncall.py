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
    count = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField()
    leased_until = models.DateTimeField(null=True, blank=True)
    tries = models.PositiveIntegerField(default=0)
    sent_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = "on-call page"
        constraints = [models.UniqueConstraint(fields=["cause", "hour"], name="oncall_page_once_per_hour")]
        indexes = [models.Index(fields=["id"], condition=Q(sent_at__isnull=True), name="oncall_page_unsent")]

    def __str__(self) -> str:
        return f"{self.cause} ({self.count})"
