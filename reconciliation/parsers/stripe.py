"""Reads Stripe's itemised payout reconciliation and balance change reports, told apart by nothing but their columns.

Sources: docs.stripe.com/reports/report-types/payout-reconciliation, /reports/balance, /reports/reporting-categories.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime

from reconciliation.parsers.base import (
    BadRow,
    ReportFormatError,
    ReportRow,
    RowKind,
    read_csv,
    to_minor,
    to_utc,
)

REQUIRED = (
    "balance_transaction_id",
    "currency",
    "gross",
    "fee",
    "net",
    "reporting_category",
    "source_id",
)

_CATEGORIES: dict[RowKind, tuple[str, ...]] = {
    # A partial capture is two rows: the whole authorization as `charge`, and the rest taken back.
    RowKind.CHARGE: ("charge", "partial_capture_reversal", "charge_failure"),
    RowKind.REFUND: ("refund", "refund_failure"),
    RowKind.DISPUTE: ("dispute", "dispute_reversal"),
    RowKind.FEE: ("fee", "network_cost", "tax"),
    RowKind.PAYOUT: ("payout", "payout_reversal"),
    RowKind.ADJUSTMENT: (
        "advance",
        "advance_funding",
        "anticipation_repayment",
        "climate_order_purchase",
        "climate_order_refund",
        "connect_collection_transfer",
        "connect_reserved_funds",
        "contribution",
        "financing_paydown",
        "financing_paydown_reversal",
        "financing_payout",
        "financing_payout_reversal",
        "issuing_authorization_hold",
        "issuing_authorization_release",
        "issuing_dispute",
        "issuing_transaction",
        "other_adjustment",
        "platform_earning",
        "platform_earning_refund",
        "risk_reserved_funds",
        "topup",
        "topup_reversal",
        "transfer",
        "transfer_reversal",
        "unreconciled_customer_funds",
    ),
}
_KIND_OF_CATEGORY = {category: kind for kind, names in _CATEGORIES.items() for category in names}


def parse_stripe_report(chunks: Iterable[bytes]) -> Iterator[ReportRow | BadRow]:
    """The rows of one file. Raises `ReportFormatError` for a file that is no such report."""
    is_checked = False
    for line, cells in read_csv(chunks, required=REQUIRED):
        if isinstance(cells, BadRow):
            yield cells
            continue
        if not is_checked:
            _require_time(cells)
            is_checked = True
        try:
            yield _read_row(line, cells)
        except ValueError as error:
            yield BadRow(line, str(error))


def _require_time(cells: Mapping[str, str]) -> None:
    if "created_utc" not in cells and "created" not in cells:
        raise ReportFormatError("The report lacks the column created_utc")


def _read_row(line: int, cells: Mapping[str, str]) -> ReportRow:
    category = cells["reporting_category"].strip()
    kind = _KIND_OF_CATEGORY.get(category, RowKind.UNKNOWN)
    currency = cells["currency"].strip().upper()
    gross, fee, net = (to_minor(cells[name], currency) for name in ("gross", "fee", "net"))
    if net != gross - fee:
        raise ValueError(f"net {cells['net']} is not gross {cells['gross']} less fee {cells['fee']}")
    external_id = cells["balance_transaction_id"].strip()
    if not external_id:
        raise ValueError("has no balance_transaction_id")
    amount, amount_currency = _read_customer_amount(cells, gross, currency)
    return ReportRow(
        line=line,
        external_id=external_id,
        kind=kind,
        category=category,
        reference=_find_reference(kind, cells) or external_id,
        amount=amount,
        currency=amount_currency,
        gross=gross,
        fee=fee,
        net=net,
        settlement_currency=currency,
        created_at=_read_time(cells, "created"),
        available_on=_read_date(cells, "available_on"),
        payout_id=cells.get("automatic_payout_id", "").strip(),
        source_id=cells["source_id"].strip(),
        payment_reference=cells.get("payment_intent_id", "").strip(),
        description=cells.get("description", "").strip()[:200],
        our_payment_id=cells.get("payment_metadata[payment_id]", "").strip(),
        our_operation_id=_find_operation(kind, cells),
    )


def _find_reference(kind: RowKind, cells: Mapping[str, str]) -> str:
    """A charge is known by its payment intent, a refund by its own id, the rest by their source."""
    names = ("payment_intent_id", "charge_id", "source_id") if kind is RowKind.CHARGE else ("source_id",)
    return next((value for name in names if (value := cells.get(name, "").strip())), "")


def _find_operation(kind: RowKind, cells: Mapping[str, str]) -> str:
    # A refund row carries its payment's metadata too, which names the charge: only its own names the refund.
    name = "refund_metadata[operation_id]" if kind is RowKind.REFUND else "payment_metadata[operation_id]"
    return cells.get(name, "").strip()


def _read_customer_amount(cells: Mapping[str, str], gross: int, currency: str) -> tuple[int, str]:
    """What the customer saw; the same as the gross amount unless it was converted."""
    seen = cells.get("customer_facing_currency", "").strip().upper()
    amount = cells.get("customer_facing_amount", "").strip()
    if not seen or not amount or seen == currency:
        return gross, currency
    return to_minor(amount, seen), seen


def _read_time(cells: Mapping[str, str], name: str) -> datetime:
    text = cells.get(f"{name}_utc") or cells.get(name, "")
    try:
        return to_utc(text)
    except ValueError:
        raise ValueError(f"{name} {text!r} is not a time") from None


def _read_date(cells: Mapping[str, str], name: str) -> date | None:
    if not (cells.get(f"{name}_utc") or cells.get(name)):
        return None
    return _read_time(cells, name).date()
