"""Pages on-call when money that we hold for captured is missing at the gateway: once, and surely."""

from __future__ import annotations

import logging
from collections import defaultdict
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from payments import oncall
from payments.money import Money
from reconciliation.kinds import DiscrepancyType
from reconciliation.models import Discrepancy, DiscrepancyEvent, Page, Run

logger = logging.getLogger(__name__)

LEASE = timedelta(minutes=1)
MAX_TRIES = 50


def open_page(run: Run) -> Page | None:
    """One page for all of the run's missing money that nobody was paged for; None when there is none."""
    with transaction.atomic():
        missing = list(
            Discrepancy.objects.unsettled()
            .select_for_update(of=("self",))
            .filter(sightings__run=run, kind=DiscrepancyType.MISSING_GATEWAY, page__isnull=True)
            .order_by("id")
        )
        if not missing:
            return None
        amounts: dict[str, int] = defaultdict(int)
        for item in missing:
            amounts[item.currency] += item.amount
        now = timezone.now()
        page, _ = Page.objects.update_or_create(
            run=run,
            attempt=run.attempt,
            defaults={"count": len(missing), "amounts": dict(amounts), "created_at": now},
        )
        Discrepancy.objects.filter(pk__in=[item.pk for item in missing]).update(page=page)
        DiscrepancyEvent.objects.bulk_create(
            DiscrepancyEvent(discrepancy=item, type=DiscrepancyEvent.Type.PAGED, at=now) for item in missing
        )
    return page


def send_unsent_pages() -> int:
    """Send every page that is not sent yet, and return how many went out."""
    unsent = Page.objects.filter(sent_at__isnull=True, tries__lt=MAX_TRIES).order_by("pk")
    return sum(send_page(page) for page in unsent.select_related("run__account"))


def send_page(page: Page) -> bool:
    """Send a page unless it was sent or somebody is sending it; a failure is kept on the row and tried again."""
    if not _lease_page(page):
        return False
    text = describe_page(page)
    logger.error(text, extra={"run": page.run_id, "page": page.pk})
    try:
        oncall.post(page.describe() | {"text": text, "url": _find_address(page)})
    except (OSError, ValueError) as error:
        Page.objects.filter(pk=page.pk).update(error=str(error)[:500], leased_until=None)
        return False
    return bool(
        Page.objects.filter(pk=page.pk, sent_at__isnull=True).update(sent_at=timezone.now(), error="")
    )


def describe_page(page: Page) -> str:
    """The one sentence that wakes somebody up."""
    sums = " and ".join(Money(amount, currency).format() for currency, amount in sorted(page.amounts.items()))
    noun = "payment or refund" if page.count == 1 else "payments or refunds"
    return (
        f"{page.count} {noun}, {sums}, that we hold for done are not in the settlement report"
        f" of {page.run.account} for {page.run.day}"
    )


def _lease_page(page: Page) -> bool:
    now = timezone.now()
    free = Page.objects.filter(pk=page.pk, sent_at__isnull=True).filter(
        Q(leased_until__isnull=True) | Q(leased_until__lt=now)
    )
    return bool(free.update(leased_until=now + LEASE, tries=page.tries + 1))


def _find_address(page: Page) -> str:
    return f"{settings.SITE_URL}{reverse('admin:reconciliation_run_change', args=[page.run_id])}"
