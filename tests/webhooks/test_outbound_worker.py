"""What is taken when: a few for each endpoint, in order, at a rate, by one worker or several, dead or alive."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from payments.models import Event
from tests.factories.payments import ApiClientFactory, EventFactory, OrderFactory
from tests.factories.webhooks import DeliveryFactory, EndpointFactory
from tests.payments.threads import run_in_threads
from tests.webhooks.storefronts import Storefront, opened
from webhooks import endpoint_health as health
from webhooks import outbound, tasks
from webhooks.models import Delivery, DeliveryAttempt, DeliveryState, Endpoint
from webhooks.transport import Answer

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _few_in_flight(settings: Any) -> None:
    settings.WEBHOOKS_IN_FLIGHT = 3


@pytest.fixture
def storefront() -> Iterator[Storefront]:
    with opened(Storefront()) as shop:
        yield shop


def make_deliveries(endpoint: Endpoint, number: int) -> list[Delivery]:
    """Due now, and their events are in the order of the list."""
    order = OrderFactory(client=endpoint.client)
    now = timezone.now()
    return [
        DeliveryFactory(
            endpoint=endpoint,
            event=EventFactory(order=order, id=f"evt_{position:026d}"),
            next_try_at=now - timedelta(seconds=position),
        )
        for position in range(number)
    ]


def claim(limit: int = 100) -> list[Delivery]:
    return outbound._claim(limit)


def settle(delivery: Delivery, answer: Answer) -> None:
    outbound.record_answer(delivery, answer, started_at=timezone.now())


# --- fairness -----------------------------------------------------------------------------------------------


def test_an_endpoint_has_no_more_under_way_than_it_may_whoever_asks() -> None:
    endpoint = EndpointFactory()
    make_deliveries(endpoint, 5)
    taken = claim()
    assert len(taken) == 3
    assert claim() == []
    settle(taken[0], Answer(200))
    assert len(claim()) == 1


def test_where_threads_are_few_each_endpoint_gets_one_before_any_gets_two() -> None:
    crowded, quiet = EndpointFactory(), EndpointFactory()
    make_deliveries(crowded, 3)
    DeliveryFactory(endpoint=quiet)
    assert {delivery.endpoint for delivery in claim(2)} == {crowded, quiet}


def test_an_endpoint_that_was_silent_last_comes_last() -> None:
    silent, well = EndpointFactory(silences=1), EndpointFactory()
    DeliveryFactory(endpoint=silent, next_try_at=timezone.now() - timedelta(hours=1))
    DeliveryFactory(endpoint=well)
    assert [delivery.endpoint for delivery in claim(1)] == [well]


def test_what_is_paused_is_not_taken_and_loses_no_try() -> None:
    endpoint = EndpointFactory(paused_until=timezone.now() + timedelta(minutes=5))
    [delivery] = make_deliveries(endpoint, 1)
    assert claim() == []
    delivery.refresh_from_db()
    assert (delivery.attempts, delivery.state) == (0, DeliveryState.PENDING)
    Endpoint.objects.update(paused_until=timezone.now())
    assert claim() == [delivery]


def test_after_too_many_silences_one_try_decides() -> None:
    endpoint = EndpointFactory(silences=health.PATIENCE, paused_until=timezone.now())
    make_deliveries(endpoint, 3)
    assert len(claim()) == 1


@pytest.mark.parametrize(
    "fields", [{"is_enabled": False}, {"is_enabled": False, "removed_at": timezone.now()}]
)
def test_what_is_disabled_or_removed_gets_nothing(fields: dict[str, Any]) -> None:
    make_deliveries(EndpointFactory(**fields), 1)
    assert claim() == []


# --- order and rate -----------------------------------------------------------------------------------------


def test_in_order_means_one_at_a_time_by_the_ids_of_the_events() -> None:
    first, second, third = make_deliveries(EndpointFactory(is_ordered=True), 3)
    for expected in (first, second, third):
        assert claim() == [expected]
        assert claim() == []
        settle(Delivery.objects.get(pk=expected.pk), Answer(200))
    assert claim() == []


def test_in_order_one_that_fails_holds_up_those_behind_it_until_it_is_given_up() -> None:
    first, second = make_deliveries(EndpointFactory(is_ordered=True), 2)
    for _ in range(len(outbound.RETRY_SECONDS) + 1):
        assert claim() == [first]
        settle(Delivery.objects.get(pk=first.pk), Answer(500))
        still = Delivery.objects.get(pk=first.pk)
        if still.state == DeliveryState.PENDING:
            assert claim() == []
        Delivery.objects.filter(pk=first.pk, state=DeliveryState.PENDING).update(next_try_at=timezone.now())
    assert Delivery.objects.get(pk=first.pk).state == DeliveryState.FAILED
    assert claim() == [second]


def test_in_order_the_storefront_hears_the_second_only_after_the_first_was_taken(
    storefront: Storefront,
) -> None:
    deliveries = make_deliveries(EndpointFactory(url=storefront.url, is_ordered=True), 4)
    storefront.status = 500
    outbound.deliver_due()
    assert storefront.ids == [deliveries[0].event_id]
    storefront.status = 200
    Delivery.objects.filter(pk=deliveries[0].pk).update(next_try_at=timezone.now())
    outbound.deliver_due()
    assert storefront.ids[1:] == [delivery.event_id for delivery in deliveries]
    assert storefront.most_under_way == 1


def test_a_rate_allows_one_start_per_its_part_of_a_second() -> None:
    endpoint = EndpointFactory(rate_per_second=2)
    make_deliveries(endpoint, 3)
    began = timezone.now()
    assert len(claim()) == 1
    endpoint.refresh_from_db()
    assert endpoint.paced_until
    assert began <= endpoint.paced_until - timedelta(seconds=0.5) <= timezone.now()
    Endpoint.objects.update(paced_until=timezone.now() + timedelta(hours=1))
    assert claim() == []
    Endpoint.objects.update(paced_until=timezone.now())
    assert len(claim()) == 1


def test_one_run_keeps_to_the_rate_and_leaves_nothing(storefront: Storefront) -> None:
    endpoint = EndpointFactory(url=storefront.url, rate_per_second=20)
    make_deliveries(endpoint, 6)
    assert outbound.deliver_due() == 6
    starts = sorted(DeliveryAttempt.objects.values_list("started_at", flat=True))
    # The claim is what is paced; a start is noted some milliseconds after it.
    assert starts[-1] - starts[0] >= timedelta(seconds=5 / 20 - 0.04)


# --- several workers, and dead ones ---------------------------------------------------------------------------


def test_what_a_dead_worker_held_is_due_again_when_its_lease_ends() -> None:
    [delivery] = make_deliveries(EndpointFactory(), 1)
    began = timezone.now()
    [held] = claim()  # and its worker is killed
    assert claim() == []
    assert held.leased_until
    planned = timedelta(seconds=15 + outbound.LEASE_MARGIN_SECONDS)
    assert began <= held.leased_until - planned <= timezone.now()
    Delivery.objects.update(leased_until=timezone.now())
    [again] = claim()
    assert (again, again.epoch, again.next_try_at) == (delivery, held.epoch + 1, held.next_try_at)
    settle(held, Answer(200))
    assert not DeliveryAttempt.objects.exists()


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_several_workers_deliver_each_event_once_and_keep_to_the_limit(storefront: Storefront) -> None:
    endpoint = EndpointFactory(url=storefront.url)
    deliveries = make_deliveries(endpoint, 60)
    posted = run_in_threads(lambda _: outbound.deliver_due(), 3)
    assert sum(posted) == 60
    assert sorted(storefront.ids) == sorted(delivery.event_id or "" for delivery in deliveries)
    assert storefront.most_under_way <= 3
    assert Delivery.objects.filter(state=DeliveryState.DELIVERED, leased_until=None).count() == 60


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_several_workers_keep_one_endpoints_order_and_anothers_rate() -> None:
    with opened(Storefront()) as ordered, opened(Storefront()) as paced:
        in_order = make_deliveries(EndpointFactory(url=ordered.url, is_ordered=True), 10)
        slow = EndpointFactory(url=paced.url, rate_per_second=20)
        for _ in range(8):
            DeliveryFactory(endpoint=slow)
        run_in_threads(lambda _: outbound.deliver_due(), 2)
    assert ordered.ids == [delivery.event_id for delivery in in_order]
    starts = sorted(
        DeliveryAttempt.objects.filter(delivery__endpoint=slow).values_list("started_at", flat=True)
    )
    assert len(starts) == 8
    assert starts[-1] - starts[0] >= timedelta(seconds=7 / 20 - 0.04)


def test_there_are_only_so_many_loops_but_each_call_fans_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "LANES", 0)
    event = EventFactory(order__client=EndpointFactory().client)
    assert outbound.deliver_events() == 0
    assert Delivery.objects.get().event == event


def test_a_lane_is_free_again_after_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    with outbound._lane() as is_free:
        assert is_free
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2")
        assert cursor.fetchone() == (0,)


def test_a_task_that_posted_something_rings_for_what_came_meanwhile(
    storefront: Storefront, rings: list[str]
) -> None:
    make_deliveries(EndpointFactory(url=storefront.url), 1)
    assert tasks.deliver_due() == 1
    assert rings == ["outbound"]
    assert tasks.deliver_due() == 0
    assert rings == ["outbound"]


# --- trouble of our own -------------------------------------------------------------------------------------


def test_a_message_that_cannot_be_written_fails_alone(
    storefront: Storefront, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = make_deliveries(EndpointFactory(url=storefront.url), 2)
    make_body = outbound.make_body

    def fail_for_one(delivery: Delivery) -> bytes:
        if delivery == bad:
            raise ValueError("no such thing as JSON")
        return make_body(delivery)

    monkeypatch.setattr(outbound, "make_body", fail_for_one)
    assert outbound.deliver_due() == 1
    bad.refresh_from_db()
    good.refresh_from_db()
    assert (bad.state, good.state) == (DeliveryState.PENDING, DeliveryState.DELIVERED)
    assert "no such thing as JSON" in bad.last_error


def test_an_answer_that_cannot_be_written_down_does_not_lose_the_others(
    storefront: Storefront, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = make_deliveries(EndpointFactory(url=storefront.url), 2)
    settle_one = outbound._settle

    def fail_for_one(delivery: Delivery, *args: Any) -> Any:
        if delivery == bad:
            raise RuntimeError("something broke")
        return settle_one(delivery, *args)

    monkeypatch.setattr(outbound, "_settle", fail_for_one)
    outbound.deliver_due()
    bad.refresh_from_db()
    good.refresh_from_db()
    assert (bad.state, good.state) == (DeliveryState.PENDING, DeliveryState.DELIVERED)
    assert bad.leased_until


def test_a_claim_that_waited_too_long_does_not_lose_what_is_under_way(
    storefront: Storefront, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_deliveries(EndpointFactory(url=storefront.url), 1)
    claims = iter([outbound._claim(1)])

    def stumble(limit: int) -> list[Delivery]:
        taken = next(claims, None)
        if taken is None:
            raise OperationalError("canceling statement due to lock timeout")
        return taken

    monkeypatch.setattr(outbound, "_claim", stumble)
    assert outbound.deliver_due() == 1
    assert Delivery.objects.get().state == DeliveryState.DELIVERED


def test_what_was_sent_is_kept_with_the_try(storefront: Storefront) -> None:
    [delivery] = make_deliveries(EndpointFactory(url=storefront.url), 1)
    outbound.deliver_due()
    kept = DeliveryAttempt.objects.get().headers
    assert kept["webhook-id"] == delivery.event_id
    assert kept["webhook-event-type"] == Event.objects.get().type
    assert kept["webhook-attempt"] == "1"
    assert kept["content-type"] == "application/json"
    assert kept["webhook-signature"].startswith("v1,")
    assert kept["webhook-timestamp"].isdecimal()


def test_an_event_is_told_while_the_loop_runs(
    storefront: Storefront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "FAN_OUT_SECONDS", 0.0)
    endpoint = EndpointFactory(client=ApiClientFactory(), url=storefront.url)
    make_deliveries(endpoint, 1)
    Delivery.objects.all().delete()
    DeliveryFactory(endpoint=endpoint, event=None)
    assert outbound.deliver_due() == 2


def test_who_has_something_under_way_comes_after_who_has_nothing() -> None:
    """Slow answers and an old backlog do not keep the threads that become free for themselves."""
    greedy, other = EndpointFactory(), EndpointFactory()
    make_deliveries(greedy, 3)
    claim(1)
    fresh = DeliveryFactory(endpoint=other, next_try_at=timezone.now())
    Delivery.objects.filter(endpoint=greedy).update(next_try_at=timezone.now() - timedelta(hours=1))
    assert [delivery.pk for delivery in claim(1)] == [fresh.pk]


# --- poison -------------------------------------------------------------------------------------------------


def test_an_answer_that_no_column_holds_is_a_failure_like_any_other() -> None:
    [delivery] = make_deliveries(EndpointFactory(), 1)
    [taken] = claim()
    settle(taken, Answer(None, error="BadStatusLine: HT\0TP"))
    delivery.refresh_from_db()
    assert (delivery.last_error, delivery.leased_until) == ("BadStatusLine: HTTP", None)
    assert delivery.tries.get().error == "BadStatusLine: HTTP"


def test_one_delivery_that_was_taken_too_often_to_count_does_not_stop_the_others() -> None:
    worn, fresh = (DeliveryFactory(next_try_at=timezone.now()) for _ in range(2))
    Delivery.objects.filter(pk=worn.pk).update(attempts=32767)
    assert {delivery.pk for delivery in claim()} == {worn.pk, fresh.pk}


def test_a_post_that_breaks_costs_no_other_its_answer(
    storefront: Storefront, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = DeliveryFactory(next_try_at=timezone.now(), endpoint__url="http://127.0.0.1:1/broken")
    sound = DeliveryFactory(next_try_at=timezone.now(), endpoint__url=storefront.url)
    post = outbound.post

    def stumble(url: str, **more: Any) -> Answer:
        if url.endswith("broken"):
            raise AttributeError("nobody thought of this")
        return post(url, **more)

    monkeypatch.setattr(outbound, "post", stumble)
    assert outbound.deliver_due() == 2
    broken.refresh_from_db()
    sound.refresh_from_db()
    assert (broken.state, sound.state) == (DeliveryState.PENDING, DeliveryState.DELIVERED)
