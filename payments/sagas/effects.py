"""The gateway's four operations as saga effects: intent, call, question, outcome."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from payments import facts, ids
from payments.errors import (
    CardDeclinedError,
    ConflictError,
    GatewayMismatchError,
    GatewayTimeoutError,
    InvalidRequestError,
    PaymentError,
)
from payments.gateways import get_gateway
from payments.gateways.base import (
    CaptureRequest,
    ChargeRequest,
    ChargeResult,
    FetchRequest,
    PaymentGateway,
    RefundRequest,
    RefundResult,
    VoidRequest,
)
from payments.kinds import OperationKind
from payments.models import Attempt, Operation, OperationSource, OperationState, Payment, SagaEffect
from payments.money import Money
from payments.sagas.recipe import Again, Context, Done, EffectRow, Fail, Halt, Outcome, Result, Wait

NEGATIVES_NEEDED = 2  # answers "I know nothing of it" before an operation counts as absent
FORWARD_TRIES = 6  # of a gateway that cannot be reached, before the saga walks back

Answer = ChargeResult | RefundResult | PaymentError | None


def create_operation(
    payment: Payment,
    attempt: Attempt,
    kind: OperationKind,
    amount: Money,
    *,
    source: str = OperationSource.SAGA,
    reason: str = "",
    note: str = "",
    requested_by: str = "system",
    state: str = OperationState.SENT,
) -> Operation:
    """The row that exists before the call; its id is its gateway key, so the key can never change."""
    operation_id = ids.new_id("re" if kind == OperationKind.REFUND else "op")
    return Operation.objects.create(
        id=operation_id,
        payment=payment,
        attempt=attempt,
        account=payment.account,
        kind=kind,
        state=state,
        amount=amount.minor,
        currency=amount.currency,
        gateway_key=operation_id,
        source=source,
        reason=reason,
        note=note,
        requested_by=requested_by,
        created_at=timezone.now(),
    )


class GatewayEffect:
    """What authorize, capture, void and refund have in common. Subclasses say what to ask for and how to send it."""

    kind: OperationKind

    def begin(self, context: Context) -> Operation | None:
        """Make the operation, in the transaction of the intent; None when there is nothing to do."""
        raise NotImplementedError

    def send(self, gateway: PaymentGateway, operation: Operation, context: Context) -> Answer:
        raise NotImplementedError

    def succeeded(self, operation: Operation, context: Context) -> Result:
        return Done()

    def pending(self, operation: Operation, context: Context) -> Result:
        return _ask_later(
            context, GatewayTimeoutError(f"{self.kind} {operation.id} is pending at the gateway")
        )

    # --- the engine's protocol ------------------------------------------------------------------------------

    def intend(self, context: Context) -> EffectRow | None:
        operation = self.begin(context)
        if operation is None:
            return None
        context.held["operation"] = operation
        direction = SagaEffect.Direction.UNDO if context.is_undoing else SagaEffect.Direction.DO
        return EffectRow(context.step, direction, gateway_key=operation.gateway_key, reference=operation.id)

    def call(self, context: Context) -> Answer:
        operation = self._operation(context)
        return self.send(get_gateway(operation.account), operation, context)

    def ask(self, context: Context) -> Answer:
        operation = self._operation(context)
        try:
            return fetch_operation(operation)
        except InvalidRequestError as error:  # the question is refused, which says nothing of the operation
            raise GatewayTimeoutError(
                f"the gateway does not say what became of {operation.id}: {error}"
            ) from error

    def record(self, context: Context, answer: Answer) -> Result:
        """Settle the operation through the one function for facts, then say how the saga goes on."""
        operation = self._operation(context, fresh=True)
        if answer is None:
            return self._absent(operation, context)
        if isinstance(answer, PaymentError):
            return self._no_answer(operation, context, answer)
        facts.settle_operation(context.payment, operation, answer)
        return self._verdict(operation, context)

    # --- what the operation's state means for the saga ------------------------------------------------------

    def _verdict(self, operation: Operation, context: Context) -> Result:
        match operation.state:
            case OperationState.SUCCEEDED:
                return self.succeeded(operation, context)
            case OperationState.DECLINED:
                return Fail(_declined(operation), Outcome.DECLINED)
            case OperationState.FAILED | OperationState.REVERSED:
                return Fail(
                    ConflictError(f"{self.kind} {operation.id} failed at the gateway."), Outcome.ABSENT
                )
            case OperationState.REQUIRES_REVIEW if context.is_undoing:
                return Done()  # it is there, whatever its amount: undo it
            case OperationState.REQUIRES_REVIEW:
                error = operation.error or {}
                return Halt(GatewayMismatchError(str(error.get("message", "")), operation=operation.id))
            case _:
                return self.pending(operation, context)

    def _absent(self, operation: Operation, context: Context) -> Result:
        if operation.is_final:
            return self._verdict(operation, context)
        operation.negatives += 1
        operation.save(update_fields=["negatives"])
        if operation.negatives < NEGATIVES_NEEDED:
            return _ask_later(context, GatewayTimeoutError(f"the gateway does not know {operation.id} (yet)"))
        absent: dict[str, object] = {
            "code": "absent",
            "message": "The gateway said twice that it knows nothing of it.",
        }
        facts.close_operation(context.payment, operation, absent)
        return Fail(
            GatewayTimeoutError(f"{self.kind} {operation.id} never reached the gateway"), Outcome.ABSENT
        )

    def _no_answer(self, operation: Operation, context: Context, error: PaymentError) -> Result:
        if operation.is_final:  # a webhook told us meanwhile
            return self._verdict(operation, context)
        if isinstance(error, InvalidRequestError):  # surely not done, and sending it again is no use
            facts.close_operation(context.payment, operation, error.to_dict())
            return Fail(error, Outcome.ABSENT)
        surely_not_sent = error.retriable and operation.state in (OperationState.CREATED, OperationState.SENT)
        if not (surely_not_sent and not context.was_asked):
            self._doubt(operation)
        if context.attempts >= FORWARD_TRIES and not context.is_undoing and error.retriable:
            self._doubt(operation)  # asked for on the way back, or by an operator where there is no way back
            return Fail(error, Outcome.UNKNOWN)
        return _ask_later(context, error, in_doubt=operation.state == OperationState.UNKNOWN)

    def _doubt(self, operation: Operation) -> None:
        if operation.state in (OperationState.CREATED, OperationState.SENT):
            operation.state = OperationState.UNKNOWN
            operation.save(update_fields=["state"])

    def _operation(self, context: Context, *, fresh: bool = False) -> Operation:
        held = context.held.get("operation")
        assert context.effect is not None
        if fresh or held is None or held.pk != context.effect.reference:
            held = Operation.objects.select_related("account", "attempt").get(pk=context.effect.reference)
            context.held["operation"] = held
        return held


class Authorize(GatewayEffect):
    """Authorize the order's amount with the live attempt's payment method; waits for the customer's 3-D Secure."""

    kind = OperationKind.AUTHORIZE

    def begin(self, context: Context) -> Operation:
        attempt = Attempt.objects.get(pk=context.data["attempt"])
        return create_operation(context.payment, attempt, self.kind, context.payment.total)

    def send(self, gateway: PaymentGateway, operation: Operation, context: Context) -> Answer:
        order = context.order
        return gateway.authorize(
            ChargeRequest(
                key=operation.gateway_key,
                operation_id=operation.id,
                payment_id=operation.payment_id,
                order_id=order.id,
                amount=operation.money,
                payment_method=operation.attempt.payment_method,
                return_url=order.return_url,
                request_three_d_secure=bool(context.data.get("challenge")),
                customer_email=order.customer_email,
            )
        )

    def pending(self, operation: Operation, context: Context) -> Result:
        if context.is_undoing:
            return Done()  # it is there and unfinished: undo it
        if not context.payment.next_action:
            return super().pending(operation, context)
        if context.is_overdue:
            return Fail(
                PaymentError("The customer did not authenticate in time.", reason="expired"), Outcome.UNKNOWN
            )
        if not context.deadline_at:
            context.order.move_to("awaiting_customer")
            facts.record_event(context.payment, "order.awaiting_customer")
        deadline = context.deadline_at or timezone.now() + timedelta(seconds=settings.CUSTOMER_ACTION_SECONDS)
        return Wait("customer", deadline)


class Capture(GatewayEffect):
    """Capture what was authorized, or the amount in the run's data, and release the rest."""

    kind = OperationKind.CAPTURE

    def begin(self, context: Context) -> Operation | None:
        payment = context.payment
        if payment.captured:
            return None  # captured at the gateway meanwhile
        attempt = payment.attempts.filter(state="live").first()
        if attempt is None or not payment.authorized:
            raise ConflictError("The authorization is gone at the gateway; nothing was captured.")
        amount = Money(context.data.get("amount") or payment.authorized, payment.currency)
        return create_operation(payment, attempt, self.kind, amount, **requester(context))

    def send(self, gateway: PaymentGateway, operation: Operation, context: Context) -> Answer:
        request = CaptureRequest(
            key=operation.gateway_key,
            operation_id=operation.id,
            reference=operation.attempt.gateway_reference,
            amount=operation.money,
        )
        return gateway.capture(request)


class VoidAuthorization(GatewayEffect):
    """Release this saga's authorization; nothing to do when it was captured, refused or never made."""

    kind = OperationKind.VOID

    def begin(self, context: Context) -> Operation | None:
        payment = context.payment
        attempt = payment.attempts.filter(state="live").exclude(gateway_reference="").first()
        if attempt is None or payment.captured:
            return None
        reason = str(
            (context.data.get("cause") or {}).get("reason") or context.data.get("reason") or "requested"
        )
        asked_by = requester(context) | {"reason": reason[:40]}
        return create_operation(payment, attempt, self.kind, payment.total, **asked_by)

    def send(self, gateway: PaymentGateway, operation: Operation, context: Context) -> Answer:
        request = VoidRequest(
            key=operation.gateway_key,
            operation_id=operation.id,
            reference=operation.attempt.gateway_reference,
            amount=operation.money,
            reason=operation.reason,
        )
        return gateway.void(request)


class Refund(GatewayEffect):
    """Send a refund. As a step it sends the one that the run is about; as a compensation, all that was captured."""

    kind = OperationKind.REFUND

    def begin(self, context: Context) -> Operation | None:
        if not context.is_undoing:
            operation = Operation.objects.select_related("account", "attempt").get(
                pk=context.data["operation"]
            )
            operation.state = OperationState.SENT
            operation.save(update_fields=["state"])
            return operation
        payment = context.payment
        if payment.refundable <= 0:
            return None
        return reserve_refund(
            payment, Money(payment.refundable, payment.currency), reason="compensation", source="compensation"
        )

    def send(self, gateway: PaymentGateway, operation: Operation, context: Context) -> Answer:
        request = RefundRequest(
            key=operation.gateway_key,
            operation_id=operation.id,
            reference=operation.attempt.gateway_reference,
            amount=operation.money,
            reason=operation.reason,
        )
        return gateway.refund(request)

    def pending(self, operation: Operation, context: Context) -> Result:
        """Accepted by the gateway: the webhook or the settlement report will tell how it ends."""
        return Done() if operation.state == OperationState.PENDING else super().pending(operation, context)


def reserve_refund(
    payment: Payment, amount: Money, *, reason: str, source: str, note: str = "", requested_by: str = "system"
) -> Operation:
    """The refund's row, reserved against what is left; the payment must be locked. Its money is booked as owed."""
    attempt = payment.attempts.get(state="done")
    operation = create_operation(
        payment,
        attempt,
        OperationKind.REFUND,
        amount,
        source=source,
        reason=reason,
        note=note,
        requested_by=requested_by,
        state=OperationState.CREATED,
    )
    facts.book_refund(payment, operation)
    return operation


def fetch_operation(operation: Operation) -> Answer:
    """Ask the gateway what became of an operation. Raises the errors of the wire."""
    is_refund = operation.kind == OperationKind.REFUND
    request = FetchRequest(
        kind=OperationKind(operation.kind),
        operation_id=operation.id,
        reference=operation.attempt.gateway_reference,
        refund_reference=operation.gateway_reference if is_refund else "",
        since=operation.created_at,
    )
    return get_gateway(operation.account).fetch(request)


def requester(context: Context) -> dict[str, str]:
    """Who wanted the operation, as its row keeps it."""
    if context.is_undoing:
        return {"source": OperationSource.COMPENSATION}
    kept = {name: str(context.data[name]) for name in ("reason", "note") if context.data.get(name)}
    return {
        **kept,
        "source": str(context.data.get("source", OperationSource.SAGA)),
        "requested_by": str(context.data.get("actor", "system")),
    }


def _ask_later(context: Context, error: PaymentError, *, in_doubt: bool = True) -> Again:
    schedule = settings.UNKNOWN_QUERY_SECONDS
    return Again(
        timedelta(seconds=schedule[min(context.attempts, len(schedule) - 1)]), error, in_doubt=in_doubt
    )


def _declined(operation: Operation) -> CardDeclinedError:
    details: dict[str, Any] = {
        k: v for k, v in (operation.error or {}).items() if k not in ("code", "message")
    }
    return CardDeclinedError(
        str((operation.error or {}).get("message") or "The card was declined."), **details
    )
