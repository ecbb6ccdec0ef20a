"""The page of one webhook: what it did with links, its texts, the command that sends it again, its rivals."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from payments.admin.base import Fact, link, show_json
from payments.admin.words import exact_time
from payments.models import Dispute, GatewaySecret
from payments.redaction import redact
from webhooks.models import InboundWebhook
from webhooks.wording import list_differences, tell_fact

GONE = "Not kept any more."
MOST_DIFFERENCES = 100
MOST_RIVALS = 10


def tell_effect(webhook: InboundWebhook) -> SafeString | str:
    """What each fact came to, with a link to what it was about."""
    if "facts" not in webhook.outcome:
        return "Nothing yet."
    lines = ((tell_fact(fact), _link_fact(webhook, fact)) for fact in webhook.outcome["facts"])
    return format_html_join("", "<p>{} {}</p>", lines) or "It says nothing of a payment."


def _link_fact(webhook: InboundWebhook, fact: dict[str, Any]) -> SafeString | str:
    if fact["kind"] == "dispute":
        known = Dispute.objects.filter(account=webhook.account, gateway_reference=fact["reference"]).first()
        return link("payments_dispute", known.pk, "the dispute") if known else ""
    if operation := fact.get("operation"):
        return link("payments_operation", operation, "the operation")
    return ""


def link_neighbours(webhook: InboundWebhook) -> SafeString | str:
    """The webhooks of the same payment that came before and after."""
    if not webhook.subject:
        return "–"
    same = InboundWebhook.objects.about(webhook.account, [webhook.subject]).only("pk", "event_type")
    before = same.filter(pk__lt=webhook.pk).order_by("-pk").first()
    after = same.filter(pk__gt=webhook.pk).order_by("pk").first()
    named = [("before", before), ("after", after)]
    links = [
        (word, link("webhooks_inboundwebhook", row.pk, row.event_type))
        for word, row in named
        if row is not None
    ]
    return format_html_join(", ", "{}: {}", links) or "no other"


def tell_secret(webhook: InboundWebhook) -> str:
    """Which secret signed it, and from when to when it is valid."""
    kind, _, number = webhook.verified_with.partition(" ")
    if kind != "secret" or not number.isdecimal():
        return webhook.verified_with
    secret = GatewaySecret.objects.filter(pk=number, account=webhook.account).first()
    return (
        f"{webhook.verified_with}, {tell_validity(secret)}" if secret else f"{webhook.verified_with}, deleted"
    )


def tell_validity(secret: GatewaySecret) -> str:
    """`valid since ..., until ...`."""
    since = f"valid since {exact_time(secret.not_before or secret.created_at)}"
    return f"{since}, until {exact_time(secret.not_after)}" if secret.not_after else since


# --- texts --------------------------------------------------------------------------------------------------


def list_texts(webhook: InboundWebhook) -> list[Fact]:
    """What is long, folded: the body indented and as it came, its headers, and a command."""
    if not webhook.payload:
        return [("Payload", SafeString(GONE))]
    raw = webhook.payload.decode(errors="backslashreplace")
    return [
        ("Payload", show_json(json.loads(webhook.payload))),
        ("Payload as received", format_html('<pre class="bo-json">{}</pre>', redact(raw))),
        ("Headers", show_json(webhook.stored.headers)),
        ("As a curl command", show_command(webhook)),
    ]


def show_command(webhook: InboundWebhook) -> SafeString:
    """What posts it again, for another site or a test; the account's secret stays where it is."""
    command = build_command(webhook)
    if not command:
        return SafeString(
            "<p>There is none: what is kept is not the body as it was signed, since it was redacted, decoded or read "
            "from the gateway's list. <i>Replay</i> applies it again.</p>"
        )
    return format_html(
        '<p>{}</p><p><textarea class="bo-command" rows="8" readonly spellcheck="false" '
        'aria-label="A curl command">{}</textarea></p>',
        "It sends the same bytes with the headers that are kept. The site counts it as a duplicate. A signature with a "
        "time (Stripe's) is refused after five minutes: to apply it again use Replay, to try the receipt use "
        "manage.py simulate_webhook, which signs with the account's secret.",
        command,
    )


def build_command(webhook: InboundWebhook) -> str:
    """A curl command for a shell; "" when the stored payload is not the body that was signed, or no plain text."""
    if hashlib.sha256(webhook.payload).hexdigest() != webhook.sha256:
        return ""
    try:
        body = webhook.payload.decode()
    except UnicodeDecodeError:
        return ""
    address = f"{settings.SITE_URL}/webhooks/{webhook.account.gateway}/{webhook.account.name}/"
    headers = (f"-H {shlex.quote(f'{name}: {value}')}" for name, value in webhook.stored.headers.items())
    data = f"--data-binary {shlex.quote(redact(body))}"
    return " \\\n  ".join([f"curl -i {shlex.quote(address)}", *headers, data])


# --- rivals -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rival:
    """Another webhook with the same event id, and where it says something else."""

    link: SafeString
    first: str
    second: str
    differences: list[tuple[str, str, str]]
    note: str = ""


def list_rivals(webhook: InboundWebhook) -> list[Rival]:
    """What it contradicts, or what contradicts it."""
    if webhook.conflict_of_id:
        return [_compare(first, webhook, first) for first in _load([webhook.conflict_of_id])]
    ids = InboundWebhook.objects.filter(
        account=webhook.account, event_id=webhook.event_id, conflict_of__isnull=False
    ).order_by("pk")
    return [
        _compare(webhook, later, later)
        for later in _load(list(ids.values_list("pk", flat=True)[:MOST_RIVALS]))
    ]


def _load(ids: list[str]) -> list[InboundWebhook]:
    return list(InboundWebhook.objects.select_related("stored").filter(pk__in=ids).order_by("pk"))


def _compare(first: InboundWebhook, second: InboundWebhook, rival: InboundWebhook) -> Rival:
    found: list[tuple[str, str, str]] = []
    note = ""
    if first.payload and second.payload:
        found = list_differences(json.loads(first.payload), json.loads(second.payload))
        if len(found) > MOST_DIFFERENCES:
            note = f"The first {MOST_DIFFERENCES} of {len(found)} differences."
        elif not found:
            note = "They differ only in how they are written."
    else:
        note = "One of the two payloads is not kept any more."
    shown = [(path, redact(one), redact(other)) for path, one, other in found[:MOST_DIFFERENCES]]
    return Rival(
        link("webhooks_inboundwebhook", rival.pk, rival.pk),
        f"First, {exact_time(first.received_at)}",
        f"Second, {exact_time(second.received_at)}",
        shown,
        note,
    )
