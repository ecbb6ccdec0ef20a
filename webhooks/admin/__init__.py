"""The on-call's and the integrator's pages: inbox, refusals, endpoints, deliveries."""

from __future__ import annotations

from webhooks.admin import delivery, endpoint, inbound, panels, rejected

__all__ = ["delivery", "endpoint", "inbound", "panels", "rejected"]
