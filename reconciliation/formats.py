"""Finds what reads a gateway's settlement reports: a parser of ours, or the one that its adapter brings along."""

from __future__ import annotations

from django.conf import settings

from payments.gateways import load_adapter
from reconciliation.parsers import ReportFormatError, ReportParser, find_parser


def find_report_parser(gateway: str) -> ReportParser:
    """Raises `ReportFormatError` when nobody can read the gateway's reports."""
    try:
        return find_parser(gateway)
    except ReportFormatError:
        parser: ReportParser | None = None
        if gateway in settings.PAYMENT_GATEWAYS:
            parser = getattr(load_adapter(gateway), "report_parser", None)
        if parser is None:
            raise
        return parser
