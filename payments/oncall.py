"""Tells on-call: a page is written with the trouble, in one transaction, and sent until every channel has taken it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.request import Request, urlopen

import structlog
from django.conf import settings
from django.core.mail import EmailMessage
from django.db.models import F, Q
from django.urls import reverse
from django.utils import timezone

from payments import runbook, sql
from payments.models import OnCallPage, SagaRun
from payments.money import Money
from payments.redaction import redact, redact_data

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=1)
TIMEOUT_SECONDS = 5
FIRST_PAUSE = timedelta(seconds=10)  # after a failure, doubled each time
LONGEST_PAUSE = timedelta(minutes=10)
MOST_AT_ONCE = 100

_OPEN = """
INSERT INTO payments_oncallpage (cause, hour, text, detail, path, count, created_at, tries, error, mail_error)
VALUES (%s, date_trunc('hour', now()), %s, %s::jsonb, %s, 1, now(), 0, '', '')
ON CONFLICT (cause, hour) DO UPDATE SET count = payments_oncallpage.count + 1
RETURNING id
"""


def open_page(cause: str, *, text: str, detail: dict[str, Any], path: str = "") -> int:
    """Ask for a call in the caller's transaction; the same cause within the hour is only counted. The page's id.

    `path` is the page of the admin that it is about; `detail` may name the minor units at stake as `amounts`.
    """
    row = sql.fetch_one(
        _OPEN, [cause[:200], redact(text), json.dumps(redact_data(detail), default=str), path]
    )
    assert row is not None, "an upsert that updates has a row"
    return int(row[0])


# --- the channels -------------------------------------------------------------------------------------------


def post(body: dict[str, Any]) -> None:
    """POST one JSON body to ONCALL_URL.

    Raises `OSError` when nobody took it, `ValueError` when ONCALL_URL is no http address.
    """
    if not settings.ONCALL_URL.startswith(("https://", "http://")):
        raise ValueError("ONCALL_URL must be an http or https address")
    headers = {"Content-Type": "application/json"}
    request = Request(settings.ONCALL_URL, data=json.dumps(body).encode(), headers=headers, method="POST")  # noqa: S310
    with urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310 - the scheme is checked above
        pass


def mail(body: dict[str, Any]) -> None:
    """Mail the same to every address of ONCALL_EMAIL. Raises `OSError` when the mail server did not take it."""
    at_risk = " and ".join(
        _tell_money(minor, currency) for currency, minor in sorted(body["at_risk"].items())
    )
    lines = [
        body["text"],
        "",
        f"Times in this hour: {body['times']}",
        f"Money at risk: {at_risk or 'none'}",
        f"What it is about: {body['url']}",
        f"What to do: {body['runbook']}",
    ]
    subject = " ".join(f"[Countinghouse] {body['text']}".split())[:200]
    EmailMessage(subject, "\n".join(lines), to=settings.ONCALL_EMAIL).send()


def _tell_money(minor: int, currency: str) -> str:
    try:
        return Money(minor, currency).format()
    except ValueError:
        return f"{minor} {currency} (minor units)"


@dataclass(frozen=True, slots=True)
class Channel:
    """One way to tell somebody. `done` and `error` are its columns of the page."""

    done: str
    error: str
    is_wanted: Callable[[], bool]
    send: Callable[[dict[str, Any]], None]


CHANNELS = (
    Channel("posted_at", "error", lambda: bool(settings.ONCALL_URL), lambda body: post(body)),
    Channel("mailed_at", "mail_error", lambda: bool(settings.ONCALL_EMAIL), lambda body: mail(body)),
)


# --- sending ------------------------------------------------------------------------------------------------


def send_unsent_pages() -> int:
    """Send every page that is not sent yet and whose pause is over; returns how many went out whole."""
    unsent = OnCallPage.objects.filter(sent_at__isnull=True).filter(_is_free())
    return sum(
        send_page(page_id) for page_id in unsent.order_by("id").values_list("id", flat=True)[:MOST_AT_ONCE]
    )


def send_page(page_id: int) -> bool:
    """Try each channel that has not taken the page yet; True when none is left.

    What one took is never given to it again, whatever becomes of the other. Somebody who sends it now is not disturbed.
    """
    page = _lease_page(page_id)
    if page is None:
        return False
    log.error("oncall_page", page=page.pk, cause=page.cause, text=page.text)
    body = describe_page(page)
    left = [channel for channel in CHANNELS if channel.is_wanted() and getattr(page, channel.done) is None]
    told = [_tell(page, channel, body) for channel in left]  # all are tried, whichever fails
    is_sent = all(told)
    now = timezone.now()
    pause = min(FIRST_PAUSE * 2 ** min(page.tries, 20), LONGEST_PAUSE)
    end = {"sent_at": now, "leased_until": None} if is_sent else {"leased_until": now + pause}
    return bool(OnCallPage.objects.filter(pk=page.pk, sent_at__isnull=True).update(**end)) and is_sent


def _tell(page: OnCallPage, channel: Channel, body: dict[str, Any]) -> bool:
    row = OnCallPage.objects.filter(pk=page.pk)
    try:
        channel.send(body)
    except Exception as error:  # whatever it is: the other channel must be tried, and this one again
        log.warning("oncall_channel_failed", page=page.pk, channel=channel.done, error=str(error))
        row.update(**{channel.error: redact(f"{type(error).__name__}: {error}")[:500]})
        return False
    row.update(**{channel.done: timezone.now(), channel.error: ""})
    return True


def _is_free() -> Q:
    return Q(leased_until__isnull=True) | Q(leased_until__lte=timezone.now())


def _lease_page(page_id: int) -> OnCallPage | None:
    free = OnCallPage.objects.filter(pk=page_id, sent_at__isnull=True).filter(_is_free())
    if not free.update(leased_until=timezone.now() + LEASE, tries=F("tries") + 1):
        return None
    return OnCallPage.objects.get(pk=page_id)


# --- what is told -------------------------------------------------------------------------------------------


def describe_page(page: OnCallPage) -> dict[str, Any]:
    """What is sent; `id` lets the receiver drop a repetition, `url` says where to look, `runbook` what to do."""
    return {
        "id": f"{page.cause}/{page.hour.isoformat()}",
        "type": page.cause.partition(":")[0],
        "text": page.text,
        "url": f"{settings.SITE_URL}{_find_path(page)}",
        "runbook": link_runbook(page),
        "times": page.count,
        "count": page.count,
        "at_risk": find_at_risk(page),
        **page.detail,
    }


def link_runbook(page: OnCallPage) -> str:
    """The address of what the on-call guide says of the page's cause."""
    return runbook.link_to(runbook.find_slug(page.cause, str(page.detail.get("error") or "")))


def find_at_risk(page: OnCallPage) -> dict[str, int]:
    """Minor units per currency: of a saga's page what all that stand still for this cause have at stake now."""
    parts = page.cause.split(":", 4)
    if parts[0] != "saga" or len(parts) < 5:
        return dict(page.detail.get("amounts") or {})
    _, state, kind, step, code = parts
    cause = (state, kind, step, "" if code == "None" else code)
    groups = SagaRun.objects.stuck_groups()
    found = [group for group in groups if (group.state, group.kind, group.step, group.code) == cause]
    return found[0].at_risk if found else {}


def _find_path(page: OnCallPage) -> str:
    saga = page.detail.get("saga")
    if page.path:
        return page.path
    return reverse("admin:payments_sagarun_change", args=[saga]) if saga else reverse("admin:index")
