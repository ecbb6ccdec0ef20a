"""Holds that are about to end: the storefront is warned, then they are used or released while they still can be."""

from __future__ import annotations

from datetime import timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from payments import facts
from payments.errors import BusyError, PaymentError
from payments.models import Payment, SagaRun
from payments.oncall import open_page
from payments.sagas.refund import REFUND
from payments.services.operations import cancel_order, capture_order

log = structlog.get_logger(__name__)


def watch_holds(*, limit: int = 100) -> int:
    """Warn of every hold that ends soon, and act on those that end now; returns how many were touched."""
    return _warn_of_ending(limit) + _act_on_ending(limit)


def _warn_of_ending(limit: int) -> int:
    ending = Payment.objects.holds_ending(within=timedelta(seconds=settings.HOLD_WARNING_SECONDS))
    due = ending.filter(hold_warned_at__isnull=True).values_list("order_id", flat=True)
    return sum(_warn(order_id) for order_id in due[:limit])


def _warn(order_id: str) -> bool:
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(order_id)
        unwarned = Payment.objects.filter(pk=payment.pk, hold_warned_at__isnull=True, capturable__gt=0)
        if not unwarned.update(hold_warned_at=timezone.now()):
            return False
        ends = payment.authorization_expires_at
        facts.record_event(payment, "payment.authorization_expiring", expires_at=ends and ends.isoformat())
    return True


def _act_on_ending(limit: int) -> int:
    """A saga that still runs or waits has a deadline of its own, before the hold's."""
    ending = Payment.objects.holds_ending(within=timedelta(seconds=settings.HOLD_ACTION_SECONDS))
    busy = SagaRun.objects.live().exclude(kind=REFUND.kind).filter(order=OuterRef("order"))
    quiet = ending.select_related("order").exclude(Exists(busy))
    return sum(_act(payment) for payment in quiet[:limit])


def _act(payment: Payment) -> bool:
    try:
        if settings.HOLD_ACTION == "capture":
            capture_order(payment.order, amount=None, actor="system")
        else:
            cancel_order(payment.order, reason="authorization_expiring", actor="system")
    except BusyError:
        return False  # looked at again in a minute
    except PaymentError as error:
        log.exception("hold_not_acted_on", payment_id=payment.pk)
        open_page(
            f"hold:{error.code}",
            text=f"The hold of order {payment.order.reference} ends and could not be used or released: {error}",
            detail={
                "order": payment.order_id,
                "money": {"currency": payment.currency, "held": payment.capturable},
            },
        )
        return False
    return True
