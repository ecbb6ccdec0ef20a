"""The forced end of a stuck saga: one person proposes it with a gateway's evidence, another one lets it happen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from payments import facts, screening
from payments.encryption import keyed_hash
from payments.errors import ConflictError, InvalidRequestError
from payments.fulfilment import get_inventory
from payments.models import (
    AttemptState,
    ForceRequest,
    Operation,
    Order,
    OrderState,
    Payment,
    PaymentState,
    SagaRun,
)
from payments.models.order import DEAD_STATES
from payments.models.payment import OPEN_OPERATION_STATES
from payments.models.saga import STUCK_STATES
from payments.money import Money
from payments.redaction import redact
from payments.sagas import store
from payments.services.sagas import check_tool

LIVES_FOR = timedelta(hours=24)
_TOTALS = ("authorized", "capturable", "captured", "refunded", "refund_pending", "disputed_lost")
Target = ForceRequest.Target
State = ForceRequest.State


# --- the proposal -------------------------------------------------------------------------------------------


def propose_force(
    run_id: str, *, epoch: int, target: str, evidence: str, references: Sequence[str], actor: str
) -> ForceRequest:
    """Ask for a stuck saga's end, with the order `paid` or `canceled`, for a second person to decide.

    Raises `InvalidRequestError` without evidence or a reference to it; `ConflictError` when the saga is not stuck, not
    as it was at `epoch`, has an open request, or when the payment's totals do not allow the target.
    """
    evidence, references = (
        redact(evidence.strip()),
        [redact(one.strip()) for one in references if one.strip()],
    )
    if not evidence or not references or target not in Target.values:
        raise InvalidRequestError(
            f"A forced end needs a target, evidence in words and a reference to it; saga {run_id} is as it was."
        )
    with transaction.atomic():
        run, payment = _lock(run_id)
        check_tool(run, "force", epoch)
        if why := _explain_target(run, payment, target):
            raise ConflictError(f"No end of saga {run_id} was proposed. {why}")
        _close_expired(run)
        return _insert(run, payment, target, evidence, references, actor)


def _lock(run_id: str) -> tuple[SagaRun, Payment]:
    run = SagaRun.objects.get(pk=run_id)
    if run.order_id is None:
        raise ConflictError(
            f"Saga {run_id} has no order, so that there is nothing to force; it is as it was."
        )
    payment = Payment.objects.locked_with_order(run.order_id)
    run.refresh_from_db()
    return run, payment


def _close_expired(run: SagaRun) -> None:
    now = timezone.now()
    run.force_requests.filter(state=State.OPEN, expires_at__lte=now).update(
        state=State.REJECTED, decided_by="system", decided_at=now, decision_note="Nobody decided in time."
    )


def _insert(
    run: SagaRun, payment: Payment, target: str, evidence: str, references: list[str], actor: str
) -> ForceRequest:
    now = timezone.now()
    request = ForceRequest(
        run=run,
        epoch=run.epoch,
        target=target,
        evidence=evidence,
        references=references,
        money=_describe_money(payment),
        proposed_by=actor,
        created_at=now,
        expires_at=now + LIVES_FOR,
    )
    request.payload_hash = hash_request(request)
    try:
        with transaction.atomic():
            request.save(force_insert=True)
    except IntegrityError:
        raise ConflictError(f"The end of saga {run.pk} is proposed already; nothing was changed.") from None
    detail = {"actor": actor, "target": target, "evidence": evidence, "references": references}
    store.write_diary(run.pk, "force_proposed", {**detail, "request": request.pk})
    return request


def hash_request(request: ForceRequest) -> str:
    """Keyed, so that who writes rows by hand cannot make it fit."""
    said = {
        "run": request.run_id,
        "epoch": request.epoch,
        "target": request.target,
        "evidence": request.evidence,
        "references": request.references,
        "money": request.money,
        "by": request.proposed_by,
    }
    return keyed_hash(json.dumps(said, sort_keys=True), purpose="force")


def _describe_money(payment: Payment) -> dict[str, Any]:
    return {"currency": payment.currency, **{name: getattr(payment, name) for name in _TOTALS}}


# --- the decision -------------------------------------------------------------------------------------------


def approve_force(request_id: int, *, payload_hash: str, actor: str) -> SagaRun:
    """End the saga exactly as proposed and seen.

    Raises `ConflictError`, and changes nothing, when the request is one's own, decided, too old or altered, or when the
    saga or its money has changed since it was proposed.
    """
    request = ForceRequest.objects.get(pk=request_id)
    with transaction.atomic():
        run, payment = _lock(request.run_id)
        request = ForceRequest.objects.select_for_update().get(pk=request_id)
        why = _explain_refusal(request, run, payment, payload_hash, actor)
        if why:
            raise ConflictError(f"Saga {run.pk} was not forced. {why}")
        _decide(request, State.DONE, actor=actor, note="")
        _execute(request, run, payment, actor)
    return SagaRun.objects.get(pk=run.pk)


def reject_force(request_id: int, *, actor: str, reason: str) -> ForceRequest:
    """Say no to somebody else's proposal. Raises `ConflictError` when it is one's own or decided already."""
    with transaction.atomic():
        request = ForceRequest.objects.select_for_update().get(pk=request_id)
        why = _explain_person(request, actor)
        if why:
            raise ConflictError(f"The request about saga {request.run_id} is as it was. {why}")
        _decide(request, State.REJECTED, actor=actor, note=redact(reason))
        store.write_diary(request.run_id, "force_rejected", {"actor": actor, "reason": redact(reason)})
    return ForceRequest.objects.get(pk=request_id)


def explain_decision(request: ForceRequest, actor: str) -> str:
    """Why this person may not decide now; empty when he may."""
    if request.is_expired:
        return "Nobody decided in time: propose it again."
    return _explain_person(request, actor)


def _explain_person(request: ForceRequest, actor: str) -> str:
    if request.state != State.OPEN:
        return f"It was decided already by {request.decided_by}."
    if request.proposed_by.lower() == actor.lower():
        return "You proposed it: a second person decides."
    return ""


def _explain_refusal(
    request: ForceRequest, run: SagaRun, payment: Payment, payload_hash: str, actor: str
) -> str:
    if why := explain_decision(request, actor):
        return why
    if not request.payload_hash == hash_request(request) == payload_hash:
        return "The request is not what was proposed and shown."
    if run.epoch != request.epoch or run.state not in STUCK_STATES:
        return "It has changed since it was proposed: propose it again."
    if request.money != _describe_money(payment):
        return "Its money has moved since it was proposed: propose it again."
    return _explain_target(run, payment, request.target)


def _decide(request: ForceRequest, state: str, *, actor: str, note: str) -> None:
    undecided = ForceRequest.objects.filter(pk=request.pk, state=State.OPEN)
    if not undecided.update(state=state, decided_by=actor, decided_at=timezone.now(), decision_note=note):
        raise ConflictError(f"The request about saga {request.run_id} was decided already.")


# --- what the totals allow ----------------------------------------------------------------------------------


def _explain_target(run: SagaRun, payment: Payment, target: str) -> str:
    """Why the order cannot be put into the state; empty when it can."""
    order = payment.order
    if target == Target.PAID:
        if order.state in DEAD_STATES:
            return f"The order is {order.get_state_display().lower()}, and does not come back."
        return "" if payment.net > 0 else "It is not paid: no money is captured and kept."
    if left := _tell_left(payment):
        return f"It is not canceled: {left}."
    if order.sagas.live().exclude(pk=run.pk).exists():
        return "Another saga of the order is not finished."
    moving = payment.operations.filter(state__in=OPEN_OPERATION_STATES).exclude(kind="authorize").first()
    return f"{moving} is {moving.get_state_display().lower()}." if moving else ""


def _tell_left(payment: Payment) -> str:
    held = payment.capturable if payment.captured else payment.authorized
    amounts = {"held on the card": held, "captured and not refunded": payment.net}
    return ", ".join(f"{Money(minor, payment.currency)} are {how}" for how, minor in amounts.items() if minor)


# --- the deed -----------------------------------------------------------------------------------------------


def _execute(request: ForceRequest, run: SagaRun, payment: Payment, actor: str) -> None:
    order = payment.order
    before = {"saga": run.state, "order": order.state, "payment": payment.state}
    if request.target == Target.PAID:
        _put_paid(order, payment, actor)
    else:
        _put_canceled(run, order, payment, actor)
    after = {"saga": "FORCED", "order": order.state, "payment": payment.state}
    detail = {
        "actor": actor,
        "proposed_by": request.proposed_by,
        "evidence": request.evidence,
        "references": request.references,
        "request": request.pk,
        "before": before,
        "after": after,
    }
    if not store.force_run(run.pk, epoch=request.epoch, detail=detail):
        raise ConflictError(f"Saga {run.pk} has changed; it was not forced.")
    facts.record_event(payment, "saga.forced", actor=actor, is_public=False, saga=run.pk, request=request.pk)


def _put_paid(order: Order, payment: Payment, actor: str) -> None:
    payment.state = PaymentState.SUCCEEDED
    payment.last_error = None
    payment.save(update_fields=["state", "last_error"])
    if order.move_to(OrderState.PAID, unless=(*DEAD_STATES, OrderState.PAID, OrderState.FULFILLED)):
        facts.record_event(payment, "order.paid", actor=actor)


def _put_canceled(run: SagaRun, order: Order, payment: Payment, actor: str) -> None:
    """Nothing is held or taken: what was still asked for did not happen, says the evidence; the stock is free."""
    evidence: dict[str, object] = {
        "code": "forced",
        "message": "Closed by hand, with the gateway's evidence.",
    }
    unfinished = Operation.objects.filter(payment=payment, kind="authorize", state__in=OPEN_OPERATION_STATES)
    for operation in unfinished:
        facts.close_operation(payment, operation, evidence)
    payment.attempts.filter(state=AttemptState.LIVE).update(state=AttemptState.VOIDED)
    payment.state = PaymentState.SUCCEEDED if payment.captured else PaymentState.CANCELED
    payment.cancel_reason = payment.cancel_reason or ("" if payment.captured else "forced")
    payment.next_action = None
    payment.save(update_fields=["state", "cancel_reason", "next_action"])
    if run.data.get("hold"):
        screening.get_screener().close_review(order, reason="forced")
    if get_inventory().joins_transaction:
        get_inventory().release(order, key=str(run.data.get("port_key") or run.pk))
    if order.move_to(OrderState.CANCELED, cancel_reason="forced"):
        facts.record_event(payment, "order.canceled", actor=actor)
