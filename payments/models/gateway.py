"""Gateway accounts: where money is charged, with encrypted credentials and dated webhook secrets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta

from django.conf import settings
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from payments.encryption import EncryptedTextField, resolve_secret
from payments.errors import ConflictError
from payments.models.fields import PrefixedIdField


def known_gateways() -> list[tuple[str, str]]:
    """Whatever the registry names: a new adapter needs no change here."""
    return [(name, name.replace("_", " ").title()) for name in settings.PAYMENT_GATEWAYS]


class GatewayAccount(models.Model):
    """One account at one gateway. Its credentials are encrypted, or `env:NAME` references to settings."""

    id = PrefixedIdField(prefix="acc")
    gateway = models.CharField(max_length=20, choices=known_gateways)
    name = models.SlugField(
        max_length=40, help_text="Part of the webhook address: /webhooks/<gateway>/<name>/."
    )
    api_key = EncryptedTextField(help_text="The secret key, or env:NAME.")
    api_base = models.CharField(max_length=200, blank=True, help_text="Address of the API, or env:NAME.")
    options = models.JSONField(
        default=dict,
        db_default={},
        blank=True,
        help_text="What else the gateway needs, e.g. merchant_account; values may be env:NAME. No secrets.",
    )
    is_active = models.BooleanField(default=True, help_text="New payments are routed here.")
    priority = models.PositiveSmallIntegerField(default=100, help_text="The lowest goes first.")
    settlement_lag_days = models.PositiveSmallIntegerField(
        default=2, help_text="Days until a captured payment must be in the settlement report."
    )
    switched_off_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="The kill switch: since then no new payments."
    )
    switched_off_by = models.CharField(max_length=150, blank=True, db_default="", editable=False)
    switched_off_reason = models.CharField(max_length=200, blank=True, db_default="", editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["priority", "name"]
        permissions = [("switch_gatewayaccount", "Can stop and allow new payments on an account")]
        constraints = [models.UniqueConstraint(fields=["gateway", "name"], name="gateway_account_name")]

    def __str__(self) -> str:
        return f"{self.gateway}/{self.name}"

    def switch_off(self, *, by: str, reason: str) -> None:
        """Stop new payments. Raises `ConflictError`, and changes nothing, when that was done before."""
        now = timezone.now()
        on = GatewayAccount.objects.filter(pk=self.pk, switched_off_at__isnull=True)
        if not on.update(switched_off_at=now, switched_off_by=by, switched_off_reason=reason):
            raise ConflictError(f"{self} was switched off before; nothing was changed.")
        self.switched_off_at, self.switched_off_by, self.switched_off_reason = now, by, reason

    def switch_on(self) -> bool:
        """Allow new payments; False when they were allowed already."""
        off = GatewayAccount.objects.filter(pk=self.pk, switched_off_at__isnull=False)
        changed = off.update(switched_off_at=None, switched_off_by="", switched_off_reason="")
        self.switched_off_at, self.switched_off_by, self.switched_off_reason = None, "", ""
        return bool(changed)

    def shares_tokens_with(self) -> frozenset[str]:
        """Accounts of the same gateway (`stripe/main`) whose plain tokens this account may charge too."""
        named = self.options.get("shares_tokens_with", "")
        names = named if isinstance(named, list) else str(named).replace(",", " ").split()
        return frozenset(map(str, names))

    def credentials(self) -> Mapping[str, str]:
        """The secrets in the clear, for the adapter alone."""
        options = {name: resolve_secret(str(value)) for name, value in self.options.items()}
        return {
            **options,
            "api_key": resolve_secret(self.api_key),
            "api_base": resolve_secret(self.api_base),
        }

    def credentials_digest(self) -> str:
        """Changes when a credential changes; says nothing about it."""
        return hashlib.sha256(repr(sorted(self.credentials().items())).encode()).hexdigest()

    def webhook_secrets(self) -> list[str]:
        """Every secret that is valid now, newest first; two while one is being rotated."""
        return [value for value in (resolve_secret(secret.value) for secret in self.secrets.valid()) if value]

    def rotate_webhook_secret(
        self, value: str, *, overlap: timedelta, starts_at: datetime | None = None
    ) -> GatewaySecret:
        """Add a secret that is valid from `starts_at` (None: now), and end the others `overlap` after that.

        An end that was set before stays when it is earlier. Raises `ConflictError`, and changes nothing, for a value
        that is not new, and while an earlier rotation has not begun.
        """
        with transaction.atomic():
            GatewayAccount.objects.select_for_update(of=("self",)).get(pk=self.pk)
            now = timezone.now()
            known = list(self.secrets.all())
            if any(secret.not_before and secret.not_before > now for secret in known):
                raise ConflictError(f"{self} has a secret that is yet to begin; nothing was changed.")
            if any(secret.value == value for secret in known):
                raise ConflictError(f"{self} has this very secret already; nothing was changed.")
            ends_at = (starts_at or now) + overlap
            lasting = self.secrets.filter(Q(not_after__isnull=True) | Q(not_after__gt=ends_at))
            lasting.update(not_after=ends_at)
            return self.secrets.create(value=value, not_before=starts_at)


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
        permissions = [("rotate_gatewaysecret", "Can rotate an account's webhook secret")]

    def __str__(self) -> str:
        return f"webhook secret {self.pk} of {self.account}"
