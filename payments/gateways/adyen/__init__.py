"""Adyen's adapter: settings name it by this package."""

from __future__ import annotations

from payments.gateways.adyen.adapter import AdyenGateway

__all__ = ["AdyenGateway"]
