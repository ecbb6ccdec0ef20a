"""How the admin says things: amounts, states, ages, links and data, in words before colours."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments.money import Money
from payments.redaction import redact

Column = TypeVar("Column", bound=Callable[..., Any])
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
_STALE = ((timedelta(days=7), "danger"), (timedelta(days=3), "warning"), (timedelta(days=1), "info"))

# One colour per meaning, whatever the model: done, needs somebody, under way, ended without success.
_STATES = {
    "success": "paid fulfilled succeeded completed captured approved",
    "warning": "in_review requires_review unknown awaiting_customer requires_customer_action pending again "
    "compensating partially_captured reversed rejected opened",
    "info": "placed processing running sent requires_capture waiting created authorized",
    "danger": "declined blocked failed failed_compensation capture_failed quarantined crashed",
}
TONES = {state: tone for tone, states in _STATES.items() for state in states.split()}


def column(
    description: str, *, ordering: str = "", label: dict[str, str] | bool | None = None
) -> Callable[[Column], Column]:
    """Name a column of a list; `label` maps its words to the colours of the theme's badges."""

    def decorate(function: Column) -> Column:
        attributes = {"short_description": description, "admin_order_field": ordering or None, "label": label}
        for name, value in attributes.items():
            if value is not None:
                setattr(function, name, value)
        return function

    return decorate


def money(minor: int | None, currency: str) -> str:
    """Minor units for people; a currency that we do not know stays as it came."""
    if minor is None:
        return "–"
    try:
        return Money(minor, currency).format()
    except ValueError:
        return f"{minor} {currency} (minor units)"


def tone_of(state: str) -> str:
    return TONES.get(state.lower(), "default")


def state_badge(text: object, tone: str = "") -> SafeString:
    """A word on a colour; without a tone, the one that its meaning has everywhere."""
    words = str(text)
    return format_html(
        '<span class="bo-badge bo-{}">{}</span>', tone or tone_of(words.replace(" ", "_")), words
    )


def describe_span(span: timedelta) -> str:
    """In the words that a person would use: `3 days`, `5 hours`, `12 seconds`."""
    for seconds, word in _UNITS:
        count = int(span.total_seconds() // seconds)
        if count:
            return f"{count} {word}{'' if count == 1 else 's'}"
    return "under a second"


def describe_age(span: timedelta) -> str:
    """`3 days`, `5 hours`, and below a minute `just now`."""
    return "just now" if span < timedelta(minutes=1) else describe_span(span)


def rate_age(span: timedelta) -> str:
    """How pressing open work of this age is; the words beside the colour say the same."""
    return next((tone for limit, tone in _STALE if span >= limit), "default")


def tell_actor(actor: str) -> str:
    """Who did it: a person by name, a storefront as such."""
    kind, _, name = actor.partition(":")
    return {"user": name, "api": f"{name} (API)"}.get(kind, actor)


def exact_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def describe_ago(moment: datetime) -> str:
    """`3 days ago`, `just now`, `in 2 hours`."""
    span = timezone.now() - moment
    if span < timedelta(seconds=-1):
        return f"in {describe_span(-span)}"
    return describe_age(span) + (" ago" if span >= timedelta(minutes=1) else "")


def age(moment: datetime | None, *, is_open: bool = False) -> SafeString:
    """How long ago, or how soon, with the exact time and zone at hand; open work turns colour as it ages."""
    if moment is None:
        return SafeString("–")
    span = timezone.now() - moment
    words = describe_ago(moment)
    tone = f"bo-age bo-{rate_age(span)}" if is_open else "bo-time"
    return format_html(
        '<time class="{}" datetime="{}" title="{}">{}</time>',
        tone,
        moment.isoformat(),
        exact_time(moment),
        words,
    )


def link(name: str, pk: object, text: object) -> SafeString:
    """A link to the page `admin:<name>_change`; the bare text where the site has none."""
    try:
        url = reverse(f"admin:{name}_change", args=[pk])
    except NoReverseMatch:
        return format_html("{}", text)
    return format_html('<a class="bo-link" href="{}">{}</a>', url, text)


def show_json(value: Any) -> SafeString:
    """Indented, and redacted once more whatever was stored."""
    text = redact(json.dumps(value, indent=2, ensure_ascii=False, default=str))
    # Half a surrogate pair, as a cut emoji leaves it, is JSON, and nothing that a page could be encoded with.
    shown = text.encode(errors="backslashreplace").decode()
    return format_html('<pre class="bo-json">{}</pre>', shown)
