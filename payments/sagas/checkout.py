"""The checkout: reserve, screen, authorize, screen again, review, capture, ship."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from payments import facts
from payments.errors import FraudBlockedError
from payments.models import AttemptState, PaymentState
from payments.models.order import CaptureMethod, OrderState
from payments.sagas.effects import Authorize, Capture, Refund, VoidAuthorization
from payments.sagas.ports import CancelShipment, CreateShipment, ReleaseInventory, ReserveInventory
from payments.sagas.recipe import Context, Done, EffectRow, Fail, Recipe, Result, Wait, step
from payments.screening import Decision, Screening, Stage, get_screener

log = structlog.get_logger(__name__)


class Screen:
    """The first screening: lists, velocity, country, amount. It may use the network, so it runs outside."""

    def ask(self, context: Context) -> Screening:
        return get_screener().screen(context.order, context.payment, stage=Stage.BEFORE_AUTHORIZATION)

    def record(self, context: Context, answer: Any) -> Result:
        if not isinstance(answer, Screening):
            return _hold(context, f"screening failed: {answer}")
        get_screener().record(context.order, context.payment, answer)
        return _decide(context, answer)


def screen_again(context: Context) -> Result:
    """The second screening: what the issuer said of address, code and risk. Inside the transaction, no network."""
    try:
        with transaction.atomic():
            screener = get_screener()
            screening = screener.screen(context.order, context.payment, stage=Stage.AFTER_AUTHORIZATION)
            screener.record(context.order, context.payment, screening)
    except Exception as error:
        log.exception("screening_failed", order_id=context.order.id)
        return _hold(context, f"screening failed: {type(error).__name__}")
    return _decide(context, screening)


def _decide(context: Context, screening: Screening) -> Result:
    context.note(
        "screened", decision=screening.decision, score=screening.score, reasons=list(screening.reasons)
    )
    if screening.decision == Decision.BLOCK:
        return Fail(FraudBlockedError("Screening refused the order.", reason="fraudulent"))
    if screening.decision == Decision.REVIEW:
        context.data["hold"] = True
    if screening.decision == Decision.CHALLENGE:
        is_too_late = screening.stage == Stage.AFTER_AUTHORIZATION
        can_be_asked = not (is_too_late or context.payment.is_merchant_initiated)
        context.data["challenge" if can_be_asked else "hold"] = True
    if screening.stage == Stage.BEFORE_AUTHORIZATION:
        _choose_authentication(context, screening)
    return Done()


def _choose_authentication(context: Context, screening: Screening) -> None:
    """A challenge wins over an exemption, and who is suspected of anything is exempt from nothing."""
    if screening.requests_challenge:
        context.data["challenge"] = True
    if screening.decision == Decision.APPROVE and not screening.requests_challenge:
        context.data["sca_exemption"] = screening.sca_exemption
        if screening.sca_exemption:
            context.note("exempt", exemption=screening.sca_exemption)


def _hold(context: Context, why: str) -> Result:
    """A screener that is down is never a silent pass: a person looks."""
    context.note("screening_failed", why=why)
    context.data["hold"] = True
    return Done()


def await_review(context: Context) -> Result:
    """Hold the capture until an analyst decides, or the deadline before the authorization's end passes."""
    if not context.data.get("hold"):
        return Done()
    if context.signal:
        return _end_review(context, context.signal)
    if context.is_overdue:
        get_screener().close_review(context.order, reason="expired")
        return Fail(FraudBlockedError("Nobody decided before the deadline.", reason="expired"))
    deadline = context.deadline_at or _review_deadline(context)
    if context.order.state != OrderState.REVIEW:
        context.order.move_to(OrderState.REVIEW)
        context.payment.state = PaymentState.REQUIRES_REVIEW
        context.payment.save(update_fields=["state"])
        get_screener().open_review(context.order, context.payment, expires_at=deadline)
        facts.record_event(context.payment, "review.opened")
    return Wait("review", deadline)


def _review_deadline(context: Context) -> Any:
    by_policy = timezone.now() + timedelta(seconds=settings.REVIEW_SECONDS)
    expires = context.payment.authorization_expires_at
    return min(by_policy, expires - timedelta(hours=12)) if expires else by_policy


def _end_review(context: Context, signal: dict[str, Any]) -> Result:
    actor = str(signal.get("actor", "system"))
    if signal.get("decision") != "approve":
        facts.record_event(context.payment, "review.rejected", actor=actor, reason=signal.get("reason", ""))
        return Fail(
            FraudBlockedError("An analyst rejected the order.", reason=signal.get("reason") or "fraudulent")
        )
    context.data["hold"] = False
    context.order.move_to(OrderState.PROCESSING)
    context.payment.state = PaymentState.REQUIRES_CAPTURE
    context.payment.save(update_fields=["state"])
    facts.record_event(context.payment, "review.approved", actor=actor)
    return Done()


class CaptureNow(Capture):
    """Captures unless the storefront wants to do it later."""

    def intend(self, context: Context) -> EffectRow | None:
        is_manual = context.payment.capture_method == CaptureMethod.MANUAL
        return None if is_manual else super().intend(context)


# --- the end ------------------------------------------------------------------------------------------------


def say_paid(context: Context) -> None:
    """All is done: tell the storefront. With a part captured and more to come, the order is not paid yet."""
    if context.payment.captured and not context.payment.capturable:
        context.order.move_to(OrderState.PAID)
        facts.record_event(context.payment, "order.paid")
    else:
        context.order.move_to(OrderState.PROCESSING)
        facts.record_event(context.payment, "order.authorized")


_ENDS = {
    "card_declined": (OrderState.DECLINED, "order.declined"),
    "insufficient_funds": (OrderState.DECLINED, "order.declined"),
    "authentication_required": (OrderState.DECLINED, "order.declined"),
    "fraud_blocked": (OrderState.BLOCKED, "order.blocked"),
}


def say_undone(context: Context, cause: dict[str, Any]) -> None:
    """All is undone: the order ends in the state that its cause asks for."""
    payment = context.payment
    state, event = _ENDS.get(str(cause.get("code")), (OrderState.CANCELED, "order.canceled"))
    reason = str(cause.get("reason") or cause.get("code") or "")[:40]
    if reason == "expired":
        state, event = OrderState.EXPIRED, "order.expired"
    payment.attempts.filter(state=AttemptState.LIVE).update(state=AttemptState.VOIDED)
    if state != OrderState.DECLINED and not payment.captured:
        payment.state = PaymentState.CANCELED
        payment.cancel_reason = payment.cancel_reason or reason
    payment.next_action = None
    payment.last_error = payment.last_error or {name: cause.get(name) for name in ("code", "message")}
    payment.save(update_fields=["state", "cancel_reason", "next_action", "last_error"])
    if context.data.get("hold"):
        get_screener().close_review(context.order, reason=reason)
    context.order.move_to(state, cancel_reason=reason)
    facts.record_event(payment, event)


CHECKOUT = Recipe(
    kind="checkout",
    version=1,
    steps=[
        step("reserve", do=ReserveInventory(), undo=ReleaseInventory()),
        step("screen", do=Screen()),
        step("authorize", do=Authorize(), undo=VoidAuthorization()),
        step("screen_again", do=screen_again),
        step("review", do=await_review),
        step("capture", do=CaptureNow(), undo=Refund()),
        step("ship", do=CreateShipment(), undo=CancelShipment()),
    ],
    completed=say_paid,
    compensated=say_undone,
)
