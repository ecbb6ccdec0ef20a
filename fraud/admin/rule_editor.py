"""The editor of one rule: checked while it is typed, rehearsed on the last orders, saved over nobody's work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    JsonResponse,
)
from django.template.loader import render_to_string

from fraud import rulesets
from fraud.admin.ruleset_forms import PARAMETER_TYPES, RuleForm, describe_code_rules
from fraud.admin.ruleset_words import Line, show_line
from fraud.facts import FACTS, Fact
from fraud.language.help import FUNCTIONS, complete
from fraud.language.lexer import MAX_LENGTH
from fraud.models import Rule, RuleSet
from fraud.plans import RuleError, compile_row
from fraud.rehearsal import Hits, rehearse_rule
from fraud.rulesets import RuleChangedError
from payments.admin.base import BackOfficeAdmin, name_actor
from payments.errors import PaymentError

DRAFT = "draft_ruleset"
PAGE, CHECK = "admin/fraud/ruleset/rule.html", "admin/fraud/ruleset/check.html"
SPARE_ROWS = 2  # of parameters, for who has no JavaScript


class RuleEditor(BackOfficeAdmin):
    """The views of single rules, for the admin of rule sets. Every one needs the right to draft."""

    def rule_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The form of the rule of `?key=`, or of a new one; by POST it is saved, or with `check` only looked at."""
        key = request.GET.get("key", "")
        draft, rule = self._find_rule(request, object_id, key)
        if not draft.is_draft and request.method != "POST":
            messages.error(
                request, f"{draft} is no draft: its rules are not changed. Make a new draft of it."
            )
            return HttpResponseRedirect(self.url_of(draft))
        if request.method != "POST":
            return self._show_form(request, RuleForm(draft=draft, rule=rule, key=key))
        form = RuleForm(_typed(request), draft=draft, rule=rule, key=key)
        if not form.is_valid() or _wants_check(request):
            return self._show_form(request, form, status=200 if _wants_check(request) else 422)
        return self._save(request, draft, form)

    def check_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """What the editor asks while somebody types: the mistakes with their places, or the hits."""
        if (refusal := self.refuse(request, DRAFT)) is not None:
            return refusal
        key = request.POST.get("key", "")
        draft, rule = self._find_rule(request, object_id, key)
        form = RuleForm(request.POST, draft=draft, rule=rule, key=key)
        form.is_valid()
        named = ("parameters", "code") if form.mistakes else ("parameters", "code", "expression")
        errors = [error for name in named for error in form.errors.get(name, [])]
        context = {**self._check(form), "errors": errors}
        marks = [{"start": each.column - 1, "end": each.end} for each in form.mistakes if each.column]
        return JsonResponse({"html": render_to_string(CHECK, context, request=request), "marks": marks})

    def complete_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """What can stand at the cursor."""
        if (refusal := self.refuse(request, DRAFT)) is not None:
            return refusal
        cursor = request.POST.get("cursor", "")
        at = int(cursor) if cursor.isascii() and cursor.isdecimal() and len(cursor) < 8 else 0
        names = request.POST.getlist("parameters-name")
        found = complete(request.POST.get("expression", ""), at, names)
        items = [
            {"text": each.text, "kind": each.kind, "help": each.help, "start": each.start} for each in found
        ]
        return JsonResponse({"items": items})

    def remove_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        if (refusal := self.refuse(request, DRAFT)) is not None:
            return refusal
        return self._change(
            request,
            self.find_row(request, object_id),
            lambda draft, actor: rulesets.remove_rule(
                draft.pk, request.POST.get("key", ""), actor=actor, seen=request.POST.get("seen", "")
            ),
            "The rule was taken out of the draft.",
        )

    def move_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        if (refusal := self.refuse(request, DRAFT)) is not None:
            return refusal
        return self._change(
            request,
            self.find_row(request, object_id),
            lambda draft, actor: rulesets.move_rule(
                draft.pk, request.POST.get("key", ""), up=request.POST.get("to") == "up", actor=actor
            ),
            "The rule was moved.",
        )

    def refuse(self, request: HttpRequest, codename: str) -> HttpResponse | None:
        """Changes are made by POST, by who may."""
        if not self.allows(request, codename):
            raise PermissionDenied
        return None if request.method == "POST" else HttpResponseNotAllowed(["POST"])

    def _change(
        self, request: HttpRequest, draft: RuleSet, change: Callable[[RuleSet, str], None], told: str
    ) -> HttpResponse:
        try:
            change(draft, name_actor(request))
            messages.success(request, told)
        except PaymentError as error:
            messages.error(request, error.message)
        return HttpResponseRedirect(self.url_of(draft) + "#rules")

    def _find_rule(self, request: HttpRequest, object_id: str, key: str) -> tuple[RuleSet, Rule | None]:
        if not self.allows(request, DRAFT):
            raise PermissionDenied
        draft: RuleSet = self.find_row(request, object_id)
        rule = draft.rules.filter(key=key).first() if key else None
        if key and rule is None and request.method != "POST":  # what was typed is not lost with the rule
            raise Http404(f"{draft} has no rule {key}.")
        return draft, rule

    def _save(self, request: HttpRequest, draft: RuleSet, form: RuleForm) -> HttpResponse:
        rule = form.to_rule()
        try:
            rulesets.save_rule(draft.pk, rule, actor=name_actor(request), seen=form.cleaned_data["seen"])
        except RuleChangedError as error:
            return self._show_form(request, form, status=409, theirs=_tell_theirs(error, rule), now=error.now)
        except PaymentError as error:
            form.add_error(None, error.message)
            return self._show_form(request, form, status=409)
        messages.success(request, f"“{rule.name}” was saved.")
        return HttpResponseRedirect(self.url_of(draft) + "#rules")

    def _show_form(
        self, request: HttpRequest, form: RuleForm, *, status: int = 200, **extra: Any
    ) -> HttpResponse:
        """`theirs` is what somebody else made of the rule meanwhile: saving again is then meant."""
        rows = list(form["parameters"].value() or [])
        context = {
            "row": form.draft,
            "rule": form.present,
            "key": form.key,
            "form": form,
            "parameters": [*rows, *[("", "number", "")] * SPARE_ROWS],
            "parameter_types": PARAMETER_TYPES.items(),
            "seen": rulesets.token_of(extra["now"]) if "now" in extra else form["seen"].value() or "",
            "facts": group_facts(),
            "functions": FUNCTIONS,
            "code_rules": describe_code_rules(),
            "max_length": MAX_LENGTH,
            "media": self.media,
            **(self._check(form) if form.is_bound else {}),
            **extra,
        }
        title = f"{form.present.name if form.present else 'New rule'} in {str(form.draft).lower()}"
        return self.render_page(request, PAGE, title=title, context=context, status=status)

    def _check(self, form: RuleForm) -> dict[str, Any]:
        """The mistakes, or without any the hits on the last orders. Run `form.is_valid()` before."""
        context: dict[str, Any] = {"mistakes": form.mistakes, "hits": None}
        if not form.mistakes and not {"expression", "parameters", "code"} & set(form.errors):
            context["hits"] = _rehearse(form.to_rule())
        return context


def group_facts() -> dict[str, list[Fact]]:
    """The vocabulary as the help shows it: what is known early, and what only after the authorization."""
    groups: dict[str, list[Fact]] = {
        "Known before the authorization": [],
        "Known after the authorization": [],
    }
    early, late = groups.values()
    for fact in FACTS.values():
        (early if fact.stage == "before" else late).append(fact)
    return groups


def _rehearse(rule: Rule) -> Hits | None:
    try:
        compiled = compile_row(rule)
    except RuleError:
        return None
    return rehearse_rule(compiled.test)


def _typed(request: HttpRequest) -> Any:
    """What was sent; with the button of a suggestion, the mended expression in place of the typed one."""
    if "mended" not in request.POST:
        return request.POST
    data = request.POST.copy()
    data["expression"] = request.POST["mended"]
    return data


def _wants_check(request: HttpRequest) -> bool:
    return "check" in request.POST or "mended" in request.POST


def _tell_theirs(error: RuleChangedError, mine: Rule) -> list[Line]:
    """Field by field, the rule as it is now beside what was typed; without the rule, nothing."""
    if error.now is None:
        return []
    now, typed = error.now.to_json(), mine.to_json()
    return [
        show_line(name, now[name], typed[name])
        for name in typed
        if name != "key" and now[name] != typed[name]
    ]
