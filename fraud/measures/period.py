"""The time over which something is measured: whole days by UTC, today included."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.utils import timezone


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` to before `until`."""

    since: datetime
    until: datetime

    @classmethod
    def last(cls, days: int, *, now: datetime | None = None) -> Period:
        """The last days, today being one of them."""
        midnight = (now or timezone.now()).replace(hour=0, minute=0, second=0, microsecond=0)
        end = midnight + timedelta(days=1)
        return cls(end - timedelta(days=days), end)

    @property
    def days(self) -> list[date]:
        return [
            (self.since + timedelta(days=number)).date() for number in range((self.until - self.since).days)
        ]
