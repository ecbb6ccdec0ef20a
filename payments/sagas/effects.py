"""The gateway's four operations as saga effects: intent, call, question, outcome."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, cast

from django.conf import settings
from django.utils import timezone

from payments import facts
from payments.cards_on_file import find_charge_token
from payments.errors import (
    AuthenticationRequiredError,
    CardDeclinedError,
    ConflictError,
    GatewayMismatchError,
    GatewayTimeoutError,
    InvalidRequestError,
    NetworkError,
    PaymentError,
    RateLimitedError,
)
from payments.gateways import get_gateway
from payments.gateways.base import (
    Capabilities,
    CaptureRequest,
    ChargeRequest,
    ChargeResult,
    FetchRequest,
    PaymentGateway,
    RedirectGateway,
    RefundRequest,
    RefundResult,
    VoidRequest,
)
from payments.kinds import OperationKind
from payments.models import (
    Attempt,
    AttemptState,
    GatewayAccount,
    Operation,
    OperationState,
    Payment,
    PaymentState,
    SagaEffect,
)
from payments.models.order import CaptureMethod
from payments.money import Money
from payments.sagas.operations import create_operation, requester, reserve_refund
from payments.sagas.recipe import Again, Anew, Context, Done, EffectRow, Fail, Halt, Outcome, Result, Wait

NEGATIVES_NEEDED = 2  # answers "I know nothing of it" before an operation counts as absent
FORWARD_TRIES = 6  # of a gateway that cannot be reached, before the saga walks back

Answer = ChargeResult | RefundResult | PaymentError | None


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
        """Received and not done: a webhook, or the scheduled question, will tell how it ends."""
        error = GatewayTimeoutError(f"{self.kind} {operation.id} is pending at the gateway")
        if _is_resolving(context):
            return _ask_later(context, error)
        if context.is_undoing:
            return Done()  # accepted; what becomes of it is asked for by schedule
        if context.is_overdue:
            return Halt(error)
        return Wait("gateway", context.deadline_at or _in_seconds(settings.PENDING_SECONDS))

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
        operation = self._operation(context, fresh=True)
        if not find_capabilities(operation.account).answers_questions:
            return None
        try:
            return fetch_operation(operation)
        except InvalidRequestError as error:  # the question is refused, which says nothing of the operation
            raise GatewayTimeoutError(
                f"the gateway does not say what became of {operation.id}: {error}"
            ) from error

    def may_call_again(self, context: Context) -> bool:
        """With the same key the gateway does it once; without keys only what it denied before may be sent again."""
        operation = self._operation(context)
        if operation.is_final or operation.state == OperationState.PENDING:
            return False
        capabilities = find_capabilities(operation.account)
        age = timezone.now() - operation.created_at
        if age < timedelta(hours=capabilities.idempotency_key_hours):
            return True
        return capabilities.answers_questions and operation.negatives >= NEGATIVES_NEEDED - 1

    def record(self, context: Context, answer: Answer) -> Result:
        """Settle the operation through the one function for facts, then say how the saga goes on."""
        operation = self._operation(context, fresh=True)
        if context.was_asked and operation.state == OperationState.UNKNOWN:
            facts.record_inquiry(operation, answer)
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
        capabilities = find_capabilities(operation.account)
        if operation.state == OperationState.PENDING or not capabilities.answers_questions:
            return self._unanswered(operation, context)
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

    def _unanswered(self, operation: Operation, context: Context) -> Result:
        """The gateway denies nothing, it just cannot be asked: silence proves nothing."""
        if operation.state == OperationState.PENDING:
            return self.pending(operation, context)
        if _is_resolving(context) and self.kind == OperationKind.AUTHORIZE and _can_void_unseen(operation):
            return Done()  # perhaps it is there: it is released by our own id
        self._doubt(operation)
        return _ask_later(context, GatewayTimeoutError(f"nobody says what became of {operation.id}"))

    def _no_answer(self, operation: Operation, context: Context, error: PaymentError) -> Result:
        if operation.is_final:  # a webhook told us meanwhile
            return self._verdict(operation, context)
        if isinstance(error, InvalidRequestError):  # surely not done, and sending it again is no use
            facts.close_operation(context.payment, operation, error.to_dict())
            return Fail(error, Outcome.ABSENT)
        if error.retriable and "retry_after" in error.details:  # surely not done, and no use to ask sooner
            return Again(timedelta(seconds=float(error.details["retry_after"])), error)
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
            facts.schedule_question(operation)
            operation.save(update_fields=["state", *facts.QUESTION_FIELDS])

    def _operation(self, context: Context, *, fresh: bool = False) -> Operation:
        held = context.held.get("operation")
        assert context.effect is not None
        if fresh or held is None or held.pk != context.effect.reference:
            held = Operation.objects.with_account().get(pk=context.effect.reference)
            context.held["operation"] = held
        return held


class Authorize(GatewayEffect):
    """Authorize the order's amount with the live attempt's payment method; waits for the customer's 3-D Secure."""

    kind = OperationKind.AUTHORIZE

    def begin(self, context: Context) -> Operation:
        attempt = Attempt.objects.get(pk=context.data["attempt"])
        return create_operation(context.payment, attempt, self.kind, context.payment.total)

    def send(self, gateway: PaymentGateway, operation: Operation, context: Context) -> Answer:
        order, payment = context.order, context.payment
        charged = find_charge_token(payment, operation.attempt.payment_method)
        if not charged.token:
            raise InvalidRequestError("The saved payment method was removed; nothing was charged.")
        return gateway.authorize(
            ChargeRequest(
                key=operation.gateway_key,
                operation_id=operation.id,
                payment_id=operation.payment_id,
                order_id=order.id,
                amount=operation.money,
                payment_method=charged.token,
                return_url=order.return_url,
                request_three_d_secure=bool(context.data.get("challenge")),
                sca_exemption=_find_exemption(context, gateway.capabilities),
                customer_email=order.customer_email,
                several_captures=order.capture_method == CaptureMethod.MANUAL,
                save_payment_method=payment.save_method,
                customer_reference=charged.customer_reference,
                customer_id=order.customer_id,
                is_merchant_initiated=payment.is_merchant_initiated,
            )
        )

    def _no_answer(self, operation: Operation, context: Context, error: PaymentError) -> Result:
        is_unsent = operation.state in (OperationState.CREATED, OperationState.SENT) and not context.was_asked
        may_route = isinstance(error, NetworkError | RateLimitedError) and not context.is_undoing
        if may_route and is_unsent and context.data.get("routes"):
            return self._fail_over(operation, context, error)
        return super()._no_answer(operation, context, error)

    def _fail_over(self, operation: Operation, context: Context, error: PaymentError) -> Result:
        """Nothing can have happened at this account: the next one is tried, as an attempt of its own."""
        payment, routes = context.payment, list(context.data["routes"])
        route = routes.pop(0)
        operation.attempt.state = AttemptState.NOT_SENT
        operation.attempt.save(update_fields=["state"])
        facts.close_operation(payment, operation, {**error.to_dict(), "code": "not_sent"})
        payment.account = GatewayAccount.objects.get(pk=route["account"])
        payment.payment_method = route["token"]
        payment.save(update_fields=["account", "payment_method"])
        attempt = _begin_attempt(payment, operation.attempt, route=route["why"][:200])
        context.data.update(attempt=attempt.pk, routes=routes)
        context.note("failed_over", account=str(payment.account), why=str(error))
        return Anew(error)

    def _verdict(self, operation: Operation, context: Context) -> Result:
        if self._may_challenge(operation, context):
            return self._challenge(operation, context)
        return super()._verdict(operation, context)

    def _may_challenge(self, operation: Operation, context: Context) -> bool:
        """A soft decline: the issuer grants no exemption, and the customer is there to be asked after all."""
        wants_it = (operation.error or {}).get("code") == AuthenticationRequiredError.code
        can_return = bool(context.order.return_url) and not context.is_undoing
        if operation.state != OperationState.DECLINED or not wants_it or not can_return:
            return False
        capabilities = find_capabilities(operation.account)
        return capabilities.challenges and bool(_find_exemption(context, capabilities))

    def _challenge(self, operation: Operation, context: Context) -> Anew:
        """The same card again with 3-D Secure, as an attempt of its own; without an exemption this happens once."""
        payment = context.payment
        payment.state, payment.last_error = PaymentState.PROCESSING, None
        payment.save(update_fields=["state", "last_error"])
        attempt = _begin_attempt(payment, operation.attempt, route="the issuer granted no exemption")
        refused = context.data["sca_exemption"]
        context.data.update(attempt=attempt.pk, challenge=True, sca_exemption="")
        context.note("exemption_refused", exemption=refused)
        error = AuthenticationRequiredError(f"The issuer did not grant the exemption {refused}.")
        return Anew(error, Outcome.DECLINED)

    def pending(self, operation: Operation, context: Context) -> Result:
        if context.is_undoing:
            return Done()  # it is there and unfinished: undo it
        if context.is_overdue:
            return Fail(PaymentError("It was not authorized in time.", reason="expired"), Outcome.UNKNOWN)
        if not context.payment.next_action:
            return super().pending(operation, context)
        if not context.deadline_at:
            context.order.move_to("awaiting_customer")
            facts.record_event(context.payment, "order.awaiting_customer")
        return Wait("customer", context.deadline_at or _in_seconds(settings.CUSTOMER_ACTION_SECONDS))


class Capture(GatewayEffect):
    """Capture what is left of the hold, or the amount in the run's data; unless `final` is False, release the rest."""

    kind = OperationKind.CAPTURE

    def begin(self, context: Context) -> Operation | None:
        payment = context.payment
        attempt = payment.attempts.select_related("account").filter(state=AttemptState.LIVE).first()
        if payment.captured and (attempt is None or not payment.capturable):
            return None  # captured at the gateway meanwhile
        wanted = context.data.get("amount") or payment.capturable
        if attempt is None or not 0 < wanted <= payment.capturable:
            raise ConflictError("The authorization is gone at the gateway; nothing was captured.")
        is_all = wanted == payment.capturable
        is_last = bool(context.data.get("final", True))
        releases_rest = find_capabilities(attempt.account).final_capture_releases
        return create_operation(
            payment,
            attempt,
            self.kind,
            Money(wanted, payment.currency),
            releases_rest=is_all or (is_last and releases_rest),
            **requester(context),
        )

    def send(self, gateway: PaymentGateway, operation: Operation, context: Context) -> Answer:
        request = CaptureRequest(
            key=operation.gateway_key,
            operation_id=operation.id,
            reference=operation.attempt.gateway_reference,
            amount=operation.money,
            final=operation.releases_rest,
        )
        return gateway.capture(request)


class VoidAuthorization(GatewayEffect):
    """Release the authorization, or what captures left of it; nothing to do when it was used up or never made."""

    kind = OperationKind.VOID

    def begin(self, context: Context) -> Operation | None:
        payment = context.payment
        attempt = self._find_attempt(context)
        held, captured = attempt.count_hold() if attempt else (0, 0)
        if attempt is None or 0 < held <= captured:
            return None
        reason = str(
            (context.data.get("cause") or {}).get("reason") or context.data.get("reason") or "requested"
        )
        asked_by = requester(context) | {"reason": reason[:40]}
        amount = Money(held - captured or payment.amount, payment.currency)
        return create_operation(payment, attempt, self.kind, amount, **asked_by)

    def _find_attempt(self, context: Context) -> Attempt | None:
        """The live one, or the one that the run is about. Without a reference nobody but our own id can name it."""
        attempts = context.payment.attempts.select_related("account")
        named = context.data.get("late_attempt")
        attempt = attempts.filter(pk=named) if named else attempts.filter(state=AttemptState.LIVE)
        found = attempt.first()
        if found is None or found.gateway_reference or _is_perhaps_held(found):
            return found
        return None

    def send(self, gateway: PaymentGateway, operation: Operation, context: Context) -> Answer:
        attempt = operation.attempt
        authorization = attempt.operations.filter(kind=OperationKind.AUTHORIZE).values_list("pk", flat=True)
        request = VoidRequest(
            key=operation.gateway_key,
            operation_id=operation.id,
            reference=attempt.gateway_reference,
            amount=operation.money,
            reason=operation.reason,
            is_rest=attempt.operations.filter(kind=OperationKind.CAPTURE, state="succeeded").exists(),
            authorization_id=authorization.first() or "",
        )
        return gateway.void(request)

    def pending(self, operation: Operation, context: Context) -> Result:
        """Accepted by the gateway: its webhook tells how it ends, and a failure calls a person."""
        return Done() if operation.state == OperationState.PENDING else super().pending(operation, context)


class ReleaseRest(VoidAuthorization):
    """After the last capture in part, at a gateway that goes on holding the rest."""

    def begin(self, context: Context) -> Operation | None:
        is_last = bool(context.data.get("final", True))
        return super().begin(context) if is_last and context.payment.capturable else None


class Refund(GatewayEffect):
    """Send a refund. As a step it sends the one that the run is about; as a compensation, all that was captured."""

    kind = OperationKind.REFUND

    def begin(self, context: Context) -> Operation | None:
        if not context.is_undoing:
            operation = Operation.objects.with_account().get(pk=context.data["operation"])
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
            capture_reference=operation.capture.gateway_reference if operation.capture else "",
        )
        return gateway.refund(request)

    def pending(self, operation: Operation, context: Context) -> Result:
        """Accepted by the gateway: the webhook or the settlement report will tell how it ends."""
        return Done() if operation.state == OperationState.PENDING else super().pending(operation, context)


def complete_at_gateway(operation: Operation, redirect_result: str) -> ChargeResult:
    """What the gateway makes of the customer's return from 3-D Secure. Raises the errors of the wire."""
    gateway = cast(RedirectGateway, get_gateway(operation.account))
    return gateway.complete_authentication(
        operation_id=operation.id, amount=operation.money, redirect_result=redirect_result
    )


def _begin_attempt(payment: Payment, last: Attempt, *, route: str) -> Attempt:
    """The next one, with the payment's account and method of now; the last must have ended."""
    return Attempt.objects.create(
        payment=payment,
        account=payment.account,
        number=last.number + 1,
        payment_method=payment.payment_method,
        route=route,
        created_at=timezone.now(),
    )


def _find_exemption(context: Context, capabilities: Capabilities) -> str:
    """What screening chose, unless a challenge is asked for or the gateway has no word for it."""
    chosen = str(context.data.get("sca_exemption") or "")
    return chosen if chosen in capabilities.sca_exemptions and not context.data.get("challenge") else ""


def find_capabilities(account: GatewayAccount) -> Capabilities:
    """What the account's gateway can do."""
    return get_gateway(account).capabilities


def fetch_operation(operation: Operation) -> Answer:
    """Ask the gateway what became of an operation; None when it denies all knowledge of it.

    Raises the errors of the wire, and `GatewayTimeoutError` for a gateway that answers no questions.
    """
    if not find_capabilities(operation.account).answers_questions:
        raise GatewayTimeoutError(
            f"{operation.account} cannot be asked: its webhooks tell what became of {operation.id}"
        )
    request = FetchRequest(
        kind=OperationKind(operation.kind),
        operation_id=operation.id,
        reference=operation.attempt.gateway_reference,
        own_reference=operation.gateway_reference,
        since=operation.created_at,
    )
    return get_gateway(operation.account).fetch(request)


def _is_resolving(context: Context) -> bool:
    """Walking back, and finding out first what became of the effect itself."""
    is_do = context.effect is not None and context.effect.direction == SagaEffect.Direction.DO
    return context.is_undoing and is_do


def _can_void_unseen(operation: Operation) -> bool:
    return find_capabilities(operation.account).void_without_reference


def _is_perhaps_held(attempt: Attempt) -> bool:
    """No answer ever gave its reference, but the gateway can release what our own id names, if there is anything."""
    sent = attempt.operations.filter(kind=OperationKind.AUTHORIZE)
    open_ones = sent.exclude(state__in=[OperationState.FAILED, OperationState.DECLINED])
    return find_capabilities(attempt.account).void_without_reference and open_ones.exists()


def _in_seconds(seconds: int) -> datetime:
    return timezone.now() + timedelta(seconds=seconds)


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
