"""The inbox, a webhook's page, its dry run and the health, in a real browser on a phone: nothing is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from payments.models import GatewayAccount
from tests.factories.payments import AttemptFactory, OperationFactory, PaymentFactory
from tests.factories.webhooks import InboundWebhookFactory, encode, make_event
from webhooks.models import GapCheck, InboundState, InboundWebhook, RejectedDelivery

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
def webhook(account: GatewayAccount) -> InboundWebhook:
    """A quarantined capture of a known payment, and one that contradicts it."""
    payment = PaymentFactory(account=account, is_authorized=True, gateway_reference="pi_1")
    attempt = AttemptFactory(payment=payment, gateway_reference="pi_1", state="live")
    OperationFactory(attempt=attempt, kind="authorize")
    sent = OperationFactory(attempt=attempt, kind="capture", state="sent")
    event = make_event("evt_1NirD82eZvKYlo2CIvbtLWuY")
    event["data"]["object"] |= {
        "amount_received": 12950,
        "amount_capturable": 0,
        "metadata": {"payment_id": payment.pk, "capture_operation_id": sent.pk},
    }
    common = {"account": account, "event_id": event["id"], "subject": "pi_1", "next_try_at": None}
    first: InboundWebhook = InboundWebhookFactory(
        **common,
        payload=encode(event),
        headers={"stripe-signature": "t=1,v1=00aa", "content-type": "application/json"},
        state=InboundState.QUARANTINED,
        attempts=8,
        order=payment.order,
        verified_with=f"secret {account.secrets.get().pk}",
        last_error="RuntimeError: the payment's row was held by a report for longer than the lock timeout",
        received_at=timezone.now() - timedelta(hours=17),
    )
    other = encode(event | {"created": 1_800_000_999, "pending_webhooks": 0})
    InboundWebhookFactory(**common, payload=other, conflict_of=first, state=InboundState.QUARANTINED)
    _fill(account)
    return first


def _fill(account: GatewayAccount) -> None:
    now = timezone.now()
    for number in range(30):
        at = now - timedelta(minutes=40 * number)
        InboundWebhookFactory(
            account=account,
            state=InboundState.PROCESSED,
            next_try_at=None,
            received_at=at,
            processed_at=at + timedelta(milliseconds=80 + 40 * number),
            outcome={
                "facts": [
                    {"kind": "capture", "status": "captured", "reference": "pi_7", "outcome": "applied"}
                ]
            },
        )
    RejectedDelivery.objects.create(
        account=account, hour=now, reason="webhook_signature", size=10, times=4, last_at=now
    )
    GapCheck.objects.create(account=account, checked_until=now, checked_at=now, missing=2, missing_at=now)


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture(params=["light", "dark"])
def page(
    request: Any, chromium: Browser, live_server: LiveServer, client: Client, complaints: list[str]
) -> Iterator[Page]:
    client.force_login(User.objects.create_superuser("ann"))
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    context = chromium.new_context(viewport={"width": 390, "height": 844}, color_scheme=request.param)
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}])
    page = context.new_page()
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()


def test_every_page_fits_a_phone_and_the_dry_run_is_shown(
    page: Page,
    live_server: LiveServer,
    webhook: InboundWebhook,
    account: GatewayAccount,
    complaints: list[str],
) -> None:
    inbox = live_server.url + reverse("admin:webhooks_inboundwebhook_changelist")
    health = live_server.url + reverse("admin:webhooks_inboundwebhook_health")
    since = live_server.url + reverse("admin:webhooks_inboundwebhook_replay_since")
    its_page = live_server.url + reverse("admin:webhooks_inboundwebhook_change", args=[webhook.pk])
    count = f"{since}?since=2020-01-01&which=failed"
    for url in (inbox, f"{inbox}?box=all", health, f"{health}?account={account.pk}", count, its_page):
        page.goto(url)
        assert page.evaluate(WIDER) == 0, url
    expect(page.get_by_text("created", exact=True)).to_be_visible()
    page.get_by_role("button", name="What would a replay do?").click()
    expect(page.get_by_text("€0.00").first).to_be_visible()
    assert page.evaluate(WIDER) == 0
    webhook.refresh_from_db()
    assert webhook.state == InboundState.QUARANTINED
    assert complaints == []
