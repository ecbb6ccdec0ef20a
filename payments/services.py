"""The door of the floor: everything that the API, the admin, the workers and the neighbours may ask of payments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from django.db import IntegrityError, transaction
from django.utils import timezone

from payments import facts, idempotency, ids
from payments.errors import (
    AmountTooLargeError,
    BusyError,
    ConflictError,
    InvalidRequestError,
    NetworkError,
    PaymentError,
)
from payments.facts import FactOutcome
from payments.gateways.base import GatewayFact
from payments.kinds import OperationKind
from payments.models import (
    ApiClient,
    Attempt,
    Event,
    GatewayAccount,
    Operation,
    OperationSource,
    Order,
    OrderState,
    Payment,
    PaymentState,
    SagaRun,
    SagaState,
)
from payments.models.order import CaptureMethod
from payments.models.saga import DRIVEN_STATES, STUCK_STATES
from payments.money import Money
from payments.redaction import redact
from payments.sagas import engine, store
from payments.sagas.checkout import CHECKOUT
from payments.sagas.effects import fetch_operation, reserve_refund
from payments.sagas.later import CANCEL, CAPTURE
from payments.sagas.refund import REFUND
from payments.sagas.registry import find_recipe

__all__ = ["FactOutcome", "LegalAction", "OrderDraft", "apply_gateway_fact", "place_order"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OrderDraft:
    """What a storefront wants to be paid for; validated by the API. Amounts in lines are minor units."""

    reference: str
    amount: Money
    payment_method: str
    lines: Sequence[Mapping[str, Any]] = ()
    capture: str = CaptureMethod.AUTOMATIC
    return_url: str = ""
    customer_id: str = ""
    customer_email: str = ""
    customer_created_at: datetime | None = None
    billing: Mapping[str, Any] = field(default_factory=dict)
    shipping: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


# --- placing and paying -------------------------------------------------------------------------------------


def place_order(
    client: ApiClient, draft: OrderDraft, *, key: idempotency.Claim | None = None, drive: bool = True
) -> Order:
    """Order, payment and saga in one commit; then the saga's first stretch, unless `drive` is False.

    Raises `ConflictError` when a living order has the reference, `NetworkError` when no gateway account is active.
    A decline or a block is a state of the order that is returned, not an exception.
    """
    account = _route(draft)
    try:
        with transaction.atomic():
            order, payment = _create_order(client, draft, account)
            _attach(key, order.id)
            attempt = _create_attempt(payment, number=1)
            facts.record_event(payment, "order.placed", actor=f"api:{client.name}")
            runner = engine.start_run(
                CHECKOUT, subject=order.id, order=order, payment=payment, data={"attempt": attempt.id}
            )
    except IntegrityError as error:
        if "order_one_living_per_reference" not in str(error):
            raise
        message = (
            f"There is a living order with the reference {draft.reference!r} already; nothing was charged."
        )
        raise ConflictError(message, reference=draft.reference) from None
    return _drive(runner, order.id, drive)


def _route(draft: OrderDraft) -> GatewayAccount:
    account = GatewayAccount.objects.filter(is_active=True).order_by("priority", "name").first()
    if account is None:
        raise NetworkError("No gateway account is active; nothing was charged.")
    return account


def _create_order(client: ApiClient, draft: OrderDraft, account: GatewayAccount) -> tuple[Order, Payment]:
    now = timezone.now()
    order = Order.objects.create(
        client=client,
        reference=draft.reference,
        amount=draft.amount.minor,
        currency=draft.amount.currency,
        capture_method=draft.capture,
        customer_id=draft.customer_id,
        customer_email=draft.customer_email,
        customer_created_at=draft.customer_created_at,
        billing=dict(draft.billing),
        shipping=dict(draft.shipping),
        lines=[dict(line) for line in draft.lines],
        context=dict(draft.context),
        metadata=dict(draft.metadata),
        return_url=draft.return_url,
        created_at=now,
        updated_at=now,
    )
    payment = Payment.objects.create(
        order=order,
        account=account,
        amount=order.amount,
        currency=order.currency,
        capture_method=order.capture_method,
        payment_method=draft.payment_method,
        created_at=now,
        updated_at=now,
    )
    return order, payment


def _create_attempt(payment: Payment, *, number: int) -> Attempt:
    return Attempt.objects.create(
        payment=payment,
        account=payment.account,
        number=number,
        payment_method=payment.payment_method,
        created_at=timezone.now(),
    )


def _drive(runner: engine.Runner, order_id: str, drive: bool = True) -> Order:
    if drive:
        runner.drive()
    else:
        runner.release()
    return find_order(order_id)


def find_order(order_id: str) -> Order:
    """The order with its payment and account, fresh. Raises `Order.DoesNotExist`."""
    return Order.objects.select_related("payment__account", "client").get(pk=order_id)


def resume_order(order: Order) -> Order:
    """Drive whatever is unfinished of an order whose first request died."""
    for run in order.sagas.filter(state__in=DRIVEN_STATES):
        engine.drive_run(run.pk, find_recipe)
    return find_order(order.pk)


def confirm_order(order: Order, *, payment_method: str = "", key: idempotency.Claim | None = None) -> Order:
    """Go on after 3-D Secure, or, after a decline, with another payment method.

    Raises `ConflictError` when the order waits for neither, `InvalidRequestError` when a declined order is
    confirmed without another method.
    """
    if order.state == OrderState.AWAITING_CUSTOMER:
        return _resume_customer(order, key)
    if order.state == OrderState.DECLINED:
        return _try_again(order, payment_method, key)
    raise ConflictError(
        f"Order {order.id} is {order.state}: there is nothing to confirm; nothing was charged."
    )


def _resume_customer(order: Order, key: idempotency.Claim | None) -> Order:
    with transaction.atomic():
        Order.objects.locked(order.pk)
        _attach(key, order.pk)
        run = order.sagas.filter(kind=CHECKOUT.kind, state=SagaState.WAITING).first()
        if run is not None:
            engine.send_signal(run.pk, "customer", dedupe_id=ids.new_id("evt"), payload={})
    if run is not None:
        engine.drive_run(run.pk, find_recipe)
    return find_order(order.pk)


def _try_again(order: Order, payment_method: str, key: idempotency.Claim | None) -> Order:
    if not payment_method:
        raise InvalidRequestError(
            f"Order {order.id} was declined: send another payment_method.", pointer="/payment_method"
        )
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(order.pk)
        order = payment.order
        if order.state != OrderState.DECLINED:
            raise ConflictError(f"Order {order.id} is {order.state} by now; nothing was charged.")
        if not _revive(order, payment):
            raise ConflictError(
                f"Another order with the reference {order.reference!r} is alive; nothing was charged."
            )
        payment.payment_method = payment_method
        payment.state = PaymentState.PROCESSING
        payment.last_error = None
        payment.save(update_fields=["payment_method", "state", "last_error"])
        _attach(key, order.pk)
        attempt = _create_attempt(payment, number=payment.attempts.count() + 1)
        runner = engine.start_run(
            CHECKOUT, subject=order.id, order=order, payment=payment, data={"attempt": attempt.id}
        )
    return _drive(runner, order.id)


def _revive(order: Order, payment: Payment) -> bool:
    try:
        with transaction.atomic():
            return order.move_to(OrderState.PLACED, unless=[])
    except IntegrityError:
        return False


# --- capture, cancel, refund --------------------------------------------------------------------------------


def capture_order(
    order: Order, *, amount: int | None, actor: str, key: idempotency.Claim | None = None
) -> Order:
    """Capture an authorized order (minor units; all of it by default) and release the rest.

    Raises `ConflictError` when there is nothing to capture, `AmountTooLargeError` beyond what is authorized.
    """
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(order.pk)
        _check(legal_actions(payment.order, payment), "capture")
        wanted = payment.authorized if amount is None else amount
        if not 0 < wanted <= payment.authorized:
            _refuse_amount(wanted, payment.authorized, payment.currency, "capture")
        _attach(key, order.pk)
        data = {
            "amount": wanted,
            "actor": actor,
            "source": _source(actor),
            "port_key": _checkout_run(payment.order),
        }
        runner = engine.start_run(CAPTURE, subject=order.pk, order=payment.order, payment=payment, data=data)
    return _drive(runner, order.pk)


def cancel_order(order: Order, *, reason: str, actor: str) -> Order:
    """Cancel before any capture: the authorization is voided and the stock released. Raises `ConflictError`."""
    cause = ConflictError("The order was canceled.", reason=reason or "requested", actor=actor)
    waiting = order.sagas.filter(kind=CHECKOUT.kind, state=SagaState.WAITING).first()
    if waiting is not None:
        if not engine.compensate_run(waiting.pk, cause, find_recipe):
            raise BusyError(
                f"Order {order.id} is being worked on at this moment; nothing was canceled. Try again."
            )
        return find_order(order.pk)
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(order.pk)
        _check(legal_actions(payment.order, payment), "cancel")
        data = {"reason": reason or "requested", "actor": actor, "source": _source(actor)}
        data["port_key"] = _checkout_run(payment.order)
        runner = engine.start_run(CANCEL, subject=order.pk, order=payment.order, payment=payment, data=data)
    return _drive(runner, order.pk)


def refund_order(
    order: Order,
    *,
    amount: int | None,
    reason: str,
    note: str = "",
    actor: str,
    key: idempotency.Claim | None = None,
) -> Operation:
    """Refund a part or, by default, all that is left (minor units), reserved under the payment's lock.

    Raises `ConflictError` when nothing is captured, `AmountTooLargeError` beyond what is left.
    """
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(order.pk)
        _check(legal_actions(payment.order, payment), "refund")
        wanted = payment.refundable if amount is None else amount
        if not 0 < wanted <= payment.refundable:
            _refuse_amount(wanted, payment.refundable, payment.currency, "refund")
        operation = reserve_refund(
            payment,
            Money(wanted, payment.currency),
            reason=reason,
            note=redact(note),
            source=_source(actor),
            requested_by=actor,
        )
        _attach(key, operation.id)
        runner = engine.start_run(
            REFUND,
            subject=operation.id,
            order=payment.order,
            payment=payment,
            data={"operation": operation.id},
        )
    runner.drive()
    return Operation.objects.select_related("payment__order").get(pk=operation.pk)


def _attach(key: idempotency.Claim | None, resource: str) -> None:
    if key is not None:
        idempotency.attach(key, resource)


def _source(actor: str) -> str:
    return OperationSource.OPERATOR if actor.startswith("user:") else OperationSource.API


def _checkout_run(order: Order) -> str:
    """The run whose reservations and shipment a later saga takes over."""
    run = order.sagas.filter(kind=CHECKOUT.kind).order_by("-id").values_list("pk", flat=True).first()
    return str(run or "")


def _refuse_amount(wanted: int, left: int, currency: str, what: str) -> None:
    if wanted <= 0:
        raise InvalidRequestError(
            f"The amount to {what} must be positive; nothing was changed.", pointer="/amount"
        )
    text = f"{Money(wanted, currency)} is more than the {Money(left, currency)} left to {what}; nothing was changed."
    raise AmountTooLargeError(text, left=left, pointer="/amount")


# --- what may be done now -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LegalAction:
    """One thing that an operator may do to an order now, or the reason why not."""

    name: str
    label: str
    is_allowed: bool
    why_not: str = ""
    amount_left: int = 0


def legal_actions(order: Order, payment: Payment | None = None) -> list[LegalAction]:
    """Capture, cancel and refund with the minor units left, decided by one function for the API and the admin."""
    payment = payment or order.payment
    is_busy = order.sagas.live().exclude(kind=REFUND.kind).exists()
    capturable = payment.authorized if not payment.captured else 0
    return [
        _action("capture", "Capture", capturable, _why_not_capture(payment, is_busy)),
        _action("cancel", "Cancel", capturable, _why_not_cancel(order, payment, is_busy)),
        _action("refund", "Refund", payment.refundable, _why_not_refund(payment)),
    ]


def _action(name: str, label: str, left: int, why_not: str) -> LegalAction:
    return LegalAction(name, label, is_allowed=not why_not, why_not=why_not, amount_left=left)


def _why_not_capture(payment: Payment, is_busy: bool) -> str:
    if payment.captured:
        return "The payment is captured already."
    if not payment.authorized:
        return "Nothing is authorized."
    if is_busy:
        return "A saga of this order is running or waiting."
    return ""


def _why_not_cancel(order: Order, payment: Payment, is_busy: bool) -> str:
    if payment.captured:
        return "The payment is captured: refund it instead."
    if order.state in (OrderState.AWAITING_CUSTOMER, OrderState.REVIEW):
        return ""
    if not payment.authorized:
        return "Nothing is authorized."
    return "A saga of this order is running." if is_busy else ""


def _why_not_refund(payment: Payment) -> str:
    if not payment.captured:
        return "Nothing is captured."
    return "" if payment.refundable > 0 else "Nothing is left to refund."


def _check(actions: Sequence[LegalAction], name: str) -> None:
    action = next(action for action in actions if action.name == name)
    if not action.is_allowed:
        raise ConflictError(f"Cannot {name}: {action.why_not} Nothing was changed.", action=name)


# --- review -------------------------------------------------------------------------------------------------


def release_review(order_id: str, *, actor: str) -> Order:
    """Approve an order in review: its saga goes on to the capture after the commit. Raises `ConflictError`."""
    return _end_review(order_id, {"decision": "approve", "actor": actor})


def reject_review(order_id: str, *, actor: str, reason: str) -> Order:
    """Reject an order in review: its saga walks back and voids. Raises `ConflictError`."""
    return _end_review(order_id, {"decision": "reject", "actor": actor, "reason": reason})


def _end_review(order_id: str, payload: dict[str, Any]) -> Order:
    with transaction.atomic():
        order = Order.objects.locked(order_id)
        run = order.sagas.filter(kind=CHECKOUT.kind, state=SagaState.WAITING, waiting_for="review").first()
        if order.state != OrderState.REVIEW or run is None:
            raise ConflictError(
                f"Order {order.reference} is {order.get_state_display()}, not in review; nothing was changed."
            )
        if not engine.send_signal(run.pk, "review", dedupe_id="decision", payload=payload):
            raise ConflictError(f"Order {order.reference} was decided already; nothing was changed.")
        run_id = run.pk

        def drive() -> None:
            engine.drive_run(run_id, find_recipe)

        transaction.on_commit(drive, robust=True)
    return find_order(order_id)


# --- facts and doubt ----------------------------------------------------------------------------------------


def apply_gateway_fact(account: GatewayAccount, fact: GatewayFact) -> FactOutcome:
    """The one door for what a gateway says: webhook, poll, report or operator. Wakes the saga that waits for it."""
    order_id = _find_order_id(account, fact)
    if order_id is None:
        return FactOutcome.UNKNOWN_PAYMENT
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(order_id)
        operation = facts.find_operation(payment, fact)
        if operation is None or _is_news(operation, fact):
            operation = facts.adopt_operation(payment, fact) or operation
        outcome = _settle(payment, operation, fact)
        if outcome == FactOutcome.APPLIED:
            _wake_sagas(payment.order)
    return outcome


def _find_order_id(account: GatewayAccount, fact: GatewayFact) -> str | None:
    """Scoped to the account that sent it: another account's word counts for nothing."""
    payments = Payment.objects.filter(account=account)
    if fact.payment_id:
        found = payments.filter(pk=fact.payment_id).values_list("order_id", flat=True).first()
        if found:
            return found
    attempts = Attempt.objects.filter(account=account, gateway_reference=fact.reference or "-")
    by_attempt = attempts.values_list("payment__order_id", flat=True).first()
    if by_attempt or not fact.operation_id:
        return by_attempt
    operations = Operation.objects.filter(account=account, pk=fact.operation_id)
    return operations.values_list("payment__order_id", flat=True).first()


def _is_news(operation: Operation, fact: GatewayFact) -> bool:
    """A refund that is not this one: somebody made it at the gateway."""
    return (
        fact.kind == OperationKind.REFUND
        and operation.id != fact.operation_id
        and operation.gateway_reference != fact.result.reference
    )


def _settle(payment: Payment, operation: Operation | None, fact: GatewayFact) -> FactOutcome:
    if operation is None:
        log.warning("gateway_fact_unfit", payment_id=payment.id, kind=fact.kind, status=fact.result.status)
        return FactOutcome.NOT_YET
    return facts.settle_operation(payment, operation, fact.result)


def _wake_sagas(order: Order) -> None:
    """Whoever waits for the gateway looks again: by its signal, or because it is due now."""
    for run in order.sagas.filter(state__in=DRIVEN_STATES):
        if run.waiting_for == "customer":
            engine.send_signal(run.pk, "customer", dedupe_id=ids.new_id("evt"), payload={"by": "gateway"})
        elif run.state != SagaState.WAITING:
            store.wake_run(run.pk)


def resolve_unknown(operation: Operation, *, actor: str) -> Operation:
    """Ask the gateway now what became of an operation, and settle it. Raises the errors of the wire."""
    answer = fetch_operation(Operation.objects.select_related("account", "attempt").get(pk=operation.pk))
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(operation.payment.order_id)
        operation = Operation.objects.select_related("account", "attempt").get(pk=operation.pk)
        if answer is not None and not isinstance(answer, PaymentError):
            facts.settle_operation(payment, operation, answer)
        found = operation.state if answer is not None else "unknown to the gateway"
        facts.record_event(
            payment,
            "operation.asked",
            is_public=False,
            actor=actor,
            operation=operation.describe(),
            found=found,
        )
        _wake_sagas(payment.order)
    return operation


# --- operators of sagas -------------------------------------------------------------------------------------


def retry_saga(run_id: str, *, actor: str, reason: str) -> SagaRun:
    """Take a stuck saga up where it stopped, with a fresh budget. Raises `ConflictError` when it is not stuck."""
    run = SagaRun.objects.get(pk=run_id)
    state = SagaState.COMPENSATING if "cause" in run.data else SagaState.RUNNING
    detail = {"actor": actor, "reason": reason}
    if not store.reopen_run(run_id, state=state, diary="operator_retry", detail=detail):
        raise ConflictError(f"Saga {run_id} is {run.get_state_display()}, not stuck; nothing was changed.")
    engine.drive_run(run_id, find_recipe)
    return SagaRun.objects.get(pk=run_id)


def compensate_saga(run_id: str, *, actor: str, reason: str) -> SagaRun:
    """Walk a stuck or waiting saga back. Raises `ConflictError` when it has ended or is being driven."""
    run = SagaRun.objects.get(pk=run_id)
    cause = ConflictError(f"Compensated by {actor}: {reason}", reason="operator", actor=actor)
    if run.state in STUCK_STATES:
        state = SagaState.COMPENSATING if "cause" in run.data else SagaState.RUNNING
        store.reopen_run(
            run_id, state=state, diary="operator_compensate", detail={"actor": actor, "reason": reason}
        )
    elif run.state != SagaState.WAITING:
        raise ConflictError(
            f"Saga {run_id} is {run.get_state_display()}: it cannot be walked back; nothing was changed."
        )
    if not engine.compensate_run(run_id, cause, find_recipe):
        raise BusyError(f"Saga {run_id} is being driven at this moment; nothing was changed.")
    return SagaRun.objects.get(pk=run_id)


def sweep_sagas(*, limit: int = 50) -> int:
    """Drive every saga that is due; returns how many."""
    return engine.drive_due(find_recipe, limit=limit)


# --- notes --------------------------------------------------------------------------------------------------


def add_note(order: Order, *, text: str, actor: str) -> Event:
    """An operator's note in the order's timeline; card data in it is masked before it is kept."""
    with transaction.atomic():
        payment = Payment.objects.locked_with_order(order.pk)
        return facts.record_event(payment, "order.note", is_public=False, actor=actor, note=redact(text))
