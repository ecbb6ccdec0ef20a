"""API clients and their keys: who may call the storefront API, and what for."""

from __future__ import annotations

from django.db import models
from rest_framework_api_key.models import AbstractAPIKey

from payments.models.fields import PrefixedIdField


class Scope(models.TextChoices):
    """What an API key may do."""

    ORDERS_READ = "orders:read", "Read orders and payments"
    ORDERS_WRITE = "orders:write", "Place, pay, capture and cancel orders"
    REFUNDS_WRITE = "refunds:write", "Refund"
    EVENTS_READ = "events:read", "Read events"
    WEBHOOKS_WRITE = "webhooks:write", "Manage webhook endpoints"


class ApiClient(models.Model):
    """A storefront: everything that it makes belongs to it, and nobody else sees it."""

    id = PrefixedIdField(prefix="cli")
    name = models.CharField(max_length=100, unique=True)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        verbose_name = "API client"

    def __str__(self) -> str:
        return self.name


class ApiKey(AbstractAPIKey):
    """One key of a client: hashed, scoped, expiring; two may live while a client rotates."""

    client = models.ForeignKey(ApiClient, on_delete=models.CASCADE, related_name="keys")
    scopes = models.JSONField(default=list, help_text="Which scopes the key has.")
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta(AbstractAPIKey.Meta):
        verbose_name = "API key"
        verbose_name_plural = "API keys"
        permissions = [("revoke_apikey", "Can revoke an API key")]
