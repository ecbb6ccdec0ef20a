"""Sagas for on-call: what is stuck, what it would cost, and the two ways on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments import services
from payments.admin.base import (
    Action,
    BackOfficeAdmin,
    Fact,
    OperatorAction,
    TabFilter,
    age,
    column,
    link,
    money,
    state_badge,
)
from payments.admin.forms import ReasonForm
from payments.admin.timeline import explain_diary, tell_diary
from payments.admin.words import tell_actor
from payments.errors import PaymentError
from payments.models import Payment, SagaRun, SagaState
from payments.models.saga import STUCK_STATES
from payments.sagas.registry import find_recipe

LONG = timedelta(minutes=10)  # a saga that neither waits nor is stuck is through within seconds
SHOWN = 300
ENDED = (SagaState.COMPLETED, SagaState.COMPENSATED, SagaState.FORCED)


def needs_attention() -> Q:
    """Stuck, or on its way for longer than it should be."""
    slow = Q(state__in=[SagaState.PENDING, SagaState.RUNNING, SagaState.COMPENSATING])
    overdue = Q(state=SagaState.WAITING, deadline_at__lt=timezone.now() - LONG)
    return Q(state__in=STUCK_STATES) | (slow & Q(created_at__lt=timezone.now() - LONG)) | overdue


class SagaView(TabFilter):
    tabs = {
        "attention": "Needs attention",
        "stuck": "Stuck",
        "live": "Under way",
        "waiting": "Waiting",
        "compensated": "Walked back",
        "all": "All",
    }

    def narrow(self, tab: str, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match tab:
            case "stuck":
                return queryset.filter(state__in=STUCK_STATES)
            case "live":
                return queryset.live()  # type: ignore[attr-defined, no-any-return]
            case "waiting":
                return queryset.filter(state=SagaState.WAITING)
            case "compensated":
                return queryset.filter(state__in=[SagaState.COMPENSATED, SagaState.FORCED])
            case "all":
                return queryset
        return queryset.filter(needs_attention())


def _retry(run: SagaRun, wish: Action) -> str:
    after = services.retry_saga(run.pk, actor=wish.actor, reason=wish.data["reason"])
    return f"The saga was taken up again; it is {after.get_state_display().lower()} now."


def _compensate(run: SagaRun, wish: Action) -> str:
    after = services.compensate_saga(run.pk, actor=wish.actor, reason=wish.data["reason"])
    return f"The saga was sent back; it is {after.get_state_display().lower()} now."


def _why_not_retry(run: SagaRun) -> str:
    return "" if run.state in STUCK_STATES else f"It is {run.get_state_display().lower()}, not stuck."


def _why_not_compensate(run: SagaRun) -> str:
    is_legal = run.state in (*STUCK_STATES, SagaState.WAITING)
    return (
        ""
        if is_legal
        else f"It is {run.get_state_display().lower()}: only a stuck or waiting saga is sent back."
    )


ACTIONS = (
    OperatorAction(
        "retry",
        "Retry",
        "operate_saga",
        _retry,
        explanation="It goes on where it stopped, with a fresh budget of tries. What the gateway has done "
        "already is not done again: each effect keeps its key.",
        form=ReasonForm,
        why_not=_why_not_retry,
    ),
    OperatorAction(
        "compensate",
        "Compensate now",
        "operate_saga",
        _compensate,
        explanation="Everything it has done is undone in reverse order: money goes back, stock is released.",
        form=ReasonForm,
        tone="danger",
        why_not=_why_not_compensate,
    ),
)


@admin.register(SagaRun)
class SagaRunAdmin(BackOfficeAdmin):
    list_display = [
        "state_text",
        "kind_text",
        "order_text",
        "step_text",
        "risk",
        "tries",
        "error_text",
        "next_wake",
        "age_text",
    ]
    list_display_links = ["state_text", "kind_text"]
    empty_text = "No saga waits for a person: every one moves by itself."
    list_filter = [SagaView, "kind", "state", ("created_at", admin.DateFieldListFilter)]
    search_fields = ["=id", "=subject", "=order__id", "=order__reference"]
    search_help_text = "Search by saga, order or reference"
    ordering = ["id"]
    page_template = "admin/payments/saga/page.html"
    operator_actions = ACTIONS

    def get_queryset(self, request: HttpRequest) -> QuerySet[SagaRun]:
        queryset: QuerySet[SagaRun] = super().get_queryset(request)
        return queryset.select_related("order__payment")

    @column("State", ordering="state")
    def state_text(self, run: SagaRun) -> SafeString:
        return state_badge(run.get_state_display(), SAGA_TONES[SagaState(run.state)])

    @column("Saga", ordering="kind")
    def kind_text(self, run: SagaRun) -> str:
        return run.kind.capitalize()

    @column("Order")
    def order_text(self, run: SagaRun) -> SafeString:
        return link("payments_order", run.order_id, run.order.reference) if run.order else SafeString("–")

    @column("Step", ordering="step")
    def step_text(self, run: SagaRun) -> str:
        waiting = f" (waits for {run.waiting_for})" if run.waiting_for else ""
        return run.step.replace("_", " ") + waiting or "–"

    @column("Money at risk")
    def risk(self, run: SagaRun) -> SafeString:
        return format_html('<span class="bo-money">{}</span>', tell_risk(run))

    @column("Tries", ordering="attempts")
    def tries(self, run: SagaRun) -> int:
        return run.attempts

    @column("Error")
    def error_text(self, run: SagaRun) -> SafeString:
        return format_html('<span class="bo-clip" title="{0}">{0}</span>', tell_error(run) or "–")

    @column("Next wake", ordering="wake_at")
    def next_wake(self, run: SagaRun) -> SafeString:
        return (
            SafeString("–")
            if run.state in STUCK_STATES or not run.wake_at
            else age(run.lease_expires_at or run.wake_at)
        )

    @column("Age", ordering="id")
    def age_text(self, run: SagaRun) -> SafeString:
        return age(run.created_at, is_open=run.state in STUCK_STATES)

    def list_facts(self, row: SagaRun) -> list[Fact]:
        return [
            ("Saga", row.pk),
            ("Order", self.order_text(row)),
            *([("About", row.subject)] if row.subject != row.order_id else []),
            ("Step", self.step_text(row)),
            ("Tries of this step", row.attempts),
            ("Begun", age(row.created_at)),
            ("Last change", age(row.updated_at)),
            ("Next wake", self.next_wake(row)),
            ("Deadline", age(row.deadline_at)),
            ("Driven by", row.lease_owner or "nobody now"),
            *([("Last error", tell_error(row))] if row.state in ENDED and row.last_error else []),
            ("Recipe", f"{row.kind}, version {row.definition_version}"),
        ]

    def page_context(self, request: HttpRequest, row: SagaRun) -> dict[str, Any]:
        effects = list(row.effects.all()[:SHOWN])
        diary = row.diary.order_by("-id")[:SHOWN]
        return {
            "title": f"{row.kind.capitalize()} of {row.order.reference if row.order else row.subject}",
            "badges": [self.state_text(row)],
            "risk": tell_risk(row),
            "way_on": WAYS_ON.get(SagaState(row.state), ""),
            "steps": list_steps(row, effects),
            "effects": effects,
            "diary": [
                {
                    "at": age(line.at),
                    "title": tell_diary(line, row.kind),
                    "detail": explain_diary(line),
                    "who": tell_actor(str(line.detail.get("actor") or "system")),
                    "raw": line.detail,
                }
                for line in diary
            ],
            "trouble": "" if row.state in ENDED else tell_error(row),
            "trouble_code": (row.last_error or {}).get("code", ""),
        }


SAGA_TONES = {
    SagaState.PENDING: "info",
    SagaState.RUNNING: "info",
    SagaState.WAITING: "info",
    SagaState.COMPLETED: "success",
    SagaState.COMPENSATING: "warning",
    SagaState.COMPENSATED: "default",
    SagaState.FAILED_COMPENSATION: "danger",
    SagaState.QUARANTINED: "danger",
    SagaState.FORCED: "default",
}


# What a person does about it; the on-call guide says more.
WAYS_ON = {
    SagaState.FAILED_COMPENSATION: "Something that it had done could not be undone. Repair the cause, then press "
    "Retry: it asks the gateway what became of the last try and goes on from there. Nothing is done twice.",
    SagaState.QUARANTINED: "It was stopped because going on could cost money. Compare both sides on the operation's "
    "page. Retry goes on from this step; Compensate now gives back what is held or taken.",
}


def tell_risk(run: SagaRun) -> str:
    """What is held or taken and not settled while the saga is not through; nothing once it has ended well."""
    if run.order is None or run.state == SagaState.COMPLETED:
        return "–"
    payment: Payment = run.order.payment
    minor = money_at_risk(run.kind, payment)
    return money(minor, payment.currency) if minor else "–"


def money_at_risk(kind: str, payment: Payment) -> int:
    """Minor units that are in the wrong place while a saga of this kind does not get on.

    Of a refund that is what is on its way back; else what is captured, and before a capture what is held on
    the customer's card. What a walk back could not refund is still ours, so a pending refund takes nothing off.
    """
    if kind == "refund":
        return payment.refund_pending
    return payment.net if payment.captured else payment.authorized


def tell_error(run: SagaRun) -> str:
    """The last error in words."""
    error = run.last_error or {}
    return str(error.get("message") or str(error.get("code", "")).replace("_", " "))


def list_steps(run: SagaRun, effects: list[Any]) -> list[dict[str, str]]:
    """The recipe's steps in order: what became of each, forward and back."""
    try:
        names = [step.name for step in find_recipe(run.kind, run.definition_version).steps]
    except (PaymentError, LookupError):
        names = list(dict.fromkeys(effect.step for effect in effects))
    return [
        _describe_step(name, run, [effect for effect in effects if effect.step == name]) for name in names
    ]


def _describe_step(name: str, run: SagaRun, effects: list[Any]) -> dict[str, str]:
    done = [effect for effect in effects if effect.direction == "do"]
    undone = [effect for effect in effects if effect.direction == "undo"]
    is_now = name == run.step and run.state not in ENDED
    return {
        "name": name.replace("_", " "),
        "now": "now" if is_now else "",
        "do": _tell_outcome(done),
        "undo": _tell_outcome(undone),
    }


def _tell_outcome(effects: list[Any]) -> str:
    if not effects:
        return ""
    last = effects[-1]
    tries = f" ({len(effects)} tries)" if len(effects) > 1 else ""
    return (last.get_outcome_display() or "begun, no answer yet") + tries
