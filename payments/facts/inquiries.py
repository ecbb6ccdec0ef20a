"""Questions about operations that are not settled: when the gateway is asked next, and what it answered."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from payments.errors import PaymentError
from payments.gateways.base import ChargeResult, RefundResult
from payments.models import Inquiry, Operation, OperationState

Answer = ChargeResult | RefundResult | PaymentError | None

# What changes with the state of an operation, besides the state itself.
QUESTION_FIELDS = ("asks", "next_ask_at", "escalated_at", "resolved_at")


def schedule_question(operation: Operation) -> None:
    """Set when the gateway is asked next, by the state the operation has now; the caller saves QUESTION_FIELDS."""
    if operation.is_final:
        operation.resolved_at = timezone.now()
        operation.next_ask_at = operation.escalated_at = None
        return
    operation.resolved_at = None
    schedule = question_schedule(operation)
    if schedule:
        delay = schedule[min(operation.asks, len(schedule) - 1)]
        operation.next_ask_at = timezone.now() + timedelta(seconds=delay)


def question_schedule(operation: Operation) -> list[int]:
    """Seconds between the questions about an operation in this state; empty when nothing is to be asked."""
    if operation.state == OperationState.UNKNOWN:
        return list(settings.UNKNOWN_QUERY_SECONDS)
    if operation.state == OperationState.PENDING:
        return list(settings.PENDING_QUERY_SECONDS)
    return []


def record_inquiry(operation: Operation, answer: Answer, *, actor: str = "system") -> Inquiry:
    """Keep what the gateway said, or that it said nothing, as evidence for whoever has to decide."""
    word, detail = _describe_answer(answer)
    return Inquiry.objects.create(
        operation=operation, actor=actor, answer=word[:30], detail=detail, asked_at=timezone.now()
    )


def _describe_answer(answer: Answer) -> tuple[str, dict[str, object]]:
    if answer is None:
        return "absent", {"message": "The gateway knows nothing of it."}
    if isinstance(answer, PaymentError):
        return answer.code, answer.to_dict()
    money = {"amount": answer.amount.minor, "currency": answer.amount.currency}
    return answer.status, {**money, "reference": answer.reference, "raw": dict(answer.raw)}
