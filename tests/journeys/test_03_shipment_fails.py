"""Story 3: the shipment fails after the capture; all is undone in reverse order."""

from __future__ import annotations

import pytest

from tests.journeys.shop import Shop

pytestmark = pytest.mark.journey


def test_a_refused_shipment_refunds_and_releases_in_reverse_order(shop: Shop) -> None:
    shop.sql("INSERT INTO payments_stockitem (sku, on_hand, reserved) VALUES ('ICE-1', 5, 0)")
    ice = [{"sku": "ICE-1", "quantity": 2, "unit_amount": 6475}]
    refused = shop.place(reference="story-3", shipping={"country": "AQ"}, lines=ice)
    assert (refused.status_code, refused.json()["code"]) == (409, "shipment_refused"), refused.text
    order = shop.get("orders?reference=story-3")["results"][0]
    assert (order["state"], order["payment"]["refunded"]) == ("canceled", 12950)
    intent = shop.intent(order["id"])
    assert (intent["captured"], intent["refunded"], intent["refunds"]) == (12950, 12950, 1)
    assert undone_steps(shop, order["id"]) == ["capture", "authorize", "reserve"]
    reservations = "SELECT state, quantity FROM payments_stockreservation WHERE order_id = %s"
    assert shop.sql(reservations, order["id"]) == [("released", 2)]
    assert shop.sql("SELECT reserved FROM payments_stockitem WHERE sku = 'ICE-1'") == [(0,)]
    shop.assert_books_hold()


def undone_steps(shop: Shop, order_id: str) -> list[str]:
    """The steps of the order's saga in the order in which they were undone."""
    rows = shop.sql(
        "SELECT effect.step FROM payments_sagaeffect effect JOIN payments_sagarun run ON run.id = effect.run_id "
        "WHERE run.order_id = %s AND effect.direction = 'undo' AND effect.outcome = 'ok' ORDER BY effect.id",
        order_id,
    )
    return [step for (step,) in rows]
