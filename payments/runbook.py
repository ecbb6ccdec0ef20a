"""Where the on-call guide speaks of a cause: the one truth of cause and section, read from docs/oncall.md."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from django.conf import settings
from django.urls import reverse

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "oncall.md"

# What a page is about, the most special first: an error's code, then the beginning of its cause.
BY_CODE = {
    "gateway_mismatch": "gateway_mismatch",
    "unknown_definition": "unknown_definition",
    "internal_error": "internal_error",
    "payment_error": "no-progress",
    "network_error": "network_error",
    "gateway_unavailable": "the-gateway-is-down",
    "gateway_timeout": "an-operation-is-unknown",
}
BY_CAUSE = {
    "saga:FAILED_COMPENSATION": "a-compensation-failed",
    "saga:QUARANTINED": "a-saga-is-quarantined",
    "operation": "an-operation-is-unknown",
    "hold": "a-hold-could-not-be-used",
    "dispute": "a-dispute-must-be-answered",
    "token_not_forgotten": "a-removed-token-was-not-deleted",
    "fraud_drift": "a-fraud-rule-drifts",
    "reconciliation": "money-is-missing-at-the-gateway",
    "webhook_endpoint": "an-endpoint-was-disabled",
    "webhook:parked": "a-webhook-waits-for-more-than-an-hour",
    "webhook:failing": "a-webhook-waits-for-more-than-an-hour",
    "webhook:conflict": "a-webhook-contradicts-another",
    "webhook:rejected": "deliveries-are-refused",
    "webhook:gap": "webhooks-are-missing",
    "webhook:silence": "webhooks-are-missing",
    "webhook:stuck": "nothing-moves",
    "webhook": "a-webhook-is-quarantined",
    "ledger": "the-ledger-differs",
    "gateway": "the-gateway-is-down",
    "queue": "nothing-moves",
}
FALLBACK = "on-call"


def find_slug(cause: str, code: str = "") -> str:
    """The section that speaks of an error's code, or else of a cause such as `saga:QUARANTINED:checkout:ship:x`."""
    if cause.startswith("saga:QUARANTINED") and code in BY_CODE:
        return BY_CODE[code]
    fitting = (slug for beginning, slug in BY_CAUSE.items() if cause.startswith(beginning))
    return next(fitting, FALLBACK)


def link_to(slug: str) -> str:
    """The whole address of a section: below RUNBOOK_URL, or else on a page of our own."""
    if settings.RUNBOOK_URL:
        return f"{settings.RUNBOOK_URL}{slug}"
    return f"{settings.SITE_URL}{reverse('runbook', args=[slug])}"


def make_slug(heading: str) -> str:
    """As code hosts make it: small letters, words joined by hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@cache
def read_sections() -> dict[str, tuple[str, str]]:
    """Heading and text of every section by its slug, in the guide's order. Raises `OSError` without the guide."""
    sections: dict[str, tuple[str, str]] = {}
    parts = re.split(r"^(#{1,3}) (.+)$", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    headings = list(zip(parts[::3], parts[1::3], parts[2::3], strict=True))
    for number, (level, heading, text) in enumerate(headings):
        below = "" if level == "#" else _join_below(len(level), headings[number + 1 :])
        sections[make_slug(heading)] = (heading, (text + below).strip())
    return sections


def _join_below(level: int, following: list[tuple[str, str, str]]) -> str:
    """A section contains those of a deeper level that follow it."""
    joined = ""
    for marks, heading, text in following:
        if len(marks) <= level:
            break
        joined += f"{marks} {heading}{text}"
    return joined


def all_slugs() -> set[str]:
    """Every section that a page may point at."""
    return {*BY_CODE.values(), *BY_CAUSE.values(), FALLBACK}
