"""Whatever a gateway, a storefront or a person sends us to keep: a card number in it is masked before it is a row."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.utils import timezone

from payments import services
from payments.errors import GatewayTimeoutError, InvalidRequestError, NetworkError
from payments.gateways.base import ChargeStatus, Decline
from payments.models import Order
from payments.oncall import open_page
from tests.factories.webhooks import DeliveryFactory
from tests.fakes import FakeGateway
from webhooks.inbound import _archive, _prepare
from webhooks.outbound import record_answer
from webhooks.transport import Answer
from webhooks.verifiers import Envelope

pytestmark = pytest.mark.django_db
PAN = "4012888888881881"
SPACED = "4012 8888 8888 1881"
TEXT = f"card {PAN} or {SPACED} was refused"


def assert_no_card_number() -> None:
    """In any column of any row of any table, as text or as bytes."""
    for model in apps.get_models():
        with connection.cursor() as cursor:
            cursor.execute(f'SELECT row_to_json(t)::text FROM "{model._meta.db_table}" t')
            rows = [row[0] for row in cursor.fetchall()]
        for row in rows:
            for form in (PAN, SPACED, PAN.encode().hex(), SPACED.encode().hex()):
                assert form not in row, f"{model._meta.label}: {row[:2000]}"


def test_the_judge_sees_a_number_in_text_json_and_bytes(place: Callable[..., Order]) -> None:
    order = place()
    for fields in ({"lines": [{"sku": PAN}]}, {"return_url": SPACED}):
        Order.objects.filter(pk=order.pk).update(**fields)
        with pytest.raises(AssertionError, match=r"payments\.Order"):
            assert_no_card_number()
        Order.objects.filter(pk=order.pk).update(lines=[], return_url="")
    assert_no_card_number()


@pytest.mark.parametrize(
    "error", [NetworkError(TEXT), GatewayTimeoutError(TEXT), InvalidRequestError(TEXT), RuntimeError(TEXT)]
)
@pytest.mark.parametrize("call", ["authorize", "capture"])
def test_what_a_gateway_says_in_an_error(
    place: Callable[..., Order], gateway: FakeGateway, error: Exception, call: str
) -> None:
    def fail(_: Any) -> Any:
        raise error

    gateway.faults[call] = [fail] * 10
    place()
    assert_no_card_number()


def test_what_a_gateway_says_with_a_decline(place: Callable[..., Order], gateway: FakeGateway) -> None:
    original = gateway._authorize
    gateway._authorize = lambda request: replace(  # type: ignore[method-assign]
        original(request),
        status=ChargeStatus.DECLINED,
        decline=Decline("card_declined", "refused", message=TEXT),
        raw={"number": PAN},
    )
    order = place()
    assert order.state == "declined"
    assert_no_card_number()


def test_what_a_gateway_says_in_a_webhook(account: Any) -> None:
    payload = {"id": "evt_1", "data": {"card": {"number": PAN}, "note": TEXT}}
    envelope = Envelope(event_id="evt_1", event_type="x", subject="", payload=payload)
    body = json.dumps(payload).encode()
    headers = {"user-agent": TEXT, "x-request-id": PAN}
    _archive("stripe", _prepare(account.pk, envelope, body, headers, verified_with="s"))
    assert_no_card_number()


def test_what_a_storefront_answers() -> None:
    delivery = DeliveryFactory()
    answer = Answer(status=500, body=TEXT.encode(), error=TEXT, duration_ms=1, retry_after=None)
    delivery.attempts = 1
    record_answer(delivery, answer, started_at=timezone.now())
    assert delivery.tries.count() == 1
    assert_no_card_number()


def test_what_people_and_pages_say(place: Callable[..., Order]) -> None:
    order = place()
    services.add_note(order, text=TEXT, actor="user:ann")
    services.refund_order(order, amount=1, reason="x", note=TEXT, actor="user:ann")
    open_page("trouble", text=TEXT, detail={"error": TEXT})
    assert_no_card_number()
