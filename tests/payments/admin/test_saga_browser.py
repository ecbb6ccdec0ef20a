"""The sagas' pages in a real browser: light, dark and on a phone; each dialog works under the site's own policy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from payments import services
from payments.models import ForceRequest, Inquiry, OnCallPage, Operation, Order, SagaEffect, SagaRun
from tests.payments.admin.conftest import Login

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]
Open = Callable[..., Page]

# What a person who hears or types instead of seeing and pointing would trip over.
FAULTS = """() => {
    const found = [];
    const shown = (node) => node.getClientRects().length > 0;
    const named = (node) => (node.innerText || node.getAttribute("aria-label") || node.title || "").trim();
    const ours = (names) => names.split(", ").flatMap(
        (name) => [...document.querySelectorAll(`.bo-page ${name}, .bo-opener-box ${name}`)]);
    for (const node of ours("button, a[href]"))
        if (shown(node) && !named(node)) found.push(`no name: ${node.outerHTML.slice(0, 90)}`);
    for (const node of ours("input:not([type=hidden]), select, textarea"))
        if (shown(node) && !node.labels?.length && !node.getAttribute("aria-label"))
            found.push(`no label: ${node.outerHTML.slice(0, 90)}`);
    for (const node of document.querySelectorAll(".bo-page [aria-labelledby], .bo-page [aria-describedby]"))
        for (const id of (node.getAttribute("aria-labelledby") || node.getAttribute("aria-describedby")).split(" "))
            if (!document.getElementById(id)) found.push(`points nowhere: ${id}`);
    const ids = [...document.querySelectorAll(".bo-page [id]")].map((node) => node.id);
    for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) found.push(`twice: ${id}`);
    if (document.querySelectorAll("h1").length === 0) found.push("no h1");
    return found;
}"""
# The least contrast of the words in our boxes, by the formula of WCAG 2.
CONTRAST = """() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const pixel = (colours) => {
        canvas.clearRect(0, 0, 1, 1);
        for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
        .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    let least = [21, ""];
    for (const node of document.querySelectorAll(".bo-page *, .bo-opener-box *")) {
        const hasWords = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
        if (!hasWords || !node.getClientRects().length || node.closest(":disabled")) continue;
        const behind = [];
        for (let at = node; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
        const ground = pixel(["#fff", ...behind]);
        const ink = pixel([`rgb(${ground.slice(0, 3)})`, getComputedStyle(node).color]);
        const [low, high] = [light(ground), light(ink)].sort((a, b) => a - b);
        const ratio = (high + 0.05) / (low + 0.05);
        if (ratio < least[0]) least = [ratio, `${node.className}: ${node.textContent.trim().slice(0, 40)}`];
    }
    return least;
}"""


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def open_page(
    chromium: Browser, live_server: LiveServer, log_in: Login, complaints: list[str]
) -> Iterator[Open]:
    contexts = []

    def open_as(role: str, path: str, *, scheme: str = "light", width: int = 1280) -> Page:
        session = log_in(role).cookies[settings.SESSION_COOKIE_NAME].value
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
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


@pytest.fixture
def stuck(place: Callable[..., Order]) -> SagaRun:
    for _ in range(2):
        place()
    SagaEffect.objects.filter(step="ship").delete()
    error = {"code": "internal_error", "message": "KeyError during ship: the carrier's answer has no number"}
    SagaRun.objects.update(state="QUARANTINED", step="ship", last_error=error)
    operation = Operation.objects.filter(kind="capture").order_by("id").first()
    assert operation
    Inquiry.objects.create(operation=operation, answer="gateway_timeout", asked_at=timezone.now())
    OnCallPage.objects.create(
        cause="saga:QUARANTINED:checkout:ship:internal_error",
        hour=timezone.now(),
        text="Saga checkout stopped at ship (QUARANTINED)",
        detail={"error": "internal_error"},
        created_at=timezone.now(),
        error="URLError: refused",
    )
    return SagaRun.objects.order_by("id")[0]


def list_paths(stuck: SagaRun) -> dict[str, str]:
    request = services.propose_force(
        stuck.pk,
        epoch=stuck.epoch,
        target="paid",
        evidence="Sent by hand",
        references=["pi_1"],
        actor="user:ann",
    )
    return {
        "list": reverse("admin:payments_sagarun_changelist"),
        "group": reverse("admin:payments_sagarun_group")
        + "?state=QUARANTINED&kind=checkout&step=ship&code=internal_error",
        "saga": reverse("admin:payments_sagarun_change", args=[stuck.pk]),
        "force": reverse("admin:payments_forcerequest_change", args=[request.pk]),
        "calls": reverse("admin:payments_oncallpage_changelist"),
        "guide": reverse("runbook", args=["a-saga-is-quarantined"]),
        "tools": reverse("runbook", args=["the-tools"]),
    }


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]
)
def test_every_page_can_be_read_by_everybody(
    open_page: Open, stuck: SagaRun, complaints: list[str], scheme: str, width: int
) -> None:
    for name, path in list_paths(stuck).items():
        page = open_page("On-call", path, scheme=scheme, width=width)
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"{name}-{scheme}-{width}.png", full_page=True)
        assert page.evaluate(FAULTS) == [], name
        ratio, words = page.evaluate(CONTRAST)
        assert ratio >= 4.5, (name, words)
        wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(wider) == 0, name
    assert complaints == []


def test_a_step_is_skipped_through_the_dialog(open_page: Open, stuck: SagaRun, complaints: list[str]) -> None:
    page = open_page("On-call", reverse("admin:payments_sagarun_change", args=[stuck.pk]), width=390)
    page.get_by_role("button", name="Skip step", exact=True).click()
    dialog = page.locator("#skip-dialog")
    assert page.evaluate(FAULTS) == []
    dialog.get_by_label("Reason").fill("sent by hand")
    dialog.get_by_role("button", name="Skip step", exact=True).click()
    expect(page.locator("body")).to_contain_text("The step ship was skipped")
    assert SagaRun.objects.get(pk=stuck.pk).state == "COMPLETED"
    assert complaints == []


def test_an_end_is_forced_by_two_people(open_page: Open, stuck: SagaRun, complaints: list[str]) -> None:
    page = open_page("On-call", reverse("admin:payments_sagarun_change", args=[stuck.pk]))
    page.get_by_role("button", name="Propose a forced end", exact=True).click()
    dialog = page.locator("#force-dialog")
    dialog.get_by_label("Evidence").fill("Sent by hand")
    dialog.get_by_label("References at the gateway").fill("pi_1\npi_2")
    dialog.get_by_role("button", name="Propose a forced end", exact=True).click()
    expect(page.locator("body")).to_contain_text("proposes to end it as paid")
    request = ForceRequest.objects.get()
    page = open_page("Admin", reverse("admin:payments_forcerequest_change", args=[request.pk]))
    page.get_by_role("button", name="Approve", exact=True).click()
    page.locator("#approve-dialog").get_by_role("button", name="Approve", exact=True).click()
    expect(page.locator("body")).to_contain_text("forced to its end")
    assert SagaRun.objects.get(pk=stuck.pk).state == "FORCED"
    assert complaints == []


def test_a_group_is_taken_up_again(open_page: Open, stuck: SagaRun, complaints: list[str]) -> None:
    page = open_page("On-call", reverse("admin:payments_sagarun_changelist"))
    page.get_by_role("link", name="Look and retry").click()
    page.get_by_label("Reason").fill("deployed")
    page.get_by_role("button", name="Retry all 2").click()
    expect(page.locator("body")).to_contain_text("2 of 2 taken up again")
    assert SagaRun.objects.stuck().count() == 0
    assert complaints == []
