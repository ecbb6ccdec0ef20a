"""System checks: the settings of 3-D Secure, scores and reviews say what they mean, before an order finds out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured

from fraud import policy as reviews
from fraud.authentication import read_policy
from fraud.scores.base import ScoreError
from fraud.scores.http import Provider, make_connection

Apps = Sequence[AppConfig] | None


@register()
def check_authentication(app_configs: Apps = None, **kwargs: Any) -> list[CheckMessage]:
    """The policy of 3-D Secure can be read (fraud.E001), and knows where the shop is (fraud.W001)."""
    try:
        policy = read_policy()
    except ImproperlyConfigured as error:
        return [Error(str(error), hint="See docs/three-d-secure.md.", id="fraud.E001")]
    if policy.is_enabled and not policy.merchant_country:
        hint = "Set SCA_MERCHANT_COUNTRY to where your acquirer is, such as DE."
        return [Warning("SCA_ENABLED without a country: the limits are in euro", hint=hint, id="fraud.W001")]
    return []


@register()
def check_scores(app_configs: Apps = None, **kwargs: Any) -> list[CheckMessage]:
    """The outside provider has an address and a secret (fraud.E002), the model is there (fraud.W002)."""
    found: list[CheckMessage] = []
    if settings.FRAUD_RISK_URL:
        found += _check_provider()
    model = settings.FRAUD_MODEL_PATH
    if model and not (Path(model).is_file() and Path(model).with_suffix(".json").is_file()):
        hint = "The file and its description of the same name in .json; see docs/models.md."
        found.append(Warning(f"FRAUD_MODEL_PATH: {model} is not there", hint=hint, id="fraud.W002"))
    return found


def _check_provider() -> list[CheckMessage]:
    if not settings.FRAUD_RISK_SECRET:
        hint = "The provider tells our questions by it; see docs/models.md."
        return [Error("FRAUD_RISK_URL without FRAUD_RISK_SECRET", hint=hint, id="fraud.E002")]
    longest = settings.SAGA_LEASE_SECONDS * 1000 // 2  # beyond its lease a run is taken over, and asks anew
    if not 0 < settings.FRAUD_RISK_TIMEOUT_MS <= longest:
        hint = f"Milliseconds: more than 0, at most {longest}, half of SAGA_LEASE_SECONDS."
        return [Error("FRAUD_RISK_TIMEOUT_MS cannot be waited for", hint=hint, id="fraud.E002")]
    provider = Provider(settings.FRAUD_RISK_URL, "", allows_private=settings.FRAUD_RISK_ALLOW_PRIVATE)
    try:
        make_connection(provider).close()
    except (ScoreError, ValueError) as error:  # a port that is no number
        hint = "https; plain http and private addresses need FRAUD_RISK_ALLOW_PRIVATE=true."
        return [Error(f"FRAUD_RISK_URL: {error}", hint=hint, id="fraud.E002")]
    return []


@register()
def check_review_policy(app_configs: Apps = None, **kwargs: Any) -> list[CheckMessage]:
    """A policy that cannot be read would fail when the first case is decided (fraud.E003, fraud.E004)."""
    found: list[CheckMessage] = []
    try:
        reviews.at_expiry()
    except ValueError as error:
        found.append(Error(f"REVIEW_AT_EXPIRY: {error}", hint="reject, approve or escalate", id="fraud.E003"))
    for setting in ("REVIEW_APPROVE_BELOW", "REVIEW_FOUR_EYES"):
        limits = getattr(settings, setting)
        for currency in limits:
            try:
                reviews.find_limit(limits, "EUR" if currency == reviews.ANY else currency)
            except (ArithmeticError, ValueError) as error:
                message = f"{setting}: {currency}={limits[currency]} is not an amount: {error!r}"
                found.append(Error(message, hint="default=5000,JPY=750000", id="fraud.E004"))
    return found
