"""System checks: settings load, webhooks can be verified, no saga loses its recipe, and on-call is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections

from payments import runbook
from payments.fulfilment import get_inventory, get_shipping
from payments.gateways import load_adapter
from payments.models import GatewayAccount, SagaRun
from payments.retention import load_keepers
from payments.sagas.registry import RECIPES
from payments.screening import get_screener

Apps = Sequence[AppConfig] | None


@register()
def check_backends(app_configs: Apps = None, **kwargs: Any) -> list[CheckMessage]:
    """Everything that settings name by a dotted path can be imported (payments.E001)."""
    found: list[CheckMessage] = []
    for setting, load in _backends():
        try:
            load()
        except (ImportError, ImproperlyConfigured) as error:
            hint = "Name an importable class by its dotted path."
            found.append(Error(f"{setting} cannot be loaded: {error}", hint=hint, id="payments.E001"))
    return found


def _backends() -> list[tuple[str, Callable[[], object]]]:
    return [
        *((f"PAYMENT_GATEWAYS[{name!r}]", partial(load_adapter, name)) for name in settings.PAYMENT_GATEWAYS),
        ("PAYMENT_SCREENER", get_screener),
        ("INVENTORY_BACKEND", get_inventory),
        ("SHIPPING_BACKEND", get_shipping),
        ("DATA_KEEPERS", load_keepers),
    ]


@register(Tags.database)
def check_webhook_secrets(
    app_configs: Apps = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """An active account without a valid webhook secret refuses every webhook (payments.W001)."""
    return [
        Warning(
            f"{account} has no valid webhook secret: its webhooks are refused",
            hint="Add one in the admin, or set STRIPE_WEBHOOK_SECRET for the default account.",
            id="payments.W001",
        )
        for account in _rows(databases, lambda: GatewayAccount.objects.filter(is_active=True))
        if not account.webhook_secrets()
    ]


@register(Tags.database)
def check_saga_recipes(
    app_configs: Apps = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Refuse a deploy that drops a saga definition still in use (payments.E002)."""
    live = _rows(
        databases, lambda: SagaRun.objects.live().order_by().values_list("kind", "definition_version")
    )
    return [
        Error(
            f"saga {kind} version {version} is not deployed, and {live.count((kind, version))} runs still use it",
            hint="Keep the old recipe in payments.sagas.registry until its last run has ended.",
            id="payments.E002",
        )
        for kind, version in sorted(set(live))
        if (kind, version) not in RECIPES
    ]


@register()
def check_runbook(app_configs: Apps = None, **kwargs: Any) -> list[CheckMessage]:
    """Every page for on-call points at a section of the guide that is there (payments.E003)."""
    try:
        missing = sorted(runbook.all_slugs() - runbook.read_sections().keys())
    except OSError as error:
        missing = [str(error)]
    return [
        Error(
            f"the on-call guide does not say what to do: {name}",
            hint="Install docs/oncall.md beside the code, with a heading for each section of payments.runbook.",
            id="payments.E003",
        )
        for name in missing
    ]


@register()
def check_oncall(app_configs: Apps = None, **kwargs: Any) -> list[CheckMessage]:
    """In production somebody hears of a saga that stops (payments.W002)."""
    is_mailed = bool(settings.ONCALL_EMAIL) and "console" not in settings.EMAIL_BACKEND
    if not settings.PRODUCTION or settings.ONCALL_URL or is_mailed:
        return []
    hint = "Set ONCALL_URL, or ONCALL_EMAIL and EMAIL_URL."
    return [Warning("calls for on-call reach nobody: they are only logged", hint=hint, id="payments.W002")]


def _rows(databases: Sequence[str] | None, query: Callable[[], Any]) -> list[Any]:
    """The rows, or none: not asked to look at a database, or its tables are not there yet."""
    if "default" not in (databases or ()):
        return []
    try:
        with connections["default"].cursor():
            return list(query())
    except DatabaseError:
        return []
