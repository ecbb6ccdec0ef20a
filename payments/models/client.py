"""API clients, their keys, and what signs their tokens: who may call the storefront API, and what for."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone
from rest_framework_api_key.models import AbstractAPIKey

from payments.encryption import EncryptedTextField
from payments.models.fields import PrefixedIdField


class Scope(models.TextChoices):
    """What an API key may do."""

    ORDERS_READ = "orders:read", "Read orders and payments"
    ORDERS_WRITE = "orders:write", "Place, pay, capture and cancel orders"
    REFUNDS_WRITE = "refunds:write", "Refund"
    CUSTOMERS_WRITE = "customers:write", "Read, save and erase customers and their payment methods"
    DISPUTES_READ = "disputes:read", "Read disputes"
    DISPUTES_WRITE = "disputes:write", "Answer disputes"
    EVENTS_READ = "events:read", "Read events"
    WEBHOOKS_WRITE = "webhooks:write", "Manage webhook endpoints"
    REVIEWS_READ = "reviews:read", "Read reviews, screenings and fraud labels"
    REVIEWS_WRITE = "reviews:write", "Approve and reject reviews"
    LISTS_WRITE = "lists:write", "Read, add and end entries of the fraud lists"
    LABELS_WRITE = "labels:write", "Say which orders were fraud"


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


class TokenKeyQuerySet(models.QuerySet["TokenKey"]):
    def published(self) -> TokenKeyQuerySet:
        """Those that verify now, the newest first; the newest may not sign yet."""
        unexpired = Q(verifies_until__isnull=True) | Q(verifies_until__gt=timezone.now())
        return self.filter(unexpired).order_by("-generation")

    def find_signing(self) -> TokenKey | None:
        """The one that signs now."""
        return self.published().filter(signs_from__lte=timezone.now()).first()


class TokenKey(models.Model):
    """A key pair that signs access tokens. Published before it signs; verifies until its last token is dead."""

    id = PrefixedIdField(prefix="tok")
    generation = models.PositiveIntegerField(
        unique=True, help_text="Counts up; two makers cannot make the same."
    )
    private_key = EncryptedTextField(help_text="A JWK (RFC 7517).")
    public_key = models.JSONField(help_text="The public half, as /.well-known/jwks.json shows it.")
    signs_from = models.DateTimeField()
    verifies_until = models.DateTimeField(null=True, blank=True, help_text="Set when its successor is made.")
    created_at = models.DateTimeField()

    objects = TokenKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-generation"]

    def __str__(self) -> str:
        return self.id
