"""Gateway accounts: where money is charged, with encrypted credentials and dated webhook secrets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from django.db import models
from django.db.models import Q
from django.utils import timezone

from payments.encryption import EncryptedTextField, resolve_secret
from payments.models.fields import PrefixedIdField


class Gateway(models.TextChoices):
    STRIPE = "stripe", "Stripe"


class GatewayAccount(models.Model):
    """One account at one gateway. Its credentials are encrypted, or `env:NAME` references to settings."""

    id = PrefixedIdField(prefix="acc")
    gateway = models.CharField(max_length=20, choices=Gateway.choices)
    name = models.SlugField(
        max_length=40, help_text="Part of the webhook address: /webhooks/<gateway>/<name>/."
    )
    api_key = EncryptedTextField(help_text="The secret key, or env:NAME.")
    api_base = models.CharField(max_length=200, blank=True, help_text="Address of the API, or env:NAME.")
    is_active = models.BooleanField(default=True, help_text="New payments are routed here.")
    priority = models.PositiveSmallIntegerField(default=100, help_text="The lowest goes first.")
    settlement_lag_days = models.PositiveSmallIntegerField(
        default=2, help_text="Days until a captured payment must be in the settlement report."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["priority", "name"]
        constraints = [models.UniqueConstraint(fields=["gateway", "name"], name="gateway_account_name")]

    def __str__(self) -> str:
        return f"{self.gateway}/{self.name}"

    def credentials(self) -> Mapping[str, str]:
        """The secrets in the clear, for the adapter alone."""
        return {"api_key": resolve_secret(self.api_key), "api_base": resolve_secret(self.api_base)}

    def credentials_digest(self) -> str:
        """Changes when a credential changes; says nothing about it."""
        return hashlib.sha256(repr(sorted(self.credentials().items())).encode()).hexdigest()

    def webhook_secrets(self) -> list[str]:
        """Every secret that is valid now, newest first; two while one is being rotated."""
        return [value for value in (resolve_secret(secret.value) for secret in self.secrets.valid()) if value]


class GatewaySecretQuerySet(models.QuerySet["GatewaySecret"]):
    def valid(self) -> GatewaySecretQuerySet:
        now = timezone.now()
        return self.filter(
            Q(not_before__isnull=True) | Q(not_before__lte=now),
            Q(not_after__isnull=True) | Q(not_after__gt=now),
        ).order_by("-created_at")


class GatewaySecret(models.Model):
    """A webhook signing secret with its dates of validity."""

    account = models.ForeignKey(GatewayAccount, on_delete=models.CASCADE, related_name="secrets")
    value = EncryptedTextField(help_text="The signing secret, or env:NAME.")
    not_before = models.DateTimeField(null=True, blank=True)
    not_after = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = GatewaySecretQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "webhook secret"

    def __str__(self) -> str:
        return f"webhook secret {self.pk} of {self.account}"
