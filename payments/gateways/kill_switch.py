"""The operators' kill switch: rows that say which accounts take no new payments, obeyed everywhere within seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache

import structlog
from django.db import DatabaseError

from payments.models import GatewayAccount

Clock = Callable[[], float]
logger = structlog.get_logger(__name__)

FRESH_SECONDS = 2.0  # how old the knowledge of a process may be: one small query in this time


@dataclass(frozen=True, slots=True)
class Switch:
    """Who switched an account off, when and why."""

    name: str
    by: str
    reason: str
    at: datetime


FindSwitch = Callable[[], Switch | None]


def no_switch() -> None:
    """Of a gateway that is no account of ours."""
    return


def to_switch(account: GatewayAccount) -> Switch | None:
    """What the account's row says; None when it may take new payments."""
    if account.switched_off_at is None:
        return None
    return Switch(str(account), account.switched_off_by, account.switched_off_reason, account.switched_off_at)


class SwitchBoard:
    """What this process knows of the switches. The rows are the truth, so that emptying Redis opens nothing."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._known: Mapping[str, Switch] = {}
        self._fresh_until = float("-inf")

    def find(self, account_id: str) -> Switch | None:
        return self.read().get(account_id)

    def read(self) -> Mapping[str, Switch]:
        """Every switch that is off, by the account's id; without the database what was known last."""
        if self._clock() >= self._fresh_until:
            try:
                self._known = read_switches()
            except DatabaseError as error:
                logger.warning("gateway_switches_unread", reason=type(error).__name__)
            self._fresh_until = self._clock() + FRESH_SECONDS
        return self._known

    def forget(self) -> None:
        """Look again at the next question: this process has just changed one."""
        self._fresh_until = float("-inf")


def read_switches() -> dict[str, Switch]:
    accounts = GatewayAccount.objects.filter(switched_off_at__isnull=False).only(
        "gateway", "name", "switched_off_by", "switched_off_reason", "switched_off_at"
    )
    return {account.pk: switch for account in accounts if (switch := to_switch(account))}


@cache
def switch_board() -> SwitchBoard:
    return SwitchBoard()
