"""API clients and their keys: a key's secret is shown once, a revoked key stays for the record."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from payments.admin.base import (
    Action,
    BackOfficeAdmin,
    Fact,
    OperatorAction,
    TabFilter,
    age,
    column,
    link,
    state_badge,
)
from payments.models import ApiClient, ApiKey
from payments.models.client import Scope


class NewKeyForm(forms.Form):
    """What a new key may do, and for how long."""

    client = forms.ModelChoiceField(ApiClient.objects.filter(is_active=True), widget=UnfoldAdminSelectWidget)
    name = forms.CharField(
        max_length=50,
        widget=UnfoldAdminTextInputWidget,
        help_text="Where the key is used, e.g. checkout in Berlin.",
    )
    scopes = forms.MultipleChoiceField(choices=Scope.choices, widget=UnfoldAdminCheckboxSelectMultipleWidget)
    days = forms.TypedChoiceField(
        label="Expires",
        coerce=int,
        choices=[(90, "in 90 days"), (365, "in a year"), (0, "never")],
        widget=UnfoldAdminSelectWidget,
    )


class KeyView(TabFilter):
    tabs = {"active": "Active", "revoked": "Revoked or expired", "all": "All"}

    def narrow(self, tab: str, queryset: QuerySet[Any]) -> QuerySet[Any]:
        ended = Q(revoked=True) | Q(expiry_date__lte=timezone.now())
        match tab:
            case "revoked":
                return queryset.filter(ended)
            case "all":
                return queryset
        return queryset.exclude(ended)


def _revoke(key: ApiKey, wish: Action) -> str:
    revoked = ApiKey.objects.filter(pk=key.pk, revoked=False).update(revoked=True)
    return f"The key {key.prefix}… is revoked." if revoked else f"The key {key.prefix}… was revoked before."


@admin.register(ApiKey)
class ApiKeyAdmin(BackOfficeAdmin):
    list_display = [
        "state_text",
        "prefix_text",
        "name",
        "client_text",
        "scopes_text",
        "used_text",
        "created_text",
    ]
    list_display_links = ["prefix_text"]
    list_filter = [KeyView, "client"]
    search_fields = ["prefix", "name", "client__name"]
    list_select_related = ["client"]
    page_template = "admin/payments/page.html"
    operator_actions = (
        OperatorAction(
            "revoke",
            "Revoke",
            "revoke_apikey",
            _revoke,
            explanation="Requests with this key are refused from now on, for good: make a new key first.",
            tone="danger",
            why_not=lambda key: "It is revoked already." if key.revoked else "",
        ),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, "add_apikey")

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The form, and behind it the key: shown on this answer and never again."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = NewKeyForm(request.POST or None, initial={"client": request.GET.get("client")})
        if request.method == "POST" and form.is_valid():
            return self._create(request, form)
        return self.render_page(
            request, "admin/payments/client/add_key.html", title="New API key", context={"form": form}
        )

    def _create(self, request: HttpRequest, form: NewKeyForm) -> HttpResponse:
        wish = form.cleaned_data
        expiry = timezone.now() + timedelta(days=wish["days"]) if wish["days"] else None
        key, secret = ApiKey.objects.create_key(
            name=wish["name"], client=wish["client"], scopes=sorted(wish["scopes"]), expiry_date=expiry
        )
        context = {"key": key, "secret": secret}
        answer = self.render_page(
            request, "admin/payments/client/secret.html", title="The new API key", context=context
        )
        answer.headers["Cache-Control"] = "no-store"
        return answer

    @column("State")
    def state_text(self, key: ApiKey) -> SafeString:
        if key.revoked:
            return state_badge("Revoked", "danger")
        return state_badge("Expired", "warning") if key.has_expired else state_badge("Active", "success")

    @column("Key", ordering="prefix")
    def prefix_text(self, key: ApiKey) -> str:
        return f"{key.prefix}…"

    @column("Client")
    def client_text(self, key: ApiKey) -> SafeString:
        return link("payments_apiclient", key.client_id, key.client)

    @column("May")
    def scopes_text(self, key: ApiKey) -> str:
        return ", ".join(key.scopes) or "nothing"

    @column("Last used", ordering="last_used_at")
    def used_text(self, key: ApiKey) -> SafeString:
        return age(key.last_used_at) if key.last_used_at else SafeString("never")

    @column("Made", ordering="created")
    def created_text(self, key: ApiKey) -> SafeString:
        return age(key.created)

    def list_facts(self, row: ApiKey) -> list[Fact]:
        return [
            ("Key", f"{row.prefix}… (the rest is kept as a hash)"),
            ("Name", row.name),
            ("Client", self.client_text(row)),
            ("May", self.scopes_text(row)),
            ("Made", age(row.created)),
            ("Expires", age(row.expiry_date) if row.expiry_date else "never"),
            ("Last used", self.used_text(row)),
        ]

    def page_context(self, request: HttpRequest, row: ApiKey) -> dict[str, Any]:
        return {"title": f"API key {row.prefix}…", "badges": [self.state_text(row)]}


@admin.register(ApiClient)
class ApiClientAdmin(BackOfficeAdmin):
    """A client is made here and may be switched off; its orders keep it from being deleted."""

    list_display = ["name", "active_text", "keys_text", "created_text"]
    search_fields = ["=id", "name"]
    fields = ["name", "is_active"]
    change_form_outer_before_template = "admin/payments/client/keys.html"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, "add_apiclient")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.allows(request, "change_apiclient")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiClient]:
        queryset: QuerySet[ApiClient] = super().get_queryset(request)
        return queryset.annotate(live_keys=Count("keys", filter=Q(keys__revoked=False)))

    @column("State", ordering="is_active")
    def active_text(self, client: ApiClient) -> SafeString:
        return state_badge("Active", "success") if client.is_active else state_badge("Switched off", "danger")

    @column("Keys")
    def keys_text(self, client: Any) -> int:
        return int(client.live_keys)

    @column("Made", ordering="created_at")
    def created_text(self, client: ApiClient) -> SafeString:
        return age(client.created_at)
