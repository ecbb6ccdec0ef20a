"""The pages of endpoints and deliveries in a real browser: light, dark and on a phone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from payments.controls.roles import sync_roles
from tests.factories.payments import ApiClientFactory
from tests.factories.webhooks import DeliveryFactory, EndpointFactory
from webhooks.models import Delivery, DeliveryState, Endpoint

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]
Open = Callable[..., Page]


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def open_page(chromium: Browser, live_server: LiveServer, complaints: list[str]) -> Iterator[Open]:
    cache.clear()
    sync_roles()
    contexts = []

    def open_as_integrator(path: str, *, scheme: Any = "light", width: int = 1280) -> Page:
        user, _ = User.objects.get_or_create(username="ines", defaults={"is_staff": True})
        user.groups.add(Group.objects.get(name="Integrator"))
        client = Client()
        client.force_login(user)
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.add_cookies(
            [{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}]
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{live_server.url}{path}")
        return page

    yield open_as_integrator
    for context in contexts:
        context.close()


@pytest.fixture
def failed(db: None) -> Delivery:
    """An endpoint in trouble, with a delivery that was tried three times."""
    endpoint = EndpointFactory.create(
        client=ApiClientFactory.create(name="Mug shop"),
        url="https://shop.example/countinghouse/events",
        description="The shop's own",
        event_types=["order.paid", "refund.succeeded"],
        rate_per_second=5,
        failing_since=timezone.now() - timedelta(hours=7),
        paused_until=timezone.now() + timedelta(minutes=9),
    )
    DeliveryFactory.create(endpoint=endpoint, state=DeliveryState.DELIVERED, next_try_at=None)
    delivery: Delivery = DeliveryFactory.create(
        endpoint=endpoint, state=DeliveryState.FAILED, next_try_at=None, last_error="answered 502", attempts=3
    )
    for hours, status in ((7, None), (6, 502), (1, 502)):
        delivery.tries.create(
            started_at=timezone.now() - timedelta(hours=hours),
            duration_ms=1250 * hours,
            status=status,
            error="" if status else "no answer within 15 s",
            headers={"webhook-id": delivery.message_id, "webhook-signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQ"},
            answer="<html>Bad gateway</html>" if status else "",
        )
    return delivery


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]
)
def test_every_page_fits_and_obeys_the_policy(
    open_page: Open, failed: Delivery, complaints: list[str], scheme: str, width: int
) -> None:
    paths = {
        "endpoints": reverse("admin:webhooks_endpoint_changelist"),
        "endpoint": reverse("admin:webhooks_endpoint_change", args=[failed.endpoint_id]),
        "edit": reverse("admin:webhooks_endpoint_edit", args=[failed.endpoint_id]),
        "add": reverse("admin:webhooks_endpoint_add"),
        "types": reverse("admin:webhooks_endpoint_types"),
        "deliveries": reverse("admin:webhooks_delivery_changelist"),
        "delivery": reverse("admin:webhooks_delivery_change", args=[failed.pk]),
    }
    for name, path in paths.items():
        page = open_page(path, scheme=scheme, width=width)
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"{name}-{scheme}-{width}.png", full_page=True)
        wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(wider) <= 0, name
    assert complaints == []


def test_what_failed_is_recovered_through_the_dialog(
    open_page: Open, failed: Delivery, complaints: list[str]
) -> None:
    page = open_page(reverse("admin:webhooks_endpoint_change", args=[failed.endpoint_id]), width=390)
    page.get_by_role("button", name="Recover failed", exact=True).click()
    dialog = page.locator("#recover-dialog")
    expect(dialog.get_by_label("Since (UTC)")).to_have_value(
        f"{failed.endpoint.failing_since:%Y-%m-%dT%H:%M}"
    )
    dialog.get_by_role("button", name="Recover failed", exact=True).click()
    expect(page.get_by_text("1 that failed or were given up are on their way again.")).to_be_visible()
    failed.refresh_from_db()
    assert failed.state == DeliveryState.PENDING
    assert complaints == []


def test_an_endpoint_is_made_and_changed_by_form(
    open_page: Open, settings: Any, complaints: list[str]
) -> None:
    client = ApiClientFactory.create(name="Mug shop")
    page = open_page(reverse("admin:webhooks_endpoint_add"))
    page.get_by_label("Client").select_option(str(client.pk))
    page.get_by_label("Address").fill("https://shop.example/events")
    page.get_by_label("order.paid", exact=True).check()
    page.get_by_label("Deliveries a second").fill("3")
    page.get_by_role("button", name="Make the endpoint").click()
    secret = page.locator("[data-secret]").inner_text()
    made = Endpoint.objects.get()
    assert (made.event_types, made.rate_per_second) == (["order.paid"], 3)
    assert secret == made.secrets.get().value
    page.get_by_role("link", name="To the endpoint").click()
    assert secret not in page.content()
    page.get_by_role("link", name="Change the settings").click()
    expect(page.get_by_label("order.paid", exact=True)).to_be_checked()
    page.get_by_label("In order").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The endpoint is changed.")).to_be_visible()
    made.refresh_from_db()
    assert made.is_ordered
    assert complaints == []
