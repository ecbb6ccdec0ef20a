"""Finds how a gateway's webhooks are verified: by its scheme, by what its adapter brings along, or by the standard."""

from __future__ import annotations

from django.conf import settings

from payments.gateways import load_adapter
from webhooks.verifiers import STANDARD, VERIFIERS, Verifier


def find_verifier(gateway: str) -> Verifier | None:
    """None for a gateway that is not registered."""
    if gateway in VERIFIERS or gateway not in settings.PAYMENT_GATEWAYS:
        return VERIFIERS.get(gateway)
    verifier: Verifier | None = getattr(load_adapter(gateway), "verifier", None)
    return verifier or STANDARD
