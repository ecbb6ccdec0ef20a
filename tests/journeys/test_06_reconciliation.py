"""Story 6: reconciliation finds what is missing on either side, pages for one, and closes the other by itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.journeys.shop import Shop
from tests.journeys.waiting import wait_until

pytestmark = pytest.mark.journey

YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).replace(hour=12, minute=0, second=0, microsecond=0)


@contextmanager
def yesterday_at_the_gateway(shop: Shop) -> Iterator[None]:
    """What the gateway does in this block, it books for yesterday noon."""
    gap = int((datetime.now(UTC) - YESTERDAY).total_seconds())
    shop.control("/_clock", {"advance_seconds": -gap})
    try:
        yield
    finally:
        shop.control("/_clock", {"advance_seconds": gap})


@pytest.fixture
def pager() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of on-call, and what was sent to it."""
    pages: list[dict[str, Any]] = []

    class Pager(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            pages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pager)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/page", pages
    server.shutdown()
    server.server_close()
    thread.join()


def test_reconciliation_finds_pages_and_closes(shop: Shop, pager: tuple[str, list[dict[str, Any]]]) -> None:
    address, pages = pager
    shop.sql("UPDATE payments_gatewayaccount SET settlement_lag_days = 0")
    with yesterday_at_the_gateway(shop):
        missing_there, other_amount, fine = (shop.pay(reference=f"story-6-{number}") for number in range(3))
        missing_here = capture_behind_our_back(shop)
    move_to_yesterday(shop, missing_there, other_amount, fine)
    spoil_report(shop, missing_there, other_amount)

    done = run_of_yesterday(shop, address)
    assert done.returncode == 3, done.stdout + done.stderr
    assert find_open(shop, missing_here, missing_there, other_amount, fine) == {
        missing_here["id"]: "missing_internal",
        missing_there["id"]: "missing_gateway",
        other_amount["id"]: "amount_mismatch",
    }
    assert [(page["count"], page["amounts"]) for page in pages] == [(1, {"EUR": 12950})]

    shop.manage(
        "replay_missed_webhooks", "--account", "stripe/default", "--reference", reference_of(missing_here)
    )
    shop.await_state(missing_here["id"], "paid", "processing")
    shop.control("/_webhooks/resume")
    wait_until(lambda: why_closed(shop, missing_here) == [("late_webhook",)], what="not closed by itself")
    assert find_open(shop, missing_here, missing_there, other_amount, fine) == {
        missing_there["id"]: "missing_gateway",
        other_amount["id"]: "amount_mismatch",
    }
    assert len(pages) == 1
    shop.assert_books_hold()


def reference_of(order: dict[str, Any]) -> str:
    return str(order["payment"]["gateway_reference"])


def capture_behind_our_back(shop: Shop) -> dict[str, Any]:
    """An order that is captured in the gateway's dashboard while no webhook comes through."""
    response = shop.place(reference="story-6-dashboard", capture="manual")
    assert response.status_code == 201, response.text
    order: dict[str, Any] = response.json()
    shop.control("/_webhooks/pause")
    shop.call_gateway(f"payment_intents/{reference_of(order)}/capture")
    return order


def move_to_yesterday(shop: Shop, *orders: dict[str, Any]) -> None:
    """Our books hold these for done yesterday, as the gateway's do."""
    for order in orders:
        shop.sql(
            "UPDATE payments_operation SET created_at = %s, resolved_at = %s WHERE payment_id = %s",
            YESTERDAY,
            YESTERDAY,
            order["payment"]["id"],
        )


def spoil_report(shop: Shop, missing: dict[str, Any], other_amount: dict[str, Any]) -> None:
    shop.control("/_report_faults", {"action": "drop", "payment_intent": reference_of(missing)})
    altered = {"action": "alter", "payment_intent": reference_of(other_amount), "amount": -500}
    shop.control("/_report_faults", altered)


def run_of_yesterday(shop: Shop, oncall: str) -> Any:
    shop.env["ONCALL_URL"] = oncall
    try:
        return shop.manage(
            "reconcile", "--account", "stripe/default", "--date", YESTERDAY.date().isoformat(), check=False
        )
    finally:
        del shop.env["ONCALL_URL"]


def why_closed(shop: Shop, order: dict[str, Any]) -> list[tuple[Any, ...]]:
    closed = "SELECT closed_cause FROM reconciliation_discrepancy WHERE order_id = %s AND state = 'closed'"
    return shop.sql(closed, order["id"])


def find_open(shop: Shop, *orders: dict[str, Any]) -> dict[str, str]:
    rows = shop.sql(
        "SELECT order_id, kind FROM reconciliation_discrepancy WHERE state = 'open' AND order_id = ANY(%s)",
        [order["id"] for order in orders],
    )
    return dict(rows)
