"""Reconciliation: every night the gateway's own record is laid beside ours, and each difference becomes one item."""

from reconciliation.kinds import DiscrepancyType

__all__ = ["DiscrepancyType"]
