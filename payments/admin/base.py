"""The thin layer over the admin theme: read-only rows, their pages, and actions that are POSTed once."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.text import capfirst
from unfold.admin import ModelAdmin

from payments import idempotency
from payments.admin.words import (
    age,
    column,
    describe_age,
    describe_span,
    link,
    money,
    rate_age,
    show_json,
    state_badge,
)
from payments.errors import PaymentError

__all__ = [
    "Action",
    "ActionForm",
    "BackOfficeAdmin",
    "Fact",
    "OperatorAction",
    "TabFilter",
    "age",
    "column",
    "describe_age",
    "describe_span",
    "link",
    "money",
    "name_actor",
    "rate_age",
    "show_json",
    "state_badge",
]

Fact = tuple[str, Any]


def name_actor(request: HttpRequest) -> str:
    """The actor of a service call made for this user."""
    return f"user:{request.user.get_username()}"


class TabFilter(admin.SimpleListFilter):
    """Tabs above a list. The first is where the list opens; a search looks beyond it into every row."""

    title = "view"
    parameter_name = "view"
    tabs: ClassVar[Mapping[str, str]] = {}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(self.tabs.items())[1:]

    def choices(self, changelist: Any) -> Any:
        first, *rest = super().choices(changelist)
        is_searching = first["selected"] and bool(changelist.query)
        yield {
            **first,
            "display": next(iter(self.tabs.values())),
            "selected": first["selected"] and not is_searching,
        }
        yield from rest

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() is None and request.GET.get("q"):
            return queryset
        return self.narrow(self.value() or next(iter(self.tabs)), queryset)

    def narrow(self, tab: str, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows of a tab."""
        raise NotImplementedError


class ActionForm(forms.Form):
    """What a dialog asks. The hidden token lets one showing of the dialog act once, however often it is sent."""

    token = forms.CharField(max_length=64, widget=forms.HiddenInput)

    def __init__(self, *args: Any, row: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.row = row
        self.fields["token"].initial = secrets.token_urlsafe(18)

    def preview(self) -> Sequence[str]:
        """What the dialog shows before it asks, line by line."""
        return ()


@dataclass(frozen=True, slots=True)
class Action:
    """What a service call needs to know of a POST: the cleaned form, who, and the claim of its token."""

    data: Mapping[str, Any]
    actor: str
    claim: idempotency.Claim


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """A button with a dialog: `perform` makes one domain call and says what it did.

    `permission` is a codename in the app of the model; `why_not` gives the reason when it is not legal now.
    """

    name: str
    label: str
    permission: str
    perform: Callable[[Any, Action], str]
    explanation: str = ""
    form: type[ActionForm] = ActionForm
    tone: str = "primary"
    why_not: Callable[[Any], str] = field(default=lambda row: "")


@dataclass(frozen=True, slots=True)
class Button:
    """An action as the page shows it to one user, for one row."""

    action: OperatorAction
    url: str
    form: ActionForm
    why_not: str
    is_failed: bool = False


class BackOfficeAdmin(ModelAdmin):  # type: ignore[misc]
    """Rows are looked at, never edited by form; what may be done is an `OperatorAction` with its own permission."""

    list_per_page = 50
    show_full_result_count = False
    list_fullwidth = True
    list_filter_submit = False
    list_before_template = "admin/payments/tabs.html"
    list_title = ""  # as in the sidebar, where that is not the name of the model
    empty_text = "Nothing has come here yet."  # what an unfiltered list without rows says
    page_template = ""  # a page of our own instead of the theme's read-only form
    operator_actions: Sequence[OperatorAction] = ()

    # --- rights -----------------------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def allows(self, request: HttpRequest, codename: str) -> bool:
        """Whether the user has a permission of this model's app."""
        return bool(request.user.has_perm(f"{self.opts.app_label}.{codename}"))

    # --- the list -----------------------------------------------------------------------------------------------

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {
            "title": self.list_title or capfirst(self.opts.verbose_name_plural),
            **(extra_context or {}),
        }
        response: HttpResponse = super().changelist_view(request, context)
        if isinstance(response, TemplateResponse) and response.context_data:
            changelist = response.context_data.get("cl")
            response.context_data["tabs"] = _list_tabs(changelist) if changelist else []
        return response

    # --- the page of a row ---------------------------------------------------------------------------------------

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if not self.page_template:
            response: HttpResponse = super().change_view(request, object_id, form_url, extra_context)
            return response
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET"])
        return self.show_row(request, self.find_row(request, object_id))

    def find_row(self, request: HttpRequest, object_id: str) -> Any:
        """The row that this user may see. Raises `PermissionDenied` or `Http404`."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404(f"There is no {self.opts.verbose_name} {object_id}.")
        return row

    def show_row(
        self, request: HttpRequest, row: Any, *, failed: tuple[str, ActionForm] | None = None
    ) -> TemplateResponse:
        """The row's page; `failed` is the action whose form came back with errors, shown opened."""
        context = {
            "row": row,
            "facts": self.list_facts(row),
            "buttons": self.list_buttons(request, row, failed=failed),
            "media": self.media,
            **self.page_context(request, row),
        }
        status = 422 if failed else 200
        return self.render_page(request, self.page_template, title=str(row), context=context, status=status)

    def list_facts(self, row: Any) -> list[Fact]:
        """What the page says of the row: labels and values."""
        return []

    def page_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """What the page's template needs beside the row, its facts and its buttons."""
        return {}

    def render_page(
        self,
        request: HttpRequest,
        template: str,
        *,
        title: str,
        context: Mapping[str, Any],
        status: int = 200,
    ) -> TemplateResponse:
        site = self.admin_site.each_context(request)
        request.current_app = self.admin_site.name
        page = {**site, "opts": self.opts, "title": title, "original": context.get("row"), **context}
        return TemplateResponse(request, template, page, status=status)

    def list_buttons(
        self, request: HttpRequest, row: Any, *, failed: tuple[str, ActionForm] | None = None
    ) -> list[Button]:
        """The actions this user may take; those that are not legal now come with the reason."""
        buttons = []
        for action in self.operator_actions:
            if not self.allows(request, action.permission):
                continue
            is_failed = failed is not None and failed[0] == action.name
            form = failed[1] if failed and is_failed else action.form(row=row, auto_id=f"id_{action.name}_%s")
            url = self.url_of(row, action.name)
            buttons.append(Button(action, url, form, action.why_not(row), is_failed))
        return buttons

    # --- actions -----------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(
                f"<path:object_id>/{action.name}/",
                self.admin_site.admin_view(self._guard(action)),
                name=f"{self._prefix}_{action.name}",
            )
            for action in self.operator_actions
        ]
        return [*own, *super().get_urls()]

    def _guard(self, action: OperatorAction) -> Callable[..., HttpResponse]:
        def view(request: HttpRequest, object_id: str) -> HttpResponse:
            if request.method != "POST":
                return HttpResponseNotAllowed(["POST"])
            if not self.allows(request, action.permission):
                raise PermissionDenied
            row = self.find_row(request, object_id)
            form = action.form(request.POST, request.FILES, row=row, auto_id=f"id_{action.name}_%s")
            if not form.is_valid():
                return self.refuse_form(request, row, action, form)
            self.perform(request, row, action, form)
            return HttpResponseRedirect(self.url_after(request, row))

        return view

    def url_after(self, request: HttpRequest, row: Any) -> str:
        """Where an action leads: the page of its row."""
        return self.url_of(row)

    def refuse_form(
        self, request: HttpRequest, row: Any, action: OperatorAction, form: ActionForm
    ) -> HttpResponse:
        """Show the dialog again with what was typed and what is wrong with it."""
        return self.show_row(request, row, failed=(action.name, form))

    def perform(self, request: HttpRequest, row: Any, action: OperatorAction, form: ActionForm) -> None:
        """One domain call under the form's token; its answer or its refusal becomes a message."""
        route = f"{self._prefix}_{action.name}"
        data = {name: value for name, value in form.cleaned_data.items() if name != "token"}
        payload = {name: str(value) for name, value in data.items()}
        actor = name_actor(request)
        try:
            claim = idempotency.claim(
                scope=actor, route=route, key=form.cleaned_data["token"], payload=payload
            )
            if not claim.is_new:
                messages.warning(
                    request, f"“{action.label}” was sent already; it was not done a second time."
                )
                return
            self._perform_claimed(request, row, action, Action(data, actor, claim))
        except PaymentError as error:
            messages.error(request, error.message)

    def _perform_claimed(self, request: HttpRequest, row: Any, action: OperatorAction, wish: Action) -> str:
        try:
            told = action.perform(row, wish)
        except PaymentError:
            idempotency.abandon(wish.claim)
            raise
        idempotency.complete(wish.claim, status=200, content_type="text/plain", body=told.encode())
        messages.success(request, told)
        return told

    # --- addresses -----------------------------------------------------------------------------------------------

    @property
    def _prefix(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}"

    def url_of(self, row: Model, action: str = "change") -> str:
        return reverse(f"{self.admin_site.name}:{self._prefix}_{action}", args=[row.pk])


def _list_tabs(changelist: Any) -> list[dict[str, Any]]:
    for spec in changelist.filter_specs:
        if isinstance(spec, TabFilter):
            return list(spec.choices(changelist))
    return []
