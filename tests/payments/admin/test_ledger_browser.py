"""The books in a real browser: light and dark, on a phone, without a complaint of the site's own policy."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest
from django.conf import settings
from django.db import transaction
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from payments.ledger import Account, post, transfer
from payments.models import GatewayAccount, LedgerAccount, LedgerEntry, LedgerPeriod
from payments.money import Money
from tests.payments.admin.conftest import Login

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]

# Contrast as WCAG 2.2 reckons it, of every piece of text that is shown on a page of ours.
FAINT = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const mix = (colors) => {
    canvas.fillStyle = '#fff'; canvas.fillRect(0, 0, 1, 1);
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255);
  };
  const luminance = (rgb) => rgb.map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const walker = document.createTreeWalker(document.querySelector('#content-main'), NodeFilter.SHOW_TEXT);
  const faint = [];
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    const isQuiet = element.closest(':disabled, .material-symbols-outlined');
    if (!node.textContent.trim() || !element.checkVisibility() || isQuiet) continue;
    const behind = [];
    for (let up = element; up; up = up.parentElement) behind.unshift(getComputedStyle(up).backgroundColor);
    const [ink, ground] = [mix([...behind, getComputedStyle(element).color]), mix(behind)].map(luminance);
    const ratio = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    if (ratio < 4.5) faint.push(`${node.textContent.trim()}: ${ratio.toFixed(2)}`);
  }
  return faint;
}"""
UNNAMED = """() => [...document.querySelectorAll('#content-main :is(input, select, textarea, button, a)')]
  .filter((e) => e.checkVisibility())
  .filter((e) => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim()))
  .map((e) => e.outerHTML)"""
DOUBLE_IDS = """() => { const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  return ids.filter((id, i) => ids.indexOf(id) !== i); }"""
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
def books(account: GatewayAccount) -> GatewayAccount:
    for number in range(1, 4):
        lines = transfer(debit=Account.CLEARING, credit=Account.SALES, money=Money(number * 123456, "EUR"))
        with transaction.atomic():
            post(
                account,
                lines,
                event="sale",
                source="test",
                external_id=str(number),
                note=f"Row {number}",
                booked_on=date(2026, 1, number),
            )
    return account


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def paths(books: GatewayAccount) -> dict[str, str]:
    row = LedgerAccount.objects.get(gateway_account=books, code=Account.CLEARING)
    entry = LedgerEntry.objects.order_by("id")[0]
    return {
        "trial": "/admin/payments/ledgeraccount/trial-balance/",
        "statement": f"/admin/payments/ledgeraccount/{row.pk}/change/",
        "entry": f"/admin/payments/ledgerentry/{entry.pk}/change/",
        "periods": "/admin/payments/ledgerperiod/",
    }


@pytest.fixture(params=["light", "dark"])
def page(
    request: pytest.FixtureRequest,
    chromium: Browser,
    live_server: LiveServer,
    log_in: Login,
    complaints: list[str],
) -> Iterator[Page]:
    """Before a finance clerk with a phone."""
    session = log_in("Finance").cookies[settings.SESSION_COOKIE_NAME].value
    context = chromium.new_context(
        viewport={"width": 390, "height": 844}, color_scheme=request.param, base_url=live_server.url
    )
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}])
    page = context.new_page()
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()


def test_every_page_can_be_read_and_needs_no_scrolling_sideways(
    page: Page, paths: dict[str, str], complaints: list[str]
) -> None:
    for name, path in paths.items():
        page.goto(path)
        assert page.evaluate(WIDER) == 0, name
        assert page.evaluate(FAINT) == [], name
        assert page.evaluate(UNNAMED) == [], name
        assert page.evaluate(DOUBLE_IDS) == [], name
    assert complaints == []


def test_a_month_is_closed_and_reopened_through_the_dialogs(
    page: Page, paths: dict[str, str], books: GatewayAccount, complaints: list[str]
) -> None:
    page.goto(paths["periods"])
    page.get_by_role("button", name="Close a period").click()
    dialog = page.locator("#close-dialog")
    dialog.get_by_label("Gateway account").select_option(label=str(books))
    dialog.get_by_label("From").fill("2026-01-01")
    dialog.get_by_label("To").fill("2026-01-31")
    assert page.evaluate(FAINT) == []
    dialog.get_by_role("button", name="Close the period").click()
    expect(page.locator("#content-main h1")).to_contain_text("1 Jan 2026 to 31 Jan 2026")
    assert LedgerPeriod.objects.get().is_closed
    page.get_by_role("button", name="Reopen").click()
    dialog = page.locator("#reopen-dialog")
    dialog.get_by_label("Reason").fill("A report came late")
    dialog.get_by_role("button", name="Reopen").click()
    expect(page.locator("#content-main")).to_contain_text("A report came late")
    assert not LedgerPeriod.objects.get().is_closed
    assert complaints == []


def test_from_the_trial_balance_one_comes_to_the_entry(page: Page, paths: dict[str, str]) -> None:
    page.goto(paths["trial"])
    page.get_by_role("link", name="1100 Clearing").click()
    expect(page.locator("#content-main")).to_contain_text("€7,407.36 debit")
    page.get_by_role("link", name="Sale").first.click()
    expect(page.locator("#content-main h1")).to_contain_text("Sale")
