"""Endpoints are made, changed, removed and brought up to date; what is wrong is named and changes nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from payments.errors import ConflictError, InvalidRequestError
from tests.factories.payments import ApiClientFactory, EventFactory
from tests.factories.webhooks import DeliveryFactory, EndpointFactory
from webhooks import endpoints, outbox
from webhooks.addresses import RefusedAddressError
from webhooks.models import Delivery, DeliveryState, Endpoint

pytestmark = pytest.mark.django_db

LONG_AGO = timezone.now() - timedelta(days=20)


def test_a_new_endpoint_has_what_it_was_given() -> None:
    endpoint, secret = endpoints.create_endpoint(
        ApiClientFactory(),
        "https://shop.example/hooks",
        event_types=["order.paid", "order.declined", "order.paid"],
        description="Shop",
        rate_per_second=5,
        is_ordered=True,
        notify_email="shop@storefront.example",
    )
    endpoint.refresh_from_db()
    assert endpoint.event_types == ["order.declined", "order.paid"]
    assert (endpoint.rate_per_second, endpoint.is_ordered) == (5, True)
    assert endpoint.notify_email == "shop@storefront.example"
    assert endpoint.secrets.get().value == secret


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate_per_second": 0}, "rate_per_second"),
        ({"rate_per_second": True}, "rate_per_second"),
        ({"rate_per_second": "5"}, "rate_per_second"),
        ({"rate_per_second": 10**6}, "rate_per_second"),
        ({"notify_email": "nobody"}, "not an e-mail address"),
        ({"event_types": "order.paid"}, "list of names"),
        ({"event_types": [1]}, "list of names"),
        ({"description": "x" * 201}, "200 characters"),
        ({"client": None}, "no 'client' that could be set"),
        ({"url": "ftp://shop.example/"}, "https://"),
        ({"url": "https://shop.example/" + "x" * 500}, "at most 500"),
    ],
)
def test_a_wrong_change_is_named_and_nothing_is_changed(changes: dict[str, Any], words: str) -> None:
    endpoint = EndpointFactory(description="as it was")
    with pytest.raises(InvalidRequestError, match=words):
        endpoints.update_endpoint(endpoint, actor="user:ann", **{"description": "new", **changes})
    endpoint.refresh_from_db()
    assert endpoint.description == "as it was"


def test_nothing_is_made_of_a_wrong_endpoint() -> None:
    with pytest.raises(InvalidRequestError, match="no endpoint was made"):
        endpoints.create_endpoint(ApiClientFactory(), "https://shop.example/", notify_email="nobody")
    assert not Endpoint.objects.exists()


def test_an_inner_address_is_refused(settings: Any) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = False
    endpoint = EndpointFactory()
    with pytest.raises(RefusedAddressError, match="not a public address"):
        endpoints.update_endpoint(endpoint, actor="user:ann", url="https://169.254.169.254/latest")


def test_a_new_address_begins_with_a_clean_record_and_anything_else_does_not() -> None:
    bad = {"failing_since": timezone.now(), "silences": 3, "paused_until": timezone.now()}
    endpoint = EndpointFactory(**bad)
    changed = endpoints.update_endpoint(endpoint, actor="user:ann", rate_per_second=7, is_ordered=True)
    assert (changed.rate_per_second, changed.is_ordered, changed.silences) == (7, True, 3)
    changed = endpoints.update_endpoint(endpoint, actor="user:ann", url="https://new.example/")
    endpoint.refresh_from_db()
    assert endpoint.url == changed.url == "https://new.example/"
    assert (endpoint.failing_since, endpoint.silences, endpoint.paused_until) == (None, 0, None)


def test_a_new_address_of_a_disabled_endpoint_does_not_forget_what_it_missed() -> None:
    endpoint = EndpointFactory(is_enabled=False, failing_since=LONG_AGO, probe_at=timezone.now())
    endpoints.update_endpoint(endpoint, actor="user:ann", url="https://new.example/")
    endpoint.refresh_from_db()
    assert endpoint.failing_since == LONG_AGO
    assert endpoint.probe_at


def test_a_removed_endpoint_is_on_no_list_gets_nothing_and_stays_so() -> None:
    endpoint = EndpointFactory()
    waiting = DeliveryFactory(endpoint=endpoint)
    endpoints.remove_endpoint(endpoint, actor="user:ann")
    waiting.refresh_from_db()
    assert (waiting.state, waiting.last_error) == (DeliveryState.ABANDONED, "removed by user:ann")
    assert not Endpoint.objects.listed().exists()
    assert Endpoint.objects.get().removed_at
    for again in (
        lambda: endpoints.remove_endpoint(endpoint, actor="user:ann"),
        lambda: endpoints.update_endpoint(endpoint, actor="user:ann", description="x"),
        lambda: endpoints.enable_endpoint(endpoint),
        lambda: endpoints.send_test(endpoint),
        lambda: endpoints.resend_delivery(waiting),
        lambda: endpoints.recover_failed(endpoint, since=LONG_AGO),
        lambda: endpoints.replay_missing(endpoint, since=LONG_AGO),
    ):
        with pytest.raises(ConflictError):
            again()


def test_recovery_takes_what_was_lost_since_then_and_nothing_else() -> None:
    endpoint, other = EndpointFactory(), EndpointFactory()
    since = timezone.now() - timedelta(days=2)
    lost: dict[str, Any] = {"next_try_at": None, "attempts": 10}
    failed = DeliveryFactory(endpoint=endpoint, state=DeliveryState.FAILED, **lost)
    abandoned = DeliveryFactory(endpoint=endpoint, state=DeliveryState.ABANDONED, **lost)
    DeliveryFactory(
        endpoint=endpoint, state=DeliveryState.FAILED, created_at=since - timedelta(hours=1), **lost
    )
    DeliveryFactory(endpoint=endpoint, state=DeliveryState.DELIVERED, **lost)
    DeliveryFactory(endpoint=endpoint, state=DeliveryState.FAILED, event=None, is_probe=True, **lost)
    DeliveryFactory(endpoint=other, state=DeliveryState.FAILED, **lost)
    assert endpoints.recover_failed(endpoint, since=since) == 2
    due = Delivery.objects.filter(state=DeliveryState.PENDING, attempts=0, next_try_at__lte=timezone.now())
    assert set(due) == {failed, abandoned}
    assert endpoints.recover_failed(endpoint, since=since) == 0


def test_recovery_is_bounded_and_goes_on_where_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "MOST_AT_ONCE", 2)
    endpoint = EndpointFactory()
    for _ in range(3):
        DeliveryFactory(endpoint=endpoint, state=DeliveryState.FAILED, next_try_at=None)
    assert [endpoints.recover_failed(endpoint, since=LONG_AGO) for _ in range(3)] == [2, 1, 0]


def test_a_replay_makes_what_was_never_made_also_of_the_time_before_the_endpoint() -> None:
    endpoint = EndpointFactory(event_types=["order.paid"])
    wanted = EventFactory(order__client=endpoint.client, created_at=timezone.now() - timedelta(hours=1))
    EventFactory(order__client=endpoint.client, type="order.declined")
    EventFactory(order__client=endpoint.client, is_public=False)
    EventFactory()
    told = DeliveryFactory(endpoint=endpoint, state=DeliveryState.DELIVERED, next_try_at=None)
    since = timezone.now() - timedelta(hours=2)
    assert endpoints.replay_missing(endpoint, since=since) == 1
    assert set(endpoint.deliveries.values_list("event", flat=True)) == {wanted.pk, told.event_id}
    assert endpoints.replay_missing(endpoint, since=since) == 0


def test_a_replay_does_not_reach_behind_its_beginning_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST_AT_ONCE", 2)
    endpoint = EndpointFactory()
    for _ in range(3):
        EventFactory(order__client=endpoint.client)
    EventFactory(order__client=endpoint.client, created_at=timezone.now() - timedelta(days=3))
    since = timezone.now() - timedelta(days=1)
    assert [endpoints.replay_missing(endpoint, since=since) for _ in range(3)] == [2, 1, 0]


def test_enabling_forgets_what_counted_against_it() -> None:
    endpoint = EndpointFactory(
        is_enabled=False, silences=4, failing_since=LONG_AGO, probe_at=timezone.now(), disabled_reason="x"
    )
    endpoints.enable_endpoint(endpoint)
    endpoint.refresh_from_db()
    assert (endpoint.silences, endpoint.failing_since, endpoint.probe_at) == (0, None, None)
    with pytest.raises(ConflictError):
        endpoints.enable_endpoint(endpoint)


def test_a_client_has_so_many_endpoints_and_no_more(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "MOST_ENDPOINTS", 2)
    client = ApiClientFactory()
    removed, _ = (EndpointFactory(client=client) for _ in range(2))
    EndpointFactory()
    with pytest.raises(ConflictError, match="remove one first; no endpoint was made"):
        endpoints.create_endpoint(client, "https://shop.example/")
    endpoints.remove_endpoint(removed, actor="user:ann")
    endpoints.create_endpoint(client, "https://shop.example/")
    assert Endpoint.objects.listed().filter(client=client).count() == 2


def test_only_so_many_tests_are_on_their_way(db: None) -> None:
    endpoint = EndpointFactory()
    tests = [endpoints.send_test(endpoint) for _ in range(endpoints.MOST_TESTS)]
    with pytest.raises(ConflictError, match="nothing was sent"):
        endpoints.send_test(endpoint)
    Delivery.objects.filter(pk=tests[0].pk).update(state=DeliveryState.DELIVERED)
    endpoints.send_test(endpoint)
