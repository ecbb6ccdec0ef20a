"""The fraud pages: the queue, the case, the decisions, rules and lists; who may do what."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from fraud.admin.panels import fraud_panel
from fraud.models import ListEntry, Review, ReviewState, RuleSet
from tests.factories.fraud import ReviewFactory, VerdictFactory

pytestmark = pytest.mark.django_db

ANALYST = [
    "view_review",
    "claim_review",
    "decide_review",
    "view_assessment",
    "view_ruleset",
    "add_listentry",
    "view_listentry",
]
QUEUE = "/admin/fraud/review/"


def log_in(*rights: str, name: str = "ana") -> Client:
    user = User.objects.create_user(name, password="a long password", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="fraud", codename__in=rights))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def analyst() -> Client:
    return log_in(*ANALYST)


@pytest.fixture
def review() -> Review:
    review = ReviewFactory()
    VerdictFactory(assessment=review.assessment)
    VerdictFactory(
        assessment=review.assessment, rule_name="Blocklist", status="miss", outcome="", value="no entry"
    )
    return review


def page(review: Review, action: str = "change") -> str:
    return reverse(f"admin:fraud_review_{action}", args=[review.pk])


def post(client: Client, review: Review, action: str, **fields: str) -> Any:
    return client.post(page(review, action), {"token": uuid4().hex, **fields}, follow=True)


def words(response: Any) -> str:
    return " ".join(response.content.decode().split())


def test_the_queue_opens_on_open_cases_the_most_urgent_first(analyst: Client, review: Review) -> None:
    urgent = ReviewFactory(expires_at=timezone.now() + timedelta(minutes=30, seconds=30))
    decided = ReviewFactory(state=ReviewState.APPROVED, decided_at=timezone.now(), decided_by="user:ben")
    text = words(analyst.get(QUEUE))
    assert text.index(urgent.order.reference) < text.index(review.order.reference)
    assert decided.order.reference not in text
    assert "30 minutes left" in text
    assert "Card velocity" in text
    assert "b***@example.com" in text
    assert "buyer@example.com" not in text
    assert decided.order.reference in words(analyst.get(QUEUE, {"view": "decided"}))


def test_the_queue_needs_few_queries_however_long_it_is(
    analyst: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(6):
        VerdictFactory(assessment=ReviewFactory().assessment)
    with django_assert_max_num_queries(18):
        analyst.get(QUEUE)


def test_the_case_says_why_with_value_and_limit(
    analyst: Client, review: Review, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_max_num_queries(25):
        text = words(analyst.get(page(review)))
    assert "card used on 6 orders" in text
    assert "limit 4 in 1 h" in text
    assert "Visa ·4242 US" in text
    assert "1 other rule" in text
    assert "buyer@example.com" not in text


def test_a_case_without_verdicts_says_that_the_screening_failed(analyst: Client) -> None:
    assert "could not be done" in words(analyst.get(page(ReviewFactory())))


def test_approving_goes_on_to_the_next_case(analyst: Client, review: Review) -> None:
    following = ReviewFactory()
    response = post(analyst, review, "decide", choice="approve:genuine", note="knows her address")
    assert response.redirect_chain == [(page(following), 302)]
    assert "was approved: the money is captured" in words(response)
    review.refresh_from_db()
    following.refresh_from_db()
    assert (review.state, review.decided_by, review.note) == ("approved", "user:ana", "knows her address")
    assert str(following.claimed_by) == "ana"


def test_rejecting_the_last_case_returns_to_the_queue(analyst: Client, review: Review) -> None:
    response = post(analyst, review, "decide", choice="reject:stolen_card")
    assert response.redirect_chain == [(QUEUE, 302)]
    assert "Nothing is waiting" in words(response)


def test_the_slower_click_is_told_who_won(analyst: Client, review: Review) -> None:
    post(log_in(*ANALYST, name="ben"), review, "decide", choice="reject:stolen_card")
    text = words(post(analyst, review, "decide", choice="approve:genuine"))
    assert "This review was rejected by ben at" in text
    assert "It was not approved; nothing was changed." in text


def test_other_needs_a_note_and_the_dialog_stays_open(analyst: Client, review: Review) -> None:
    response = post(analyst, review, "decide", choice="reject:other")
    assert response.status_code == 422
    assert "needs a note" in words(response)
    review.refresh_from_db()
    assert review.is_open


@pytest.mark.parametrize("action", ["decide", "escalate", "snooze", "handover", "claim", "release", "heartbeat", "list"])
def test_nothing_is_done_by_get_or_without_the_right(analyst: Client, review: Review, action: str) -> None:
    assert analyst.get(page(review, action)).status_code == 405
    assert log_in("view_review", name="reader").post(page(review, action)).status_code == 403
    review.refresh_from_db()
    assert (review.is_open, review.claimed_by) == (True, None)


def test_a_decision_needs_the_csrf_token(review: Review) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root", password="a long password"))
    assert client.post(page(review, "decide"), {"choice": "approve:genuine", "token": "t"}).status_code == 403


def test_a_reader_sees_the_case_without_buttons(review: Review) -> None:
    text = words(log_in("view_review", name="reader").get(page(review)))
    assert "Why it is here" in text
    assert "data-fraud-decide" not in text
    assert "Claim <kbd>" not in text


def test_claiming_and_putting_back(analyst: Client, review: Review) -> None:
    assert "Yours until" in words(post(analyst, review, "claim"))
    assert "Held by ana" in words(log_in(*ANALYST, name="ben").get(page(review)))
    post(analyst, review, "release")
    review.refresh_from_db()
    assert review.claimed_by is None


def test_a_value_of_the_case_is_listed(analyst: Client, review: Review) -> None:
    text = words(post(analyst, review, "list", kinds="email", list="block", days="90", reason="chargeback"))
    assert "E-mail b***@example.com on the block list" in text
    entry = ListEntry.objects.get()
    assert entry.created_by == "user:ana"
    assert entry.expires_at


def test_a_list_entry_is_added_in_the_clear_and_kept_hashed() -> None:
    client = log_in("add_listentry", "view_listentry", "change_listentry")
    data = {"list": "block", "kind": "email", "value": "Thief@Example.com", "reason": "chargeback"}
    address = reverse("admin:fraud_listentry_add")
    assert client.post(address, data).status_code == 302
    assert ListEntry.objects.get().value_masked == "t***@example.com"
    assert "It is on this list already" in words(client.post(address, data))
    assert "not an e-mail address" in words(client.post(address, {**data, "value": "thief"}))
    listing = reverse("admin:fraud_listentry_changelist")
    assert "t***@example.com" in words(client.get(listing, {"q": "thief@example.com"}))
    assert "t***@example.com" not in words(client.get(listing, {"q": "other@example.com"}))


@pytest.mark.parametrize("name", ["review", "ruleset", "listentry", "assessment"])
def test_every_list_and_page_opens_for_who_may_see_it(name: str, review: Review) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="a long password"))
    assert client.get(reverse(f"admin:fraud_{name}_changelist")).status_code == 200
    target = {"ruleset": RuleSet.objects.first(), "assessment": review.assessment}.get(name)
    if target:
        assert client.get(reverse(f"admin:fraud_{name}_change", args=[target.pk])).status_code == 200


def test_the_order_page_gets_a_panel_for_who_may_see_it(review: Review, rf: RequestFactory) -> None:
    request = rf.get("/")
    request.user = User.objects.create_superuser("root", password="a long password")
    text = str(fraud_panel(review.order, request))
    assert "Card velocity: card used on 6 orders (limit 4 in 1 h)" in text
    assert page(review) in text
    request.user = User.objects.create_user("nobody")
    assert fraud_panel(review.order, request) is None
