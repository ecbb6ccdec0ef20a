"""The rule set in force, kept ready in each process and looked at again every `FRAUD_RULES_SECONDS`."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from django.conf import settings
from django.db import Error as DatabaseError

from fraud.models import RuleActivation
from fraud.plans import LivePlan, RuleError

logger = logging.getLogger(__name__)


class NoRulesError(RuntimeError):
    """No rule set is in force, or it cannot run: what that means for an order is the saga's policy."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """Replaced as a whole: a thread that was given one is not disturbed by another that forgets it."""

    plan: LivePlan | None = None
    activation_id: int = 0
    looked_at: float = float("-inf")

    @property
    def is_old(self) -> bool:
        return time.monotonic() - self.looked_at >= float(settings.FRAUD_RULES_SECONDS)


_kept = _Kept()
_looking = threading.Lock()


def live_plan() -> LivePlan:
    """The rules that decide now; at most `FRAUD_RULES_SECONDS` old. Raises `NoRulesError`.

    One thread looks while the others go on with what is there. When the database does not answer, or the new
    set cannot run, the old one stays in force.
    """
    kept = _kept
    if kept.is_old and _looking.acquire(blocking=kept.plan is None):
        try:
            kept = _look()
        finally:
            _looking.release()
    if kept.plan is None:
        raise NoRulesError("No rule set is in force.")
    return kept.plan


def forget_plan() -> None:
    """Look again before the next decision of this process."""
    global _kept
    _kept = _Kept()


def _look() -> _Kept:
    """What is in force now, kept for the others; under the lock."""
    global _kept
    kept = _kept
    if not kept.is_old:
        return kept  # another thread just did
    plan, activation_id = kept.plan, kept.activation_id
    try:
        activation = RuleActivation.objects.in_force()
        if activation is not None and activation.pk != activation_id:
            plan, activation_id = LivePlan.of(activation.ruleset), activation.pk
    except (DatabaseError, RuleError) as error:
        if plan is None:
            raise NoRulesError(f"The rule set in force cannot be used: {error}") from error
        logger.exception("the rule set in force could not be read; the one before stays in force")
    found = _Kept(plan, activation_id, time.monotonic())
    if _kept is kept:  # else somebody published meanwhile: the next decision looks again
        _kept = found
    return found
