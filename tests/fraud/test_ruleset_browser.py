"""Rule sets in a real browser: a rule written by keyboard, published by another person, and deciding."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.test import Client
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from fraud import live, rulesets
from fraud.decision import decide
from fraud.facts import FraudContext
from fraud.models import RuleSet
from payments.controls.roles import sync_roles
from payments.decisions import Decision, Stage
from tests.factories.fraud import AssessmentFactory

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]
SIZES = {"phone": (390, 844), "desk": (1440, 900)}
LIST = "/admin/fraud/ruleset/"
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
UNNAMED = """() => [...document.querySelectorAll('#content-main *:is(input, select, textarea, button, a)')]
    .filter((item) => item.type !== 'hidden' && item.checkVisibility())
    .filter((item) => !(item.labels?.length || item.ariaLabel || item.ariaLabelledByElements?.length
        || item.title || item.placeholder || item.innerText?.trim()))
    .map((item) => item.outerHTML.slice(0, 200))"""
TWICE = """() => { const ids = [...document.querySelectorAll('[id]')].map((item) => item.id);
    return ids.filter((id, place) => id && ids.indexOf(id) !== place) }"""
LARGE = FraudContext(Stage.BEFORE_AUTHORIZATION, 90_000, "EUR", billing_country="DE", shipping_country="FR")


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def open_page(
    chromium: Browser, live_server: LiveServer, complaints: list[str]
) -> Iterator[Callable[..., Page]]:
    """A page of an analyst of this name."""
    sync_roles()
    contexts = []

    def open_for(name: str, path: str, *, size: str = "desk", scheme: str = "light") -> Page:
        user, _ = User.objects.get_or_create(username=name, defaults={"is_staff": True})
        user.groups.add(Group.objects.get(name="Fraud analyst"))
        client = Client()
        client.force_login(user)
        width, height = SIZES[size]
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        contexts.append(context)
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        context.add_cookies(
            [{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}]
        )
        page = context.new_page()
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{live_server.url}{path}")
        return page

    yield open_for
    for context in contexts:
        context.close()


def picture(page: Page, name: str) -> None:
    """Kept for people where PICTURES names a folder."""
    if folder := os.environ.get("PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_a_rule_is_written_by_keyboard_published_by_another_and_decides(
    open_page: Callable[..., Page], complaints: list[str]
) -> None:
    order = AssessmentFactory(context=LARGE.to_dict(), stage="before").order
    assert decide(live.live_plan().plan, LARGE).decision is not Decision.BLOCK

    page = open_page("ann", LIST)
    page.get_by_role("button", name="New draft").click()
    page.get_by_label("What will change, and why").fill("Large orders to another country")
    page.get_by_role("button", name="Make the draft").click()
    page.get_by_role("link", name="Add a rule").click()
    page.get_by_label("Name", exact=True).fill("Large abroad")

    text = page.get_by_role("combobox", name="Expression")
    text.focus()
    page.keyboard.type("bill")
    expect(page.get_by_role("option", name="billing_country")).to_have_attribute("aria-selected", "true")
    picture(page, "completion-desk-light")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.type('!= shiping_country and amount > money("500 EUR")')
    expect(page.get_by_text("Column 20: ")).to_be_visible()
    expect(page.locator(".rs-marks mark")).to_have_text("shiping_country")
    picture(page, "typo-desk-light")
    page.get_by_role("button", name="Use “shipping_country”").press("Enter")
    expect(page.get_by_text("It hits 1 of the last 1 order.")).to_be_visible()
    expect(page.get_by_role("link", name=order.reference)).to_be_visible()
    expect(text).to_have_value('billing_country != shipping_country and amount > money("500 EUR")')
    page.get_by_label("A hit means").select_option("block")
    page.get_by_label("Flag").select_option("on")
    picture(page, "rule-desk-light")
    page.get_by_label("Name", exact=True).press("Enter")

    expect(page.get_by_text("“Large abroad” was saved.")).to_be_visible()
    page.get_by_role("button", name="Submit").click()
    page.get_by_role("dialog", name="Submit").get_by_role("button", name="Submit").click()
    expect(page.get_by_text("Rule set 2 was submitted.")).to_be_visible()
    expect(page.get_by_text("You had a hand in it")).to_be_visible()

    page = open_page("pat", LIST)
    page.get_by_role("link", name="Rule set 2", exact=True).click()
    page.get_by_role("link", name="Look and publish").click()
    expect(page.get_by_role("link", name=order.reference)).to_be_visible()
    picture(page, "look-desk-light")
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_text("decides from now on").first).to_be_visible()

    live.forget_plan()
    assert decide(live.live_plan().plan, LARGE).decision is Decision.BLOCK
    assert complaints == []


@pytest.mark.parametrize(("size", "scheme"), [("phone", "dark"), ("desk", "light")])
def test_every_page_is_whole(
    open_page: Callable[..., Page], complaints: list[str], size: str, scheme: str
) -> None:
    AssessmentFactory(context=LARGE.to_dict(), stage="before")
    draft = rulesets.begin_draft(actor="user:ann", note="A lower limit for cards, after the attack of Friday")
    rule = draft.rules.get(key="card-velocity")
    rule.parameters, rule.mode, rule.share = {"limit": 4}, "share", 25
    rulesets.save_rule(draft.pk, rule, actor="user:ann")
    closed = rulesets.begin_draft(actor="user:ann", based_on=draft)
    rulesets.remove_rule(closed.pk, "blocklist", actor="user:ann")
    rulesets.submit(closed.pk, actor="user:ann")
    pages = {
        "list": LIST,
        "set": f"{LIST}{draft.pk}/change/",
        "first": f"{LIST}{RuleSet.objects.get(number=1).pk}/change/",
        "look": f"{LIST}{closed.pk}/look/",
        "rule": f"{LIST}{draft.pk}/rule/?key=card-velocity",
        "new": f"{LIST}{draft.pk}/rule/",
    }
    page = open_page("pat", LIST, size=size, scheme=scheme)
    host = page.url.removesuffix(LIST)
    found = {}
    for name, path in pages.items():
        page.goto(f"{host}{path}")
        if name == "rule":
            expect(page.get_by_text("It hits 0 of the last 1 order.")).to_be_visible()
        picture(page, f"{name}-{size}-{scheme}")
        found[name] = [page.evaluate(WIDER), *page.evaluate(UNNAMED), *page.evaluate(TWICE)]
    assert found == {name: [0] for name in pages}
    assert complaints == []
