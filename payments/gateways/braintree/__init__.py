"""Braintree's adapter: settings name it by this package."""

from __future__ import annotations

from payments.gateways.braintree.adapter import BraintreeGateway

__all__ = ["BraintreeGateway"]
