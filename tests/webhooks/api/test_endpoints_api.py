"""A storefront keeps its endpoints over the API: its own alone, checked, and with a secret that is shown once."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from payments import ids
from payments.models import IdempotencyKey
from payments.models.client import Scope
from tests.factories import ApiKeyFactory, EventFactory, OrderFactory
from tests.factories.webhooks import EndpointFactory
from tests.storefront import Storefront, assert_problem
from tests.webhooks.api.conftest import make_url, since_long_ago
from webhooks.models import Delivery, DeliveryState, Endpoint, EndpointSecret

URL = "https://shop.example/countinghouse/events"
WISHES = {
    "url": URL,
    "event_types": ["refund.succeeded", "order.paid"],
    "description": "The shop's own",
    "rate_per_second": 5,
    "is_ordered": True,
    "notify_email": "ops@shop.example",
}
ROUTES = [
    ("get", "webhook_endpoints"),
    ("post", "webhook_endpoints"),
    *((method, "webhook_endpoints/{whe}") for method in ("get", "patch", "delete")),
    *(
        ("post", f"webhook_endpoints/{{whe}}/{action}")
        for action in ("test", "enable", "disable", "recover", "replay_missing", "rotate")
    ),
    ("get", "webhook_endpoints/{whe}/deliveries"),
    ("get", "webhook_endpoints/{whe}/deliveries/{dlv}"),
    ("post", "webhook_endpoints/{whe}/deliveries/{dlv}/resend"),
]


def call(shop: Storefront, method: str, path: str, body: Any = None, **names: str) -> Any:
    address = path.format(**names)
    return getattr(shop, method)(address, *([body] if method in ("post", "patch") else []))


# --- who gets in ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_call_wants_the_scope_and_reading_does_too(db: None, method: str, path: str) -> None:
    names = {"whe": ids.new_id("whe"), "dlv": ids.new_id("dlv")}
    assert_problem(call(Storefront(None), method, path, {}, **names), 401, "unauthorized")
    others = [scope for scope in Scope.values if scope != Scope.WEBHOOKS_WRITE]
    lesser = Storefront(ApiKeyFactory.create(scopes=others))
    assert_problem(call(lesser, method, path, {}, **names), 403, "insufficient_scope")


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if "{" in route[1]])
def test_another_clients_objects_are_not_there(
    shop: Storefront, other_shop: Storefront, failed: Delivery, method: str, path: str
) -> None:
    theirs = {"whe": failed.endpoint_id, "dlv": failed.pk}
    body = {"description": "mine now"} if method == "patch" else since_long_ago()
    body = {} if path.endswith(("enable", "disable", "rotate", "test", "resend")) else body
    before = Endpoint.objects.values().get()
    own = EndpointFactory.create(client=other_shop.client).pk
    stranger = EndpointFactory.create(client=other_shop.client).pk
    assert_problem(call(other_shop, method, path, body, **theirs), 404, "not_found")
    if "{dlv}" in path:  # under an endpoint of one's own neither
        assert_problem(call(other_shop, method, path, body, **theirs | {"whe": own}), 404, "not_found")
    assert_problem(call(other_shop, method, path, body, whe="whe_1", dlv="dlv_1"), 404, "not_found")
    assert Endpoint.objects.values().exclude(pk__in=(own, stranger)).get() == before
    assert shop.get("webhook_endpoints").json()["results"][0]["id"] == failed.endpoint_id


def test_the_list_has_ones_own_newest_first(shop: Storefront, other_shop: Storefront) -> None:
    made = [EndpointFactory.create(client=shop.client).pk for _ in range(3)]
    EndpointFactory.create(client=other_shop.client)
    page = shop.get("webhook_endpoints?page_size=2").json()
    assert [row["id"] for row in page["results"]] == made[:0:-1]
    assert page["next"]
    assert_problem(shop.get("webhook_endpoints?colour=red"), 400, "invalid_request")


# --- making one -----------------------------------------------------------------------------------------------


def test_a_new_endpoint_is_as_asked_for_and_its_secret_works(shop: Storefront) -> None:
    answer = shop.post("webhook_endpoints", WISHES)
    assert answer.status_code == 201, answer.content
    made = answer.json()
    assert answer["Location"] == f"/api/v1/webhook_endpoints/{made['id']}"
    assert answer["Cache-Control"] == "no-store"
    assert "RateLimit" in answer
    secret = made.pop("secret")
    assert made.pop("previous_secret_expires_at") is None
    assert {name: made[name] for name in WISHES} == WISHES | {"event_types": sorted(WISHES["event_types"])}
    assert made["is_enabled"] is True
    assert secret == Endpoint.objects.get(pk=made["id"]).secrets.get().value
    assert shop.get(f"webhook_endpoints/{made['id']}").json() == made


def test_the_same_key_makes_one_endpoint_and_tells_its_secret_once(shop: Storefront) -> None:
    first = shop.post("webhook_endpoints", WISHES, idempotency_key="make-endpoint-once")
    again = shop.post("webhook_endpoints", WISHES, idempotency_key="make-endpoint-once")
    assert (again.status_code, again["Idempotent-Replayed"]) == (201, "true")
    secret = first.json()["secret"]
    assert again.json() == first.json() | {"secret": None}
    assert Endpoint.objects.count() == EndpointSecret.objects.count() == 1
    row = IdempotencyKey.objects.get()
    assert secret not in bytes(row.answer or b"").decode()
    other = shop.post("webhook_endpoints", {"url": URL}, idempotency_key="make-endpoint-once")
    assert_problem(other, 422, "idempotency_key_reused")


def test_a_request_that_died_after_making_it_is_finished_without_a_second(
    shop: Storefront, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the process is gone")

    with monkeypatch.context() as patch:
        patch.setattr("payments.idempotency.complete", die)
        shop.http.raise_request_exception = False
        assert shop.post("webhook_endpoints", WISHES, idempotency_key="make-endpoint-once").status_code == 500
    IdempotencyKey.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    again = shop.post("webhook_endpoints", WISHES, idempotency_key="make-endpoint-once")
    assert (again.status_code, again.json()["secret"]) == (201, None)
    assert Endpoint.objects.get().pk == again.json()["id"]


def test_without_a_key_nothing_is_made(shop: Storefront) -> None:
    assert_problem(shop.post("webhook_endpoints", WISHES, idempotency_key=""), 400, "idempotency_key_missing")
    assert not Endpoint.objects.exists()


BAD = [
    ({"colour": "red"}, "/colour"),
    ({"is_enabled": False}, "/is_enabled"),
    ({"secret": "whsec_mine"}, "/secret"),
    ({"url": None}, "/url"),
    ({"url": "https://shop.example/" + "x" * 500}, "/url"),
    ({"description": "x" * 201}, "/description"),
    ({"rate_per_second": 0}, "/rate_per_second"),
    ({"rate_per_second": -1}, "/rate_per_second"),
    ({"rate_per_second": 1001}, "/rate_per_second"),
    ({"rate_per_second": "5"}, "/rate_per_second"),
    ({"is_ordered": "yes"}, "/is_ordered"),
    ({"notify_email": "nobody"}, "/notify_email"),
    ({"event_types": "order.paid"}, "/event_types"),
    ({"event_types": [1]}, "/event_types/0"),
    ({"event_types": ["order.paid", "order.payed"]}, "/event_types/1"),
    ({"event_types": ["endpoint.test"]}, "/event_types/0"),
    ({"event_types": ["*"]}, "/event_types/0"),
]


@pytest.mark.parametrize(("wrong", "pointer"), BAD)
def test_bad_input_is_named_and_changes_nothing(
    shop: Storefront, endpoint: Endpoint, wrong: dict[str, Any], pointer: str
) -> None:
    before = Endpoint.objects.values().get()
    for answer in (
        shop.post("webhook_endpoints", {"url": URL} | wrong),
        shop.patch(make_url(endpoint), wrong),
    ):
        problem = assert_problem(answer, 400, "invalid_request")
        assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert Endpoint.objects.values().get() == before


def test_an_unknown_event_type_is_answered_with_the_nearest(shop: Storefront) -> None:
    problem = assert_problem(
        shop.post("webhook_endpoints", {"url": URL, "event_types": ["refund.suceeded"]}),
        400,
        "invalid_request",
    )
    assert "'refund.succeeded'" in problem["detail"]


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/",
        "https://shop.example:8443/",
        "https://127.0.0.1/",
        "https://10.1.2.3/hooks",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://user:pass@shop.example/",
        "https://shop.example/a b",
        "https://shop.example/#hook",
        "https://sh\u00f6p.example/",
        "ftp://shop.example/",
        "//shop.example/",
        "shop",
    ],
)
def test_an_address_that_is_not_public_https_is_refused(
    shop: Storefront, endpoint: Endpoint, settings: Any, url: str
) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = False
    before = Endpoint.objects.values().get()
    problem = assert_problem(shop.post("webhook_endpoints", {"url": url}), 400, "refused_address")
    assert problem["detail"].endswith("no endpoint was made")
    assert [error["pointer"] for error in problem["errors"]] == ["/url"]
    assert_problem(shop.patch(make_url(endpoint), {"url": url}), 400, "refused_address")
    assert Endpoint.objects.values().get() == before


# --- changing it ----------------------------------------------------------------------------------------------


def test_what_is_given_is_changed_and_the_rest_stays(shop: Storefront, endpoint: Endpoint) -> None:
    changed = shop.patch(make_url(endpoint), {"rate_per_second": 9, "event_types": ["order.paid"]}).json()
    assert (changed["rate_per_second"], changed["event_types"]) == (9, ["order.paid"])
    assert changed["url"] == endpoint.url
    cleared = shop.patch(make_url(endpoint), {"rate_per_second": None, "event_types": []}).json()
    assert (cleared["rate_per_second"], cleared["event_types"]) == (None, [])
    assert shop.patch(make_url(endpoint), {}).json() == cleared


def test_a_removed_endpoint_is_gone_for_the_client_and_gets_nothing(
    shop: Storefront, failed: Delivery
) -> None:
    endpoint = failed.endpoint
    assert shop.delete(make_url(endpoint)).status_code == 204
    assert_problem(shop.delete(make_url(endpoint)), 404, "not_found")
    assert_problem(shop.get(make_url(endpoint, "/deliveries")), 404, "not_found")
    assert shop.get("webhook_endpoints").json()["results"] == []
    endpoint.refresh_from_db()
    assert endpoint.removed_at
    assert not endpoint.is_enabled


def test_a_rotated_secret_is_told_once_and_the_one_before_signs_for_a_day(
    shop: Storefront, endpoint: Endpoint
) -> None:
    before = endpoint.secrets.get().value
    first = shop.post(make_url(endpoint, "/rotate"), idempotency_key="rotate-in-march-2026")
    again = shop.post(make_url(endpoint, "/rotate"), idempotency_key="rotate-in-march-2026")
    told = first.json()
    assert (first.status_code, again.json()) == (200, told | {"secret": None})
    assert [secret.value for secret in endpoint.secrets.valid()] == [told["secret"], before]
    ends = endpoint.secrets.get(expires_at__isnull=False).expires_at
    assert ends is not None
    assert told["previous_secret_expires_at"] == ends.isoformat().replace("+00:00", "Z")
    assert timedelta(hours=23) < ends - timezone.now() <= timedelta(hours=24)
    assert told["secret"].encode() not in bytes(IdempotencyKey.objects.get().answer or b"")


def test_it_is_switched_off_and_on_once_each(shop: Storefront, endpoint: Endpoint) -> None:
    off = shop.post(make_url(endpoint, "/disable")).json()
    assert (off["is_enabled"], off["disabled_reason"]) == (False, f"switched off by api:{shop.client.name}")
    assert_problem(shop.post(make_url(endpoint, "/disable")), 409, "conflict")
    for action in ("test", "recover", "replay_missing"):
        body = {} if action == "test" else since_long_ago()
        assert_problem(shop.post(make_url(endpoint, f"/{action}"), body), 409, "conflict")
    assert not Delivery.objects.exists()
    assert shop.post(make_url(endpoint, "/enable")).json()["is_enabled"] is True
    assert_problem(shop.post(make_url(endpoint, "/enable")), 409, "conflict")


@pytest.mark.parametrize("action", ["test", "enable", "disable", "rotate"])
def test_a_body_that_nobody_asked_for_is_refused(shop: Storefront, endpoint: Endpoint, action: str) -> None:
    answer = shop.post(make_url(endpoint, f"/{action}"), {"force": True})
    assert_problem(answer, 400, "invalid_request")
    assert endpoint.secrets.count() == 1


# --- catching up ----------------------------------------------------------------------------------------------


def test_a_test_message_is_on_its_way(shop: Storefront, endpoint: Endpoint, rings: list[str]) -> None:
    answer = shop.post(make_url(endpoint, "/test"))
    assert (answer.status_code, answer.json()["type"], answer.json()["event"]) == (201, "endpoint.test", None)
    assert shop.get(make_url(endpoint, f"/deliveries/{answer.json()['id']}")).status_code == 200


def test_what_failed_since_is_recovered_and_nothing_else(
    shop: Storefront, failed: Delivery, other_shop: Storefront
) -> None:
    endpoint = failed.endpoint
    later = (timezone.now() + timedelta(days=-1)).isoformat()
    Delivery.objects.filter(pk=failed.pk).update(created_at=timezone.now() - timedelta(days=2))
    assert shop.post(make_url(endpoint, "/recover"), {"since": later}).json() == {"count": 0}
    assert shop.post(make_url(endpoint, "/recover"), since_long_ago()).json() == {"count": 1}
    failed.refresh_from_db()
    assert (failed.state, failed.attempts) == (DeliveryState.PENDING, 0)
    assert shop.post(make_url(endpoint, "/recover"), since_long_ago()).json() == {"count": 0}


def test_what_was_never_sent_is_sent_once(
    shop: Storefront, endpoint: Endpoint, other_shop: Storefront
) -> None:
    order = OrderFactory.create(client=shop.client)
    missed = EventFactory.create(order=order, client=shop.client, type="order.paid")
    EventFactory.create(order=order, client=shop.client, type="order.note", is_public=False)
    EventFactory.create(order=OrderFactory.create(client=other_shop.client), client=other_shop.client)
    assert shop.post(make_url(endpoint, "/replay_missing"), since_long_ago()).json() == {"count": 1}
    assert shop.post(make_url(endpoint, "/replay_missing"), since_long_ago()).json() == {"count": 0}
    assert list(endpoint.deliveries.values_list("event", flat=True)) == [missed.pk]


@pytest.mark.parametrize(
    "since",
    [None, "", "yesterday", 5, "2026-01-01", "2026-01-01T00:00:00", "9999-12-31T23:59:59Z", ["2026"]],
)
@pytest.mark.parametrize("action", ["recover", "replay_missing"])
def test_a_moment_that_is_none_or_to_come_is_refused(
    shop: Storefront, failed: Delivery, action: str, since: Any
) -> None:
    answer = shop.post(make_url(failed.endpoint, f"/{action}"), {"since": since})
    assert_problem(answer, 400, "invalid_request")
    failed.refresh_from_db()
    assert failed.state == DeliveryState.FAILED


def test_a_moment_before_all_time_means_everything(shop: Storefront, failed: Delivery) -> None:
    for action in ("recover", "replay_missing"):
        body = {"since": "0001-01-01T00:00:00Z"}
        assert shop.post(make_url(failed.endpoint, f"/{action}"), body).status_code == 200


# --- deliveries -----------------------------------------------------------------------------------------------


def test_deliveries_are_listed_by_state_type_and_moment(shop: Storefront, failed: Delivery) -> None:
    endpoint = failed.endpoint
    test = shop.post(make_url(endpoint, "/test")).json()["id"]

    def find(query: str) -> list[str]:
        rows = shop.get(make_url(endpoint, f"/deliveries{query}")).json()["results"]
        return [row["id"] for row in rows]

    assert find("") == [test, failed.pk]
    assert find("?state=failed") == [failed.pk]
    assert find("?type=order.paid") == [failed.pk]
    assert find("?type=endpoint.test") == [test]
    assert find("?since=2026-01-01T00:00:00Z&state=pending") == [test]
    Delivery.objects.filter(pk=test).update(created_at="2025-12-31T00:00:00Z")
    assert find("?since=2026-01-01T00:00:00Z") == [failed.pk]
    for wrong in ("?state=lost", "?type=order.payed", "?since=yesterday", "?colour=red", "?page_size=0"):
        assert_problem(shop.get(make_url(endpoint, f"/deliveries{wrong}")), 400, "invalid_request")


def test_a_delivery_tells_what_was_sent_and_answered(shop: Storefront, failed: Delivery) -> None:
    event = failed.event
    assert event is not None
    told = shop.get(make_url(failed.endpoint, f"/deliveries/{failed.pk}")).json()
    assert (told["state"], told["last_status"], told["next_try_at"]) == ("failed", 500, None)
    assert (told["event"], told["order"], told["message_id"]) == (event.pk, event.order_id, event.pk)
    assert json.loads(told["body"])["type"] == "order.paid"
    [one] = told["tries"]
    assert (one["status"], one["answer"], one["duration_ms"]) == (500, "out of order", 12)
    assert one["headers"]["webhook-id"] == event.pk


def test_a_delivery_is_sent_again_unless_its_endpoint_is_off(
    shop: Storefront, failed: Delivery, rings: list[str]
) -> None:
    address = make_url(failed.endpoint, f"/deliveries/{failed.pk}/resend")
    shop.post(make_url(failed.endpoint, "/disable"))
    assert_problem(shop.post(address), 409, "conflict")
    shop.post(make_url(failed.endpoint, "/enable"))
    again = shop.post(address).json()
    assert (again["state"], again["attempts"]) == ("pending", 0)
    assert again["next_try_at"]
