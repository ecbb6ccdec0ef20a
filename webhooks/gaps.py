"""Finds what gateways did not tell: webhooks are hints, so their own lists are read, and silence is noticed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db.models import F
from django.utils import timezone

from payments.errors import PaymentError, WebhookSignatureError
from payments.gateways import get_gateway
from payments.gateways.base import PaymentGateway
from payments.models import GatewayAccount
from payments.redaction import redact
from webhooks.inbound import archive_listed
from webhooks.models import GapCheck, InboundWebhook
from webhooks.schemes import find_verifier
from webhooks.verifiers import Envelope, Verifier

logger = structlog.stdlib.get_logger(__name__)

GRACE = timedelta(minutes=5)  # what is younger may still be on its way
OVERLAP = timedelta(minutes=10)  # a list may show an event a little after its time
FIRST_LOOK = timedelta(days=1)
LONGEST_LOOK = timedelta(days=29)  # Stripe lists 30 days
# One question covers so much time. It follows the traffic, so that its events fit into memory.
SHORTEST_SPAN, FIRST_SPAN, LONGEST_SPAN = timedelta(minutes=1), timedelta(minutes=15), timedelta(hours=6)
MANY_EVENTS, FEW_EVENTS = 2_000, 200
BATCH = 500
WALK_SECONDS = 240.0  # below CELERY_TASK_TIME_LIMIT; the rest has the next walk
TYPES_OPTION = "webhook_events"  # of the account: what its endpoint at the gateway is subscribed to


def check_gaps(*, seconds: float = WALK_SECONDS) -> int:
    """Walk the event list of every active account whose gateway has one. Returns how many events were missing.

    A gateway that cannot be asked is written down and asked again by the next walk; the others are not held up.
    """
    stop_at = time.monotonic() + seconds
    longest_ago = F("gap_check__checked_at").asc(nulls_first=True)
    accounts = GatewayAccount.objects.filter(is_active=True).order_by(longest_ago)
    return sum(_check_noting_errors(account, stop_at) for account in accounts)


def look_back(span: timedelta) -> int:
    """Let the next walks begin so long ago, for what a list showed late. Returns how many accounts."""
    since = timezone.now() - span
    return GapCheck.objects.filter(checked_until__gt=since).update(checked_until=since)


def _check_noting_errors(account: GatewayAccount, stop_at: float) -> int:
    try:
        gateway = get_gateway(account)
        if not gateway.capabilities.lists_events:
            return 0
        return _walk(account, gateway, stop_at)
    except Exception as error:  # whatever it is: the other accounts must be walked, and this one again
        logger.warning("gap_check_failed", account=str(account), exc_info=not isinstance(error, PaymentError))
        _note_error(account, error)
        return 0


def _note_error(account: GatewayAccount, error: Exception) -> None:
    check, _ = GapCheck.objects.get_or_create(account=account)
    check.last_error = redact(f"{type(error).__name__}: {error}")[:300]
    check.failing_since = check.failing_since or timezone.now()
    check.save(update_fields=["last_error", "failing_since"])


def _walk(account: GatewayAccount, gateway: PaymentGateway, stop_at: float) -> int:
    """From the watermark to `GRACE` ago, span by span; each is archived before the watermark passes it."""
    check, _ = GapCheck.objects.get_or_create(account=account)
    verifier = find_verifier(account.gateway)
    assert verifier is not None, f"{account} lists the events of its webhooks"
    archive = _Archive(account, gateway, verifier)
    now = timezone.now()
    watermark, end = check.checked_until, now - GRACE
    start = max(watermark or now - FIRST_LOOK, now - LONGEST_LOOK)
    span, missing, reach = FIRST_SPAN, 0, OVERLAP
    while start < end and time.monotonic() < stop_at:
        until = min(start + span, end)
        events = list(gateway.list_events(since=start - reach, until=until))
        found = archive.fill(events)
        missing += found
        if not _pass(check, watermark, until, found):
            break  # another walk is here, or an operator has set it back
        start = watermark = until
        span, reach = _fit_span(span, len(events)), timedelta(0)
    return missing


def _fit_span(span: timedelta, events: int) -> timedelta:
    if events > MANY_EVENTS:
        return max(span / 2, SHORTEST_SPAN)
    return min(span * 2, LONGEST_SPAN) if events < FEW_EVENTS else span


def _pass(check: GapCheck, watermark: datetime | None, until: datetime, found: int) -> bool:
    now = timezone.now()
    changes: dict[str, Any] = {
        "checked_until": until,
        "checked_at": now,
        "last_error": "",
        "failing_since": None,
    }
    if found:
        changes |= {"missing": F("missing") + found, "missing_at": now}
    return bool(GapCheck.objects.filter(pk=check.pk, checked_until=watermark).update(**changes))


@dataclass(frozen=True, slots=True)
class _Archive:
    """The archive of one account, to be filled with what its gateway lists."""

    account: GatewayAccount
    gateway: PaymentGateway
    verifier: Verifier

    def fill(self, events: Sequence[Mapping[str, Any]]) -> int:
        """Keep what is unknown and of concern; a worker takes it from there. Returns how many."""
        return sum(self._fill(events[begin : begin + BATCH]) for begin in range(0, len(events), BATCH))

    def _fill(self, events: Sequence[Mapping[str, Any]]) -> int:
        envelopes = list(self._read(events))
        ids = [envelope.event_id for envelope in envelopes]
        known = set(
            InboundWebhook.objects.filter(
                account=self.account, event_id__in=ids, conflict_of__isnull=True
            ).values_list("event_id", flat=True)
        )
        unknown = (envelope for envelope in envelopes if envelope.event_id not in known)
        kept = [self._keep(envelope) for envelope in unknown if self._concerns_us(envelope)]
        return sum(map(bool, kept))

    def _keep(self, envelope: Envelope) -> str:
        inbound_id = archive_listed(self.account, envelope)
        if inbound_id:
            logger.warning("webhook_missing", inbound_id=inbound_id, event_id=envelope.event_id)
        return inbound_id

    def _read(self, events: Sequence[Mapping[str, Any]]) -> Iterator[Envelope]:
        for event in events:
            try:
                yield self.verifier.read_envelope(json.dumps(event).encode())
            except WebhookSignatureError as error:
                logger.warning("listed_event_unreadable", account=str(self.account), error=error.message)

    def _concerns_us(self, envelope: Envelope) -> bool:
        """What the endpoint is subscribed to, if the account says so; else what says something of money."""
        types = str(self.account.options.get(TYPES_OPTION) or "").replace(",", " ").split()
        if types:
            return envelope.event_type in types
        try:
            return bool(self.gateway.read_event(envelope.payload))
        except PaymentError:
            return True  # the worker will say what is wrong with it
