"""The health of the gateways' webhooks: a line for every account, and a page for each."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments.admin.base import Fact, age, state_badge
from payments.models import GatewayAccount, GatewaySecret
from webhooks.admin.base import WebhookAdmin
from webhooks.admin.event_page import tell_validity
from webhooks.health import AccountHealth, measure_accounts
from webhooks.models import GapCheck, InboundState
from webhooks.watch import find_last_heard, link_health, link_inbox

MOST_SECRETS = 20


class HealthPages(WebhookAdmin):
    """Two pages beside the inbox; who may see the inbox may see them."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("health/", view(self.health_view), name="webhooks_inboundwebhook_health"),
            *super().get_urls(),
        ]

    def health_view(self, request: HttpRequest) -> HttpResponse:
        """Every account, one line each; with `?account=` the page of one."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        if account_id := request.GET.get("account"):
            return self._show_account(request, account_id)
        lines = [_line(health) for health in measure_accounts(list(GatewayAccount.objects.defer("api_key")))]
        return self.render_page(
            request, "admin/webhooks/health/list.html", title="Webhook health", context={"lines": lines}
        )

    def _show_account(self, request: HttpRequest, account_id: str) -> HttpResponse:
        account = GatewayAccount.objects.filter(pk=account_id).first()
        if account is None:
            raise Http404(f"There is no gateway account {account_id}.")
        [health] = measure_accounts([account])
        line = _line(health)
        context: dict[str, Any] = {
            **line,
            "badges": [line["badge"]],
            "facts": list_facts(health, last=line["last"]),
            "busiest": max(health.hours.values(), default=0) or 1,
            "secrets": [_tell_secret(secret) for secret in account.secrets.all()[:MOST_SECRETS]],
            "address": f"/webhooks/{account.gateway}/{account.name}/",
        }
        return self.render_page(
            request, "admin/webhooks/health/account.html", title=f"Webhooks of {account}", context=context
        )


def _line(health: AccountHealth) -> dict[str, Any]:
    return {
        "health": health,
        "badge": judge(health),
        "url": link_health(health.account.pk),
        "lag": f"{tell_lag(health.lag_median)} / {tell_lag(health.lag_p95)}",
        "oldest": age(health.oldest_open, is_open=True),
        "last": age(health.last_received or find_last_heard(health.account)),
        "refused": sum(health.rejected.values()),
    }


def judge(health: AccountHealth) -> SafeString:
    """The worst that can be said of an account, in a word."""
    check = health.gap_check
    if not health.account.is_active:
        return state_badge("Not active", "default")
    if check and check.silent_since:
        return state_badge("Silent", "danger")
    if health.open.get(InboundState.QUARANTINED):
        return state_badge("Quarantined", "danger")
    if sum(health.rejected.values()) > health.received:
        return state_badge("Refusing", "danger")
    if check and check.failing_since:
        return state_badge("List not readable", "warning")
    return state_badge("Troubled", "warning") if health.troubled else state_badge("Well", "success")


def tell_lag(seconds: float | None) -> str:
    """For people: `80 ms`, `2.4 s`, `12 min`."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def list_facts(health: AccountHealth, *, last: SafeString) -> list[Fact]:
    """What the page says of an account: labels and values."""
    return [
        ("Received in 24 hours", health.received),
        ("Repeated of these", health.duplicates),
        ("In conflict of these", health.conflicts),
        ("Lag, median", tell_lag(health.lag_median)),
        ("Lag, 95 of 100 within", tell_lag(health.lag_p95)),
        *((state.label, _link_box(health, state)) for state in InboundState if state in health.open),
        ("Oldest that is not finished", age(health.oldest_open, is_open=True)),
        ("Last received", last),
        *tell_gap_check(health.gap_check),
        ("Only in the gateway's list in 24 hours", health.listed),
    ]


def _link_box(health: AccountHealth, state: InboundState) -> SafeString:
    return format_html(
        '<a class="bo-link" href="{}">{}</a>', link_inbox(health.account.pk, state), health.open[state]
    )


def tell_gap_check(check: GapCheck | None) -> list[Fact]:
    """What the comparison with the gateway's list found, where it has one."""
    if check is None or (check.checked_at is None and not check.last_error):
        return [
            ("Compared with the gateway's list", "never: it has none, or the first time is still to come")
        ]
    facts: list[Fact] = [
        ("Compared with the gateway's list", age(check.checked_at)),
        ("Complete until", age(check.checked_until)),
        ("Missing of all time", check.missing),
        ("Last found missing", age(check.missing_at)),
    ]
    return [*facts, ("The list cannot be read", check.last_error)] if check.last_error else facts


def _tell_secret(secret: GatewaySecret) -> tuple[str, str]:
    return f"secret {secret.pk}", tell_validity(secret)
