"""The kinds of discrepancy, in plain Python so that parsers, SQL and tables name them alike."""

from __future__ import annotations

from enum import StrEnum


class DiscrepancyType(StrEnum):
    """What may be wrong between the gateway's record and ours."""

    MISSING_INTERNAL = "missing_internal"  # they have it, we do not
    MISSING_GATEWAY = "missing_gateway"  # we have it, they do not
    CURRENCY_MISMATCH = "currency_mismatch"
    AMOUNT_MISMATCH = "amount_mismatch"
    STATUS_MISMATCH = "status_mismatch"
    DUPLICATE_INTERNAL = "duplicate_internal"
    DUPLICATE_GATEWAY = "duplicate_gateway"
    UNKNOWN_ROW_TYPE = "unknown_row_type"

    @property
    def label(self) -> str:
        return _LABELS[self]


_LABELS = {
    DiscrepancyType.MISSING_INTERNAL: "Missing here",
    DiscrepancyType.MISSING_GATEWAY: "Missing at the gateway",
    DiscrepancyType.CURRENCY_MISMATCH: "Other currency",
    DiscrepancyType.AMOUNT_MISMATCH: "Other amount",
    DiscrepancyType.STATUS_MISMATCH: "Other status",
    DiscrepancyType.DUPLICATE_INTERNAL: "Twice here",
    DiscrepancyType.DUPLICATE_GATEWAY: "Twice at the gateway",
    DiscrepancyType.UNKNOWN_ROW_TYPE: "Unknown kind of row",
}
