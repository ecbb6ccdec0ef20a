"""The desk: runs, discrepancies, and what reconciliation adds to the order page."""

from __future__ import annotations

from reconciliation.admin import discrepancy, panel, run, tolerance

__all__ = ["discrepancy", "panel", "run", "tolerance"]
