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


@dataclass(slots=True)
class _Kept:
    plan: LivePlan | None = None
    activation_id: int = 0
    looked_at: float = float("-inf")


_kept = _Kept()
_looking = threading.Lock()


def live_plan() -> LivePlan:
    """The rules that decide now; at most `FRAUD_RULES_SECONDS` old. Raises `NoRulesError`.

    One thread looks while the others go on with what is there. When the database does not answer, or the new
    set cannot run, the old one stays in force.
    """
    if time.monotonic() - _kept.looked_at >= settings.FRAUD_RULES_SECONDS and _looking.acquire(
        blocking=_kept.plan is None
    ):
        try:
            _look()
        finally:
            _looking.release()
    if _kept.plan is None:
        raise NoRulesError("No rule set is in force.")
    return _kept.plan


def forget_plan() -> None:
    """Look again before the next decision of this process."""
    _kept.plan, _kept.activation_id, _kept.looked_at = None, 0, float("-inf")


def _look() -> None:
    if time.monotonic() - _kept.looked_at < settings.FRAUD_RULES_SECONDS:
        return  # another thread just did
    try:
        activation = RuleActivation.objects.in_force()
        if activation is not None and activation.pk != _kept.activation_id:
            _kept.plan, _kept.activation_id = LivePlan.of(activation.ruleset), activation.pk
    except (DatabaseError, RuleError) as error:
        if _kept.plan is None:
            raise NoRulesError(f"The rule set in force cannot be used: {error}") from error
        logger.exception("the rule set in force could not be read; the one before stays in force")
    _kept.looked_at = time.monotonic()
