"""Accounting periods: closed by a person once the days hold, reopened with a reason."""

from __future__ import annotations

from datetime import date, timedelta

import structlog
from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from payments.errors import ConflictError, InvalidRequestError
from payments.ledger import Account
from payments.models import GatewayAccount, LedgerPeriod, Posting
from payments.money import Money
from payments.proof import Days, prove_ledger

log = structlog.get_logger(__name__)

MOST_DAYS = 366
SHOWN_DIFFERENCES = 3


def close_period(
    account: GatewayAccount, *, first_day: date, last_day: date, actor: str, note: str = ""
) -> LedgerPeriod:
    """Close these days of an account in all its currencies: whatever comes later is booked on the next open day.

    Raises `InvalidRequestError` for days that cannot be a period, and `ConflictError` when a part of it is closed
    already, suspense is not zero, or the proof finds a difference; nothing is closed then.
    """
    _check_days(first_day, last_day)
    with transaction.atomic():
        LedgerPeriod.objects.lock_days(account, first_day, last_day)
        _refuse_overlap(account, first_day, last_day)
        _refuse_suspense(account, last_day)
        _refuse_differences(Days(account, first_day, last_day))
        period = LedgerPeriod.objects.create(
            gateway_account=account,
            first_day=first_day,
            last_day=last_day,
            closed_at=timezone.now(),
            closed_by=actor,
            note=note,
        )
    period.refresh_from_db()  # the trigger has written what the days hold
    log.info("ledger_period_closed", period=str(period), actor=actor, postings=period.postings)
    return period


def reopen_period(period_id: int, *, reason: str, actor: str) -> LedgerPeriod:
    """Let entries be booked on its days again; the closing and the reason stay on record.

    Raises `InvalidRequestError` without a reason, and `ConflictError` when it is open, or a later period of the
    account is closed, whose opening balances would change.
    """
    if not reason.strip():
        raise InvalidRequestError("Reopening a period needs a reason. Nothing was reopened.")
    with transaction.atomic():
        period = LedgerPeriod.objects.select_related("gateway_account").get(pk=period_id)
        later = LedgerPeriod.objects.closed().filter(
            gateway_account=period.gateway_account_id, first_day__gt=period.last_day
        )
        if blocking := later.order_by("-first_day").first():
            raise ConflictError(
                f"{blocking} is closed and begins with what {period} leaves; reopen it first. Nothing was reopened."
            )
        reopened = LedgerPeriod.objects.closed().filter(pk=period_id)
        if not reopened.update(reopened_at=timezone.now(), reopened_by=actor, reopen_reason=reason.strip()):
            raise ConflictError(f"{period} is open already. Nothing was changed.")
    period.refresh_from_db()
    log.warning("ledger_period_reopened", period=str(period), actor=actor, reason=reason)
    return period


def _check_days(first_day: date, last_day: date) -> None:
    today = timezone.now().date()
    if first_day > last_day:
        raise InvalidRequestError(f"{first_day} is after {last_day}. Nothing was closed.")
    if last_day >= today:
        raise InvalidRequestError(
            f"{last_day} is not over (UTC); a period ends yesterday or earlier. Nothing was closed."
        )
    if last_day - first_day > timedelta(days=MOST_DAYS):
        raise InvalidRequestError(f"A period has at most {MOST_DAYS + 1} days. Nothing was closed.")


def _refuse_overlap(account: GatewayAccount, first_day: date, last_day: date) -> None:
    closed = LedgerPeriod.objects.closed().overlapping(account, first_day, last_day)
    if period := closed.select_related("gateway_account").first():
        raise ConflictError(f"{period} is closed already. Nothing was closed.")


def _refuse_suspense(account: GatewayAccount, last_day: date) -> None:
    postings = Posting.objects.filter(
        account__gateway_account=account, account__code=Account.SUSPENSE, booked_on__lte=last_day
    )
    sums = postings.values_list("account__currency").annotate(total=Sum("amount")).exclude(total=0)
    left = [Money(abs(total), currency).format() for currency, total in sums.order_by("account__currency")]
    if left:
        raise ConflictError(
            f"Suspense of {account} holds {' and '.join(left)} on {last_day}: explain and adjust it first. "
            "Nothing was closed."
        )


def _refuse_differences(days: Days) -> None:
    differences = prove_ledger(days)
    if differences:
        shown = "; ".join(differences[:SHOWN_DIFFERENCES])
        raise ConflictError(
            f"The proof finds {len(differences)} difference{'' if len(differences) == 1 else 's'} "
            f"from {days.first} to {days.last}: {shown}. Nothing was closed."
        )
