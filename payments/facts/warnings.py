"""What card issuers report as fraud: kept as an event of the order, once for each report; no money moves."""

from __future__ import annotations

from payments.facts.settling import FactOutcome
from payments.facts.totals import record_event
from payments.gateways.base import FraudWarning
from payments.models import Event, Payment

FRAUD_WARNED = "payment.fraud_warned"


def apply_fraud_warning(payment: Payment, fact: FraudWarning) -> FactOutcome:
    """Keep the report; the order and the payment must be locked, so that two tellings of it make one event."""
    known = Event.objects.filter(order=payment.order, type=FRAUD_WARNED)
    if known.filter(data__warning__reference=fact.reference).exists():
        return FactOutcome.NOOP
    told = {"reference": fact.reference, "reason": fact.reason[:100]}
    record_event(payment, FRAUD_WARNED, actor="gateway", is_public=False, warning=told)
    return FactOutcome.APPLIED
