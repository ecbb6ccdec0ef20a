"""The dispute desk in a real browser: a file that is refused, one that is kept, and the answer, on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from payments.gateways.base import DisputeFact
from payments.kinds import DisputeStage, DisputeState
from payments.models import Dispute
from payments.services import disputes
from tests.factories.customers import OpenDisputeFactory
from tests.fakes import FakeGateway
from tests.payments.admin.conftest import Login

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]


@pytest.fixture
def dispute(monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path) -> Dispute:
    settings.MEDIA_ROOT = str(tmp_path)
    gateway = FakeGateway()
    monkeypatch.setattr(disputes, "get_gateway", lambda account: gateway)
    made: Dispute = OpenDisputeFactory.create(
        reason="fraudulent", network_code="10.4", fee=1500, fee_currency="EUR", is_withdrawn=True
    )
    gateway.disputes[made.gateway_reference] = DisputeFact(
        reference=made.gateway_reference,
        payment_reference="",
        stage=DisputeStage.CHARGEBACK,
        state=DisputeState.NEEDS_RESPONSE,
        amount=made.money,
    )
    return made


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def page(
    chromium: Browser, live_server: LiveServer, log_in: Login, dispute: Dispute, complaints: list[str]
) -> Iterator[Page]:
    session = log_in("Finance").cookies[settings.SESSION_COOKIE_NAME].value
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}])
    page = context.new_page()
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{live_server.url}/admin/payments/dispute/")
    yield page
    context.close()


def choose_file(page: Page, name: str, content: bytes) -> None:
    dialog = page.locator("#file-dialog")
    dialog.locator("input[type=file]").set_input_files(
        {"name": name, "mimeType": "application/pdf", "buffer": content}
    )
    dialog.get_by_role("button", name="Add file", exact=True).click()


def test_a_dispute_is_answered_with_a_file(page: Page, dispute: Dispute, complaints: list[str]) -> None:
    expect(page.get_by_text("6 days left")).to_be_visible()
    page.get_by_role("link", name="To answer").last.click()
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wider) == 0
    page.get_by_role("button", name="Add file", exact=True).click()
    choose_file(page, "slip.pdf", b"MZ no pdf")
    expect(page.get_by_text("no PDF, JPEG or PNG")).to_be_visible()
    assert page.evaluate(wider) == 0
    complaints.clear()  # the browser itself notes the 422
    choose_file(page, "slip.pdf", b"%PDF-1.7 a slip")
    expect(page.get_by_role("link", name="slip.pdf")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="slip.pdf").click()
    assert download.value.suggested_filename == "slip.pdf"
    page.get_by_role("button", name="Submit evidence", exact=True).click()
    dialog = page.locator("#submit-dialog")
    expect(dialog.get_by_text("slip.pdf")).to_be_visible()
    dialog.get_by_role("button", name="Submit evidence", exact=True).click()
    expect(page.get_by_text("What was sent")).to_be_visible()
    dispute.refresh_from_db()
    assert dispute.state == "under_review"
    assert complaints == []
