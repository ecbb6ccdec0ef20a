"""On-call is told: once for each cause, in the transaction of the trouble, until somebody takes it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.db import transaction

from payments import oncall
from payments.models import OnCallPage, Order, SagaRun
from tests.fakes import FakeGateway
from tests.payments.gateway_faults import sweep, times_out

pytestmark = pytest.mark.django_db


class Receiver(ThreadingHTTPServer):
    """Whoever takes the calls; `status` is its answer."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.status = 204
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/page"


class Answer(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status == 204:
            self.server.taken.append(json.loads(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Nothing to say."""


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.ONCALL_URL = server.url
    yield server
    server.shutdown()
    server.server_close()


def test_the_same_cause_within_the_hour_is_counted_and_sent_once(receiver: Receiver) -> None:
    for _ in range(3):
        oncall.open_page("saga:x", text="stopped", detail={"saga": "sag_1"})
    assert (oncall.send_unsent_pages(), oncall.send_unsent_pages()) == (1, 0)
    [call] = receiver.taken
    assert (call["type"], call["count"], call["text"]) == ("saga", 3, "stopped")
    assert call["url"].endswith("/admin/payments/sagarun/sag_1/change/")


def test_trouble_that_is_rolled_back_calls_nobody(receiver: Receiver) -> None:
    with transaction.atomic():
        oncall.open_page("saga:x", text="stopped", detail={})
        transaction.set_rollback(True)
    assert OnCallPage.objects.count() == 0


def test_a_call_that_nobody_took_is_made_again(receiver: Receiver) -> None:
    receiver.status = 503
    oncall.open_page("saga:x", text="stopped", detail={})
    assert oncall.send_unsent_pages() == 0
    assert "503" in OnCallPage.objects.get().error
    receiver.status = 204
    assert oncall.send_unsent_pages() == 1
    assert len(receiver.taken) == 1


def test_an_address_that_is_none_is_an_error_of_the_page(settings: Any) -> None:
    settings.ONCALL_URL = "file:///etc/passwd"
    oncall.open_page("saga:x", text="stopped", detail={})
    assert oncall.send_unsent_pages() == 0
    assert "http" in OnCallPage.objects.get().error


def test_card_data_in_the_text_is_masked() -> None:
    oncall.open_page("saga:x", text="card 4242 4242 4242 4242 refused", detail={})
    assert "4242 4242 4242 4242" not in OnCallPage.objects.get().text


def test_a_compensation_that_fails_for_good_calls_with_the_money_at_risk(
    place: Callable[..., Order], gateway: FakeGateway, receiver: Receiver
) -> None:
    gateway.faults["refund"] = [times_out] * 30
    place(shipping={"country": "AQ"})
    sweep(12)
    run = SagaRun.objects.get()
    assert run.state == "FAILED_COMPENSATION"

    assert oncall.send_unsent_pages() == 1

    [call] = receiver.taken
    assert (call["saga"], call["step"]) == (run.pk, "capture")
    assert (call["money"]["captured"], call["money"]["refunded"]) == (12950, 0)
    assert call["url"].endswith(f"/{run.pk}/change/")
