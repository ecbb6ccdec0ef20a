"""The verifier of each gateway, by the gateway's name in the webhook address."""

from __future__ import annotations

from collections.abc import Mapping

from webhooks.verifiers import stripe
from webhooks.verifiers.base import Envelope, Verifier

VERIFIERS: Mapping[str, Verifier] = {"stripe": stripe}

__all__ = ["VERIFIERS", "Envelope", "Verifier"]
