"""Pages on-call when money that we hold for captured is missing at the gateway: once, and surely."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from django.db import transaction
from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone

from payments import oncall
from payments.models import OnCallPage
from payments.money import Money
from reconciliation.kinds import DiscrepancyType
from reconciliation.models import Discrepancy, DiscrepancyEvent, Run

CAUSE = "reconciliation.missing_gateway"


def open_page(run: Run) -> int | None:
    """One page for all of the run's missing money that nobody was paged for; None when there is none."""
    with transaction.atomic():
        missing = list(
            Discrepancy.objects.unsettled()
            .select_for_update(of=("self",))
            .filter(sightings__run=run, kind=DiscrepancyType.MISSING_GATEWAY, oncall_page__isnull=True)
            .order_by("id")
        )
        if not missing:
            return None
        amounts: dict[str, int] = defaultdict(int)
        for item in missing:
            amounts[item.currency] += item.amount
        page = oncall.open_page(
            f"{CAUSE}:{run.pk}/{run.attempt}",
            text=tell_missing(run, len(missing), amounts),
            detail={
                "run": run.pk,
                "account": str(run.account),
                "day": run.day.isoformat(),
                "count": len(missing),
                "amounts": amounts,
            },
            path=reverse("admin:reconciliation_run_change", args=[run.pk]),
        )
        Discrepancy.objects.filter(pk__in=[item.pk for item in missing]).update(oncall_page=page)
        now = timezone.now()
        DiscrepancyEvent.objects.bulk_create(
            DiscrepancyEvent(discrepancy=item, type=DiscrepancyEvent.Type.PAGED, at=now) for item in missing
        )
    return page


def find_pages(run: Run) -> QuerySet[OnCallPage]:
    """What on-call was paged for by each start of a run, the newest first."""
    causes = [f"{CAUSE}:{run.pk}/{attempt}" for attempt in range(1, run.attempt + 1)]
    return OnCallPage.objects.filter(cause__in=causes)


def tell_missing(run: Run, count: int, amounts: Mapping[str, int]) -> str:
    """The one sentence that wakes somebody up."""
    sums = " and ".join(Money(amount, currency).format() for currency, amount in sorted(amounts.items()))
    noun = "payment or refund" if count == 1 else "payments or refunds"
    return (
        f"{count} {noun}, {sums}, that we hold for done are not in the settlement report"
        f" of {run.account} for {run.day}"
    )
