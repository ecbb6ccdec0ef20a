"""Judges endpoints by their answers: pauses those that ask for time or are silent, disables those that only fail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.expressions import Combinable
from django.db.models.fields import DateTimeField
from django.db.models.functions import Coalesce, Greatest, Now
from django.urls import reverse
from django.utils import timezone

from payments import sql
from payments.models import Event, Order
from payments.oncall import open_page
from webhooks.models import Delivery, DeliveryState, Endpoint
from webhooks.notices import owe_notice
from webhooks.transport import Answer

logger = structlog.stdlib.get_logger(__name__)

DISABLE_AFTER = timedelta(days=5)
MAX_RETRY_AFTER_SECONDS = 24 * 3600
PATIENCE = 3  # tries in a row without an answer; from then on the endpoint is paused, and one try decides
FIRST_PAUSE_SECONDS = 60  # doubled with each further silence
LONGEST_PAUSE_SECONDS = 3600
# Between the probes of an endpoint that was disabled for its failures: two weeks in all.
PROBE_HOURS = (1, 2, 4, 8, 16, *[24] * 13)

_CLAIMS = 0x77656268  # the key of the lock: any number that nobody else uses


def hold_claims() -> None:
    """Keep every other claim, and every change of many deliveries, waiting until the transaction ends.

    So what is in flight is counted exactly over all workers, and no two of these lock rows in different orders.
    An order's lock comes before it; those of endpoints and deliveries come after it.
    """
    sql.fetch_one("SELECT pg_advisory_xact_lock(%s)::text", [_CLAIMS])


@dataclass(frozen=True, slots=True)
class Record:
    """What counts against an endpoint, as it was when the answer was written down."""

    failing_since: datetime | None
    silences: int

    @property
    def is_ailing(self) -> bool:
        return self.failing_since is not None or self.silences > 0


# --- after an answer ----------------------------------------------------------------------------------------


def note_success(endpoint_id: str) -> None:
    """The endpoint is well: what counted against it is forgotten."""
    Endpoint.objects.filter(pk=endpoint_id).update(
        failing_since=None, silences=0, paused_until=_end_silence()
    )


def note_failure(delivery: Delivery, answer: Answer, record: Record) -> None:
    """Count the failure against the endpoint; pause it or disable it when the rules say so."""
    endpoint = delivery.endpoint
    if answer.status == 410:
        disable_endpoint(endpoint, reason="the endpoint answered 410 Gone", event=delivery.event)
    elif record.failing_since and record.failing_since <= timezone.now() - DISABLE_AFTER:
        reason = f"every try has failed for {DISABLE_AFTER.days} days"
        disable_endpoint(endpoint, reason=reason, event=delivery.event, is_probed=True)
    elif not (_is_plain(answer) and record.failing_since and not record.silences):
        _pause(endpoint, answer)


def _is_plain(answer: Answer) -> bool:
    """A failure that says no more than that: it changes nothing for an endpoint that is failing already."""
    return not answer.is_silent and not answer.retry_after


def note_probe_failure(endpoint: Endpoint, answer: Answer) -> None:
    """The next probe comes as planned, later if the endpoint asks for it, and not at all when it is gone."""
    probed = Endpoint.objects.filter(pk=endpoint.pk, is_enabled=False, probe_at__isnull=False)
    if answer.status == 410:
        probed.update(probe_at=None)
    elif answer.retry_after:
        probed.update(probe_at=Greatest("probe_at", _read_wish(answer.retry_after)))


def _pause(endpoint: Endpoint, answer: Answer) -> None:
    """Deliveries of a paused endpoint keep their tries: they are not taken until it ends."""
    found = Endpoint.objects.filter(pk=endpoint.pk, is_enabled=True)
    failing = {"failing_since": Coalesce("failing_since", Now())}
    if answer.is_silent:
        # What was under way when the pause began tells nothing new.
        found.filter(Q(paused_until__isnull=True) | Q(paused_until__lte=Now())).update(
            **failing, silences=F("silences") + 1, paused_until=_begin_silence()
        )
    elif answer.retry_after:
        asked = _read_wish(answer.retry_after)
        found.update(**failing, silences=0, paused_until=Greatest(Coalesce("paused_until", asked), asked))
    elif answer.status is None:  # nobody there, but told at once: that holds nobody up
        found.update(**failing)
    else:
        found.update(**failing, silences=0, paused_until=_end_silence())


def _read_wish(seconds: int) -> Combinable:
    """The moment before which the endpoint asked not to be tried, a day from now at most."""
    return Now() + timedelta(seconds=min(seconds, MAX_RETRY_AFTER_SECONDS))


def _begin_silence() -> Case:
    """The pause for one silence more than are counted: none, then a minute, doubled up to an hour."""
    steps = [
        When(silences=silences, then=Now() + timedelta(seconds=choose_pause(silences + 1)))
        for silences in range(PATIENCE - 1, PATIENCE + 6)
    ]
    longest = When(silences__gte=PATIENCE, then=Now() + timedelta(seconds=LONGEST_PAUSE_SECONDS))
    return Case(*steps, longest, default=Value(None), output_field=DateTimeField())


def _end_silence() -> Case:
    """An answer ends the pause for silence, and leaves one that the endpoint asked for."""
    return Case(When(silences__gte=PATIENCE, then=Value(None)), default=F("paused_until"))


def choose_pause(silences: int) -> int:
    """Seconds for which an endpoint is left alone after so many silent tries in a row."""
    if silences < PATIENCE:
        return 0
    return int(min(FIRST_PAUSE_SECONDS * 2 ** min(silences - PATIENCE, 20), LONGEST_PAUSE_SECONDS))


# --- the end of an endpoint ---------------------------------------------------------------------------------


def disable_endpoint(
    endpoint: Endpoint, *, reason: str, event: Event | None = None, is_probed: bool = False
) -> bool:
    """Stop delivering there, and give up what is on its way. Returns False when it was disabled already.

    With the event whose delivery failed last, a `webhook_endpoint.disabled` event is written behind it, which the
    client's other endpoints and its list of events tell of, and `notify_email` is owed a mail. What is probed was
    disabled for its failures: on-call is called, and it is tried again by itself.
    """
    with transaction.atomic():
        order = Order.objects.locked(event.order_id) if event else None
        hold_claims()
        probe_at = Now() + timedelta(hours=PROBE_HOURS[0]) if is_probed else None
        enabled = Endpoint.objects.filter(pk=endpoint.pk, is_enabled=True)
        if not enabled.update(
            is_enabled=False, disabled_reason=reason, probe_at=probe_at, paused_until=None, silences=0
        ):
            return False
        give_up_pending(endpoint, reason=reason)
        if order:
            tell_client(endpoint, order, "webhook_endpoint.disabled", reason=reason)
            _owe_disabled(endpoint, reason=reason, is_probed=is_probed)
        if is_probed:
            _call_oncall(endpoint, reason)
    logger.error("webhook_endpoint_disabled", endpoint_id=endpoint.pk, reason=reason)
    return True


def give_up_pending(endpoint: Endpoint, *, reason: str) -> None:
    """Abandon what is on its way there; the caller has called `hold_claims`."""
    pending = Delivery.objects.filter(endpoint=endpoint, state=DeliveryState.PENDING)
    pending.update(state=DeliveryState.ABANDONED, next_try_at=None, last_error=reason)


def tell_client(endpoint: Endpoint, order: Order, event_type: str, **more: str) -> None:
    """An event about the endpoint, behind those of an order that the caller has locked."""
    Event.objects.record(
        order, event_type, data={"endpoint": {"id": endpoint.pk, "url": endpoint.url, **more}}
    )


def _owe_disabled(endpoint: Endpoint, *, reason: str, is_probed: bool) -> None:
    hope = (
        "It is tried again by itself for two weeks; when it answers, what it missed is sent."
        if is_probed
        else "It is not tried again until somebody enables it."
    )
    lines = [f"Webhooks are not sent to this endpoint any more: {reason}.", "", hope]
    owe_notice(endpoint, subject="A webhook endpoint was disabled", lines=lines)


def _call_oncall(endpoint: Endpoint, reason: str) -> None:
    open_page(
        f"webhook_endpoint:{endpoint.pk}",
        text=f"The webhook endpoint {endpoint.url} was disabled: {reason}",
        detail={"endpoint": endpoint.pk, "reason": reason},
        path=reverse("admin:webhooks_endpoint_change", args=[endpoint.pk]),
    )
