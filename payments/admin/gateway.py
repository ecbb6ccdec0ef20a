"""Gateway accounts: their state, the kill switch, and their secrets, which are written and never shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import TabularInline
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from payments.admin.base import (
    Action,
    ActionForm,
    BackOfficeAdmin,
    Button,
    Fact,
    OperatorAction,
    age,
    column,
    state_badge,
)
from payments.admin.forms import ReasonForm
from payments.admin.words import tell_actor
from payments.gateways.breaker import BreakerState
from payments.gateways.resilience import account_state, parse_limit, switch_off, switch_on
from payments.models import GatewayAccount, GatewaySecret
from payments.networks import parse_networks


class SecretField(forms.CharField):
    """A secret that is kept when nothing is typed; what is stored never reaches the page."""

    def __init__(self, **kwargs: Any) -> None:
        widget = UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}, render_value=False)
        super().__init__(widget=widget, max_length=500, **kwargs)


OPTION_FIELDS = (  # kept in the account's options
    "rate_limit",
    "shares_tokens_with",
    "webhook_networks",
    "webhook_events",
    "silence_hours",
    "rejected_per_hour",
)


class AccountForm(forms.ModelForm):  # type: ignore[type-arg]
    api_key = SecretField(
        label="API key", help_text="The secret key, or env:NAME. Leave empty to keep what is stored."
    )
    rate_limit = forms.CharField(
        required=False,
        max_length=40,
        widget=UnfoldAdminTextInputWidget,
        help_text="Calls over all processes, such as 50/second, or env:NAME. Empty: as everywhere.",
    )
    shares_tokens_with = forms.CharField(
        required=False,
        max_length=200,
        widget=UnfoldAdminTextInputWidget,
        help_text="Accounts of the same gateway that know the same cards, such as stripe/main, stripe/second.",
    )
    webhook_networks = forms.CharField(
        required=False,
        max_length=2000,
        widget=UnfoldAdminTextInputWidget,
        help_text="Where its webhooks must come from, such as 203.0.113.0/24, 2001:db8::/32, or env:NAME. "
        "Empty: from anywhere. Behind a proxy this needs TRUSTED_PROXIES.",
    )
    webhook_events = forms.CharField(
        required=False,
        max_length=2000,
        widget=UnfoldAdminTextInputWidget,
        help_text="The types that the endpoint at the gateway is subscribed to; one that the gateway lists and that "
        "never came is missing. Empty: those that say something of money.",
    )
    silence_hours = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=24 * 30,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "numeric"}),
        help_text="On-call hears when money moves and no webhook came for so long. Empty: 12; 0: it may be silent.",
    )
    rejected_per_hour = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=1_000_000,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "numeric"}),
        help_text="On-call hears when so many signatures were refused, and more than were right. Empty: 20.",
    )

    class Meta:
        model = GatewayAccount
        fields = ["gateway", "name", "api_key", "api_base", "is_active", "priority", "settlement_lag_days"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in OPTION_FIELDS:
            self.initial[name] = _show_option(self.instance.options.get(name, ""))
        if "name" in self.fields:
            self.fields["name"].help_text = "Part of the webhook address: /webhooks/gateway/name/."
        if "api_key" in self.fields:
            self.fields["api_key"].required = not self.instance.pk or self.instance._state.adding
            self.initial.pop("api_key", None)

    def clean_api_key(self) -> str:
        return str(self.cleaned_data["api_key"] or self.instance.api_key)

    def clean_rate_limit(self) -> str:
        text = str(self.cleaned_data["rate_limit"]).strip()
        if text and not text.startswith("env:"):
            try:
                parse_limit(text)
            except ValueError:
                raise forms.ValidationError(f"“{text}” is no rate: write it like 50/second.") from None
        return text

    def clean_shares_tokens_with(self) -> str:
        names = str(self.cleaned_data["shares_tokens_with"]).replace(",", " ").split()
        gateway = self.cleaned_data.get("gateway", self.instance.gateway)
        known = {
            str(account) for account in GatewayAccount.objects.filter(gateway=gateway).only("gateway", "name")
        }
        if unknown := [name for name in names if name not in known]:
            raise forms.ValidationError(f"There is no {gateway} account {', '.join(unknown)}.")
        return ", ".join(names)

    def clean_webhook_networks(self) -> str:
        text = str(self.cleaned_data["webhook_networks"]).strip()
        if text.startswith("env:"):
            return text
        try:
            return ", ".join(map(str, parse_networks(text)))
        except ValueError as error:
            raise forms.ValidationError(f"{error}.") from None

    def clean_webhook_events(self) -> str:
        return " ".join(str(self.cleaned_data["webhook_events"]).replace(",", " ").split())

    def clean(self) -> dict[str, Any]:
        """The options go where the account keeps them; what else is there stays."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        given = {name: cleaned[name] for name in OPTION_FIELDS if name in cleaned and name in self.fields}
        kept = {name: value for name, value in self.instance.options.items() if name not in given}
        self.instance.options = kept | {
            name: value for name, value in given.items() if value not in ("", None)
        }
        return cleaned


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
        if "value" in self.fields:
            self.fields["value"].widget.attrs["aria-label"] = (
                "Signing secret"  # the table names its column alone
            )

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


class SwitchForm(ReasonForm):
    """Why an operator throws the switch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].help_text = "Kept in the account's history with your name."


class RotateForm(ActionForm):
    """The new secret, and when it takes over."""

    value = SecretField(
        label="New signing secret", help_text="As the gateway shows it, or env:NAME. It is not shown again."
    )
    starts_at = forms.DateTimeField(
        label="Valid from (UTC)",
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "datetime-local"}),
        help_text="Empty: now.",
    )
    overlap_hours = forms.IntegerField(
        label="Hours for which the old one stays valid",
        min_value=0,
        max_value=30 * 24,
        initial=24,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "numeric"}),
        help_text="From then on both are valid for so long. 0 when the old one has leaked.",
    )

    def clean_starts_at(self) -> datetime | None:
        starts_at: datetime | None = self.cleaned_data["starts_at"]
        if starts_at and starts_at < timezone.now():
            raise forms.ValidationError("That moment is over: leave it empty for now.")
        return starts_at


def _show_option(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _stop(account: GatewayAccount, wish: Action) -> str:
    switch_off(account, by=wish.actor, reason=wish.data["reason"])
    return f"{account} takes no new payments from now on; what is under way is finished."


def _allow(account: GatewayAccount, wish: Action) -> str:
    switch_on(account, by=wish.actor, reason=wish.data["reason"])
    return f"{account} takes new payments again."


def _rotate(account: GatewayAccount, wish: Action) -> str:
    overlap = timedelta(hours=wish.data["overlap_hours"])
    starts_at = wish.data["starts_at"]
    secret = account.rotate_webhook_secret(wish.data["value"], overlap=overlap, starts_at=starts_at)
    ends_at = (secret.not_before or secret.created_at) + overlap
    begins = f"from {starts_at:%F %R} UTC" if starts_at else "now"
    return (
        f"Webhook secret {secret.pk} of {account} is valid {begins}; the old one until {ends_at:%F %R} UTC."
    )


def _why_not_allow(account: GatewayAccount) -> str:
    return "" if account_state(account).state != "closed" else "It takes new payments."


ROTATE = OperatorAction(
    "rotate",
    "Rotate webhook secret",
    "rotate_gatewaysecret",
    _rotate,
    explanation="Deliveries signed with either secret are taken until the old one ends, so nothing is lost "
    "whichever side changes first.",
    form=RotateForm,
)
SWITCHES = (
    OperatorAction(
        "stop",
        "Stop new payments",
        "switch_gatewayaccount",
        _stop,
        explanation="No new authorization is sent there, by any process within seconds. Captures, voids, refunds and "
        "questions still go through, so that what is under way is finished. Orders go to the other accounts.",
        form=SwitchForm,
        tone="danger",
        why_not=lambda account: "It is switched off already." if account.switched_off_at else "",
    ),
    OperatorAction(
        "allow",
        "Allow again",
        "switch_gatewayaccount",
        _allow,
        explanation="New payments are sent there at once, and its failures up to now are forgotten.",
        form=SwitchForm,
        why_not=_why_not_allow,
    ),
)
_STATES = {
    "closed": ("Answers", "success"),
    "open": ("Failing: left alone", "danger"),
    "half_open": ("Failing: being tried", "warning"),
}


@admin.register(GatewayAccount)
class GatewayAccountAdmin(BackOfficeAdmin):
    list_display = [
        "name_text",
        "active_text",
        "breaker_text",
        "failures_text",
        "since_text",
        "switch_text",
        "priority",
    ]
    list_before_template = "admin/payments/gateway/dialogs.html"
    form = AccountForm
    inlines = [SecretInline]
    search_fields = ["=id", "name"]
    operator_actions = (*SWITCHES, ROTATE)
    change_form_outer_before_template = "admin/payments/gateway/state.html"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, "add_gatewayaccount")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.allows(request, "change_gatewayaccount")

    def get_list_display(self, request: HttpRequest) -> list[str]:
        may_switch = self.allows(request, "switch_gatewayaccount")
        return [name for name in self.list_display if may_switch or name != "switch_text"]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = super().changelist_view(request, extra_context)
        if isinstance(response, TemplateResponse) and response.context_data:
            changelist = response.context_data.get("cl")
            if changelist and self.allows(request, "switch_gatewayaccount"):
                response.context_data["dialogs"] = [self._dialog(row) for row in changelist.result_list]
        return response

    def _dialog(self, account: GatewayAccount) -> Button:
        """The dialog of an account's switch, for a page with several accounts."""
        action = next_switch(account)
        name = _name_dialog(account, action)
        shown = replace(action, name=name, label=f"{action.label} on {account}")
        form = action.form(row=account, auto_id=f"id_{name}_%s")
        return Button(shown, self.url_of(account, action.name), form, why_not="")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        fields = ["gateway", "name", "api_key", "api_base", "is_active", "priority", "settlement_lag_days"]
        fields += OPTION_FIELDS
        return (
            fields
            if self.has_change_permission(request, obj)
            else [name for name in fields if name != "api_key"]
        )

    def save_model(
        self, request: HttpRequest, obj: GatewayAccount, form: forms.ModelForm[GatewayAccount], change: bool
    ) -> None:
        """Write what the form changed and nothing else: the switch may have been thrown meanwhile."""
        if not change:
            obj.save()
            return
        changed = {"options" if name in OPTION_FIELDS else name for name in form.changed_data}
        obj.save(update_fields=sorted(changed))

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        account = self.get_object(request, unquote(object_id))
        more: dict[str, Any] = {}
        if isinstance(account, GatewayAccount) and self.has_view_permission(request):
            buttons = self.list_buttons(request, account)
            more = {
                "row": account,
                "buttons": [button for button in buttons if button.action in SWITCHES],
                "facts": tell_state(account),
                "secret_buttons": [button for button in buttons if button.action is ROTATE],
                "secret_facts": tell_secrets(account),
                "badges": [show_state(account)],
            }
        return super().change_view(request, object_id, form_url, {**more, **(extra_context or {})})

    def refuse_form(
        self, request: HttpRequest, row: Any, action: OperatorAction, form: ActionForm
    ) -> HttpResponse:
        """The page is a form of its own, so what is wrong comes as a message."""
        wrong = " ".join(f"{name}: {' '.join(map(str, errors))}" for name, errors in form.errors.items())
        messages.error(request, f"“{action.label}” was not done. {wrong}")
        return HttpResponseRedirect(self.url_of(row))

    def _perform_claimed(self, request: HttpRequest, row: Any, action: OperatorAction, wish: Action) -> str:
        told = super()._perform_claimed(request, row, action, wish)
        self.log_change(request, row, f"{action.label}: {wish.data.get('reason') or told}")
        return told

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

    @column("Gateway")
    def breaker_text(self, account: GatewayAccount) -> SafeString:
        return show_state(account)

    @column("Failures in a minute")
    def failures_text(self, account: GatewayAccount) -> str:
        state = account_state(account)
        return f"{state.failures} of {state.calls}"

    @column("Since")
    def since_text(self, account: GatewayAccount) -> SafeString:
        return tell_since(account_state(account))

    @column("Kill switch")
    def switch_text(self, account: GatewayAccount) -> SafeString:
        action = next_switch(account)
        return format_html(
            '<button type="button" class="bo-button" popovertarget="{}-dialog" aria-label="{}">{}</button>',
            _name_dialog(account, action),
            f"{action.label}: {account}",
            action.label,
        )

    @column("Rate limit")
    def rate_limit(self, account: GatewayAccount) -> str:
        return _show_option(account.options.get("rate_limit", "")) or "as everywhere"

    @column("Webhook networks")
    def webhook_networks(self, account: GatewayAccount) -> str:
        return _show_option(account.options.get("webhook_networks", "")) or "anywhere"

    @column("Webhook events")
    def webhook_events(self, account: GatewayAccount) -> str:
        return _show_option(account.options.get("webhook_events", "")) or "those that say something of money"

    @column("Silence hours")
    def silence_hours(self, account: GatewayAccount) -> str:
        return _show_option(account.options.get("silence_hours", "")) or "as everywhere"

    @column("Rejected per hour")
    def rejected_per_hour(self, account: GatewayAccount) -> str:
        return _show_option(account.options.get("rejected_per_hour", "")) or "as everywhere"

    @column("Shares tokens with")
    def shares_tokens_with(self, account: GatewayAccount) -> str:
        return ", ".join(sorted(account.shares_tokens_with())) or "none"


def next_switch(account: GatewayAccount) -> OperatorAction:
    stop, allow = SWITCHES
    return allow if account.switched_off_at else stop


def _name_dialog(account: GatewayAccount, action: OperatorAction) -> str:
    return f"{action.name}-{account.pk}"


def show_state(account: GatewayAccount) -> SafeString:
    """Whether new payments go there, in a word."""
    if account.switched_off_at:
        return state_badge("Switched off", "danger")
    return state_badge(*_STATES[account_state(account).state])


def tell_state(account: GatewayAccount) -> list[Fact]:
    state = account_state(account)
    calls = f"{state.failures} of {state.calls} calls failed in the last minute"
    if not state.by:
        return [("Breaker", calls), ("Open since", tell_since(state))]
    return [
        ("Breaker", calls),
        ("Switched off since", tell_since(state)),
        ("By", tell_actor(state.by)),
        ("Because", state.reason),
    ]


def tell_secrets(account: GatewayAccount) -> list[Fact]:
    """The dates of the secrets that are valid or will be, newest first."""
    now = timezone.now()
    lasting = [secret for secret in account.secrets.all() if not secret.not_after or secret.not_after > now]
    return [(f"Secret {secret.pk}", _tell_dates(secret, now)) for secret in lasting] or [
        ("None", "Every webhook of this account is turned away until it has a secret.")
    ]


def _tell_dates(secret: GatewaySecret, now: datetime) -> str:
    is_to_come = secret.not_before is not None and secret.not_before > now
    begins = f"valid from {secret.not_before:%F %R} UTC" if is_to_come else "valid"
    return f"{begins} until {secret.not_after:%F %R} UTC" if secret.not_after else begins


def tell_since(state: BreakerState) -> SafeString:
    return age(datetime.fromtimestamp(state.opened_at, UTC) if state.opened_at is not None else None)
