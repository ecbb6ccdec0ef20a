"""Holds that are about to end: warned of once, then canceled or captured while they still can be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from payments import services
from payments.models import OnCallPage, Order, Payment
from payments.proof import prove_ledger
from payments.screening import Decision, Stage
from tests.fakes import FakeGateway, ScriptedScreener
from tests.payments.gateway_faults import refuses

pytestmark = pytest.mark.django_db
Place = Callable[..., Order]


def end_in(order: Order, **delta: float) -> None:
    Payment.objects.filter(order=order).update(authorization_expires_at=timezone.now() + timedelta(**delta))


def events(order: Order) -> list[str]:
    return list(order.events.order_by("sequence").values_list("type", flat=True))


@pytest.fixture
def held(place: Place) -> Order:
    return place(capture="manual")


def test_a_hold_with_time_left_is_left_alone(held: Order) -> None:
    end_in(held, hours=49)
    assert services.watch_holds() == 0


def test_its_end_is_announced_once(held: Order) -> None:
    end_in(held, hours=47)
    assert [services.watch_holds(), services.watch_holds()] == [1, 0]
    assert events(held).count("payment.authorization_expiring") == 1


def test_before_it_ends_it_is_canceled(held: Order, gateway: FakeGateway) -> None:
    end_in(held, hours=1)
    services.watch_holds()
    held.refresh_from_db()
    assert (held.state, held.cancel_reason) == ("canceled", "authorization_expiring")
    assert gateway.orphans() == set()
    assert prove_ledger() == []


def test_or_captured_where_the_shop_wants_that(held: Order, gateway: FakeGateway, settings: Any) -> None:
    settings.HOLD_ACTION = "capture"
    end_in(held, hours=1)
    services.watch_holds()
    held.refresh_from_db()
    assert held.state == "paid"
    assert gateway.money_kept() == 12950


def test_the_rest_of_a_partial_capture_is_released(held: Order, gateway: FakeGateway) -> None:
    services.capture_order(held, amount=5000, final=False, actor="api:shop")
    end_in(held, hours=1)
    services.watch_holds()
    payment = Payment.objects.get(order=held)
    assert (payment.state, payment.captured, payment.capturable) == ("succeeded", 5000, 0)


def test_an_order_in_review_has_a_deadline_of_its_own(
    place: Place, screener: ScriptedScreener, gateway: FakeGateway
) -> None:
    screener.decisions[Stage.AFTER_AUTHORIZATION] = Decision.REVIEW
    order = place()
    end_in(order, hours=1)
    services.watch_holds()
    order.refresh_from_db()
    assert order.state == "review"
    assert gateway.voided == set()


def test_a_hold_that_cannot_be_released_calls_a_person(held: Order, gateway: FakeGateway) -> None:
    end_in(held, hours=1)
    gateway.faults["void"] = [refuses]
    services.watch_holds()
    assert OnCallPage.objects.exists() or events(held)[-1] == "payment.operation_failed"
