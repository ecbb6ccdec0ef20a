"""How far each reader of payments' events has come."""

from __future__ import annotations

from django.db import models


class EventPosition(models.Model):
    """One reader's place in the outbox, see fraud.collector.

    Every event before `settled_until` was consumed, and of the later ones those in `consumed`.
    """

    name = models.CharField(primary_key=True, max_length=40)
    settled_until = models.CharField(max_length=32)
    consumed = models.JSONField(default=list)

    def __str__(self) -> str:
        return f"{self.name} until {self.settled_until}"
