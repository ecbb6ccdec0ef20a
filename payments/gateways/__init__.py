"""Finds the gateway adapter of an account: the registry is settings.PAYMENT_GATEWAYS, as Django does for backends."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string  # noqa: TID251 - this is the resolver

from payments.gateways.base import PaymentGateway
from payments.gateways.kill_switch import switch_board
from payments.gateways.resilience import wrap_gateway
from payments.models import GatewayAccount


def get_gateway(account: GatewayAccount) -> PaymentGateway:
    """The account's adapter inside the resilience stack. Raises `ImproperlyConfigured` for missing credentials."""
    return _build(account.pk, account.gateway, account.name, account.credentials_digest())


@lru_cache(maxsize=64)
def _build(account_id: str, gateway: str, name: str, credentials_digest: str) -> PaymentGateway:
    # Cached by the digest of the credentials, so that a rotated key takes effect without a restart.
    account = GatewayAccount.objects.get(pk=account_id)
    adapter_class = load_adapter(gateway)
    credentials = account.credentials()
    return wrap_gateway(
        adapter_class.from_account(credentials),
        name=f"{gateway}/{name}",
        limit=credentials.get("rate_limit", ""),
        find_switch=lambda: switch_board().find(account_id),
    )


def load_adapter(gateway: str) -> Any:
    """The adapter class that settings name for a gateway. Raises `ImportError`."""
    return import_string(settings.PAYMENT_GATEWAYS[gateway])
