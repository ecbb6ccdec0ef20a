"""Stripe's settlement report of a day: asked for, waited for, and read in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from datetime import time as day_time
from typing import Any

import stamina
import stripe

from payments.errors import InvalidRequestError, ReportNotReadyError
from payments.gateways.download import read_chunks, request_file
from payments.gateways.stripe import wire
from payments.gateways.stripe.client import to_doc
from payments.gateways.stripe.errors import error_for_status, translated
from payments.redaction import redact

# What changed the balance on a day, payouts excepted: the nightly run compares it with our own books.
REPORT_TYPE = "balance_change_from_activity.itemized.3"
REPORT_COLUMNS = [
    "balance_transaction_id",
    "source_id",
    "payment_intent_id",
    "charge_id",
    "created_utc",
    "available_on_utc",
    "automatic_payout_id",
    "automatic_payout_effective_at_utc",
    "currency",
    "gross",
    "fee",
    "net",
    "reporting_category",
    "customer_facing_amount",
    "customer_facing_currency",
    "description",
    f"payment_metadata[{wire.ORDER_ID}]",
    f"payment_metadata[{wire.PAYMENT_ID}]",
    f"payment_metadata[{wire.OPERATION_ID}]",
    f"refund_metadata[{wire.OPERATION_ID}]",
]
REPORT_PATIENCE = timedelta(minutes=8)  # below the task's own limit; a run usually takes a minute or two


def run_report(client: stripe.StripeClient, day: date) -> str:
    """The address of the day's finished file. Raises `ReportNotReadyError` until the day is complete."""
    start = datetime.combine(day, day_time(), UTC)
    end = start + timedelta(days=1)
    with translated("settlement_report"):
        kind = to_doc(client.v1.reporting.report_types.retrieve(REPORT_TYPE))
        if kind["data_available_end"] < end.timestamp():
            known = wire.read_time(kind["data_available_end"])
            raise ReportNotReadyError(f"Stripe's data of {day} is not complete: it ends at {known:%F %T} UTC")
        interval = {"interval_start": int(start.timestamp()), "interval_end": int(end.timestamp())}
        params: Any = {"report_type": REPORT_TYPE, "parameters": {**interval, "columns": REPORT_COLUMNS}}
        run = client.v1.reporting.report_runs.create(params)
        return await_report(client, run.id, day)


def await_report(client: stripe.StripeClient, run_id: str, day: date) -> str:
    """The address of the finished file. Raises `ReportNotReadyError` when it takes too long."""
    for attempt in stamina.retry_context(
        on=ReportNotReadyError,
        attempts=None,
        timeout=REPORT_PATIENCE,
        wait_initial=0.1,
        wait_max=15.0,
        wait_jitter=0.1,
    ):
        with attempt:
            run = to_doc(client.v1.reporting.report_runs.retrieve(run_id))
            if run["status"] == "pending":
                raise ReportNotReadyError(f"Stripe's report run {run_id} of {day} is not finished")
    if run["status"] != "succeeded":
        reason = redact(str(run["error"]))
        raise InvalidRequestError(f"Stripe's report run {run_id} of {day} failed: {reason}")
    return str(run["result"]["url"])


def download(
    url: str, *, api_key: str, timeout: tuple[float, float], servers: tuple[str, ...]
) -> Iterator[bytes]:
    """The file in chunks. The key goes to Stripe's own `servers`, and nowhere else that an answer may name."""
    if not url.startswith(tuple(f"{server}/" for server in servers)):
        raise InvalidRequestError("Stripe's report file is not on its own servers: it was not fetched")
    headers = {"Authorization": f"Bearer {api_key}"}
    response = request_file("Stripe", url, headers=headers, timeout=timeout)
    if response.status_code == 200:
        return read_chunks("Stripe", response)
    response.close()
    raise error_for_status(response.status_code, f"Stripe's report file answered {response.status_code}")
