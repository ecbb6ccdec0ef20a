"""How long the tables of the site itself keep what: sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from payments.models import Order
from payments.retention import Deed, Rule


class SiteData:
    """See payments.retention.DataKeeper. Celery keeps no results (CELERY_TASK_IGNORE_RESULT)."""

    rules: Sequence[Rule] = (
        Rule(
            "django_session",
            Deed.DELETE,
            timedelta(0),
            "expire_date",
            "Nobody is logged in with it any more.",
            key="session_key",
            follows_time=False,
        ),
    )
    kept: Mapping[str, str] = {}

    def erase_order(self, order: Order) -> None:
        """Sessions are the operators' own."""
