"""The settlement reports have Stripe's columns and prove each payout."""

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import requests
import stripe

from tests.payments.sandbox.shop import Shop

COLUMNS = [
    "balance_transaction_id",
    "source_id",
    "payment_intent_id",
    "created_utc",
    "automatic_payout_id",
    "automatic_payout_effective_at_utc",
    "currency",
    "gross",
    "fee",
    "net",
    "reporting_category",
    "customer_facing_amount",
    "trace_id",
    "payment_metadata[order_id]",
]
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
HISTORY = {"headers": {"X-Sandbox-Now": str(int(NOON.timestamp()))}}


def report(
    shop: Shop,
    kind: str = "payout_reconciliation.itemized.5",
    columns: list[str] = COLUMNS,
    **parameters: Any,
) -> list[dict[str, str]]:
    """The rows of a report, over the day after NOON's unless told otherwise."""
    midnight = NOON.replace(hour=0)
    if "payout" not in parameters:
        parameters.setdefault("interval_start", int((midnight + timedelta(days=1)).timestamp()))
        parameters.setdefault("interval_end", int((midnight + timedelta(days=2)).timestamp()))
    parameters["columns"] = columns
    runs: Any = shop.client.v1.reporting.report_runs
    run = runs.create({"report_type": kind, "parameters": parameters})
    assert (run.status, run.result) == ("pending", None)
    run = runs.retrieve(run.id)
    assert run.status == "succeeded"
    answer = requests.get(run.result.url, headers={"Authorization": "Bearer sk_test_x"}, timeout=60)
    return list(csv.DictReader(io.StringIO(answer.text)))


def make_activity(shop: Shop) -> list[dict[str, Any]]:
    intents = shop.client.v1.payment_intents
    shop.pay("pm_card_de", 10_000, metadata={"order_id": "o-1"}, options=HISTORY)
    held = shop.hold("pm_card_visa", 5_000, metadata={"order_id": "o-2"}, options=HISTORY)
    intents.capture(held.id, {"amount_to_capture": 3_000}, HISTORY)
    paid = shop.pay("pm_card_fr", 2_501, metadata={"order_id": "o-3"}, options=HISTORY)
    shop.client.v1.refunds.create({"payment_intent": paid.id, "amount": 501}, HISTORY)
    shop.pay("pm_card_jp", 1_200, currency="jpy", options=HISTORY)
    return list(shop.control("/_payouts", {"date": "2026-03-11"})["payouts"])


def test_the_rows_of_a_payout_add_up_to_the_payout(shop: Shop) -> None:
    payouts = make_activity(shop)
    rows = report(shop)
    for payout in payouts:
        places = 0 if payout["currency"] == "jpy" else 2
        mine = [row for row in rows if row["automatic_payout_id"] == payout["id"]]
        total = sum((Decimal(row["net"]) for row in mine), Decimal(0))
        assert total.scaleb(places) == payout["amount"]
        assert {row["automatic_payout_effective_at_utc"] for row in mine} == {"2026-03-11 00:00:00"}
        by_id = report(shop, "payout_reconciliation.by_id.itemized.4", payout=payout["id"])
        assert by_id == mine
    assert [payout["currency"] for payout in payouts] == ["eur", "jpy"]


def test_fees_are_those_of_the_card_rounded_half_up(shop: Shop) -> None:
    make_activity(shop)
    fees = {row["gross"]: row["fee"] for row in report(shop, currency="eur")}
    assert fees["100.00"] == "1.65"  # 1.4 % of 10000 + 25
    assert fees["25.01"] == "0.60"  # 35.014 + 25
    assert {row["fee"] for row in report(shop, currency="jpy")} == {"60"}  # 34.8 + 25


def test_a_partial_capture_is_two_rows_that_add_up_to_what_was_captured(shop: Shop) -> None:
    make_activity(shop)
    rows = [row for row in report(shop) if row["payment_metadata[order_id]"] == "o-2"]
    assert [row["reporting_category"] for row in rows] == ["charge", "partial_capture_reversal"]
    assert sum(Decimal(row["gross"]) for row in rows) == Decimal("30.00")
    assert sum(Decimal(row["fee"]) for row in rows) == Decimal("1.12")  # 2.9 % of 3000 + 25


def test_a_payout_holds_each_transaction_once(shop: Shop) -> None:
    make_activity(shop)
    assert shop.control("/_payouts", {"date": "2026-03-12"})["payouts"] == []
    shop.pay("pm_card_de", 700, options=HISTORY)
    (later,) = shop.control("/_payouts", {"date": "2026-03-12"})["payouts"]
    assert later["amount"] == 700 - 35
    assert shop.client.v1.balance.retrieve().available[0].amount == 0
    transactions = shop.client.v1.balance_transactions.list({"payout": later["id"]}).data
    assert sorted(one.reporting_category for one in transactions) == ["charge", "payout"]
    assert shop.client.v1.payouts.retrieve(later["id"]).status == "paid"


def test_a_currency_in_debt_waits_for_its_next_income(shop: Shop) -> None:
    paid = shop.pay(amount=1000, options=HISTORY)
    shop.control("/_payouts", {"date": "2026-03-11"})
    shop.client.v1.refunds.create({"payment_intent": paid.id}, HISTORY)
    assert shop.control("/_payouts", {"date": "2026-03-12"})["payouts"] == []
    shop.pay(amount=3000, options=HISTORY)
    (payout,) = shop.control("/_payouts", {"date": "2026-03-13"})["payouts"]
    assert payout["amount"] == 3000 - 112 - 1000


def test_activity_lists_every_transaction_but_the_payouts(shop: Shop) -> None:
    make_activity(shop)
    interval = {"interval_start": int(NOON.timestamp()), "interval_end": int(NOON.timestamp()) + 1}
    columns = [column for column in COLUMNS if column != "trace_id"]
    rows = report(shop, "balance_change_from_activity.itemized.3", columns, **interval)
    assert len(rows) == 6
    kept = {**interval, "interval_start": interval["interval_start"] - 9}
    kept["interval_end"] = int(NOON.timestamp())
    assert report(shop, "balance_change_from_activity.itemized.3", columns, **kept) == []


def test_a_row_can_be_dropped_altered_or_invented(shop: Shop) -> None:
    make_activity(shop)
    right = report(shop, currency="eur")
    for body in (
        {"action": "drop", "match": {"order_id": "o-1"}},
        {"action": "alter", "match": {"order_id": "o-3"}, "amount": -100},
        {"action": "add", "amount": 4242, "match": {"order_id": "o-9"}},
    ):
        shop.control("/_report_faults", body)
    spoiled = report(shop, currency="eur")
    orders = [row["payment_metadata[order_id]"] for row in spoiled]
    assert len(spoiled) == len(right)
    assert "o-1" not in orders
    assert spoiled[orders.index("o-3")]["gross"] == "24.01"
    assert (spoiled[-1]["gross"], spoiled[-1]["payment_metadata[order_id]"]) == ("42.42", "o-9")
    assert report(shop, currency="eur") == right


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"columns": ["colour"]}, "parameters[columns]"),
        ({"interval_end": 4_000_000_000}, "parameters[interval_end]"),
        ({"interval_start": 1_800_000_000}, "parameters[interval_start]"),
        ({"payout": "po_nobody", "kind": "payout_reconciliation.by_id.itemized.4"}, "parameters[payout]"),
    ],
)
def test_a_run_that_cannot_be_made_is_refused(shop: Shop, change: dict[str, Any], param: str) -> None:
    make_activity(shop)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        report(shop, **change)
    assert caught.value.param == param


def test_the_report_type_tells_how_far_its_data_reaches(shop: Shop) -> None:
    kind = shop.client.v1.reporting.report_types.retrieve("payout_reconciliation.itemized.5")
    assert kind.data_available_start <= kind.data_available_end


def test_a_fee_of_its_own_is_a_row_without_a_payment(shop: Shop) -> None:
    shop.pay("pm_card_de", 1000)
    shop.control("/_fees", {"amount": 50, "currency": "eur", "description": "Network costs"})
    (payout,) = shop.control("/_payouts")["payouts"]
    assert payout["amount"] == 1000 - 39 - 50
    rows = report(shop, "payout_reconciliation.by_id.itemized.4", payout=payout["id"])
    (fee,) = [row for row in rows if row["reporting_category"] == "fee"]
    assert (fee["gross"], fee["fee"], fee["net"], fee["payment_intent_id"]) == ("-0.50", "0.00", "-0.50", "")


def test_ugx_is_written_in_two_digits_as_it_is_charged(shop: Shop) -> None:
    """UGX has no minor unit, but kept two digits on the wire (docs.stripe.com/currencies)."""
    shop.pay("pm_card_visa", 50_000, currency="ugx", options=HISTORY)
    shop.control("/_payouts", {"date": "2026-03-11"})
    (row,) = report(shop)
    assert row["gross"] == "500.00"
