"""Builds both sides of a reconciliation: captures and refunds of ours, and the gateway's report about them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import count
from typing import Any

from payments.kinds import OperationKind
from payments.models import GatewayAccount, Operation, OperationState
from payments.money import Money
from reconciliation.models import Run
from tests.factories.payments import AttemptFactory, OperationFactory, OrderFactory, PaymentFactory

COLUMNS = (
    "balance_transaction_id",
    "created_utc",
    "available_on_utc",
    "currency",
    "gross",
    "fee",
    "net",
    "reporting_category",
    "source_id",
    "description",
    "customer_facing_amount",
    "customer_facing_currency",
    "payment_intent_id",
    "charge_id",
    "automatic_payout_id",
    "payment_metadata[payment_id]",
    "payment_metadata[operation_id]",
)
DAY = date(2026, 3, 10)
_numbers = count(1)


def at_noon(day: date) -> datetime:
    return datetime.combine(day, time(12), tzinfo=UTC)


def make_capture(
    account: GatewayAccount,
    *,
    at: datetime,
    amount: int = 2500,
    currency: str = "EUR",
    reference: str = "",
    state: OperationState = OperationState.SUCCEEDED,
) -> Operation:
    """A captured order of ours, with its payment and attempt at the gateway."""
    number = next(_numbers)
    payment = PaymentFactory.create(
        account=account,
        order=OrderFactory.create(amount=amount, currency=currency, created_at=at),
        is_captured=True,
        gateway_reference=reference or f"pi_{number}",
    )
    attempt = AttemptFactory.create(payment=payment, gateway_reference=payment.gateway_reference)
    return OperationFactory.create(
        attempt=attempt, kind=OperationKind.CAPTURE, state=state, created_at=at, resolved_at=at
    )


def make_refund(
    capture: Operation,
    *,
    at: datetime,
    amount: int = 1000,
    state: OperationState = OperationState.SUCCEEDED,
) -> Operation:
    """A refund of ours; its reference at the gateway is `re_<number>`."""
    return OperationFactory.create(
        attempt=capture.attempt,
        kind=OperationKind.REFUND,
        state=state,
        amount=amount,
        currency=capture.currency,
        gateway_reference=f"re_{next(_numbers)}",
        created_at=at,
        resolved_at=at,
    )


@dataclass
class Report:
    """A Stripe report under construction; every method adds rows, `build` makes the bytes."""

    day: date
    rows: list[dict[str, str]] = field(default_factory=list)
    columns: tuple[str, ...] = COLUMNS

    def add(
        self, category: str, gross: int, currency: str = "EUR", fee: int = 0, **cells: str
    ) -> dict[str, str]:
        """One row, in minor units."""
        row = {
            "balance_transaction_id": f"txn_{next(_numbers)}",
            "created_utc": f"{at_noon(self.day):%Y-%m-%d %H:%M:%S}",
            "available_on_utc": f"{self.day + timedelta(days=2)} 00:00:00",
            "currency": currency.lower(),
            "gross": str(Money(gross, currency).amount),
            "fee": str(Money(fee, currency).amount),
            "net": str(Money(gross - fee, currency).amount),
            "reporting_category": category,
            **cells,
        }
        self.rows.append(row)
        return row

    def add_charge(self, capture: Operation, *, amount: int | None = None, **cells: str) -> dict[str, str]:
        reference = capture.attempt.gateway_reference
        cells = {"payment_intent_id": reference, "source_id": f"ch_of_{reference}", **cells}
        gross = capture.amount if amount is None else amount
        return self.add("charge", gross, capture.currency, fee=30, **cells)

    def add_refund(self, refund: Operation, *, amount: int | None = None, **cells: str) -> dict[str, str]:
        cells = {
            "payment_intent_id": refund.attempt.gateway_reference,
            "source_id": refund.gateway_reference,
            **cells,
        }
        gross = -(refund.amount if amount is None else amount)
        return self.add("refund", gross, refund.currency, fee=0, **cells)

    def build(self) -> bytes:
        return write_csv(self.columns, self.rows)

    def chunks(self) -> list[bytes]:
        """In pieces that respect no line."""
        data = self.build()
        return [data[start : start + 97] for start in range(0, len(data), 97)]


RunDay = Callable[[Report], Run]


def write_csv(columns: Iterable[str], rows: Iterable[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()
