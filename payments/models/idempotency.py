"""Idempotency keys: one row per client, method, route and key; the row decides who runs and what is replayed."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class IdempotencyKey(models.Model):
    """A claimed key. `answer` is what was sent, byte for byte; a tombstone keeps the key but not the answer."""

    scope = models.CharField(max_length=120, help_text="The API client, or the name of the function.")
    route = models.CharField(max_length=120, help_text="Method and route.")
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of the canonical payload.")
    resource = models.CharField(
        max_length=64, blank=True, help_text="The order or refund that the first call made."
    )
    lease_expires_at = models.DateTimeField()
    status = models.PositiveSmallIntegerField(null=True, blank=True)
    content_type = models.CharField(max_length=80, blank=True)
    answer = models.BinaryField(null=True, blank=True)
    created_at = models.DateTimeField()
    completed_at = models.DateTimeField(null=True, blank=True)
    is_tombstone = models.BooleanField(default=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["scope", "route", "key"], name="idempotency_key_once"),
            models.CheckConstraint(
                condition=Q(completed_at__isnull=True) | Q(status__isnull=False) | Q(is_tombstone=True),
                name="idempotency_completed_has_answer",
            ),
        ]
        indexes = [models.Index(fields=["created_at"], name="idempotency_created")]

    def __str__(self) -> str:
        return f"{self.route} {self.key}"
