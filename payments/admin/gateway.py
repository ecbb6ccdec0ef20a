"""Gateway accounts and their webhook secrets: written, never shown again."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.admin import TabularInline
from unfold.widgets import UnfoldAdminPasswordWidget

from payments.admin.base import BackOfficeAdmin, age, column, state_badge
from payments.models import GatewayAccount, GatewaySecret


class SecretField(forms.CharField):
    """A secret that is kept when nothing is typed; what is stored never reaches the page."""

    def __init__(self, **kwargs: Any) -> None:
        widget = UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}, render_value=False)
        super().__init__(widget=widget, max_length=500, **kwargs)


class AccountForm(forms.ModelForm):  # type: ignore[type-arg]
    api_key = SecretField(
        label="API key", help_text="The secret key, or env:NAME. Leave empty to keep what is stored."
    )

    class Meta:
        model = GatewayAccount
        fields = ["gateway", "name", "api_key", "api_base", "is_active", "priority", "settlement_lag_days"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "name" in self.fields:
            self.fields["name"].help_text = "Part of the webhook address: /webhooks/gateway/name/."
        if "api_key" in self.fields:
            self.fields["api_key"].required = not self.instance.pk or self.instance._state.adding
            self.initial.pop("api_key", None)

    def clean_api_key(self) -> str:
        return str(self.cleaned_data["api_key"] or self.instance.api_key)


class SecretForm(forms.ModelForm):  # type: ignore[type-arg]
    value = SecretField(
        label="Signing secret", required=False, help_text="Leave empty to keep what is stored."
    )

    class Meta:
        model = GatewaySecret
        fields = ["value", "not_before", "not_after"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial.pop("value", None)

    def clean_value(self) -> str:
        value = str(self.cleaned_data["value"] or self.instance.value or "")
        if not value:
            raise forms.ValidationError("A new secret needs its value.")
        return value


class SecretInline(TabularInline):  # type: ignore[misc]
    """Two may be valid while one is rotated: give the old one an end, add the new one."""

    model = GatewaySecret
    form = SecretForm
    fields = ["value", "not_before", "not_after"]
    extra = 0

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Who may only look sees the dates, never the value."""
        can_write = self.has_add_permission(request, obj) or self.has_change_permission(request, obj)
        return ["value", "not_before", "not_after"] if can_write else ["not_before", "not_after"]


@admin.register(GatewayAccount)
class GatewayAccountAdmin(BackOfficeAdmin):
    list_display = ["name_text", "active_text", "priority", "settlement_lag_days", "created_text"]
    form = AccountForm
    inlines = [SecretInline]
    search_fields = ["=id", "name"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, "add_gatewayaccount")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.allows(request, "change_gatewayaccount")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        fields = ["gateway", "name", "api_key", "api_base", "is_active", "priority", "settlement_lag_days"]
        return (
            fields
            if self.has_change_permission(request, obj)
            else [name for name in fields if name != "api_key"]
        )

    @column("Account", ordering="name")
    def name_text(self, account: GatewayAccount) -> str:
        return str(account)

    @column("State", ordering="is_active")
    def active_text(self, account: GatewayAccount) -> SafeString:
        return (
            state_badge("Active", "success")
            if account.is_active
            else state_badge("No new payments", "warning")
        )

    @column("Made", ordering="created_at")
    def created_text(self, account: GatewayAccount) -> SafeString:
        return age(account.created_at)
