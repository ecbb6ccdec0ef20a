"""Tells on-call what stands still or is missing among the gateways' webhooks: one page per cause and account."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import structlog
from django.db import transaction
from django.db.models import Count, F, Min, Q, Sum
from django.db.models.functions import Coalesce, Now
from django.urls import reverse
from django.utils import timezone

from payments.gateways import load_adapter
from payments.ids import lowest_id
from payments.models import GatewayAccount, OnCallPage, Operation, OperationState
from payments.oncall import open_page
from webhooks.models import (
    GapCheck,
    InboundSource,
    InboundState,
    InboundWebhook,
    InboundWebhookQuerySet,
    RejectedDelivery,
)

logger = structlog.stdlib.get_logger(__name__)

PARKED_TOO_LONG = timedelta(hours=1)
WORKER_TOO_LATE = timedelta(minutes=5)
ASKING_TOO_LATE = timedelta(hours=1)
GAP_CHECK_FAILING = timedelta(hours=3)
MANY_REJECTED = 20  # in an hour, and more than were accepted; `rejected_per_hour` of the account
SILENCE_HOURS = 12  # `silence_hours` of the account; 0: it may be silent
SILENCE_LOOK = timedelta(days=3)  # older payments say nothing of today's webhooks
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Alarm:
    """What on-call is to be told. `note` writes down that it was, in the page's transaction."""

    cause: str
    text: str
    path: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    quiet: timedelta = HOUR  # so long after a page of this cause there is no other
    note: Callable[[], object] = lambda: None


def watch_webhooks() -> int:
    """Open the pages that are due. Returns how many."""
    return sum(_follow(rule) for rule in RULES)


def _follow(rule: Callable[[], Iterator[Alarm]]) -> int:
    try:
        return sum(_call(alarm) for alarm in rule())
    except Exception:  # a rule that cannot be followed must not silence the others
        logger.exception("webhook_watch_failed", rule=rule.__name__)
        return 0


def _call(alarm: Alarm) -> bool:
    with transaction.atomic():
        lately = OnCallPage.objects.filter(cause=alarm.cause, created_at__gt=timezone.now() - alarm.quiet)
        if lately.exists():
            return False
        open_page(alarm.cause, text=alarm.text, detail=alarm.detail, path=alarm.path)
        alarm.note()
    return True


def link_inbox(account: str, box: str) -> str:
    """The inbox, narrowed to a box and an account."""
    query = urlencode({"box": box, "account__id__exact": account})
    return f"{reverse('admin:webhooks_inboundwebhook_changelist')}?{query}"


def link_health(account: str) -> str:
    """The page of an account's health."""
    return f"{reverse('admin:webhooks_inboundwebhook_health')}?{urlencode({'account': account})}"


def _accounts() -> dict[str, GatewayAccount]:
    return {account.pk: account for account in GatewayAccount.objects.filter(is_active=True)}


def _name_accounts() -> dict[str, str]:
    """Also those that are not active any more."""
    return {account.pk: str(account) for account in GatewayAccount.objects.defer("api_key")}


def _read_option(account: GatewayAccount, name: str, default: int) -> int:
    """A whole number of the account's options; the default for what is none."""
    text = str(account.options.get(name, ""))
    return int(text) if text.isdecimal() else default


# --- rows that stand still ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trouble:
    """Rows that nothing moves on soon. Each is told once, and again only after a replay or a worse state."""

    cause: str
    box: str
    words: str
    condition: Q
    is_late: bool = False  # told only after an hour

    def rows(self) -> InboundWebhookQuerySet:
        untold = InboundWebhook.objects.filter(self.condition, alarmed_at__isnull=True)
        if not self.is_late:
            return untold
        return untold.alias(since=Coalesce("replayed_at", "received_at")).filter(
            since__lt=timezone.now() - PARKED_TOO_LONG
        )


TROUBLES = (
    Trouble(
        "webhook:parked",
        "parked",
        "parked for more than an hour: their payments are not known here",
        Q(state=InboundState.PARKED),
        is_late=True,
    ),
    Trouble(
        "webhook:failing",
        "failed",
        "failing for more than an hour",
        Q(state=InboundState.FAILED),
        is_late=True,
    ),
    Trouble(
        "webhook:quarantined",
        "quarantined",
        "quarantined: nobody tries them any more",
        Q(state=InboundState.QUARANTINED, conflict_of__isnull=True),
    ),
    Trouble(
        "webhook:conflict",
        "conflicts",
        "not applied: another one with the same event id says something else",
        Q(state=InboundState.QUARANTINED, conflict_of__isnull=False),
    ),
)


def find_troubles() -> Iterator[Alarm]:
    names = _name_accounts()
    for trouble in TROUBLES:
        groups = trouble.rows().order_by().values_list("account").annotate(Count("pk"), Min("received_at"))
        for account, count, oldest in groups:
            yield Alarm(
                f"{trouble.cause}:{names[account]}",
                f"{_count(count, 'webhook')} of {names[account]} {trouble.words}",
                path=link_inbox(account, trouble.box),
                detail={"account": names[account], "webhooks": count, "oldest": oldest},
                note=_mark_told(trouble, account),
            )


def _mark_told(trouble: Trouble, account: str) -> Callable[[], object]:
    return lambda: trouble.rows().filter(account=account).update(alarmed_at=Now())


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


# --- machinery ----------------------------------------------------------------------------------------------


def find_late_worker() -> Iterator[Alarm]:
    """Something is due, and nobody takes it."""
    due = InboundWebhook.objects.open().filter(next_try_at__lte=timezone.now() - WORKER_TOO_LATE)
    found = due.aggregate(count=Count("pk"), oldest=Min("next_try_at"))
    if found["count"]:
        yield Alarm(
            "webhook:stuck",
            f"{_count(found['count'], 'webhook')} due, and no worker takes them",
            path=reverse("admin:webhooks_inboundwebhook_health"),
            detail={"webhooks": found["count"], "due_since": found["oldest"]},
        )


def find_rejections() -> Iterator[Alarm]:
    """More is refused than accepted: a secret was rotated on one side only, or somebody forges."""
    now = timezone.now()
    rejected = RejectedDelivery.objects.filter(
        # By the hour too, which the index begins with.
        hour__gte=now - 2 * HOUR,
        last_at__gt=now - HOUR,
        reason__in=("webhook_signature", "webhook_replay"),
    )
    accounts = _accounts()
    for account_id, times in rejected.order_by().values_list("account").annotate(Sum("times")):
        account = accounts.get(account_id)
        if account is None or times < _read_option(account, "rejected_per_hour", MANY_REJECTED):
            continue
        accepted = InboundWebhook.objects.filter(
            pk__gte=lowest_id("inb", now - HOUR), account=account, source=InboundSource.WEBHOOK
        ).count()
        if times > accepted:
            yield Alarm(
                f"webhook:rejected:{account}",
                f"{times} deliveries to {account} were refused within the hour, {accepted} accepted: wrong secret?",
                path=link_health(account.pk),
                detail={"account": str(account), "refused": times, "accepted": accepted},
            )


# --- what never came ----------------------------------------------------------------------------------------


def find_missing() -> Iterator[Alarm]:
    """Webhooks that only the gateway's list had, since on-call was last told."""
    for check in GapCheck.objects.filter(missing__gt=F("told_missing")).select_related("account"):
        new, account = check.missing - check.told_missing, check.account
        yield Alarm(
            f"webhook:gap:{account}",
            f"{_count(new, 'webhook')} of {account} never came, and {'was' if new == 1 else 'were'} "
            "fetched from the gateway's list",
            path=link_health(account.pk),
            detail={"account": str(account), "missing": new, "found_at": check.missing_at},
            note=_set(check, told_missing=check.missing),
        )


def find_failing_checks() -> Iterator[Alarm]:
    late = GapCheck.objects.filter(
        failing_since__lt=timezone.now() - GAP_CHECK_FAILING, account__is_active=True
    ).select_related("account")
    for check in late:
        yield Alarm(
            f"webhook:gap-check:{check.account}",
            f"The event list of {check.account} cannot be read: {check.last_error}",
            path=link_health(check.account_id),
            detail={"account": str(check.account), "failing_since": check.failing_since},
            quiet=DAY,
        )


def find_silence() -> Iterator[Alarm]:
    """An account moves money of which its gateway sends word, and nothing at all was heard since. Told once."""
    checks = GapCheck.objects.in_bulk()
    for account in _accounts().values():
        heard, is_silent = find_last_heard(account), False
        hours = _read_option(account, "silence_hours", SILENCE_HOURS)
        if hours:
            is_silent = _has_moved(account, heard, until=timezone.now() - timedelta(hours=hours))
        check = checks.get(account.pk) or GapCheck(account=account)
        if not is_silent and check.silent_since:
            _set(check, silent_since=None)()
        elif is_silent and check.silent_since is None:
            yield Alarm(
                f"webhook:silence:{account}",
                f"{account} has moved money for more than {_count(hours, 'hour')}, and no webhook came",
                path=link_health(account.pk),
                detail={"account": str(account), "last_heard": heard},
                note=_set(check, silent_since=timezone.now()),
            )


def _has_moved(account: GatewayAccount, heard: datetime | None, *, until: datetime) -> bool:
    since = max(heard or account.created_at, timezone.now() - SILENCE_LOOK)
    if since >= until:
        return False
    moved = Operation.objects.filter(account=account, created_at__gt=since, created_at__lt=until)
    kinds = load_adapter(account.gateway).capabilities.webhook_kinds
    return moved.filter(kind__in=kinds, state=OperationState.SUCCEEDED).exists()


def find_last_heard(account: GatewayAccount) -> datetime | None:
    """When the account's gateway last sent a new webhook, in the last 30 days."""
    lately = InboundWebhook.objects.filter(
        pk__gte=lowest_id("inb", timezone.now() - timedelta(days=30)),
        account=account,
        source=InboundSource.WEBHOOK,
    )
    return lately.order_by("-pk").values_list("received_at", flat=True).first()


def find_unasked_operations() -> Iterator[Alarm]:
    """Operations without an end about which nobody asks the gateway: the schedule of payments has lost them."""
    now = timezone.now()
    unasked = Operation.objects.filter(
        Q(next_ask_at__isnull=True) | Q(next_ask_at__lt=now - ASKING_TOO_LATE),
        state__in=(OperationState.SENT, OperationState.PENDING, OperationState.UNKNOWN),
        escalated_at__isnull=True,
        created_at__lt=now - ASKING_TOO_LATE,
    )
    names = _name_accounts()
    for account, count in unasked.order_by().values_list("account").annotate(Count("pk")):
        yield Alarm(
            f"operation:unasked:{names[account]}",
            f"{_count(count, 'operation')} at {names[account]} without an end, and the gateway is not being asked",
            path=reverse("admin:payments_operation_changelist"),
            detail={"account": names[account], "operations": count},
            quiet=DAY,
        )


def _set(check: GapCheck, **columns: Any) -> Callable[[], object]:
    return lambda: GapCheck.objects.update_or_create(account_id=check.account_id, defaults=columns)


RULES: tuple[Callable[[], Iterator[Alarm]], ...] = (
    find_troubles,
    find_late_worker,
    find_rejections,
    find_missing,
    find_failing_checks,
    find_silence,
    find_unasked_operations,
)
