"""Routing rules: a list ordered by number, a readable form, and a rehearsal of what they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import TabularInline
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from payments import ids
from payments.admin.base import BackOfficeAdmin, column, money, state_badge
from payments.models import ApiClient, GatewayAccount, RoutingRule, RoutingTarget
from payments.models.routing import check_targets
from payments.money import Money, exponent
from payments.route_replay import draft_rule, put_in_place, replay_orders
from payments.routing import (
    Candidate,
    RouteSubject,
    Rule,
    ask_breakers,
    draw_point,
    load_accounts,
    load_rules,
    rank_accounts,
)

PRESENCE = {"": "Any", "false": "The customer is there", "true": "Merchant-initiated"}
PLAIN = "payment_method"


class CodesField(forms.CharField):
    """Codes with commas between them, kept as a list in capitals; what is unknown the rule itself says."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, max_length=2000, widget=UnfoldAdminTextInputWidget, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(map(str, value)) if isinstance(value, list) else value

    def clean(self, value: Any) -> Any:
        codes = str(super().clean(value)).upper().replace(",", " ").split()
        return list(dict.fromkeys(codes))

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool((initial or []) != self.clean(data))


def presence_field(**kwargs: Any) -> forms.TypedChoiceField:
    """Any, present, or merchant-initiated: None, False or True."""
    return forms.TypedChoiceField(
        label="Cardholder",
        required=False,
        choices=list(PRESENCE.items()),
        coerce=lambda value: value == "true",
        empty_value=None,
        widget=UnfoldAdminSelectWidget,
        **kwargs,
    )


class RuleForm(forms.ModelForm):  # type: ignore[type-arg]
    """A rule in the words of people: codes with commas, amounts in major units."""

    currencies = CodesField(help_text="Such as EUR, CHF. Empty: every currency.")
    countries = CodesField(
        label="Billing countries", help_text="Such as DE, AT, CH. Empty: every country, and none."
    )
    min_amount = forms.CharField(
        label="From amount", required=False, max_length=30, widget=UnfoldAdminTextInputWidget
    )
    max_amount = forms.CharField(
        label="Up to amount",
        required=False,
        max_length=30,
        widget=UnfoldAdminTextInputWidget,
        help_text="Both included, in the units of the one currency above, such as 100.00.",
    )
    is_merchant_initiated = presence_field()

    class Meta:
        model = RoutingRule
        fields = [
            "name",
            "priority",
            "is_active",
            "currencies",
            "countries",
            "min_amount",
            "max_amount",
            "is_merchant_initiated",
            "client",
            "healthy_only",
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("min_amount", "max_amount"):
            self.initial[name] = _show_bound(getattr(self.instance, name), self.instance)
        chosen = self.instance.is_merchant_initiated
        self.initial["is_merchant_initiated"] = "" if chosen is None else str(chosen).lower()
        if "client" in self.fields:
            self.fields["client"].empty_label = "Any"  # type: ignore[attr-defined]
            self.fields["client"].label = "API client"

    def clean_min_amount(self) -> int | None:
        return self._read_bound("min_amount")

    def clean_max_amount(self) -> int | None:
        return self._read_bound("max_amount")

    def _read_bound(self, name: str) -> int | None:
        """Minor units. Which currency's they are is only known when exactly one is named."""
        typed = str(self.cleaned_data[name]).strip()
        currencies = self.cleaned_data.get("currencies") or []
        if not typed:
            return None
        if len(currencies) != 1:
            raise forms.ValidationError(
                "An amount needs one currency: name exactly one, or leave both amounts empty."
            )
        try:
            return Money.from_major(typed, currencies[0]).minor
        except ValueError as error:
            raise forms.ValidationError(f"{error}.") from None


def _show_bound(minor: int | None, rule: RoutingRule) -> str:
    if minor is None:
        return ""
    try:
        return f"{Money(minor, rule.currencies[0]).amount:f}"
    except (ValueError, IndexError):
        return str(minor)


class PriorityForm(forms.ModelForm):  # type: ignore[type-arg]
    """The number in the list, and nothing else of the rule."""

    class Meta:
        model = RoutingRule
        fields = ["priority"]

    def _get_validation_exclusions(self) -> set[str]:
        return {field.name for field in RoutingRule._meta.fields if field.name != "priority"}

    def _post_clean(self) -> None:
        """Only the number was asked for: a rule that is wrong otherwise is repaired on its own page."""
        if "priority" in self.cleaned_data:
            self.instance.priority = self.cleaned_data["priority"]


class TargetFormSet(forms.BaseInlineFormSet):  # type: ignore[type-arg]
    """The targets of a rule are right or wrong together."""

    def clean(self) -> None:
        super().clean()
        if any(self.errors):
            return
        if problems := check_targets(self.list_targets(), is_active=self.instance.is_active):
            raise forms.ValidationError([f"{problem} Nothing was changed." for problem in problems])

    def add_fields(self, form: Any, index: int | None) -> None:
        super().add_fields(form, index)
        if index is not None and index >= self.initial_form_count():
            form.initial["position"] = index + 1

    def list_targets(self) -> list[RoutingTarget]:
        """What is left when the form is saved."""
        return [
            form.instance
            for form in self.forms
            if form not in self.deleted_forms and form.cleaned_data.get("account")
        ]


class TargetForm(forms.ModelForm):  # type: ignore[type-arg]
    """A row of a table: its fields are named for who cannot see the heads of the columns."""

    class Meta:
        model = RoutingTarget
        fields = ["position", "account", "share"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in set(self.Meta.fields) & set(self.fields):
            widget: Any = self.fields[name].widget
            getattr(widget, "widget", widget).attrs["aria-label"] = f"Target {name}"

    def has_changed(self) -> bool:
        """A new row in which nothing but its number stands is an empty one."""
        changed = set(self.changed_data)
        return bool(changed if self.instance.pk else changed - {"position"})


class TargetInline(TabularInline):  # type: ignore[misc]
    model = RoutingTarget
    form = TargetForm
    formset = TargetFormSet
    fields = ["position", "account", "share"]
    verbose_name_plural = "Target accounts"
    hide_title = True

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """A plain list: accounts are made and changed on their own pages."""
        kwargs["widget"] = UnfoldAdminSelectWidget()
        return db_field.formfield(**kwargs)

    def get_extra(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> int:
        return 1 if obj else 3


class RehearsalForm(forms.Form):
    """An order that somebody thinks of. Tokens are named, never typed."""

    amount = forms.CharField(
        max_length=30,
        initial="100.00",
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )
    currency = forms.CharField(max_length=3, initial="EUR", widget=UnfoldAdminTextInputWidget)
    country = forms.CharField(
        label="Billing country", max_length=2, required=False, widget=UnfoldAdminTextInputWidget
    )
    client = forms.ModelChoiceField(
        ApiClient.objects.all(),
        label="API client",
        required=False,
        empty_label="None in particular",
        widget=UnfoldAdminSelectWidget,
    )
    is_merchant_initiated = forms.BooleanField(
        label="Merchant-initiated", required=False, widget=UnfoldBooleanSwitchWidget
    )
    tokens = forms.MultipleChoiceField(
        label="Tokens that the storefront sends",
        required=False,
        initial=[PLAIN],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )
    saved_account = forms.ModelChoiceField(
        GatewayAccount.objects.all(),
        label="Or a saved payment method of",
        required=False,
        empty_label="None",
        widget=UnfoldAdminSelectWidget,
    )
    order_id = forms.CharField(
        label="Order",
        max_length=40,
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="Its id decides whose share it falls into. Empty: a new one each time.",
    )

    def __init__(self, data: Any, accounts: Sequence[GatewayAccount]) -> None:
        super().__init__(data or None)
        gateways = dict.fromkeys(account.gateway for account in accounts)
        self.fields["tokens"].choices = [  # type: ignore[attr-defined]
            (PLAIN, "payment_method, the plain one"),
            *((gateway, f"for {gateway}") for gateway in gateways),
            *((str(account), f"for {account}") for account in accounts),
        ]

    def clean_currency(self) -> str:
        code = str(self.cleaned_data["currency"]).upper()
        try:
            exponent(code)
        except ValueError as error:
            raise forms.ValidationError(f"{error}.") from None
        return code

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if "amount" in cleaned and "currency" in cleaned:
            try:
                cleaned["money"] = Money.from_major(cleaned["amount"].strip(), cleaned["currency"])
            except ValueError as error:
                self.add_error("amount", f"{error}.")
        return cleaned

    def subject(self) -> RouteSubject:
        wish = self.cleaned_data
        saved: GatewayAccount | None = wish["saved_account"]
        return RouteSubject(
            order_id=wish["order_id"].strip() or ids.new_id("ord"),
            amount=wish["money"],
            country=wish["country"].upper(),
            client_id=wish["client"].pk if wish["client"] else "",
            is_merchant_initiated=wish["is_merchant_initiated"],
            payment_method="the plain payment_method" if PLAIN in wish["tokens"] or saved else "",
            payment_methods={name: f"the one for {name}" for name in wish["tokens"] if name != PLAIN},
            saved_account_id=saved.pk if saved else None,
        )


@admin.register(RoutingRule)
class RoutingRuleAdmin(BackOfficeAdmin):
    """Rules take effect with the next order; they are switched off, not deleted."""

    list_display = ["name", "priority", "state_text", "conditions_text", "targets_text"]
    list_editable = ["priority"]
    search_fields = ["name"]
    empty_text = "There is no rule: orders go to the active account with the lowest priority."
    list_before_template = "admin/payments/routing/opener.html"
    change_form_outer_before_template = "admin/payments/routing/preview_button.html"
    form = RuleForm
    inlines = [TargetInline]
    fieldsets = [
        (None, {"fields": [("name", "priority"), "is_active"]}),
        (
            "Orders that it is for",
            {
                "fields": [
                    ("currencies", "countries"),
                    ("min_amount", "max_amount"),
                    ("is_merchant_initiated", "client"),
                ]
            },
        ),
        ("When targets fail", {"fields": ["healthy_only"]}),
    ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, "add_routingrule")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.allows(request, "change_routingrule")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Who may only look sees sentences."""
        may_write = self.has_change_permission(request) if obj else self.has_add_permission(request)
        if may_write:
            return self.fieldsets
        return [(None, {"fields": ["name", "priority", "state_text", "conditions_text"]})]

    def get_queryset(self, request: HttpRequest) -> QuerySet[RoutingRule]:
        queryset: QuerySet[RoutingRule] = super().get_queryset(request)
        return queryset.select_related("client").prefetch_related("targets__account")

    def get_changelist_form(self, request: HttpRequest, **kwargs: Any) -> Any:
        widget = UnfoldAdminIntegerFieldWidget(attrs={"aria-label": "Priority"})
        return forms.modelform_factory(RoutingRule, form=PriorityForm, widgets={"priority": widget})

    def save_model(
        self, request: HttpRequest, obj: RoutingRule, form: forms.ModelForm[RoutingRule], change: bool
    ) -> None:
        """Write what the form changed and nothing else."""
        if change:
            obj.save(update_fields=[*form.changed_data, "updated_at"])
        else:
            obj.save()

    # --- the rehearsal -----------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        own = [
            path("rehearse/", wrap(self.rehearse), name="payments_routingrule_rehearse"),
            path("preview/", wrap(self.preview), name="payments_routingrule_preview_new"),
            path("<path:object_id>/preview/", wrap(self.preview), name="payments_routingrule_preview"),
        ]
        return [*own, *super().get_urls()]

    def rehearse(self, request: HttpRequest) -> HttpResponse:
        """What an order would do, and what the newest ones would have done, under the rules as they are."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        accounts, rules = load_accounts(), load_rules()
        form = RehearsalForm(request.GET, accounts)
        context: dict[str, Any] = {"form": form, "replay": replay_orders(rules)}
        if request.GET and form.is_valid():
            context |= show_candidates(form.subject(), rules, accounts)
        return self.render_page(
            request,
            "admin/payments/routing/rehearsal.html",
            title="Rehearsal of the routing",
            context=context,
        )

    def preview(self, request: HttpRequest, object_id: str = "") -> HttpResponse:
        """What the newest orders would have done under a rule as its form says it. Saves nothing."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.allows(request, "change_routingrule" if object_id else "add_routingrule"):
            raise PermissionDenied
        saved = self.find_row(request, object_id) if object_id else None
        name = saved.name if saved else ""
        form_class = self.get_form(request, saved, change=bool(saved))
        form = form_class(request.POST, instance=saved)
        rule = form.save(commit=False) if form.is_valid() else form.instance
        (formset,), _ = self._create_formsets(request, rule, change=bool(saved))
        context: dict[str, Any] = {"form": form, "formset": formset, "rule": rule, "back": saved}
        is_valid = form.is_valid() and formset.is_valid()
        if is_valid:
            draft = draft_rule(rule, formset.list_targets())
            context["replay"] = replay_orders(put_in_place(load_rules(), draft, instead_of=name))
        return self.render_page(
            request,
            "admin/payments/routing/preview.html",
            title=f"What “{rule.name}” would do",
            context=context,
            status=200 if is_valid else 422,
        )

    # --- columns -----------------------------------------------------------------------------------------------

    @column("State", ordering="is_active")
    def state_text(self, rule: RoutingRule) -> SafeString:
        return state_badge("On", "success") if rule.is_active else state_badge("Off")

    @column("For")
    def conditions_text(self, rule: RoutingRule) -> str:
        return tell_conditions(rule)

    @column("Goes to")
    def targets_text(self, rule: RoutingRule) -> SafeString:
        lines = ((target.account, _show_share(target.share)) for target in rule.targets.all())
        return format_html("<div>{}</div>", format_html_join("", "<div>{}{}</div>", lines))


def _show_share(share: int | None) -> str:
    return "" if share is None else f", {share} %"


def tell_conditions(rule: RoutingRule) -> str:
    """What a rule asks of an order, in a sentence."""
    currency = rule.currencies[0] if rule.currencies else ""
    bounds = [
        f"{word} {money(bound, currency)}"
        for word, bound in (("from", rule.min_amount), ("up to", rule.max_amount))
        if bound is not None
    ]
    presence = {None: "", True: "merchant-initiated", False: "with the customer there"}
    parts = [
        " or ".join(rule.currencies),
        " ".join(bounds),
        f"billed in {', '.join(rule.countries)}" if rule.countries else "",
        presence[rule.is_merchant_initiated],
        f"of {rule.client}" if rule.client else "",
        "while a target is healthy" if rule.healthy_only else "",
    ]
    return ", ".join(filter(None, parts)) or "every order"


def show_candidates(
    subject: RouteSubject, rules: Sequence[Rule], accounts: Sequence[GatewayAccount]
) -> dict[str, Any]:
    """For the page: the accounts in the order in which they are tried, and those that are not."""
    candidates: list[Candidate] = rank_accounts(subject, rules, accounts, ask_breakers())
    return {
        "subject": subject,
        "point": draw_point(subject.order_id),
        "tried": [item for item in candidates if not item.left_out],
        "left_out": [item for item in candidates if item.left_out],
    }
