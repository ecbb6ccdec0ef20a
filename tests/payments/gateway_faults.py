"""What a scripted gateway may do instead of answering, and a clock that is moved instead of waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from django.db import connection
from django.utils import timezone

from payments import services
from payments.errors import GatewayTimeoutError, InvalidRequestError, NetworkError
from payments.models import Operation

Act = Callable[[], Any]


def acts_then_times_out(act: Act) -> NoReturn:
    act()
    raise GatewayTimeoutError("no answer")


def times_out(act: Act) -> NoReturn:
    raise GatewayTimeoutError("no answer")


def is_unreachable(act: Act) -> NoReturn:
    raise NetworkError("connection refused")


def refuses(act: Act) -> NoReturn:
    raise InvalidRequestError("no such thing")


def make_due(*, overdue: bool = False) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE payments_sagarun SET wake_at = now() WHERE wake_at IS NOT NULL")
        if overdue:
            cursor.execute("UPDATE payments_sagarun SET deadline_at = now() WHERE deadline_at IS NOT NULL")


def sweep(times: int = 1, *, overdue: bool = False) -> None:
    for _ in range(times):
        make_due(overdue=overdue)
        services.sweep_sagas()


def expire_leases() -> None:
    """Every process that drove a saga has died long ago, and every saga is due.

    Skips what a thread is writing at this moment: a test must not be in the way of what it watches.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE payments_sagarun SET wake_at = now(), lease_expires_at = NULL WHERE id IN (SELECT id FROM "
            "payments_sagarun WHERE wake_at IS NOT NULL FOR UPDATE SKIP LOCKED)"
        )


def make_questions_due() -> None:
    Operation.objects.filter(next_ask_at__isnull=False).update(next_ask_at=timezone.now())
