"""The kill switch and the routing pages in a real browser: nothing is refused, nameless or cut off."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from payments.gateways.kill_switch import switch_board
from payments.models import GatewayAccount, Order, RoutingRule, RoutingTarget
from tests.factories.payments import GatewayAccountFactory
from tests.payments.admin.conftest import Login

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]
SIZES = {"phone": (390, 844), "desk": (1440, 900)}
ACCOUNTS = "/admin/payments/gatewayaccount/"
RULES = "/admin/payments/routingrule/"
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Every control that can be seen says what it is, and no id is given twice.
UNNAMED = """() => [...document.querySelectorAll('main input, main select, main textarea, main button, main a,'
    + '#content input, #content select, #content textarea, #content button, #content-main *:is(input, select, button)')]
    .filter((item) => item.type !== 'hidden' && item.checkVisibility())
    .filter((item) => !(item.labels?.length || item.ariaLabel || item.ariaLabelledByElements?.length
        || item.title || item.placeholder || item.innerText?.trim()))
    .map((item) => item.outerHTML.slice(0, 200))"""
TWICE = """() => { const ids = [...document.querySelectorAll('[id]')].map((item) => item.id);
    return ids.filter((id, place) => id && ids.indexOf(id) !== place) }"""


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def open_page(
    chromium: Browser, live_server: LiveServer, log_in: Login, complaints: list[str]
) -> Iterator[Callable[..., Page]]:
    contexts = []

    def open_for(role: str, path: str, *, size: str = "phone", scheme: str = "light") -> Page:
        session = log_in(role).cookies[settings.SESSION_COOKIE_NAME].value
        width, height = SIZES[size]
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        contexts.append(context)
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
    switch_board().forget()


@pytest.fixture
def rule(account: GatewayAccount) -> RoutingRule:
    adyen = GatewayAccountFactory(gateway="adyen", name="europe", priority=200)
    rule = RoutingRule.objects.create(
        name="European cards", priority=10, currencies=["EUR"], countries=["DE", "AT"], max_amount=50000
    )
    RoutingTarget.objects.create(rule=rule, account=adyen, position=1, share=70)
    RoutingTarget.objects.create(rule=rule, account=account, position=2, share=30)
    return rule


def picture(page: Page, name: str) -> None:
    """Kept for people where PICTURES names a folder."""
    if folder := os.environ.get("PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_on_call_stops_an_account_from_the_list(
    open_page: Callable[..., Page], account: GatewayAccount, complaints: list[str]
) -> None:
    page = open_page("On-call", ACCOUNTS)
    page.get_by_role("button", name=f"Stop new payments: {account}").click()
    dialog = page.get_by_role("dialog", name=f"Stop new payments on {account}")
    picture(page, "switch-dialog-phone")
    dialog.get_by_label("Reason").fill("Doubled charges")
    dialog.get_by_role("button", name="Stop new payments").click()
    expect(page.get_by_text("takes no new payments from now on")).to_be_visible()
    expect(page.get_by_label("New payments").get_by_text("Switched off", exact=True)).to_be_visible()
    account.refresh_from_db()
    assert account.switched_off_reason == "Doubled charges"
    page.get_by_role("button", name="Allow again").click()
    page.get_by_role("dialog").get_by_label("Reason").fill("Repaired")
    page.get_by_role("dialog").get_by_role("button", name="Allow again").click()
    expect(page.get_by_text("takes new payments again")).to_be_visible()
    assert complaints == []


def test_a_rule_is_tried_and_then_saved(
    open_page: Callable[..., Page], paid: Order, rule: RoutingRule, complaints: list[str]
) -> None:
    page = open_page("Admin", f"{RULES}{rule.pk}/change/", size="desk")
    page.get_by_label("Up to amount").fill("1000")
    with page.context.expect_page() as opened:
        page.get_by_role("button", name="What would it do?").click()
    opened.value.wait_for_load_state()
    expect(opened.value.get_by_text("Of the newest 1 order 0 would")).to_be_visible()
    picture(opened.value, "preview-desk")
    rule.refresh_from_db()
    assert rule.max_amount == 50000
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("was changed successfully")).to_be_visible()
    rule.refresh_from_db()
    assert rule.max_amount == 100000
    assert complaints == []


def test_an_order_is_rehearsed(
    open_page: Callable[..., Page], paid: Order, rule: RoutingRule, complaints: list[str]
) -> None:
    page = open_page("On-call", f"{RULES}rehearse/")
    page.get_by_label("Billing country").fill("DE")
    page.get_by_label("for adyen", exact=True).check()
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("its share of").first).to_be_visible()
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_page_is_whole(
    open_page: Callable[..., Page],
    paid: Order,
    rule: RoutingRule,
    account: GatewayAccount,
    complaints: list[str],
    size: str,
    scheme: str,
) -> None:
    pages = {
        "accounts": ACCOUNTS,
        "account": f"{ACCOUNTS}{account.pk}/change/",
        "rules": RULES,
        "rule": f"{RULES}{rule.pk}/change/",
        "new-rule": f"{RULES}add/",
        "rehearsal": f"{RULES}rehearse/?amount=100&currency=EUR&country=DE&tokens=payment_method&tokens=adyen",
    }
    page = open_page("Admin", "/admin/", size=size, scheme=scheme)
    found = {}
    host = page.url.removesuffix("/admin/")
    for name, path in pages.items():
        page.goto(f"{host}{path}")
        picture(page, f"{name}-{size}-{scheme}")
        found[name] = [page.evaluate(WIDER), *page.evaluate(UNNAMED), *page.evaluate(TWICE)]
    assert found == {name: [0] for name in pages}
    assert complaints == []
