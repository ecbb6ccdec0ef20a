"""The queue worked through by keyboard alone, on a laptop's screen without scrolling, and readable for everybody."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from fraud import services
from fraud.links import record_links
from fraud.models import Review, ReviewState
from payments.controls.roles import sync_roles
from payments.models import OrderState, Payment, PaymentState
from tests.factories.fraud import HeldOrderFactory, HeldPaymentFactory, ReviewFactory, VerdictFactory

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]
Open = Callable[..., Page]
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
LOWEST = """Math.max(...[...document.querySelectorAll('.fraud-grid > *, [data-fraud-submit]')]
    .map(element => element.getBoundingClientRect().bottom))"""
CASES = 20
MOST_KEYS = 3


@pytest.fixture(autouse=True)
def _no_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("payments.services.reviews.engine.drive_run", lambda *_, **__: None)


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def open_page(chromium: Browser, live_server: LiveServer, complaints: list[str]) -> Iterator[Open]:
    cache.clear()
    sync_roles()
    contexts = []

    def open_as(path: str, *, name: str = "ana", role: str = "Fraud analyst", **options: Any) -> Page:
        client = Client()
        client.force_login(make_user(name, role))
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 720}, **options})
        context.add_cookies(
            [{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}]
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{live_server.url}{path}")
        return page

    yield open_as
    for context in contexts:
        context.close()


def make_user(name: str, role: str) -> User:
    user, _ = User.objects.get_or_create(username=name, defaults={"is_staff": True})
    user.groups.add(Group.objects.get(name=role))
    return user


@pytest.fixture
def rich() -> Review:
    """A case with everything on it: five reasons, eight linked orders of every fate, a long history."""
    review: Review = ReviewFactory(
        score=145,
        assessment__payment__order__billing={"country": "US"},
        assessment__payment__order__shipping={"country": "BR"},
        assessment__payment__order__context={"ip": "198.51.100.7", "ip_country": "BR"},
        assessment__payment__order__customer_id="cus_77",
        assessment__payment__order__customer_created_at=timezone.now() - timedelta(hours=5),
        assessment__payment__card_fingerprint="fp_1",
        assessment__payment__authorization_expires_at=timezone.now() + timedelta(days=2, hours=3),
    )
    for number, (name, value, limit, points) in enumerate(REASONS):
        VerdictFactory(
            assessment=review.assessment,
            rule_name=name,
            value=value,
            threshold=limit,
            points=points,
            outcome="review" if number == 0 else "score",
        )
    VerdictFactory(assessment=review.assessment, rule_name="Blocklist", status="miss", outcome="")
    record_links(review.order, review.payment)
    _add_linked()
    ana = make_user("ana", "Fraud analyst")
    services.snooze_review(
        review.pk, until=timezone.now() + timedelta(hours=1), actor="user:ana", note="calls back"
    )
    services.claim_review(ana, review.pk)
    return review


REASONS = [
    ("Card velocity", "card used on 6 orders", "limit 4 in 1 h", 0),
    ("Country mismatch", "billing US, shipping BR", "billing and shipping", 30),
    ("Address check failed", "AVS fail", "hit on fail", 30),
    ("High amount", "1,295.00 USD for a customer of today, who paid as a guest before", "1,000.00 USD", 45),
    ("Total score", "145 points", "50", 40),
]


FATES = {
    "refunded": {"captured": 12950, "refunded": 12950},
    "disputed": {"captured": 12950, "disputed": 12950},
}


def _add_linked() -> None:
    for state, name in (
        (OrderState.PAID, "paid"),
        (OrderState.BLOCKED, "blocked"),
        (OrderState.REVIEW, "waiting"),
        (OrderState.FULFILLED, "refunded"),
        (OrderState.PAID, "disputed"),
    ):
        order = HeldOrderFactory(state=state)
        money = FATES.get(name, {})
        payment = HeldPaymentFactory(
            order=order, card_fingerprint="fp_1", state=PaymentState.SUCCEEDED, **money
        )
        record_links(order, payment)
    for _ in range(3):
        stolen = ReviewFactory(assessment__payment__card_fingerprint="fp_1")
        VerdictFactory(assessment=stolen.assessment)
        record_links(stolen.order, stolen.payment)
        services.reject_review(stolen.pk, actor="user:ben", reason_code="stolen_card")
    for payment in Payment.objects.select_related("order").filter(card_fingerprint="fp_1"):
        record_links(payment.order, payment)
    for _ in range(3):
        good = ReviewFactory()
        VerdictFactory(assessment=good.assessment)
        services.approve_review(good.pk, actor="user:ben")


def url_of(review: Review, action: str = "change") -> str:
    return reverse(f"admin:fraud_review_{action}", args=[review.pk])


def shoot(page: Page, name: str, *, full: bool = False) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=full)


def check_access(page: Page) -> None:
    """No serious finding of axe in what is ours; the theme's own frame is not judged here."""
    found = Axe().run(page, context="#content-main").response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert [(one["id"], one["nodes"][0]["html"][:120]) for one in serious] == []


def test_twenty_cases_by_keyboard_alone(open_page: Open, complaints: list[str]) -> None:
    for _ in range(CASES):
        VerdictFactory(assessment=ReviewFactory().assessment)
    page = open_page(reverse("admin:fraud_review_changelist"))
    page.get_by_role("button", name="Take the next case").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/change/")
    plans = [
        ["a", "Enter"],
        ["r", "Enter"],
        ["r", "2", "Enter"],
        ["a", "2", "Enter"],
        ["r", "ArrowDown", "Enter"],
    ]
    for number in range(CASES):
        keys = plans[number % len(plans)]
        assert len(keys) <= MOST_KEYS
        before = page.url
        for key in keys[:-1]:
            page.keyboard.press(key)
        with page.expect_navigation(url=lambda url, before=before: url != before and "/decide/" not in url):
            page.keyboard.press(keys[-1])
    expect(page.get_by_text("Nothing is waiting for you")).to_be_visible()
    decided = list(Review.objects.order_by("decided_at").values_list("state", "reason_code", "decided_by"))
    wanted = [
        ("approved", "genuine"),
        ("rejected", "confirmed_fraud"),
        ("rejected", "stolen_card"),
        ("approved", "verified"),
        ("rejected", "stolen_card"),
    ]
    assert decided == [(*wanted[number % 5], "user:ana") for number in range(CASES)]
    assert complaints == []


def test_all_that_a_decision_takes_is_on_one_screen(
    open_page: Open, rich: Review, complaints: list[str]
) -> None:
    for scheme in ("light", "dark"):
        page = open_page(url_of(rich), color_scheme=scheme)
        shoot(page, f"case-{scheme}")
        assert page.evaluate(LOWEST) <= 720
        assert page.evaluate("document.documentElement.scrollHeight") <= 720
        check_access(page)
    why = page.get_by_role("region", name="Why it is here")
    for name, *_ in REASONS[:4]:
        expect(why.get_by_text(name)).to_be_in_viewport()
    expect(why.get_by_text("fraud in 3 of 6")).to_be_in_viewport()
    expect(page.get_by_text("3 fraud", exact=True)).to_be_in_viewport()
    for fate in ("refunded", "disputed", "blocked"):
        expect(page.get_by_text(fate, exact=True)).to_be_visible()
    assert complaints == []


def test_the_pages_fit_a_phone(open_page: Open, rich: Review, complaints: list[str]) -> None:
    for scheme in ("light", "dark"):
        phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme}
        page = open_page(url_of(rich), **phone)
        shoot(page, f"case-390-{scheme}", full=True)
        assert page.evaluate(WIDER) <= 0
        check_access(page)
        page.goto(page.url.split("/admin/")[0] + reverse("admin:fraud_review_changelist"))
        shoot(page, f"queue-390-{scheme}", full=True)
        assert page.evaluate(WIDER) <= 0
    assert complaints == []


def test_the_queue_and_its_bulk(open_page: Open, rich: Review, complaints: list[str]) -> None:
    ReviewFactory.create_batch(3)
    page = open_page(reverse("admin:fraud_review_changelist"), color_scheme="dark")
    shoot(page, "queue-dark")
    boxes = page.locator("input.action-select")
    for number in range(1, boxes.count()):
        boxes.nth(number).check()
    page.locator("select[name=action]").select_option("reject_selected")
    page.get_by_role("button", name="Run").click()
    page.get_by_label("Reason").select_option("stolen_card")
    shoot(page, "bulk-dark")
    check_access(page)
    page.get_by_role("button", name="Reject").click()
    expect(page.get_by_text("done", exact=True).first).to_be_visible()
    shoot(page, "bulk-done-dark")
    check_access(page)
    assert complaints == []


def test_keys_do_nothing_while_somebody_types(open_page: Open, rich: Review, complaints: list[str]) -> None:
    page = open_page(url_of(rich))
    page.keyboard.press("n")
    page.keyboard.type("area a rejects 1 j")
    note = page.locator("#id_decide_note")
    expect(note).to_have_value("area a rejects 1 j")
    expect(page.locator("input[name=choice]:checked")).to_have_count(0)
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    expect(page.locator("[data-fraud-told]")).to_have_text("Reject: Confirmed fraud. Enter decides.")
    expect(page.get_by_role("button", name="Reject: Confirmed fraud")).to_be_visible()
    shoot(page, "case-chosen")
    page.keyboard.press("?")
    expect(page.locator("#keys-dialog")).to_be_visible()
    shoot(page, "keys")
    page.get_by_label("Keys are on in this browser").uncheck()
    page.keyboard.press("Escape")
    page.locator(".fraud-head h2").click(position={"x": 300, "y": 5}, force=True)
    page.keyboard.press("a")
    expect(page.locator("input[value='reject:confirmed_fraud']")).to_be_checked()
    assert complaints == []


def test_escalate_and_snooze_by_keyboard(open_page: Open, rich: Review) -> None:
    page = open_page(url_of(rich))
    page.keyboard.press("e")
    page.keyboard.type("The buyer says she is a minister.")
    shoot(page, "escalate")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("went to the supervisors")).to_be_visible()
    other = ReviewFactory(expires_at=timezone.now() + timedelta(days=2))
    page.goto(page.url.split("/admin/")[0] + url_of(other))
    page.keyboard.press("s")
    page.keyboard.press("Enter")
    expect(page.get_by_text("or when something happens to it")).to_be_visible()
    other.refresh_from_db()
    assert other.is_asleep


def test_the_open_page_keeps_the_claim_and_says_when_it_was_lost(open_page: Open, rich: Review) -> None:
    ben = make_user("ben", "Fraud analyst")
    page = open_page("/admin/login/")
    page.clock.install()
    page.goto(page.url.split("/admin/")[0] + url_of(rich))
    Review.objects.update(claim_expires_at=timezone.now() + timedelta(seconds=5))
    with page.expect_response("**/heartbeat/"):
        page.clock.fast_forward("02:01")
    expect(page.locator("[data-fraud-claim]")).to_contain_text("Yours until")
    rich.refresh_from_db()
    assert rich.claim_expires_at > timezone.now() + timedelta(minutes=5)
    Review.objects.update(claimed_by=ben)
    with page.expect_response("**/heartbeat/"):
        page.clock.fast_forward("02:01")
    expect(page.get_by_role("alert")).to_have_text("ben holds this case now. You do not hold it any more.")
    shoot(page, "lost")


def test_it_works_without_scripts(open_page: Open, rich: Review) -> None:
    page = open_page(url_of(rich), java_script_enabled=False)
    page.get_by_label("Stolen card suspected").check()
    page.get_by_label("E-mail", exact=True).check()
    page.get_by_role("button", name="Decide").click()
    expect(page.get_by_text("was rejected: the authorization is voided.")).to_be_visible()
    rich.refresh_from_db()
    assert rich.state == ReviewState.REJECTED
    assert [event.kind for event in rich.events.all()[:2]] == ["listed", "rejected"]


def test_a_second_person_confirms(
    open_page: Open, rich: Review, complaints: list[str], settings: Any
) -> None:
    settings.REVIEW_FOUR_EYES = {"default": "100"}
    page = open_page(url_of(rich))
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    expect(page.get_by_text("takes two people")).to_be_visible()
    page = open_page(url_of(rich), name="eva", role="Fraud supervisor")
    expect(page.get_by_text("ana proposes to approve it: Genuine customer")).to_be_visible()
    shoot(page, "proposal")
    check_access(page)
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    expect(page.get_by_text("approved by two people")).to_be_visible()
    rich.refresh_from_db()
    assert (rich.state, rich.proposed_by, rich.decided_by) == ("approved", "user:ana", "user:eva")
    assert complaints == []
