"""Tells on-call: a page is written with the trouble, in one transaction, and sent until somebody takes it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from urllib.request import Request, urlopen

import structlog
from django.conf import settings
from django.db.models import F, Q
from django.urls import reverse
from django.utils import timezone

from payments import sql
from payments.models import OnCallPage
from payments.redaction import redact

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=1)
TIMEOUT_SECONDS = 5
MAX_TRIES = 50

_OPEN = """
INSERT INTO payments_oncallpage (cause, hour, text, detail, count, created_at, tries, error)
VALUES (%s, date_trunc('hour', now()), %s, %s::jsonb, 1, now(), 0, '')
ON CONFLICT (cause, hour) DO UPDATE SET count = payments_oncallpage.count + 1
"""


def open_page(cause: str, *, text: str, detail: dict[str, Any]) -> None:
    """Ask for a call in the caller's transaction; the same cause within the hour is only counted."""
    sql.run(_OPEN, [cause[:200], redact(text), json.dumps(detail, default=str)])


def send_unsent_pages() -> int:
    """Send every page that is not sent yet; returns how many went out."""
    unsent = OnCallPage.objects.filter(sent_at__isnull=True, tries__lt=MAX_TRIES).order_by("id")
    return sum(_send_page(page) for page in unsent)


def post(body: dict[str, Any]) -> None:
    """POST one JSON body to ONCALL_URL, if there is one.

    Raises `OSError` when nobody took it, `ValueError` when ONCALL_URL is no http address.
    """
    if not settings.ONCALL_URL:
        return
    if not settings.ONCALL_URL.startswith(("https://", "http://")):
        raise ValueError("ONCALL_URL must be an http or https address")
    headers = {"Content-Type": "application/json"}
    request = Request(settings.ONCALL_URL, data=json.dumps(body).encode(), headers=headers, method="POST")  # noqa: S310
    with urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310 - the scheme is checked above
        pass


def _send_page(page: OnCallPage) -> bool:
    if not _lease_page(page):
        return False
    log.error("oncall_page", page=page.pk, cause=page.cause, text=page.text)
    try:
        post(_describe_page(page))
    except (OSError, ValueError) as error:
        OnCallPage.objects.filter(pk=page.pk).update(error=str(error)[:500], leased_until=None)
        return False
    unsent = OnCallPage.objects.filter(pk=page.pk, sent_at__isnull=True)
    return bool(unsent.update(sent_at=timezone.now(), error=""))


def _lease_page(page: OnCallPage) -> bool:
    now = timezone.now()
    free = OnCallPage.objects.filter(pk=page.pk, sent_at__isnull=True).filter(
        Q(leased_until__isnull=True) | Q(leased_until__lt=now)
    )
    return bool(free.update(leased_until=now + LEASE, tries=F("tries") + 1))


def _describe_page(page: OnCallPage) -> dict[str, Any]:
    """What is sent; `id` lets the receiver drop a repetition, `url` lands on the very saga."""
    saga = page.detail.get("saga")
    where = reverse("admin:payments_sagarun_change", args=[saga]) if saga else reverse("admin:index")
    return {
        "id": f"{page.cause}/{page.hour.isoformat()}",
        "type": page.cause.partition(":")[0],
        "text": page.text,
        "url": f"{settings.SITE_URL}{where}",
        "count": page.count,
        **page.detail,
    }
