"""Applies archived webhooks again: one, many, or all since a moment; and fetches what never came."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db.models import Exists, F, OuterRef
from django.db.models.functions import Now
from django.utils import timezone

from payments.errors import ConflictError, InvalidRequestError
from payments.gateways import get_gateway
from payments.ids import EARLIEST, lowest_id
from payments.models import GatewayAccount, Operation
from webhooks.inbound import archive_listed
from webhooks.models import (
    DONE_STATES,
    TROUBLED_STATES,
    InboundPayload,
    InboundState,
    InboundWebhook,
    InboundWebhookQuerySet,
)
from webhooks.processing import process_webhook
from webhooks.schemes import find_verifier

MOST_AT_ONCE = 10_000


def replay(inbound_id: str, *, actor: str) -> InboundWebhook:
    """Apply an archived webhook again, now, by the usual path: payments sees that nothing happens twice.

    `actor` is `user:<username>` or `system`. Raises `ConflictError` while its first try is still to come, and when its
    payload is not kept any more.
    """
    if InboundWebhook.objects.filter(pk=inbound_id, stored__isnull=True).exists():
        raise ConflictError(f"the payload of {inbound_id} is not kept any more; nothing was changed")
    if not replay_many([inbound_id], actor=actor):
        raise ConflictError(f"{inbound_id} is about to be processed already; nothing was changed")
    process_webhook(inbound_id)
    return InboundWebhook.objects.get(pk=inbound_id)


def replay_many(inbound_ids: Sequence[str], *, actor: str) -> int:
    """Make these due again by one statement, for a worker to apply. Returns how many.

    Left alone is what waits for its first try, and what has no payload any more.
    """
    chosen = InboundWebhook.objects.filter(pk__in=inbound_ids).exclude(state=InboundState.RECEIVED)
    return _make_due(chosen, actor)


def find_since(
    since: datetime, *, account: GatewayAccount | None = None, with_done: bool = False
) -> InboundWebhookQuerySet:
    """What came since then and did not succeed; `with_done` adds what did. Conflicts are replayed one by one only."""
    states = (*TROUBLED_STATES, *DONE_STATES) if with_done else TROUBLED_STATES
    # The id is time-ordered, so that the primary key finds what is recent; its clock may differ a little.
    bound = lowest_id("inb", max(since, EARLIEST) - timedelta(hours=1))
    found = InboundWebhook.objects.filter(state__in=states, received_at__gte=since, conflict_of__isnull=True)
    found = found.filter(pk__gte=bound) if with_done else found
    return found.filter(account=account) if account else found


def replay_since(
    since: datetime, *, actor: str, account: GatewayAccount | None = None, with_done: bool = False
) -> int:
    """Make what `find_since` names due again, the oldest `MOST_AT_ONCE` of it. Returns how many."""
    found = find_since(since, account=account, with_done=with_done).order_by("pk")
    oldest = found.filter(_has_payload()).values("pk")[:MOST_AT_ONCE]
    return _make_due(InboundWebhook.objects.filter(pk__in=oldest), actor)


def _has_payload() -> Exists:
    return Exists(InboundPayload.objects.filter(webhook=OuterRef("pk")))


def _make_due(webhooks: InboundWebhookQuerySet, actor: str) -> int:
    # A new epoch, so that a worker that still holds the row cannot end the replay with its old result.
    return webhooks.filter(_has_payload()).update(
        state=InboundState.RECEIVED,
        attempts=0,
        epoch=F("epoch") + 1,
        next_try_at=Now(),
        processed_at=None,
        alarmed_at=None,
        replayed_by=actor,
        replayed_at=Now(),
    )


# --- by payment ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MissedReplay:
    """What `replay_missed` did: rows replayed, rows fetched, and the references still unheard of."""

    replayed: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)


def replay_missed(
    account: GatewayAccount,
    *,
    actor: str,
    references: Sequence[str] = (),
    operation_ids: Sequence[str] = (),
    since: datetime | None = None,
) -> MissedReplay:
    """Catch up on payments whose webhooks were lost or not understood.

    The archive's rows are replayed first; then the gateway's own list (of the last 30 days, Stripe's limit, unless
    told otherwise) fills in what never came, by the same archive and path. `references` are the gateway's.
    Raises `InvalidRequestError` when nothing is named, and what the gateway raises when it cannot be asked.
    """
    wanted = _collect_references(account, references, operation_ids)
    if not wanted:
        raise InvalidRequestError(
            "name at least one payment or operation that the gateway knows; nothing was replayed"
        )
    archived = InboundWebhook.objects.about(account, wanted).filter(conflict_of__isnull=True).order_by("id")
    still_kept = archived.exclude(state=InboundState.RECEIVED).exclude(stored__isnull=True)
    replayed = list(still_kept.values_list("pk", flat=True))
    for inbound_id in replayed:
        replay(inbound_id, actor=actor)
    fetched = _fetch_missed(account, set(wanted), since or timezone.now() - timedelta(days=30))
    InboundWebhook.objects.filter(pk__in=fetched).update(replayed_by=actor, replayed_at=Now())
    for inbound_id in fetched:
        process_webhook(inbound_id)
    heard = InboundWebhook.objects.about(account, wanted).values_list("subject", flat=True)
    return MissedReplay(replayed, fetched, sorted(set(wanted) - set(heard)))


def _collect_references(
    account: GatewayAccount, references: Sequence[str], operation_ids: Sequence[str]
) -> list[str]:
    of_operations = Operation.objects.filter(pk__in=operation_ids, account=account).exclude(
        attempt__gateway_reference=""
    )
    found = of_operations.values_list("attempt__gateway_reference", flat=True)
    return sorted({reference for reference in references if reference} | set(found))


def _fetch_missed(account: GatewayAccount, references: set[str], since: datetime) -> list[str]:
    verifier = find_verifier(account.gateway)
    assert verifier is not None, f"{account} has archived webhooks"
    fetched = []
    for event in get_gateway(account).list_events(since=since):
        envelope = verifier.read_envelope(json.dumps(event).encode())
        if envelope.subject in references and (inbound_id := archive_listed(account, envelope)):
            fetched.append(inbound_id)
    return fetched
