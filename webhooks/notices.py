"""Mails to whom an endpoint belongs: owed as rows, sent with no transaction open, until the mail server takes them."""

from __future__ import annotations

from datetime import timedelta

import structlog
from django.conf import settings
from django.core.mail import EmailMessage
from django.db.models import F
from django.utils import timezone

from payments.redaction import redact
from webhooks.models import Endpoint, EndpointNotice

logger = structlog.stdlib.get_logger(__name__)

LEASE = timedelta(minutes=1)  # above EMAIL_TIMEOUT
FIRST_PAUSE = timedelta(seconds=30)  # after a failure, doubled each time
LONGEST_PAUSE = timedelta(hours=1)
MOST_AT_ONCE = 100
MOST_A_DAY = 20  # of one endpoint: who owns it names the address, which need not be his own


def owe_notice(endpoint: Endpoint, *, subject: str, lines: list[str]) -> None:
    """Write the mail down in the caller's transaction; an endpoint without `notify_email` is owed none.

    Nor is one that had its `MOST_A_DAY`: it could be switched on and gone again without end.
    """
    if endpoint.notify_email and not _has_had_enough(endpoint):
        text = "\n".join([*lines, "", f"Endpoint: {endpoint.url}", f"Its id: {endpoint.pk}"])
        EndpointNotice.objects.create(
            endpoint=endpoint, subject=f"[Countinghouse] {subject}"[:200], text=text
        )


def _has_had_enough(endpoint: Endpoint) -> bool:
    yesterday = timezone.now() - timedelta(days=1)
    return endpoint.notices.filter(created_at__gt=yesterday).count() >= MOST_A_DAY


def send_notices() -> int:
    """Send what is owed and due. Returns how many mails were taken."""
    owed = EndpointNotice.objects.filter(sent_at__isnull=True, next_try_at__lte=timezone.now())
    return sum(
        send_notice(notice) for notice in owed.order_by("id").values_list("id", flat=True)[:MOST_AT_ONCE]
    )


def send_notice(notice_id: int) -> bool:
    """Send one mail, unless somebody does it now; False when it was not taken, and then it stays owed."""
    due = EndpointNotice.objects.filter(pk=notice_id, sent_at__isnull=True, next_try_at__lte=timezone.now())
    if not due.update(next_try_at=timezone.now() + LEASE, tries=F("tries") + 1):
        return False
    notice = EndpointNotice.objects.select_related("endpoint").get(pk=notice_id)
    error = _mail(notice)
    if not error:
        return bool(EndpointNotice.objects.filter(pk=notice_id).update(sent_at=timezone.now(), error=""))
    logger.warning("endpoint_notice_failed", notice_id=notice_id, error=error)
    pause = min(FIRST_PAUSE * 2 ** min(notice.tries - 1, 20), LONGEST_PAUSE)
    EndpointNotice.objects.filter(pk=notice_id).update(next_try_at=timezone.now() + pause, error=error)
    return False


def _mail(notice: EndpointNotice) -> str:
    """What went wrong, or nothing; nothing too when the address was taken away meanwhile."""
    to = notice.endpoint.notify_email
    if not to:
        return ""
    try:
        EmailMessage(notice.subject, notice.text, settings.DEFAULT_FROM_EMAIL, to=[to]).send()
    except Exception as error:  # whatever the mail server or its client raises: the mail stays owed
        return redact(f"{type(error).__name__}: {error}")[:300]
    return ""
