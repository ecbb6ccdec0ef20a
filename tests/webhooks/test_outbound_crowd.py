"""A thousand events for five storefronts, four of them ill: the healthy one waits for nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from payments.ids import new_id
from payments.models import Event
from tests.factories.payments import ApiClientFactory, OrderFactory
from tests.factories.webhooks import EndpointFactory
from tests.journeys.waiting import wait_until
from tests.webhooks.storefronts import Storefront, opened
from webhooks import outbound
from webhooks.endpoint_health import PATIENCE
from webhooks.models import Delivery, DeliveryAttempt, DeliveryState, Endpoint
from webhooks.outbox import enqueue_deliveries

pytestmark = [pytest.mark.concurrency, pytest.mark.django_db(transaction=True)]

EVENTS = 1000
EVENT_BYTES = 8_000  # five thousand of them at once would be 40 MB at least
MEMORY_MARGIN = 24 * 1024 * 1024
IN_FLIGHT = 4
ASKED_SECONDS = 3600
LATE_SECONDS = 60  # between an answer and its being written down, on a busy machine


@pytest.fixture
def crowd(settings: Any) -> Iterator[dict[str, Storefront]]:
    settings.WEBHOOKS_IN_FLIGHT = IN_FLIGHT
    settings.WEBHOOK_TIMEOUT_SECONDS = 8.0
    storefronts = {
        "healthy": Storefront(),
        "hanging": Storefront(None),
        "broken": Storefront(500),
        "gone": Storefront(410),
        "busy": Storefront(429, {"Retry-After": str(ASKED_SECONDS)}),
    }
    with ExitStack() as stack:
        for storefront in storefronts.values():
            stack.enter_context(opened(storefront))
        yield storefronts


def make_events(client: Any) -> None:
    order = OrderFactory(client=client, event_sequence=EVENTS)
    now = timezone.now()
    filler = "x" * EVENT_BYTES
    Event.objects.bulk_create(
        Event(
            id=new_id("evt"),
            client=client,
            order=order,
            type="order.paid",
            sequence=number,
            data={"filler": filler},
            created_at=now,
        )
        for number in range(1, EVENTS + 1)
    )


class Memory(threading.Thread):
    """Watches how far this process grows, in bytes, while it lives."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_size = self.read()
        self.most = self.start_size
        self._over = threading.Event()

    def read(self) -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def run(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, self.read())

    def stop(self) -> int:
        self._over.set()
        self.join()
        return self.most - self.start_size


def in_background(work: Callable[[], Any]) -> threading.Thread:
    def with_connection() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=with_connection)
    thread.start()
    return thread


def test_the_healthy_storefront_has_everything_and_the_others_their_schedule(
    crowd: dict[str, Storefront],
) -> None:
    client = ApiClientFactory()
    rows = {
        name: EndpointFactory(client=client, url=shop.url, event_types=["order.paid"])
        for name, shop in crowd.items()
    }
    make_events(client)
    assert enqueue_deliveries() == len(crowd) * EVENTS
    memory = Memory()
    memory.start()
    worker = in_background(lambda: outbound.deliver_events(seconds=600))
    wait_until(
        lambda: len(crowd["healthy"].ids) == EVENTS, seconds=300, what=lambda: len(crowd["healthy"].ids)
    )
    paused = Endpoint.objects.filter(pk=rows["hanging"].pk, paused_until__gt=timezone.now())
    assert crowd["hanging"].under_way == IN_FLIGHT or paused.exists()
    worker.join()
    grown = memory.stop()

    expect_healthy(rows["healthy"], crowd["healthy"])
    expect_hanging(rows["hanging"], crowd["hanging"])
    expect_broken(rows["broken"])
    expect_gone(rows["gone"], crowd["gone"])
    expect_busy(rows["busy"], crowd["busy"])
    for shop in crowd.values():
        assert shop.most_under_way <= IN_FLIGHT
    assert grown < MEMORY_MARGIN, f"grown by {grown / 1024 / 1024:.1f} MiB"


def expect_healthy(endpoint: Endpoint, shop: Storefront) -> None:
    assert len(set(shop.ids)) == len(shop.ids) == EVENTS
    assert endpoint.deliveries.filter(state=DeliveryState.DELIVERED, attempts=1).count() == EVENTS


def expect_hanging(endpoint: Endpoint, shop: Storefront) -> None:
    """Its patience is used up by the first few, the others wait for the end of the pause with all their tries."""
    endpoint.refresh_from_db()
    assert endpoint.is_enabled
    assert endpoint.silences >= PATIENCE
    assert endpoint.paused_until
    assert PATIENCE <= len(shop.ids) <= 2 * IN_FLIGHT
    assert endpoint.deliveries.filter(state=DeliveryState.PENDING).count() == EVENTS
    assert endpoint.deliveries.filter(attempts=0).count() >= EVENTS - len(shop.ids)


def expect_broken(endpoint: Endpoint) -> None:
    expect_schedule(endpoint)
    assert endpoint.deliveries.filter(state=DeliveryState.PENDING, attempts__gte=1).count() == EVENTS


def expect_schedule(endpoint: Endpoint) -> None:
    """Each next try, made or planned, lies within the jitter of its wait, counted from the answer before it."""
    late = timedelta(seconds=LATE_SECONDS)
    for delivery in endpoint.deliveries.filter(attempts__gte=1).prefetch_related("tries"):
        tries = sorted(delivery.tries.all(), key=lambda attempt: attempt.started_at)
        assert len(tries) == delivery.attempts
        assert delivery.next_try_at
        answered = answered_at(tries[-1])
        planned = timedelta(seconds=outbound.RETRY_SECONDS[delivery.attempts - 1])
        assert answered + 0.8 * planned <= delivery.next_try_at <= answered + 1.2 * planned + late
        for earlier, later, seconds in zip(tries, tries[1:], outbound.RETRY_SECONDS, strict=False):
            assert later.started_at >= answered_at(earlier) + timedelta(seconds=0.8 * seconds)


def expect_gone(endpoint: Endpoint, shop: Storefront) -> None:
    """One answer is enough; what was under way beside it may still have arrived."""
    endpoint.refresh_from_db()
    assert (endpoint.is_enabled, endpoint.disabled_reason) == (False, "the endpoint answered 410 Gone")
    assert 1 <= len(shop.ids) <= IN_FLIGHT
    assert endpoint.deliveries.filter(state=DeliveryState.PENDING).count() == 0


def expect_busy(endpoint: Endpoint, shop: Storefront) -> None:
    """It asked for time: it is left alone as a whole, and only what was answered has lost a try."""
    endpoint.refresh_from_db()
    tries = DeliveryAttempt.objects.filter(delivery__endpoint=endpoint)
    asked = timedelta(seconds=ASKED_SECONDS)
    assert 1 <= len(shop.ids) == tries.count() <= IN_FLIGHT
    assert endpoint.paused_until
    assert endpoint.paused_until >= max(map(answered_at, tries)) + asked
    for delivery in Delivery.objects.filter(endpoint=endpoint, attempts=1):
        assert delivery.next_try_at
        assert delivery.next_try_at >= answered_at(delivery.tries.get()) + asked
    assert endpoint.deliveries.filter(attempts=0, next_try_at__lte=timezone.now()).count() == EVENTS - len(
        shop.ids
    )


def answered_at(attempt: DeliveryAttempt) -> Any:
    """Rounded down: durations are kept in whole milliseconds."""
    return attempt.started_at + timedelta(milliseconds=attempt.duration_ms - 1)
