"""The fraud pages: the queue, the case, the decisions, rules and lists; who may do what."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from fraud import services
from fraud.admin.panels import fraud_panel
from fraud.models import EntityLink, ListEntry, Review, ReviewState, RuleSet
from tests.factories.fraud import LabelFactory, ReviewFactory, VerdictFactory

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


def test_no_card_number_is_kept_in_a_note(analyst: Client, review: Review) -> None:
    post(analyst, review, "decide", choice="approve:genuine", note="read out 4111 1111 1111 1111 by phone")
    review.refresh_from_db()
    told = [review.note, *review.events.values_list("note", flat=True)]
    assert review.state == "approved"
    assert not any("4111 1111" in text or "41111111" in text for text in told)


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


@pytest.mark.parametrize(
    "action", ["decide", "escalate", "snooze", "handover", "claim", "release", "heartbeat", "list"]
)
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


SUPERVISOR = [*ANALYST, "decide_escalated_review", "confirm_review"]


def test_the_queue_says_what_is_late_who_is_linked_and_how_many_wait(analyst: Client, review: Review) -> None:
    Review.objects.update(created_at=timezone.now() - timedelta(hours=6, minutes=1))
    stolen = ReviewFactory(
        state="rejected", reason_code="stolen_card", decided_at=timezone.now(), decided_by="user:ben"
    )
    LabelFactory(order=stolen.order, is_fraud=True)
    EntityLink.objects.bulk_create(
        EntityLink(kind="card", value_hash="fp_1", order=each.order, at=timezone.now())
        for each in (review, stolen)
    )
    services.escalate_review(ReviewFactory().pk, actor="user:ben", note="look")
    text = words(analyst.get(QUEUE))
    assert "1 late" in text
    assert "2 hours late" in text
    assert "1 order, 1 fraud" in text
    for tab in (
        "Open <small>2",
        "Escalated <small>1",
        "Snoozed <small>0",
        "Decided <small>1",
        "All <small>3",
    ):
        assert tab in text
    assert stolen.order.reference not in text
    assert "held by ana" not in text


@pytest.mark.parametrize("tab", ["mine", "unclaimed", "snoozed", "escalated", "proposed", "decided", "all"])
def test_each_tab_shows_its_part(analyst: Client, tab: str, settings: Any) -> None:
    settings.REVIEW_FOUR_EYES = {"default": "100"}
    rows = {
        name: ReviewFactory() for name in ("mine", "unclaimed", "snoozed", "escalated", "proposed", "decided")
    }
    post(analyst, rows["mine"], "claim")
    services.snooze_review(rows["snoozed"].pk, until=timezone.now() + timedelta(hours=3), actor="user:ben")
    services.escalate_review(rows["escalated"].pk, actor="user:ben", note="look")
    services.approve_review(rows["proposed"].pk, actor="user:ben")
    services.reject_review(rows["decided"].pk, actor="user:ben", reason_code="stolen_card")
    shown = {
        name
        for name, row in rows.items()
        if f"{row.order.reference}<br>" in analyst.get(QUEUE, {"view": tab}).content.decode()
    }
    also = {"unclaimed": {"escalated", "proposed"}, "all": set(rows)}
    assert shown == ({tab} & set(rows)) | also.get(tab, set())


def test_selected_cases_are_decided_with_a_result_for_each(analyst: Client, review: Review) -> None:
    held = ReviewFactory()
    services.claim_review(User.objects.create_user("ben"), held.pk)
    chosen = [review.pk, held.pk]
    asked = words(analyst.post(QUEUE, {"action": "reject_selected", "_selected_action": chosen}))
    assert "Reject 2 cases" in asked
    wish = {"decision": "reject", "reviews": chosen, "reason_code": "stolen_card"}
    address = reverse("admin:fraud_review_bulk")
    assert analyst.post(address, {**wish, "reason_code": "genuine"}).status_code == 422
    assert analyst.post(address, {**wish, "reason_code": "other"}).status_code == 422
    assert analyst.get(address).status_code == 405
    assert log_in("view_review", name="reader").post(address, wish).status_code == 403
    assert Review.objects.open().count() == 2
    text = words(analyst.post(address, wish))
    assert "1 done, 1 lost" in text
    assert "held by ben" in text
    review.refresh_from_db()
    held.refresh_from_db()
    assert (review.state, held.state) == ("rejected", "open")


def test_more_than_a_hundred_at_once_are_refused(analyst: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MAX_BULK", 1)
    chosen = [ReviewFactory().pk, ReviewFactory().pk]
    response = analyst.post(QUEUE, {"action": "approve_selected", "_selected_action": chosen}, follow=True)
    assert "At most 1 cases at once; nothing was changed." in words(response)


def test_a_decision_lists_what_is_ticked(analyst: Client, review: Review) -> None:
    wrong = post(analyst, review, "decide", choice="approve:genuine", kinds="email", list="block", days="30")
    assert (wrong.status_code, review.events.count()) == (422, 0)
    assert "does not belong on the block list" in words(wrong)
    text = words(
        post(analyst, review, "decide", choice="reject:stolen_card", kinds="email", list="block", days="30")
    )
    assert "E-mail b***@example.com on the block list" in text
    entry = ListEntry.objects.get()
    assert entry.reason == f"Stolen card suspected, order {review.order.reference}"
    assert entry.expires_at < timezone.now() + timedelta(days=31)


def test_who_may_not_list_decides_all_the_same(review: Review) -> None:
    client = log_in("view_review", "claim_review", "decide_review", name="dan")
    text = words(post(client, review, "decide", choice="reject:stolen_card", kinds="email", list="block"))
    assert "Nothing was put on a list: you may not." in text
    assert not ListEntry.objects.exists()


def test_what_somebody_else_holds_is_not_decided_here(analyst: Client, review: Review) -> None:
    services.claim_review(User.objects.create_user("ben"), review.pk)
    text = words(analyst.get(page(review)))
    assert "ben holds this case until" in text
    assert "data-fraud-decide" not in text
    text = words(post(analyst, review, "decide", choice="approve:genuine"))
    assert "held by ben now. It was not approved; nothing was changed." in text


def test_the_heartbeat_says_whose_it_is(analyst: Client, review: Review) -> None:
    assert analyst.post(page(review, "heartbeat")).json() == {
        "held": False,
        "told": "You do not hold this case any more. Claim it again to go on.",
    }
    post(analyst, review, "claim")
    assert analyst.post(page(review, "heartbeat")).json()["held"]
    Review.objects.update(claimed_by=User.objects.create_user("ben"))
    answer = analyst.post(page(review, "heartbeat")).json()
    assert answer == {"held": False, "told": "ben holds this case now. You do not hold it any more."}
    services.reject_review(review.pk, actor="user:ben", reason_code="stolen_card")
    assert "was rejected by ben" in analyst.post(page(review, "heartbeat")).json()["told"]


def test_an_escalated_case_is_shown_and_not_decided_by_analysts(analyst: Client, review: Review) -> None:
    following = ReviewFactory()
    response = post(analyst, review, "escalate", note="a minister")
    assert response.redirect_chain == [(page(following), 302)]
    assert "a supervisor decides it" in words(analyst.get(page(review)))
    eva = log_in(*SUPERVISOR, name="eva")
    assert "<b>ana</b> escalated it: “a minister”" in words(eva.get(page(review)))


def test_handing_over_and_snoozing_go_on_to_the_next(analyst: Client, review: Review) -> None:
    log_in(*ANALYST, name="ben")
    ben = User.objects.get(username="ben")
    following = ReviewFactory()
    last = ReviewFactory()
    response = post(analyst, review, "handover", to=str(ben.pk), note="Danish")
    assert response.redirect_chain == [(page(following), 302)]
    review.refresh_from_db()
    assert review.holder() == ben
    response = post(analyst, following, "snooze", hours="4")
    assert response.redirect_chain == [(page(last), 302)]
    assert post(analyst, last, "snooze", hours="48").status_code == 422


def test_neighbours_are_those_of_the_queue(analyst: Client) -> None:
    first, second, third = (ReviewFactory(score=score) for score in (90, 60, 30))
    Review.objects.update(expires_at=timezone.now() + timedelta(days=1))
    text = words(analyst.get(page(second)))
    assert f'href="{page(first)}" aria-keyshortcuts="k"' in text
    assert f'href="{page(third)}" aria-keyshortcuts="j"' in text
    assert "2 of 3" in text


def test_the_list_runs_as_many_queries_for_two_rows_as_for_ten(analyst: Client) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as captured:
            analyst.get(QUEUE)
        return len(captured)

    for _ in range(2):
        VerdictFactory(assessment=ReviewFactory(assessment__payment__card_fingerprint="fp").assessment)
    analyst.get(QUEUE)
    two = count()
    for _ in range(8):
        VerdictFactory(assessment=ReviewFactory(assessment__payment__card_fingerprint="fp").assessment)
    assert count() == two
