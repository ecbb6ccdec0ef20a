"""Stripe's adapter: settings name it by this package."""

from __future__ import annotations

from payments.gateways.stripe.adapter import StripeGateway

__all__ = ["StripeGateway"]
