"""Reads payments' events, each at least once, and hands them to a consumer of fraud's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from itertools import islice

from fraud.models import EventPosition
from payments.ids import EARLIEST, lowest_id
from payments.models import Event

BATCH = 500
MOST_AT_ONCE = 10_000  # events of one run
MOST_UNSETTLED = 5_000  # ids kept of what was consumed beyond the horizon; what is more comes again

Consume = Callable[[Event], object]


def collect(
    name: str,
    types: Collection[str],
    consume: Consume,
    *,
    since: datetime = EARLIEST,
    until: datetime | None = None,
) -> int:
    """Hand every event of these types to `consume`, oldest first; how many there were, 10,000 at most.

    `name` is the reader's, `since` its place when it reads for the first time, `until` the moment before which it
    reads (None: up to now). What `consume` does must be idempotent: an event comes again when a run was killed, or
    when two run at once. If it raises, the event comes again with the next run, and those before it do not.

    An event becomes visible up to a minute out of the order of ids (see `EventQuerySet.read_horizon`). So the place
    is never moved past the horizon, and of what lies beyond it the ids that were consumed are kept.
    """
    horizon = Event.objects.read_horizon()  # before the events are read, or one could slip in between
    end = lowest_id("evt", until) if until else ""
    position = _load_position(name, since)
    consumed: list[str] = []
    is_all = False
    try:
        for event in islice(_read(position, types, end), MOST_AT_ONCE):
            consume(event)
            consumed.append(event.pk)
        is_all = len(consumed) < MOST_AT_ONCE
    finally:
        reached = end or horizon if is_all else max([position.settled_until, *consumed])
        _move(position, consumed, max(position.settled_until, min(horizon, reached)))
    return len(consumed)


def _load_position(name: str, since: datetime) -> EventPosition:
    defaults = {"settled_until": lowest_id("evt", since)}
    return EventPosition.objects.get_or_create(name=name, defaults=defaults)[0]


def _read(position: EventPosition, types: Collection[str], end: str) -> Iterator[Event]:
    """The events from the position to the end, by pages of the primary key, without those that were consumed."""
    events = Event.objects.filter(type__in=types).select_related("order__payment").order_by("pk")
    events = events.filter(pk__lt=end) if end else events
    known = set(position.consumed)
    page = list(events.filter(pk__gte=position.settled_until)[:BATCH])
    while page:
        yield from (event for event in page if event.pk not in known)
        page = list(events.filter(pk__gt=page[-1].pk)[:BATCH]) if len(page) == BATCH else []


def _move(position: EventPosition, consumed: list[str], settled_until: str) -> None:
    """Of two runs at once one moves the place; what the other did comes again, to no effect."""
    later = [pk for pk in (*position.consumed, *consumed) if pk >= settled_until]
    EventPosition.objects.filter(pk=position.pk, settled_until=position.settled_until).update(
        settled_until=settled_until, consumed=later[-MOST_UNSETTLED:]
    )
