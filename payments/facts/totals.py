"""A payment's totals, computed from its operations and disputes by one function, and the events that tell of them."""

from __future__ import annotations

from django.utils import timezone

from payments import sql
from payments.models import Event, Payment
from payments.redaction import redact_data

# Written by hand because every fact runs it: the ORM would compile the same sums anew each time. Holds are counted
# by attempt, because a void releases no more than its own authorization.
_SUMS = """
WITH held AS (
    SELECT attempt.state,
        greatest(coalesce(sum(amount) FILTER (WHERE kind = 'authorize'), 0)
            - coalesce(sum(amount) FILTER (WHERE kind = 'void'), 0), 0) AS authorized,
        coalesce(sum(amount) FILTER (WHERE kind = 'capture'), 0) AS captured
    FROM payments_operation AS operation JOIN payments_attempt AS attempt ON attempt.id = operation.attempt_id
    WHERE operation.payment_id = %(payment)s AND operation.state = 'succeeded'
    GROUP BY attempt.id, attempt.state
)
SELECT coalesce(sum(authorized), 0)::bigint, coalesce(sum(captured), 0)::bigint,
    coalesce(sum(greatest(authorized - captured, 0)) FILTER (WHERE state = 'live'), 0)::bigint,
    refunds.settled, refunds.pending, disputes.pending, disputes.lost
FROM held
RIGHT JOIN (
    SELECT coalesce(sum(amount) FILTER (WHERE state = 'succeeded'), 0)::bigint AS settled,
        coalesce(sum(amount) FILTER (
            WHERE state IN ('created', 'sent', 'unknown', 'pending', 'requires_review')), 0)::bigint AS pending
    FROM payments_operation WHERE payment_id = %(payment)s AND kind = 'refund'
) AS refunds ON true
CROSS JOIN (
    SELECT coalesce(sum(amount) FILTER (WHERE state IN ('needs_response', 'under_review')), 0)::bigint AS pending,
        coalesce(sum(amount) FILTER (WHERE state IN ('lost', 'accepted', 'expired')), 0)::bigint AS lost
    FROM payments_dispute WHERE payment_id = %(payment)s AND is_withdrawn AND currency = %(currency)s
) AS disputes
GROUP BY refunds.settled, refunds.pending, disputes.pending, disputes.lost
"""


def save_totals(payment: Payment) -> None:
    """Compute the payment's totals from its operations and disputes, the only function that does, and save it.

    A customer who was refunded and has then won a chargeback has more than was paid: the total of lost disputes
    says no more than what was left, and the dispute itself says it all.
    """
    sums = sql.fetch_one(_SUMS, {"payment": payment.pk, "currency": payment.currency})
    assert sums is not None, "an aggregate has one row"
    payment.authorized, payment.captured, payment.capturable, payment.refunded, payment.refund_pending = sums[
        :5
    ]
    payment.disputed, lost = sums[5:]
    payment.disputed_lost = min(lost, payment.captured - payment.refunded - payment.refund_pending)
    payment.updated_at = timezone.now()
    payment.save()


def record_event(
    payment: Payment, event_type: str, *, actor: str = "system", is_public: bool = True, **extra: object
) -> Event:
    """One outbox row with the order and its money as they are now."""
    data = {**describe_order(payment), **extra}
    return Event.objects.record(payment.order, event_type, data=data, actor=actor, is_public=is_public)


def describe_order(payment: Payment) -> dict[str, object]:
    """The part of every public event that says which order, and how its money stands (minor units)."""
    order = payment.order
    return {
        "order": {
            "id": order.id,
            "reference": order.reference,
            "state": order.state,
            "amount": order.amount,
            "currency": order.currency,
        },
        "payment": {
            "id": payment.id,
            "state": payment.state,
            "authorized": payment.authorized,
            "capturable": payment.capturable,
            "captured": payment.captured,
            "refunded": payment.refunded,
            "last_error": redact_data(payment.last_error),
        },
    }
