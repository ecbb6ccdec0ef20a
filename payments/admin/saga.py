"""Sagas for on-call: what is stuck and why, what it would cost, and every way on."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments import runbook, services
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
    name_actor,
    state_badge,
)
from payments.admin.forms import ReasonForm
from payments.admin.saga_forms import (
    ExtendForm,
    ForceForm,
    SagaNoteForm,
    SagaReasonForm,
    SkipForm,
)
from payments.admin.timeline import explain_diary, tell_diary
from payments.admin.words import tell_actor
from payments.errors import PaymentError
from payments.models import ForceRequest, Inquiry, Operation, Payment, SagaEffect, SagaRun, SagaState
from payments.models.saga import STUCK_STATES, StuckGroup
from payments.sagas.registry import find_recipe

LONG = timedelta(minutes=10)  # a saga that neither waits nor is stuck is through within seconds
SHOWN = 300
MOST_AT_ONCE = 100  # sagas that one press takes up again
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


# --- the tools --------------------------------------------------------------------------------------------------


def _retry(run: SagaRun, wish: Action) -> str:
    after = services.retry_saga(
        run.pk, actor=wish.actor, reason=wish.data["reason"], epoch=wish.data.get("epoch")
    )
    return f"The saga was taken up again; it is {after.get_state_display().lower()} now."


def _compensate(run: SagaRun, wish: Action) -> str:
    after = services.compensate_saga(
        run.pk, actor=wish.actor, reason=wish.data["reason"], epoch=wish.data.get("epoch")
    )
    return f"The saga was sent back; it is {after.get_state_display().lower()} now."


def _skip(run: SagaRun, wish: Action) -> str:
    after = services.skip_step(run.pk, actor=wish.actor, **_seen(wish))
    return (
        f"The step {run.step.replace('_', ' ')} was skipped; it is {after.get_state_display().lower()} now."
    )


def _extend(run: SagaRun, wish: Action) -> str:
    after = services.extend_deadline(run.pk, actor=wish.actor, **_seen(wish))
    return f"The saga waits until {after.deadline_at:%Y-%m-%d %H:%M} UTC now."


def _propose(run: SagaRun, wish: Action) -> str:
    request = services.propose_force(run.pk, actor=wish.actor, **_seen(wish))
    return (
        f"The end as {request.target} is proposed. Somebody else decides under Forced ends, within 24 hours."
    )


def _note(run: SagaRun, wish: Action) -> str:
    services.add_saga_note(run.pk, actor=wish.actor, text=wish.data["note"])
    return "The note is in the diary."


def _seen(wish: Action) -> dict[str, Any]:
    """The form's values; without the epoch that the page carried, none fits."""
    epoch = wish.data.get("epoch")
    return {**wish.data, "epoch": -1 if epoch is None else epoch}


ACTIONS = (
    OperatorAction(
        "retry",
        "Retry",
        "operate_saga",
        _retry,
        explanation="It goes on where it stopped, with a fresh budget of tries. What the gateway has done "
        "already is not done again: each effect keeps its key.",
        form=SagaReasonForm,
        why_not=partial(services.explain_tool, tool="retry"),
    ),
    OperatorAction(
        "compensate",
        "Compensate now",
        "operate_saga",
        _compensate,
        explanation="Everything it has done is undone in reverse order: money goes back, stock is released.",
        form=SagaReasonForm,
        tone="danger",
        why_not=partial(services.explain_tool, tool="compensate"),
    ),
    OperatorAction(
        "skip",
        "Skip step",
        "operate_saga",
        _skip,
        explanation="It goes on past its present step, forward or on its way back. The step is kept as skipped, and "
        "nothing undoes it later.",
        form=SkipForm,
        tone="danger",
        why_not=partial(services.explain_tool, tool="skip"),
    ),
    OperatorAction(
        "extend",
        "Extend deadline",
        "operate_saga",
        _extend,
        explanation="It waits longer. The hold on the card must outlive it by 12 hours.",
        form=ExtendForm,
        why_not=partial(services.explain_tool, tool="extend"),
    ),
    OperatorAction(
        "force",
        "Propose a forced end",
        "force_saga",
        _propose,
        explanation="It ends as you say, with nothing sent to the gateway, once a second person agrees. The totals "
        "must allow it: paid with money kept, canceled with none held or kept.",
        form=ForceForm,
        tone="danger",
        why_not=partial(services.explain_tool, tool="force"),
    ),
    OperatorAction("note", "Note", "operate_saga", _note, form=SagaNoteForm, tone=""),
)


# --- the list and the page --------------------------------------------------------------------------------------


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
    list_before_template = "admin/payments/sagarun/groups.html"
    page_template = "admin/payments/sagarun/page.html"
    operator_actions = ACTIONS

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        is_stuck = request.GET.get("view") in (None, "stuck") and not request.GET.get("q")
        groups = [describe_group(group) for group in SagaRun.objects.stuck_groups()] if is_stuck else []
        return super().changelist_view(request, {"groups": groups, **(extra_context or {})})

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.show_group)
        return [path("group/", view, name="payments_sagarun_group"), *super().get_urls()]

    def show_group(self, request: HttpRequest) -> HttpResponse:
        """The stuck sagas of one cause; by POST those that were shown are taken up again, and each says how it went."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        cause = {name: request.GET.get(name, "") for name in ("state", "kind", "step", "code")}
        form = ReasonForm(request.POST or None, auto_id="id_group_%s")
        outcomes = None
        if request.method == "POST":
            if not self.allows(request, "operate_saga"):
                raise PermissionDenied
            if form.is_valid():
                outcomes = services.retry_sagas(
                    _read_shown(request), actor=name_actor(request), reason=form.cleaned_data["reason"]
                )
        group = SagaRun.objects.in_group(**cause).select_related("order__payment")
        runs = list(group[:MOST_AT_ONCE])
        context = {
            "rows": [_describe_member(run) for run in runs],
            "left": max(0, group.count() - len(runs)),
            "form": form,
            "outcomes": outcomes,
            "done": sum(not outcome.refusal for outcome in outcomes or []),
            "may_operate": self.allows(request, "operate_saga"),
            "guide": _link_guide(cause["state"], cause["code"]),
            "back": f"{reverse('admin:payments_sagarun_changelist')}?view=stuck",
        }
        title = f"{cause['kind'].capitalize()} stopped at {cause['step'].replace('_', ' ')}"
        return self.render_page(request, "admin/payments/sagarun/group.html", title=title, context=context)

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
            "doubts": list_doubts(effects),
            "force": _describe_request(row),
            "guide": _link_guide(row.state, (row.last_error or {}).get("code", "")),
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


# --- what is stuck, by cause ------------------------------------------------------------------------------------


def describe_group(group: StuckGroup) -> dict[str, Any]:
    """One line of the table of causes."""
    cause = {"state": group.state, "kind": group.kind, "step": group.step, "code": group.code}
    return {
        "kind": group.kind.capitalize(),
        "step": group.step.replace("_", " "),
        "code": group.code or "no code",
        "state": state_badge(SagaState(group.state).label, SAGA_TONES[SagaState(group.state)]),
        "count": group.count,
        "held": _tell_amounts({currency: held for currency, (held, _) in group.amounts.items()}),
        "taken": _tell_amounts({currency: taken for currency, (_, taken) in group.amounts.items()}),
        "oldest": age(group.oldest, is_open=True),
        "newest": age(group.newest),
        "url": f"{reverse('admin:payments_sagarun_group')}?{urlencode(cause)}",
        "guide": _link_guide(group.state, group.code),
    }


def _tell_amounts(amounts: dict[str, int]) -> str:
    return ", ".join(money(minor, currency) for currency, minor in sorted(amounts.items()) if minor) or "–"


def _link_guide(state: str, code: str) -> str:
    """What the on-call guide says of it; nothing to say of a saga that is not stuck."""
    if state not in STUCK_STATES:
        return ""
    return runbook.link_to(runbook.find_slug(f"saga:{state}", code))


def _describe_member(run: SagaRun) -> dict[str, Any]:
    return {
        "key": f"{run.pk}:{run.epoch}",
        "saga": link("payments_sagarun", run.pk, run.pk),
        "order": link("payments_order", run.order_id, run.order.reference) if run.order else "–",
        "risk": tell_risk(run),
        "error": tell_error(run),
        "since": age(run.updated_at, is_open=True),
    }


def _read_shown(request: HttpRequest) -> list[tuple[str, int]]:
    """The sagas that the page showed, each with its epoch; what is no such pair fits no saga."""
    pairs = [value.rpartition(":") for value in request.POST.getlist("run")[:MOST_AT_ONCE]]
    return [(run_id, int(epoch) if epoch.isdigit() else -1) for run_id, _, epoch in pairs]


# --- evidence ---------------------------------------------------------------------------------------------------


def list_doubts(effects: list[SagaEffect]) -> list[dict[str, Any]]:
    """The operations of a saga that were asked about or are not settled, with every answer of the gateway."""
    keys = [effect.reference for effect in effects if effect.gateway_key]
    inquiries: dict[str, list[Inquiry]] = {}
    for inquiry in Inquiry.objects.filter(operation__in=keys).order_by("-id")[:SHOWN]:
        inquiries.setdefault(inquiry.operation_id, []).append(inquiry)
    operations = Operation.objects.filter(pk__in=keys).order_by("id")
    return [
        {
            "operation": link("payments_operation", operation.pk, operation.pk),
            "what": f"{operation.get_kind_display()} of {money(operation.amount, operation.currency)}",
            "state": state_badge(operation.get_state_display()),
            "asks": operation.asks,
            "next": age(operation.next_ask_at),
            "escalated": age(operation.escalated_at, is_open=True) if operation.escalated_at else "",
            "answers": [
                {"at": age(inquiry.asked_at), "who": tell_actor(inquiry.actor), "answer": inquiry.answer}
                for inquiry in inquiries.get(operation.pk, [])
            ],
        }
        for operation in operations
        if not operation.is_final or operation.pk in inquiries
    ]


def _describe_request(run: SagaRun) -> dict[str, Any] | None:
    request = run.force_requests.filter(state=ForceRequest.State.OPEN).first()
    if request is None:
        return None
    words = f"{tell_actor(request.proposed_by)} proposes to end it as {request.target}"
    return {"link": link("payments_forcerequest", request.pk, words), "until": age(request.expires_at)}
