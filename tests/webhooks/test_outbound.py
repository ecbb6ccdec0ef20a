"""Events reach the storefronts: signed, retried, never twice at once, and never inside our own network."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone
from standardwebhooks import Webhook

from payments.ids import lowest_id
from payments.models import Event
from tests.factories.payments import ApiClientFactory, EventFactory, OrderFactory
from tests.factories.webhooks import DeliveryFactory, EndpointFactory
from webhooks import endpoints, outbound, outbox, transport
from webhooks.models import Delivery, DeliveryAttempt, DeliveryState, Endpoint, OutboxPosition
from webhooks.transport import Answer, post


@dataclass
class Receiver:
    """A storefront that listens: answers what it is told to and keeps what it gets."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"thanks"
    hang: threading.Event | None = None
    url: str = ""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.WEBHOOK_ALLOW_PRIVATE = True
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            if state.hang:
                state.hang.wait(120)
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/hooks?shop=1"
    yield state
    if state.hang:
        state.hang.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def endpoint(receiver: Receiver, db: None) -> Endpoint:
    endpoint: Endpoint = EndpointFactory(url=receiver.url)
    return endpoint


@pytest.fixture
def delivery(endpoint: Endpoint) -> Delivery:
    delivery: Delivery = DeliveryFactory(endpoint=endpoint)
    return delivery


def secret_of(endpoint: Endpoint) -> str:
    return str(endpoint.secrets.get().value)


def make_due(delivery: Delivery) -> None:
    Delivery.objects.filter(pk=delivery.pk).update(next_try_at=timezone.now())


# --- from events to deliveries ------------------------------------------------------------------------------


def test_a_public_event_goes_to_each_endpoint_of_its_client_that_wants_it(db: None) -> None:
    client = ApiClientFactory()
    everything = EndpointFactory(client=client)
    refunds = EndpointFactory(client=client, event_types=["refund.created", "order.paid"])
    EndpointFactory(client=client, event_types=["order.declined"])
    EndpointFactory(client=client, is_enabled=False)
    EndpointFactory()
    event = EventFactory(order__client=client, type="order.paid")
    EventFactory(order__client=client, is_public=False)
    assert outbox.enqueue_deliveries() == 2
    assert set(Delivery.objects.values_list("endpoint", "event")) == {
        (everything.pk, event.pk),
        (refunds.pk, event.pk),
    }
    assert outbox.enqueue_deliveries() == 0


def test_an_endpoint_hears_nothing_of_the_time_before_it(db: None) -> None:
    event = EventFactory(created_at=timezone.now() - timedelta(seconds=1))
    EndpointFactory(client=event.client)
    assert outbox.enqueue_deliveries() == 0


def test_more_events_than_one_batch_are_all_told(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "BATCH", 3)
    endpoint = EndpointFactory()
    order = OrderFactory(client=endpoint.client)
    for _ in range(7):
        EventFactory(order=order)
    assert outbox.enqueue_deliveries() == 7


def test_the_position_follows_behind_and_never_goes_back(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox.enqueue_deliveries()
    position = OutboxPosition.objects.get().settled_until
    assert lowest_id("evt", timezone.now() - timedelta(hours=9)) < position < lowest_id("evt", timezone.now())
    monkeypatch.setattr(type(Event.objects), "read_horizon", lambda _: "evt_0")
    outbox.enqueue_deliveries()
    assert OutboxPosition.objects.get().settled_until == position


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_an_event_whose_transaction_commits_late_is_not_missed() -> None:
    endpoint = EndpointFactory()
    order = OrderFactory(client=endpoint.client)
    written, told = threading.Event(), threading.Event()

    def write_slowly() -> None:
        try:
            with transaction.atomic():
                EventFactory(order=order, id=lowest_id("evt", timezone.now()))
                written.set()
                told.wait(120)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(write_slowly)
        assert written.wait(120)
        horizon = Event.objects.read_horizon()
        assert outbox.enqueue_deliveries() == 0
        told.set()
        slow.result()
    assert horizon < Event.objects.get().pk
    assert outbox.enqueue_deliveries() == 1


# --- posting ------------------------------------------------------------------------------------------------


def test_the_official_library_verifies_what_arrives(delivery: Delivery, receiver: Receiver) -> None:
    assert outbound.deliver_due() == 1
    [(headers, body)] = receiver.got
    event = delivery.event
    assert event
    assert Webhook(secret_of(delivery.endpoint)).verify(body, headers) == {
        "type": event.type,
        "timestamp": event.created_at.isoformat().replace("+00:00", "Z"),
        "data": {**event.data, "sequence": event.sequence},
    }
    assert headers["webhook-id"] == event.pk
    assert headers["host"] in receiver.url
    delivery.refresh_from_db()
    assert (delivery.state, delivery.last_status, delivery.attempts) == (DeliveryState.DELIVERED, 200, 1)
    assert delivery.delivered_at
    attempt = DeliveryAttempt.objects.get()
    assert (attempt.status, attempt.answer, attempt.error) == (200, "thanks", "")


def test_a_delivered_event_is_not_posted_again(delivery: Delivery, receiver: Receiver) -> None:
    outbound.deliver_due()
    assert outbound.deliver_due() == 0
    assert len(receiver.got) == 1


@pytest.mark.parametrize("status", [300, 302, 400, 404, 500, 503])
def test_any_other_answer_is_a_failure_that_is_tried_again(
    delivery: Delivery, receiver: Receiver, status: int
) -> None:
    receiver.status = status
    receiver.headers = {"Location": receiver.url} if status == 302 else {}
    began = timezone.now()
    outbound.deliver_due()
    delivery.refresh_from_db()
    assert (delivery.state, delivery.last_status) == (DeliveryState.PENDING, status)
    assert delivery.next_try_at
    shortest, longest = timedelta(seconds=4), timedelta(seconds=6)
    assert began + shortest <= delivery.next_try_at <= timezone.now() + longest
    assert len(receiver.got) == 1
    assert Endpoint.objects.get().failing_since


def test_every_try_has_the_same_id_and_body(delivery: Delivery, receiver: Receiver) -> None:
    receiver.status = 500
    outbound.deliver_due()
    make_due(delivery)
    receiver.status = 200
    outbound.deliver_due()
    (first, first_body), (second, second_body) = receiver.got
    assert first["webhook-id"] == second["webhook-id"]
    assert first_body == second_body
    assert [first["webhook-attempt"], second["webhook-attempt"]] == ["1", "2"]
    Webhook(secret_of(delivery.endpoint)).verify(second_body, second)
    assert Endpoint.objects.get().failing_since is None


def test_after_the_tenth_failure_the_delivery_has_failed(delivery: Delivery, receiver: Receiver) -> None:
    receiver.status = 500
    for _ in range(10):
        make_due(delivery)
        outbound.deliver_due()
    delivery.refresh_from_db()
    assert (delivery.state, delivery.next_try_at, delivery.tries.count()) == (DeliveryState.FAILED, None, 10)


def test_the_waits_follow_the_schedule_with_a_fifth_of_jitter() -> None:
    for failures, planned in enumerate((5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400), start=1):
        waits = [outbound.choose_wait(failures) for _ in range(50)]
        assert all(0.8 * planned <= wait <= 1.2 * planned for wait in waits)
        assert len(set(waits)) > 1


def test_an_endpoint_may_ask_for_a_longer_wait_up_to_a_day(delivery: Delivery, receiver: Receiver) -> None:
    receiver.status, receiver.headers = 429, {"Retry-After": "900"}
    asked, began = timedelta(seconds=900), timezone.now()
    outbound.deliver_due()
    delivery.refresh_from_db()
    assert delivery.next_try_at
    assert began + asked <= delivery.next_try_at <= timezone.now() + asked
    assert outbound.choose_wait(1, retry_after=10**9) == 86400
    assert outbound.choose_wait(2, retry_after=1) >= 240


def test_gone_disables_the_endpoint_and_gives_its_deliveries_up(
    delivery: Delivery, receiver: Receiver
) -> None:
    waiting = DeliveryFactory(endpoint=delivery.endpoint, next_try_at=timezone.now() + timedelta(hours=1))
    receiver.status = 410
    outbound.deliver_due()
    endpoint = Endpoint.objects.get()
    delivery.refresh_from_db()
    waiting.refresh_from_db()
    assert (endpoint.is_enabled, endpoint.disabled_reason) == (False, "the endpoint answered 410 Gone")
    assert (delivery.state, waiting.state) == (DeliveryState.FAILED, DeliveryState.ABANDONED)
    notice = Event.objects.get(type="webhook_endpoint.disabled")
    assert notice.data["endpoint"]["id"] == endpoint.pk
    assert notice.order == delivery.event.order  # type: ignore[union-attr]


def test_five_days_of_failures_disable_the_endpoint_and_tell_the_others(
    delivery: Delivery, receiver: Receiver
) -> None:
    other = EndpointFactory(client=delivery.endpoint.client)
    Endpoint.objects.filter(pk=delivery.endpoint_id).update(
        failing_since=timezone.now() - timedelta(days=5, minutes=1)
    )
    receiver.status = 500
    outbound.deliver_due()
    assert not Endpoint.objects.get(pk=delivery.endpoint_id).is_enabled
    outbox.enqueue_deliveries()
    assert Delivery.objects.filter(endpoint=other, event__type="webhook_endpoint.disabled").exists()


def test_four_days_of_failures_do_not(delivery: Delivery, receiver: Receiver) -> None:
    Endpoint.objects.update(failing_since=timezone.now() - timedelta(days=4))
    receiver.status = 500
    outbound.deliver_due()
    assert Endpoint.objects.get().is_enabled


def test_an_endpoint_that_hangs_is_given_up_in_time(receiver: Receiver) -> None:
    receiver.hang = threading.Event()
    answer = post(receiver.url, body=b"{}", headers={}, allow_private=True, seconds=0.3)
    assert (answer.status, answer.error) == (None, "no answer within 0.3 s")


def test_an_answer_that_drips_ends_with_the_time_and_counts_by_its_status(settings: Any) -> None:
    stop = threading.Event()

    class Dripping(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            while not stop.wait(0.1):
                try:
                    self.wfile.write(b".")
                except OSError:
                    return

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Dripping)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        answer = post(url, body=b"{}", headers={}, allow_private=True, seconds=3)
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
    assert answer.status == 200
    assert len(answer.body) < 100


def test_only_the_first_8_kib_of_an_answer_are_kept(delivery: Delivery, receiver: Receiver) -> None:
    receiver.body = b"x" * 1_000_000
    outbound.deliver_due()
    assert len(DeliveryAttempt.objects.get().answer) == transport.MAX_ANSWER_BYTES


def test_card_data_in_an_answer_is_masked(delivery: Delivery, receiver: Receiver) -> None:
    receiver.body = b"you sent 4242 4242 4242 4242 \xff\x00"
    outbound.deliver_due()
    assert "4242 4242 4242 4242" not in DeliveryAttempt.objects.get().answer


def test_nobody_listening_is_a_failure_with_a_reason(db: None, settings: Any) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = True
    delivery = DeliveryFactory(endpoint__url="http://127.0.0.1:1/")
    outbound.deliver_due()
    delivery.refresh_from_db()
    assert delivery.last_status is None
    assert "refused" in delivery.last_error.lower()


def test_a_private_address_is_never_connected_to(
    delivery: Delivery, receiver: Receiver, settings: Any
) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = False
    Endpoint.objects.update(url="https://127.0.0.1/")
    outbound.deliver_due()
    delivery.refresh_from_db()
    assert "not a public address" in delivery.last_error
    assert receiver.got == []


def test_the_connection_goes_to_the_address_that_was_judged(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int, **_: Any) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    monkeypatch.setattr(transport, "resolve_host", resolve)
    url = receiver.url.replace("127.0.0.1", "hooks.example")
    assert post(url, body=b"{}", headers={}, allow_private=True).status == 200
    assert asked == ["hooks.example"]
    assert receiver.got[0][0]["host"].startswith("hooks.example:")


def test_a_claimed_delivery_is_left_alone_until_its_lease_ends(delivery: Delivery) -> None:
    [stale] = outbound._claim(10)
    assert outbound._claim(10) == []
    Delivery.objects.update(leased_until=timezone.now())
    [fresh] = outbound._claim(10)
    outbound.record_answer(stale, Answer(200), started_at=timezone.now())
    delivery.refresh_from_db()
    assert (delivery.state, delivery.tries.count()) == (DeliveryState.PENDING, 0)
    outbound.record_answer(fresh, Answer(200), started_at=timezone.now())
    delivery.refresh_from_db()
    assert delivery.state == DeliveryState.DELIVERED


def test_no_transaction_is_open_while_an_endpoint_is_asked(
    delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = len(connection.savepoint_ids)

    def send(message: Any) -> Answer:
        assert len(connection.savepoint_ids) == depth
        return Answer(200)

    monkeypatch.setattr(outbound, "_send", send)
    assert outbound.deliver_due() == 1


def test_one_call_delivers_everything_that_is_due(receiver: Receiver, endpoint: Endpoint) -> None:
    order = OrderFactory(client=endpoint.client)
    for _ in range(5):
        EventFactory(order=order)
    assert outbound.deliver_events() == 5
    sequences = sorted(json.loads(body)["data"]["sequence"] for _, body in receiver.got)
    assert sequences == [1, 2, 3, 4, 5]


def test_an_event_that_is_too_large_is_told_without_its_data(endpoint: Endpoint) -> None:
    event = EventFactory(order__client=endpoint.client, data={"text": "x" * 30_000})
    body = outbound.make_body(DeliveryFactory(endpoint=endpoint, event=event))
    assert len(body) < 20_000
    assert json.loads(body)["data"] == {"order": {"id": event.order_id}, "sequence": 1, "truncated": True}


# --- endpoints ----------------------------------------------------------------------------------------------


def test_while_a_secret_rotates_both_verify_and_a_third_ends_the_first(
    delivery: Delivery, receiver: Receiver
) -> None:
    first = secret_of(delivery.endpoint)
    second = endpoints.rotate_secret(delivery.endpoint)
    outbound.deliver_due()
    [(headers, body)] = receiver.got
    for secret in (first, second):
        Webhook(secret).verify(body, headers)
    third = endpoints.rotate_secret(delivery.endpoint)
    assert [secret.value for secret in delivery.endpoint.secrets.valid()] == [third, second]


def test_the_old_secret_ends_after_a_day(endpoint: Endpoint) -> None:
    endpoints.rotate_secret(endpoint)
    old = endpoint.secrets.last()
    assert old
    assert old.expires_at
    assert timedelta(hours=23) < old.expires_at - timezone.now() <= timedelta(hours=24)
    assert endpoint.secrets.valid().count() == 2


def test_secrets_are_not_readable_in_the_database(endpoint: Endpoint) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT value FROM webhooks_endpointsecret")
        assert secret_of(endpoint) not in cursor.fetchone()[0]


def test_a_test_message_is_signed_and_delivered(endpoint: Endpoint, receiver: Receiver) -> None:
    delivery = endpoints.send_test(endpoint)
    outbound.deliver_due()
    [(headers, body)] = receiver.got
    message = Webhook(secret_of(endpoint)).verify(body, headers)
    assert (message["type"], message["data"]) == ("endpoint.test", {"endpoint": endpoint.pk})
    assert headers["webhook-id"] == delivery.pk


def test_a_failed_delivery_can_be_resent(delivery: Delivery, receiver: Receiver) -> None:
    Delivery.objects.update(state=DeliveryState.FAILED, attempts=10, next_try_at=None)
    endpoints.resend_delivery(delivery)
    outbound.deliver_due()
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts) == (DeliveryState.DELIVERED, 1)
