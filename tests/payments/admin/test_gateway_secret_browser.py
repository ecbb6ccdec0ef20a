"""Rotating a webhook secret in a real browser: the dialog fits, is named, and shows no secret afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from payments.models import GatewayAccount
from tests.factories.payments import GatewayAccountFactory, GatewaySecretFactory
from tests.payments.admin.test_routing_browser import ACCOUNTS, TWICE, UNNAMED, WIDER
from tests.payments.admin.test_routing_browser import complaints as complaints
from tests.payments.admin.test_routing_browser import open_page as open_page

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]


@pytest.fixture
def account(transactional_db: None) -> GatewayAccount:
    account = GatewayAccountFactory(name="rotating")
    GatewaySecretFactory(account=account, value="whsec_topsecret_old")
    return account


@pytest.mark.parametrize(("size", "scheme"), [("phone", "light"), ("desk", "dark")])
def test_the_secret_is_pasted_and_not_shown_again(
    account: GatewayAccount,
    open_page: Callable[..., Page],
    complaints: list[str],
    size: str,
    scheme: str,
) -> None:
    page = open_page("Admin", f"{ACCOUNTS}{account.pk}/change/", size=size, scheme=scheme)
    page.get_by_role("button", name="Rotate webhook secret").first.click()
    dialog = page.get_by_role("dialog", name="Rotate webhook secret")
    expect(dialog).to_be_visible()
    assert page.evaluate(WIDER) == 0
    assert page.evaluate(UNNAMED) == []
    assert page.evaluate(TWICE) == []
    if folder := os.environ.get("PICTURES"):
        page.screenshot(path=Path(folder) / f"rotate-{size}-{scheme}.png")
    dialog.get_by_label("New signing secret").fill("whsec_topsecret_new")
    dialog.get_by_role("button", name="Rotate webhook secret").click()
    expect(page.get_by_text("is valid now; the old one until")).to_be_visible()
    assert "topsecret" not in page.content()
    assert complaints == []
