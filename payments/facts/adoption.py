"""Whose word a fact is: it finds the operation meant, or makes one of what was done at the gateway without us."""

from __future__ import annotations

from django.db.models import QuerySet
from django.utils import timezone

from payments import ids
from payments.facts.settling import book_refund
from payments.gateways.base import ChargeResult, ChargeStatus, GatewayFact, RefundStatus
from payments.kinds import OperationKind
from payments.models import Attempt, Operation, OperationSource, OperationState, Payment
from payments.models.payment import FINAL_OPERATION_STATES
from payments.money import Money


def find_operation(payment: Payment, fact: GatewayFact) -> Operation | None:
    """Ours by its id in the gateway's metadata, by the reference of its own, or the one of its kind that fits."""
    same_kind = payment.operations.select_related("attempt").filter(kind=fact.kind)
    by_id = same_kind.filter(pk=fact.operation_id).first() if fact.operation_id else None
    if by_id is not None:
        return by_id
    if fact.kind == OperationKind.REFUND:
        return same_kind.filter(gateway_reference=fact.result.reference).first()
    if fact.kind == OperationKind.CAPTURE:
        return _find_capture(payment, same_kind, fact)
    return _find_by_attempt(payment, same_kind, fact)


def _find_by_attempt(payment: Payment, same_kind: QuerySet[Operation], fact: GatewayFact) -> Operation | None:
    # A reference that we know names its attempt; only one that we never saw may be of the attempt under way.
    known = same_kind.filter(attempt__gateway_reference=fact.reference).order_by("id").last()
    return known or _find_unanswered(payment, same_kind, fact)


def _find_unanswered(payment: Payment, same_kind: QuerySet[Operation], fact: GatewayFact) -> Operation | None:
    if fact.reference and payment.attempts.filter(gateway_reference=fact.reference).exists():
        return None
    return same_kind.filter(attempt__gateway_reference="").order_by("id").last()


def _find_capture(payment: Payment, captures: QuerySet[Operation], fact: GatewayFact) -> Operation | None:
    """Of several captures the one with this reference, or the one that is under way; a sum that we know is no news."""
    assert isinstance(fact.result, ChargeResult)
    total = fact.result.total_captured
    is_news = total is not None and total.minor > payment.captured
    under_way = captures.exclude(state__in=FINAL_OPERATION_STATES).order_by("id").last()
    own = fact.result.own_reference  # where several captures share one, the sum tells them apart
    by_reference = captures.filter(gateway_reference=own).order_by("id").last() if own else None
    if by_reference is not None and not is_news:
        return by_reference
    if under_way is not None and (is_news or total is None):
        return under_way
    if total is not None:
        return None if is_news else captures.filter(state=OperationState.SUCCEEDED).order_by("id").last()
    return _find_by_attempt(payment, captures, fact)


def adopt_operation(payment: Payment, fact: GatewayFact) -> Operation | None:
    """Something done at the gateway without us becomes an operation of ours; None when it cannot fit the payment."""
    attempt = payment.attempts.filter(gateway_reference=fact.reference or payment.gateway_reference).first()
    amount = _adopted_amount(payment, fact)
    if attempt is None or amount.minor <= 0 or amount.currency != payment.currency:
        return None
    if not _fits(payment, fact, amount.minor):
        return None
    operation = _create_external(payment, attempt, fact, amount)
    if fact.kind == OperationKind.REFUND:
        book_refund(payment, operation)
    return operation


def _create_external(payment: Payment, attempt: Attempt, fact: GatewayFact, amount: Money) -> Operation:
    own = fact.result.own_reference if isinstance(fact.result, ChargeResult) else fact.result.reference
    name = own
    if fact.kind != OperationKind.REFUND:  # several captures may share the gateway's reference
        name = f"{own or fact.result.reference}:{payment.operations.filter(kind=fact.kind).count()}"
    return Operation.objects.create(
        id=ids.new_id("re" if fact.kind == OperationKind.REFUND else "op"),
        payment=payment,
        attempt=attempt,
        account=payment.account,
        kind=fact.kind,
        state=OperationState.SENT,
        amount=amount.minor,
        currency=amount.currency,
        gateway_key=f"external:{fact.kind}:{name}"[:80],
        gateway_reference=own,
        releases_rest=not (isinstance(fact.result, ChargeResult) and fact.result.is_hold_open),
        source=OperationSource.EXTERNAL,
        requested_by="gateway",
        created_at=timezone.now(),
    )


def _adopted_amount(payment: Payment, fact: GatewayFact) -> Money:
    """Of a capture told of as a sum, only what we do not know yet; of the release of a rest, that rest."""
    result = fact.result
    if isinstance(result, ChargeResult) and fact.kind == OperationKind.CAPTURE and result.total_captured:
        total = result.total_captured
        known = Money(payment.captured, payment.currency)
        return total - known if total.currency == payment.currency else total
    if fact.kind == OperationKind.VOID and payment.captured:
        return Money(payment.capturable, payment.currency)
    return result.amount


def _fits(payment: Payment, fact: GatewayFact, amount: int) -> bool:
    if fact.kind == OperationKind.REFUND:
        return fact.result.status != RefundStatus.FAILED and amount <= payment.returnable
    if fact.kind == OperationKind.CAPTURE:
        return fact.result.status == ChargeStatus.CAPTURED and amount <= payment.capturable
    if fact.kind == OperationKind.VOID:
        return fact.result.status == ChargeStatus.VOIDED and (payment.capturable > 0 or not payment.captured)
    return False
