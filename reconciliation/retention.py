"""What reconciliation keeps: the gateway's own books, and every difference from ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from payments.models import Order
from payments.retention import Rule


class ReconciliationData:
    """See payments.retention.DataKeeper."""

    rules: Sequence[Rule] = ()
    kept: Mapping[str, str] = {
        "reconciliation_reportfile": "The books: settlement reports as they came.",
        "reconciliation_reportchunk": "The books: settlement reports as they came.",
        "reconciliation_reportline": "The books: what the gateway has settled.",
        "reconciliation_run": "The proof that each day was reconciled.",
        "reconciliation_discrepancy": "The books: what differed, and who settled it.",
        "reconciliation_discrepancyevent": "The books: who settled it.",
        "reconciliation_sighting": "The proof of which run saw what.",
        "reconciliation_tolerance": "Master data.",
    }

    def erase_order(self, order: Order) -> None:
        """Reports name payments by the gateway's references and ours, not by person."""
