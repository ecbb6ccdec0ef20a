"""Deployment checks: an account without a webhook secret refuses everything that its gateway sends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, register

from payments.models import GatewayAccount
from webhooks.accounts import load_receiver


@register(Tags.database, deploy=True)
def check_webhook_secrets(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Runs with `manage.py check --deploy --database default`, since the accounts are rows."""
    if not databases or "default" not in databases:
        return []
    bare = [
        account
        for account in GatewayAccount.objects.filter(is_active=True)
        if not load_receiver(account).secrets
    ]
    return [
        Error(
            f"The gateway account {account} has no valid webhook secret.",
            hint="Add one in the admin, or set the variable it refers to; until then webhooks get a 503.",
            obj=account,
            id="webhooks.E001",
        )
        for account in bare
    ]
