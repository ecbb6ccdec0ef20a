"""Fraud over the API: each operation for its scope, the client's own objects alone, nothing said of the house."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator
from pytest_django.live_server_helper import LiveServer

from fraud import lists
from fraud.api import urls
from fraud.models import Assessment, ListEntry, Review, ReviewState
from payments import ids
from payments.models.client import Scope
from tests.factories import ApiKeyFactory
from tests.factories.fraud import AssessmentFactory, HeldPaymentFactory, ReviewFactory, VerdictFactory
from tests.payments.api.test_api_samples import run
from tests.storefront import Storefront, assert_problem
from tests.webhooks.api.test_webhook_samples import check_answer

pytestmark = pytest.mark.django_db
ENTRY = {"list": "block", "kind": "email", "value": "Thief@example.com", "reason": "Charged back twice"}
TAGS = ("reviews", "assessments", "lists", "labels")
ROUTES = [
    ("get", "reviews", Scope.REVIEWS_READ),
    ("get", "reviews/{rev}", Scope.REVIEWS_READ),
    ("post", "reviews/{rev}/approve", Scope.REVIEWS_WRITE),
    ("post", "reviews/{rev}/reject", Scope.REVIEWS_WRITE),
    ("get", "assessments", Scope.REVIEWS_READ),
    ("get", "assessments/{asm}", Scope.REVIEWS_READ),
    ("get", "lists/entries", Scope.LISTS_WRITE),
    ("post", "lists/entries", Scope.LISTS_WRITE),
    ("get", "lists/entries/{lst}", Scope.LISTS_WRITE),
    ("delete", "lists/entries/{lst}?reason=x", Scope.LISTS_WRITE),
    ("get", "labels", Scope.REVIEWS_READ),
    ("post", "labels", Scope.LABELS_WRITE),
]
UNKNOWN = {prefix: ids.new_id(prefix) for prefix in ("rev", "asm", "lst")}


@pytest.fixture
def shop() -> Storefront:
    return Storefront(ApiKeyFactory.create())


@pytest.fixture
def other_shop() -> Storefront:
    return Storefront(ApiKeyFactory.create())


def make_review(shop: Storefront) -> Review:
    payment = HeldPaymentFactory.create(order__client=shop.client)
    review: Review = ReviewFactory.create(
        payment=payment, assessment=AssessmentFactory.create(payment=payment)
    )
    VerdictFactory.create(assessment=review.assessment)
    return review


@pytest.fixture
def review(shop: Storefront) -> Review:
    return make_review(shop)


# --- scopes and other clients -------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_each_operation_wants_a_key_with_its_scope(method: str, path: str, scope: str) -> None:
    address = path.format(**UNKNOWN)
    assert_problem(getattr(Storefront(None), method)(address), 401, "unauthorized")
    others = [value for value in Scope.values if value != scope]
    assert_problem(
        getattr(Storefront(ApiKeyFactory.create(scopes=others)), method)(address), 403, "insufficient_scope"
    )
    allowed = getattr(Storefront(ApiKeyFactory.create(scopes=[scope])), method)(address)
    assert allowed.status_code in (200, 400, 404), "past the gate"


def test_every_operation_is_tried_above() -> None:
    patterns: list[Any] = urls.urlpatterns
    served = [method for one in patterns for method in one.callback.actions if method != "head"]
    assert len(served) == len(ROUTES)


def test_another_clients_objects_are_not_there(
    shop: Storefront, other_shop: Storefront, review: Review
) -> None:
    entry = shop.post("lists/entries", ENTRY).json()["id"]
    decision = {"reason_code": "genuine"}
    for answer in (
        other_shop.get(f"reviews/{review.pk}"),
        other_shop.post(f"reviews/{review.pk}/approve", decision),
        other_shop.post(f"reviews/{review.pk}/reject", {"reason_code": "stolen_card"}),
        other_shop.get(f"assessments/{review.assessment_id}"),
        other_shop.get(f"lists/entries/{entry}"),
        other_shop.delete(f"lists/entries/{entry}?reason=mine"),
    ):
        assert_problem(answer, 404, "not_found")
    for path in ("reviews", "assessments", "lists/entries"):
        assert other_shop.get(path).json()["results"] == []
        assert len(shop.get(path).json()["results"]) == 1
    review.refresh_from_db()
    assert review.is_open


@pytest.mark.parametrize("path", ["reviews/x", "assessments/ord_1", "lists/entries/1", "lists/entries/lst_"])
def test_a_malformed_id_is_not_there(shop: Storefront, path: str) -> None:
    assert_problem(shop.get(path), 404, "not_found")


# --- reviews ------------------------------------------------------------------------------------------------


def test_reviews_are_listed_and_narrowed(shop: Storefront, review: Review) -> None:
    other = make_review(shop)
    assert [row["id"] for row in shop.get("reviews").json()["results"]] == [other.pk, review.pk]
    assert [row["id"] for row in shop.get(f"reviews?order={review.order_id}").json()["results"]] == [
        review.pk
    ]
    assert shop.get("reviews?state=approved").json()["results"] == []
    page = shop.get("reviews?page_size=1").json()
    assert [row["id"] for row in page["results"]] == [other.pk]
    assert page["next"]
    problem = assert_problem(shop.get("reviews?state=late"), 400, "invalid_request")
    assert problem["errors"][0]["parameter"] == "state"
    assert_problem(shop.get("reviews?colour=red"), 400, "invalid_request")


def test_a_review_shows_its_reasons_and_no_analyst(shop: Storefront, review: Review) -> None:
    Review.objects.filter(pk=review.pk).update(
        state=ReviewState.REJECTED,
        decided_by="user:ana",
        decided_at=timezone.now(),
        note="knows this gang",
        reason_code="stolen_card",
    )
    shown = shop.get(f"reviews/{review.pk}").json()
    assert shown["reasons"] == ["Card velocity: card used on 6 orders (limit 4 in 1 h)"]
    assert (shown["state"], shown["reason_code"], shown["note"]) == ("rejected", "stolen_card", "")
    assert "ana" not in json.dumps(shown)


@pytest.mark.parametrize(
    ("action", "reason", "state"),
    [("approve", "genuine", "approved"), ("reject", "stolen_card", "rejected")],
)
def test_a_review_is_decided_once_under_its_key(
    shop: Storefront, review: Review, action: str, reason: str, state: str
) -> None:
    wish = {"reason_code": reason, "note": "Called back."}
    path, key = f"reviews/{review.pk}/{action}", "decide-this-review-once"
    first = shop.post(path, wish, idempotency_key=key)
    assert first.status_code == 200
    assert (first.json()["state"], first.json()["decided_by_api"]) == (state, True)
    again = shop.post(path, wish, idempotency_key=key)
    assert again.content == first.content
    assert again["Idempotent-Replayed"] == "true"
    assert_problem(shop.post(path, wish), 409, "conflict")
    review.refresh_from_db()
    assert (review.state, review.decided_by) == (state, f"api:{shop.client.name}")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/reason_code"),
        ({"reason_code": "stolen_card"}, "/reason_code"),
        ({"reason_code": "other"}, "/note"),
        ({"reason_code": "genuine", "note": 7}, "/note"),
        ({"reason_code": "genuine", "note": "x" * 2001}, "/note"),
        ({"reason_code": "genuine", "colour": "red"}, "/colour"),
    ],
)
def test_a_decision_that_is_not_valid_names_its_member(
    shop: Storefront, review: Review, body: Any, pointer: str
) -> None:
    problem = assert_problem(shop.post(f"reviews/{review.pk}/approve", body), 400, "invalid_request")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    review.refresh_from_db()
    assert review.is_open


def test_a_decision_wants_an_idempotency_key(shop: Storefront, review: Review) -> None:
    answer = shop.post(f"reviews/{review.pk}/approve", {"reason_code": "genuine"}, idempotency_key="")
    assert_problem(answer, 400, "idempotency_key_missing")


# --- screenings ---------------------------------------------------------------------------------------------


def test_a_screening_shows_its_verdicts_and_none_of_the_facts(shop: Storefront, review: Review) -> None:
    Assessment.objects.update(context={"customer_email": "b***@example.com", "ip": "198.51.100.7"})
    shown = shop.get(f"assessments/{review.assessment_id}").json()
    assert shown["decision"] == "review"
    assert shown["verdicts"][0]["rule"] == "Card velocity"
    assert "198.51.100.7" not in json.dumps(shown)
    rows = shop.get(f"assessments?order={review.order_id}&decision=review&stage=after").json()["results"]
    assert [row["id"] for row in rows] == [review.assessment_id]
    assert shop.get("assessments?decision=block").json()["results"] == []


# --- lists --------------------------------------------------------------------------------------------------


def test_an_entry_is_added_read_and_ended(shop: Storefront) -> None:
    made = shop.post("lists/entries", ENTRY)
    assert made.status_code == 201
    entry = made.json()
    assert made["Location"] == f"/api/v1/lists/entries/{entry['id']}"
    assert (entry["masked"], entry["expires_at"], entry["hits"]) == ("t***@example.com", None, 0)
    assert lists.find_matches({"email": {"thief@example.com"}})
    assert shop.get(f"lists/entries/{entry['id']}").json() == entry
    assert shop.delete(f"lists/entries/{entry['id']}?reason=A+mistake").status_code == 204
    assert not lists.find_matches({"email": {"thief@example.com"}})
    assert_problem(shop.delete(f"lists/entries/{entry['id']}?reason=again"), 409, "conflict")
    told = ListEntry.objects.get().changes.order_by("id").values_list("action", "reason", "actor")
    actor = f"api:{shop.client.name}"
    assert list(told) == [("added", ENTRY["reason"], actor), ("ended", "A mistake", actor)]
    renewed = shop.post("lists/entries", ENTRY).json()
    assert renewed["id"] == entry["id"]


def test_a_repeated_addition_gets_the_same_answer(shop: Storefront) -> None:
    first = shop.post("lists/entries", ENTRY, idempotency_key="list-this-thief-once")
    again = shop.post("lists/entries", ENTRY, idempotency_key="list-this-thief-once")
    assert again.content == first.content
    assert_problem(shop.post("lists/entries", ENTRY), 409, "conflict")
    assert ListEntry.objects.count() == 1


def test_nobody_learns_what_others_have_listed(shop: Storefront, other_shop: Storefront) -> None:
    lists.add_to_list("block", "email", ENTRY["value"], reason="by the house")
    assert other_shop.post("lists/entries", ENTRY).status_code == 201
    mine = shop.post("lists/entries", ENTRY)
    assert mine.status_code == 201, "as if nobody else had it"
    assert [row["id"] for row in shop.get("lists/entries").json()["results"]] == [mine.json()["id"]]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"list": "white"}, "/list"),
        ({"kind": "mail"}, "/kind"),
        ({"value": "nobody"}, "/value"),
        ({"value": ""}, "/value"),
        ({"value": 7}, "/value"),
        ({"reason": ""}, "/reason"),
        ({"reason": "x" * 201}, "/reason"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "tomorrow"}, "/expires_at"),
        ({"colour": "red"}, "/colour"),
    ],
)
def test_an_entry_that_is_not_valid_names_its_member(
    shop: Storefront, change: dict[str, Any], pointer: str
) -> None:
    problem = assert_problem(shop.post("lists/entries", ENTRY | change), 400, "invalid_request")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert not ListEntry.objects.exists()


def test_a_card_number_is_refused(shop: Storefront) -> None:
    answer = shop.post("lists/entries", ENTRY | {"kind": "card", "value": "4242424242424242"})
    assert_problem(answer, 422, "card_data_refused")


@pytest.mark.parametrize(
    "query", ["", "?reason=", "?reason=%20", f"?reason={'x' * 201}", "?reason=a&colour=red"]
)
def test_ending_wants_a_reason_and_nothing_else(shop: Storefront, query: str) -> None:
    entry = shop.post("lists/entries", ENTRY).json()["id"]
    problem = assert_problem(shop.delete(f"lists/entries/{entry}{query}"), 400, "invalid_request")
    assert problem["errors"][0]["parameter"] in ("reason", "colour")
    assert not ListEntry.objects.get().has_ended


def test_entries_are_listed_by_pages(shop: Storefront) -> None:
    made = [
        shop.post("lists/entries", ENTRY | {"kind": "device", "value": f"d_{number}"}).json()["id"]
        for number in range(3)
    ]
    first = shop.get("lists/entries?page_size=2&kind=device").json()
    second = shop.http.get(first["next"], headers={"Authorization": f"Bearer {shop.key.secret}"}).json()
    assert [row["id"] for row in first["results"] + second["results"]] == made[::-1]
    assert str(ListEntry.objects.latest("id").pk) not in first["next"].split("cursor=")[1].split(".")[0]
    assert shop.get("lists/entries?list=allow").json()["results"] == []


# --- the schema ---------------------------------------------------------------------------------------------


def make_names(key: Any, name: str) -> dict[str, str]:
    """A review with its screening, and an entry to look at; the sample of another entry must not find it there."""
    shop = Storefront(key)
    review = make_review(shop)
    ends = timezone.now() + timedelta(days=1)
    entry = lists.add_to_list("block", "device", "d_1", reason="x", client=shop.client, expires_at=ends)
    return {
        "REVIEW": review.pk,
        "ASSESSMENT": str(review.assessment_id),
        "LIST": str(entry.public_id),
        "ORDER": review.order_id,
    }


@pytest.mark.django_db(transaction=True)
def test_the_sample_of_every_operation_works(live_server: LiveServer) -> None:
    made = SchemaGenerator().get_schema(request=None, public=True)
    schema: dict[str, Any] = json.loads(json.dumps(made, default=str))
    operations = [
        operation
        for methods in schema["paths"].values()
        for operation in methods.values()
        if operation["tags"][0] in TAGS
    ]
    assert len(operations) == len(ROUTES)
    for operation in operations:
        key: Any = ApiKeyFactory.create()
        names = make_names(key, operation["operationId"]) | {"SHOP": live_server.url, "KEY": key.secret}
        answer = run(operation["x-codeSamples"][0]["source"], names)
        assert answer.returncode == 0, (operation["operationId"], answer.stdout + answer.stderr)
        check_answer(schema, operation, answer.stdout)
