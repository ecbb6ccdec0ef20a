"""What the settings say of reviews: how soon, what happens at their end, and what takes two people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum

from django.conf import settings

from payments.money import Money, exponent

# A case that expires with an approval is approved so long before: its saga gives up at the very moment.
APPROVAL_LEAD = timedelta(minutes=5)
# How long before its end a case that nobody decided goes to the supervisors.
ESCALATION_LEAD = timedelta(hours=4)
# A snoozed case is back so long before its end.
SNOOZE_MARGIN = timedelta(hours=1)
ANY = "default"


class AtExpiry(StrEnum):
    """What becomes of a case that nobody decided. The end of the authorization always wins."""

    REJECT = "reject"
    APPROVE = "approve"  # below an amount; else rejected
    ESCALATE = "escalate"  # to the supervisors some hours before; then rejected


def sla() -> timedelta:
    return timedelta(seconds=settings.REVIEW_SLA_SECONDS)


def at_expiry() -> AtExpiry:
    """Raises `ValueError` for a word that is none of the three."""
    return AtExpiry(settings.REVIEW_AT_EXPIRY)


def takes_two(total: Money) -> bool:
    """Whether an approval of this amount is a proposal, that a second person confirms."""
    limit = find_limit(settings.REVIEW_FOUR_EYES, total.currency)
    return limit is not None and total >= limit


def is_approved_at_expiry(total: Money) -> bool:
    """Whether the policy lets an order of this amount go when nobody has decided."""
    if at_expiry() is not AtExpiry.APPROVE:
        return False
    limit = find_limit(settings.REVIEW_APPROVE_BELOW, total.currency)
    return limit is not None and total < limit


def find_limit(limits: Mapping[str, str], currency: str) -> Money | None:
    """The limit for a currency, its own or the default; rounded to what the currency can say.

    Raises `ArithmeticError` or `ValueError` for what is not an amount.
    """
    text = limits.get(currency) or limits.get(ANY)
    if not text:
        return None
    return Money(int(Decimal(text).scaleb(exponent(currency))), currency)
