"""Readers of settlement reports: a gateway's file in, plain rows out; no Django, no database."""

from __future__ import annotations

from reconciliation.parsers.base import BadRow, ReportFormatError, ReportParser, ReportRow, RowKind
from reconciliation.parsers.stripe import parse_stripe_report

__all__ = ["BadRow", "ReportFormatError", "ReportParser", "ReportRow", "RowKind", "find_parser"]

_PARSERS: dict[str, ReportParser] = {"stripe": parse_stripe_report}


def find_parser(gateway: str) -> ReportParser:
    """The parser of a gateway's reports. Raises `ReportFormatError` when there is none."""
    try:
        return _PARSERS[gateway]
    except KeyError:
        raise ReportFormatError(f"There is no parser for reports of {gateway!r}") from None
