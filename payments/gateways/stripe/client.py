"""Stripe's SDK as we use it: its addresses, its timing, and its answers as plain dicts."""

from __future__ import annotations

from typing import Any

import stripe

Doc = dict[str, Any]

API_BASE = "https://api.stripe.com"
FILES_BASE = "https://files.stripe.com"


def build_client(
    api_key: str, *, api_base: str, files_base: str, timeout: tuple[float, float]
) -> stripe.StripeClient:
    """One that never tries again by itself: retries belong to the resilience stack."""
    return stripe.StripeClient(
        api_key,
        base_addresses={"api": api_base, "files": files_base},
        max_network_retries=0,
        http_client=stripe.RequestsClient(timeout=timeout),
    )


def to_doc(answer: stripe.StripeObject) -> Doc:
    return dict(answer.to_dict())
