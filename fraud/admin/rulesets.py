"""The pages of rule sets: every version, what it changes, and the way from a draft to what decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.contrib import admin, messages
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from fraud import rulesets
from fraud.admin import backtests
from fraud.admin.rule_editor import RuleEditor
from fraud.admin.ruleset_forms import DraftForm, NoteForm, PublishForm, RollBackForm
from fraud.admin.ruleset_words import Difference, show_difference, show_rule
from fraud.decision import Status
from fraud.live import NoRulesError, live_plan
from fraud.models import Rule, RuleActivation, RuleSet, RuleSetState, Verdict
from fraud.plans import LivePlan, RuleError
from fraud.rehearsal import Rehearsal, rehearse_plan
from payments.admin.base import (
    Action,
    ActionForm,
    Button,
    Fact,
    OperatorAction,
    age,
    column,
    link,
    name_actor,
    state_badge,
)
from payments.admin.words import exact_time, tell_actor
from payments.decisions import Decision
from payments.errors import PaymentError
from payments.ids import lowest_id

LIST = "admin:fraud_ruleset_changelist"
HITS_SINCE = timedelta(days=7)
NEWLY = {
    Decision.BLOCK: "Newly blocked",
    Decision.REVIEW: "Newly reviewed",
    Decision.CHALLENGE: "Newly challenged",
    Decision.APPROVE: "Newly passed",
}
STATE_TONES = {
    RuleSetState.DRAFT: "info",
    RuleSetState.SUBMITTED: "warning",
    RuleSetState.PUBLISHED: "success",
    RuleSetState.DISCARDED: "default",
}


def submit(ruleset: RuleSet, action: Action) -> str:
    rulesets.submit(ruleset.pk, actor=action.actor)
    return f"{ruleset} was submitted. Another person publishes it."


def take_back(ruleset: RuleSet, action: Action) -> str:
    rulesets.reopen(ruleset.pk, actor=action.actor)
    return f"{ruleset} is a draft again."


def discard(ruleset: RuleSet, action: Action) -> str:
    rulesets.discard(ruleset.pk, actor=action.actor)
    return f"{ruleset} was discarded. It can still be looked at, and a new draft can begin with it."


def describe(ruleset: RuleSet, action: Action) -> str:
    rulesets.describe(ruleset.pk, action.data["note"], actor=action.actor)
    return "The note was saved."


def publish(ruleset: RuleSet, action: Action) -> str:
    activation = rulesets.publish(ruleset.pk, actor=action.actor, **action.data)
    return f"{ruleset} was published. {_tell_start(activation)}"


def roll_back(ruleset: RuleSet, action: Action) -> str:
    return _tell_start(rulesets.roll_back(ruleset.pk, actor=action.actor, **action.data))


def _tell_start(activation: RuleActivation) -> str:
    if activation.starts_at > timezone.now():
        return f"{activation.ruleset} decides from {exact_time(activation.starts_at)} on."
    return f"{activation.ruleset} decides from now on; every server follows within five seconds."


def why_not_submit(ruleset: RuleSet) -> str:
    problems = rulesets.find_problems(ruleset)
    if problems:
        return f"“{problems[0][0].name}” cannot run yet."
    if ruleset.based_on and not rulesets.compare(ruleset.based_on, ruleset):
        return f"It does not differ from {ruleset.based_on}."
    return ""


def why_not_publish(ruleset: RuleSet, actor: str) -> str:
    return "You had a hand in it: another person publishes it." if actor in ruleset.editors else ""


def why_not_roll_back(ruleset: RuleSet) -> str:
    return "It is in force." if RuleSet.objects.live() == ruleset else ""


DRAFT, PUBLISH = "draft_ruleset", "publish_ruleset"
# Each with the state in which it is offered.
STEPS: dict[OperatorAction, RuleSetState] = {
    OperatorAction("note", "Edit note", DRAFT, describe, form=NoteForm, tone="default"): RuleSetState.DRAFT,
    OperatorAction(
        "discard",
        "Discard",
        DRAFT,
        discard,
        "Nobody can change or publish it any more.",
        tone="danger",
    ): RuleSetState.DRAFT,
    OperatorAction(
        "submit",
        "Submit",
        DRAFT,
        submit,
        "Its rules are closed. Another person, who had no hand in it, looks at them and publishes them.",
        why_not=why_not_submit,
    ): RuleSetState.DRAFT,
    OperatorAction(
        "takeback",
        "Take back",
        DRAFT,
        take_back,
        "It becomes a draft again and can be changed.",
        tone="default",
    ): RuleSetState.SUBMITTED,
    OperatorAction(
        "publish",
        "Publish",
        PUBLISH,
        publish,
        "It is never changed from then on. Every order after the start is decided by it.",
        form=PublishForm,
    ): RuleSetState.SUBMITTED,
    OperatorAction(
        "rollback",
        "Put in force",
        PUBLISH,
        roll_back,
        "This set was published once: it decides again. The set in force now stays, to go back to.",
        form=RollBackForm,
        why_not=why_not_roll_back,
    ): RuleSetState.PUBLISHED,
}


class Moment(NamedTuple):
    """One line of a set's history."""

    at: datetime | None
    what: str
    who: str = ""
    until: datetime | None = None
    note: str = ""


@admin.register(RuleSet)
class RuleSetAdmin(RuleEditor):
    """Every version, the newest first; what decides now, and what will."""

    list_display = ["title_text", "state_text", "force_text", "note", "author_text", "publisher_text"]
    list_filter = ["state"]
    list_before_template = "admin/fraud/ruleset/list.html"
    search_fields = ["number", "note", "created_by", "published_by"]
    search_help_text = "Search by number, note, person"
    page_template = "admin/fraud/ruleset/page.html"
    operator_actions = (*STEPS, backtests.START)

    class Media:
        css = {"all": ["fraud/ruleset.css"]}
        js = ["fraud/ruleset.js"]

    # --- the list ---------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[RuleSet]:
        queryset: QuerySet[RuleSet] = super().get_queryset(request)
        waiting = RuleActivation.objects.waiting().filter(ruleset=OuterRef("pk")).order_by("starts_at")
        begun = RuleActivation.objects.filter(starts_at__lte=Now(), cancelled_at__isnull=True)
        return queryset.annotate(
            scheduled_at=Subquery(waiting.values("starts_at")[:1]),
            live_id=Subquery(begun.order_by("-starts_at", "-id").values("ruleset_id")[:1]),
        )

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {
            "now": RuleActivation.objects.in_force(),
            "waiting": RuleActivation.objects.waiting().select_related("ruleset").order_by("starts_at"),
            "can_publish": self.allows(request, PUBLISH),
            "can_draft": self.allows(request, DRAFT),
            "draft_form": DraftForm(auto_id="id_draft_%s"),
            "sources": RuleSet.objects.all(),
        }
        return super().changelist_view(request, {**(extra_context or {}), **context})

    @column("Rule set", ordering="number")
    def title_text(self, ruleset: RuleSet) -> str:
        return str(ruleset)

    @column("State", ordering="state")
    def state_text(self, ruleset: RuleSet) -> SafeString:
        return show_state(ruleset)

    @column("Decides")
    def force_text(self, ruleset: RuleSet) -> SafeString:
        return show_force(ruleset)

    @column("Made by", ordering="created_by")
    def author_text(self, ruleset: RuleSet) -> SafeString:
        return _tell_deed(ruleset.created_by, ruleset.created_at)

    @column("Published by", ordering="published_by")
    def publisher_text(self, ruleset: RuleSet) -> SafeString | str:
        return _tell_deed(ruleset.published_by, ruleset.published_at) if ruleset.published_at else ""

    # --- the page of a set ------------------------------------------------------------------------

    def list_facts(self, row: RuleSet) -> list[Fact]:
        source = row.based_on
        begun_with = link("fraud_ruleset", source.pk, source) if source else "–"
        return [
            ("Made by", _tell_deed(row.created_by, row.created_at)),
            ("Begun with", begun_with),
            ("Changed by", ", ".join(map(tell_actor, row.editors))),
            (
                "Published by",
                _tell_deed(row.published_by, row.published_at) if row.published_at else "nobody yet",
            ),
            ("Digest", format_html("<code>{}</code>", row.digest or rulesets.digest_of(row.rules.all()))),
            ("Note", row.note or "–"),
        ]

    def page_context(self, request: HttpRequest, row: RuleSet) -> dict[str, Any]:
        rules = list(row.rules.all())
        return {
            "badges": [show_state(row), show_force(row)],
            "rules": show_rules(rules),
            "can_edit": row.is_draft and self.allows(request, DRAFT),
            "can_draft": self.allows(request, DRAFT),
            "can_publish": self.allows(request, PUBLISH),
            "can_see_verdicts": self.allows(request, "view_assessment"),
            "draft_form": DraftForm(auto_id="id_draft_%s"),
            "history": tell_history(row),
            "waiting": row.activations.waiting(),
            **self._compare(request, row),
        }

    def _compare(self, request: HttpRequest, row: RuleSet) -> dict[str, Any]:
        """The set beside another: the one that the address names, else the one in force, else what it began with."""
        live = RuleSet.objects.live()
        chosen = RuleSet.objects.filter(pk=request.GET.get("against", "")).first()
        other = chosen or (live if live != row else row.based_on)
        return {
            "other": other,
            "live": live,
            "others": RuleSet.objects.exclude(pk=row.pk),
            "differences": tell_differences(other, row) if other else [],
        }

    def list_buttons(
        self, request: HttpRequest, row: RuleSet, *, failed: tuple[str, ActionForm] | None = None
    ) -> list[Button]:
        """Only the steps of the set's state; who had a hand in it is told so at the button."""
        buttons = super().list_buttons(request, row, failed=failed)
        offered = [b for b in buttons if STEPS.get(b.action, row.state) == row.state]
        why_not = why_not_publish(row, name_actor(request))
        return [
            replace(button, why_not=why_not) if button.action.name == "publish" else button
            for button in offered
        ]

    def refuse_form(
        self, request: HttpRequest, row: RuleSet, action: OperatorAction, form: ActionForm
    ) -> HttpResponse:
        if action.name == "publish":
            return self._show_last_look(request, row, form, status=422)
        return super().refuse_form(request, row, action, form)

    # --- before it is published -------------------------------------------------------------------

    def last_look_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            return self.refuse(request, PUBLISH) or HttpResponseNotAllowed(["GET"])
        row = self.find_row(request, object_id)
        return self._show_last_look(request, row, PublishForm(row=row, auto_id="id_publish_%s"))

    def _show_last_look(
        self, request: HttpRequest, row: RuleSet, form: ActionForm, *, status: int = 200
    ) -> TemplateResponse:
        rehearsal, problem = rehearse(row)
        buttons = [button for button in self.list_buttons(request, row) if button.action.name == "publish"]
        context = {
            "row": row,
            "button": buttons[0] if buttons else None,
            "form": form,
            "rehearsal": rehearsal,
            "newly": [(word, rehearsal.newly(decision)) for decision, word in NEWLY.items()]
            if rehearsal
            else [],
            "problem": problem,
            "media": self.media,
            **self._compare(request, row),
        }
        title = f"{row}: what would change"
        return self.render_page(
            request, "admin/fraud/ruleset/look.html", title=title, context=context, status=status
        )

    # --- drafts and schedules ---------------------------------------------------------------------

    def draft_view(self, request: HttpRequest) -> HttpResponse:
        """A new draft with the rules of the set that is named, or of the one in force."""
        if (refusal := self.refuse(request, DRAFT)) is not None:
            return refusal
        source = request.POST.get("source", "")
        form = DraftForm(request.POST)
        if not form.is_valid():
            messages.error(request, "The note has at most 500 characters. No draft was made.")
            return HttpResponseRedirect(reverse(LIST))
        based_on = self.find_row(request, source) if source else None
        draft = rulesets.begin_draft(
            actor=name_actor(request), note=form.cleaned_data["note"], based_on=based_on
        )
        messages.success(request, f"{draft} is a draft with the rules of {draft.based_on}.")
        return HttpResponseRedirect(self.url_of(draft))

    def cancel_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Take back every start of the set that is still to come."""
        if (refusal := self.refuse(request, PUBLISH)) is not None:
            return refusal
        row = self.find_row(request, object_id)
        try:
            for cancelled in rulesets.cancel_schedule(row.pk, actor=name_actor(request)):
                messages.success(request, f"{cancelled} was cancelled.")
        except PaymentError as error:
            messages.error(request, error.message)
        return HttpResponseRedirect(self.url_of(row))

    def get_urls(self) -> list[URLPattern]:
        def at(route: str, view: Callable[..., HttpResponse], name: str) -> URLPattern:
            pattern: URLPattern = path(route, self.admin_site.admin_view(view), name=f"fraud_ruleset_{name}")
            return pattern

        return [
            at("draft/", self.draft_view, "draft"),
            at("<str:object_id>/cancel/", self.cancel_view, "cancel"),
            at("<str:object_id>/look/", self.last_look_view, "look"),
            at("<str:object_id>/rule/", self.rule_view, "rule"),
            at("<str:object_id>/check/", self.check_view, "check"),
            at("<str:object_id>/complete/", self.complete_view, "complete"),
            at("<str:object_id>/remove/", self.remove_view, "remove"),
            at("<str:object_id>/move/", self.move_view, "move"),
            *super().get_urls(),
        ]


def rehearse(row: RuleSet) -> tuple[Rehearsal | None, str]:
    """What the set would change among the last orders, or why that cannot be told."""
    try:
        return rehearse_plan(live_plan().plan, LivePlan.of(row).plan), ""
    except (NoRulesError, RuleError) as error:
        return None, str(error)


def show_state(ruleset: RuleSet) -> SafeString:
    return state_badge(ruleset.get_state_display(), STATE_TONES[RuleSetState(ruleset.state)])


def show_force(ruleset: Any) -> SafeString:
    """Whether it decides now, or from when on; for a row of `RuleSetAdmin.get_queryset`."""
    if ruleset.live_id == ruleset.pk:
        return state_badge("In force", "success")
    if ruleset.scheduled_at:
        return state_badge(f"From {ruleset.scheduled_at:%Y-%m-%d %H:%M} UTC", "info")
    return SafeString("")


def show_rules(rules: list[Rule]) -> list[dict[str, Any]]:
    """Each rule with what it says, its hits of the last week, and the token that its removal needs."""
    hits = count_hits(rule.key for rule in rules)
    return [
        {
            "rule": rule,
            "words": show_rule(rule),
            "hits": hits.get(rule.key, {}),
            "seen": rulesets.token_of(rule),
        }
        for rule in rules
    ]


def count_hits(keys: Iterable[str]) -> dict[str, dict[str, int]]:
    """By rule, of the last seven days: hits with effect, hits on trial, and how often it could not tell."""
    week = Verdict.objects.filter(
        rule_key__in=list(keys), assessment_id__gte=lowest_id("asm", timezone.now() - HITS_SINCE)
    )
    counted = (
        week.order_by()
        .values("rule_key")
        .annotate(
            hit=Count("pk", filter=Q(status=Status.HIT)),
            shadow=Count("pk", filter=Q(status__in=[Status.SHADOW, Status.SNOOZED])),
            error=Count("pk", filter=Q(status=Status.ERROR)),
        )
    )
    return {line["rule_key"]: {name: line[name] for name in ("hit", "shadow", "error")} for line in counted}


def tell_differences(before: RuleSet, after: RuleSet) -> list[Difference]:
    return [show_difference(change) for change in rulesets.compare(before, after)]


def tell_history(ruleset: RuleSet) -> list[Moment]:
    """What people did with the set, the newest first."""
    moments = [
        Moment(ruleset.created_at, "Made", ruleset.created_by),
        Moment(ruleset.submitted_at, "Submitted", ruleset.submitted_by),
        Moment(ruleset.published_at, "Published", ruleset.published_by),
        *(_tell_activation(activation) for activation in _activations(ruleset)),
    ]
    done = [moment._replace(who=tell_actor(moment.who)) for moment in moments if moment.at]
    return sorted(done, key=lambda moment: moment.at or timezone.now(), reverse=True)


def _activations(ruleset: RuleSet) -> QuerySet[RuleActivation]:
    """With `ended_at`: when the next one began, of whatever set."""
    standing = RuleActivation.objects.filter(cancelled_at__isnull=True)
    later = standing.filter(
        Q(starts_at__gt=OuterRef("starts_at")) | Q(starts_at=OuterRef("starts_at"), id__gt=OuterRef("id"))
    )
    return ruleset.activations.annotate(
        ended_at=Subquery(later.order_by("starts_at", "id").values("starts_at")[:1])
    )


def _tell_activation(activation: Any) -> Moment:
    if activation.cancelled_at:
        what = f"Schedule for {exact_time(activation.starts_at)} cancelled"
        return Moment(activation.cancelled_at, what, activation.cancelled_by)
    is_waiting = activation.starts_at > timezone.now()
    what = "Scheduled" if is_waiting else "Back in force" if activation.is_rollback else "In force"
    return Moment(activation.starts_at, what, activation.created_by, activation.ended_at, activation.note)


def _tell_deed(actor: str, at: datetime | None) -> SafeString:
    return format_html("{} {}", tell_actor(actor), age(at))
