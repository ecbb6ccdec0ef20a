"""Turns archived webhooks into facts for payments: claim, apply, and never drop one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import connection
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from payments.errors import ConflictError, InvalidRequestError
from payments.gateways import get_gateway
from payments.gateways.base import GatewayFact
from payments.models import GatewayAccount, Operation, Payment
from payments.redaction import redact
from payments.services import FactOutcome, apply_gateway_fact
from webhooks.inbound import archive_listed
from webhooks.models import InboundState, InboundWebhook
from webhooks.verifiers import VERIFIERS

logger = structlog.stdlib.get_logger(__name__)

BATCH = 200
LEASE_SECONDS = 120
# After the first, second ... try without success; the eighth quarantines.
RETRY_SECONDS = (5, 30, 120, 600, 3600, 4 * 3600, 12 * 3600)
MAX_ATTEMPTS = len(RETRY_SECONDS) + 1
_MAX_ERROR = 2000


# --- the worker ---------------------------------------------------------------------------------------------


def process_due(*, limit: int = BATCH) -> int:
    """Process what is due, oldest first, until nothing is left or `limit` is reached. Returns how many."""
    for done in range(limit):
        webhook = _claim_next()
        if webhook is None:
            return done
        _process(webhook)
    return limit


def process_webhook(inbound_id: str) -> bool:
    """Process one webhook if it is due and nobody else has it. Returns whether it was tried."""
    webhook = _claim_next(inbound_id)
    if webhook is None:
        return False
    _process(webhook)
    return True


# The claim is a lease: one statement, no lock held while the fact is applied. A worker that dies leaves a row
# that falls due again. A row waits while an earlier one about the same payment has not had its first try, so
# that facts usually come in order; one that fails does not hold up the others, because payments goes by rank.
_CLAIM = """
    UPDATE webhooks_inboundwebhook
    SET attempts = attempts + 1, epoch = epoch + 1, next_try_at = clock_timestamp() + make_interval(secs => %(lease)s)
    WHERE id = (
        SELECT w.id FROM webhooks_inboundwebhook w
        WHERE w.state IN ('received', 'parked', 'failed') AND w.next_try_at <= clock_timestamp()
          AND (%(only)s::text IS NULL OR w.id = %(only)s)
          AND NOT EXISTS (
            SELECT FROM webhooks_inboundwebhook earlier
            WHERE earlier.account_id = w.account_id AND earlier.subject = w.subject AND earlier.subject <> ''
              AND earlier.state = 'received' AND earlier.id < w.id
          )
        ORDER BY w.next_try_at, w.id LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING id
"""


def _claim_next(only: str | None = None) -> InboundWebhook | None:
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, {"lease": LEASE_SECONDS, "only": only})
        row = cursor.fetchone()
    return InboundWebhook.objects.select_related("account").get(pk=row[0]) if row else None


def _process(webhook: InboundWebhook) -> None:
    if webhook.attempts > MAX_ATTEMPTS:  # the tries before never came back: it kills its workers
        _finish(
            webhook, InboundState.QUARANTINED, error=webhook.last_error or "every try ended without an answer"
        )
        return
    with structlog.contextvars.bound_contextvars(inbound_id=webhook.pk):
        try:
            result = _apply(webhook)
        except Exception as error:  # a poison event must stop neither the others nor the worker
            logger.warning("webhook_failed", attempts=webhook.attempts, exc_info=True)
            _retry(webhook, InboundState.FAILED, error=f"{type(error).__name__}: {error}")
            return
    if FactOutcome.UNKNOWN_PAYMENT in result.outcomes:
        _retry(webhook, InboundState.PARKED, error="the payment is not known here yet", result=result)
    elif FactOutcome.NOT_YET in result.outcomes:
        _retry(webhook, InboundState.PARKED, error="it fits nothing known of the payment yet", result=result)
    else:
        _finish(webhook, InboundState.PROCESSED if result.facts else InboundState.IGNORED, result=result)


@dataclass(frozen=True, slots=True)
class _Result:
    facts: Sequence[GatewayFact] = ()
    outcomes: Sequence[FactOutcome] = ()
    order_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "facts": [
                {
                    "kind": fact.kind.value,
                    "status": fact.result.status.value,
                    "reference": fact.reference,
                    "operation": fact.operation_id,
                    "outcome": outcome.value,
                }
                for fact, outcome in zip(self.facts, self.outcomes, strict=True)
            ]
        }


def _apply(webhook: InboundWebhook) -> _Result:
    facts = get_gateway(webhook.account).read_event(json.loads(bytes(webhook.payload)))
    outcomes = [apply_gateway_fact(webhook.account, fact) for fact in facts]
    return _Result(facts, outcomes, _find_order(webhook, facts))


def _find_order(webhook: InboundWebhook, facts: Iterable[GatewayFact]) -> str | None:
    payments = Payment.objects.filter(account=webhook.account)
    named = Q(pk__in=[fact.payment_id for fact in facts if fact.payment_id])
    referred = Q(gateway_reference=webhook.subject) if webhook.subject else Q(pk__in=[])
    return payments.filter(named | referred).values_list("order_id", flat=True).first()


def _retry(
    webhook: InboundWebhook, state: InboundState, *, error: str, result: _Result | None = None
) -> None:
    if webhook.attempts >= MAX_ATTEMPTS:
        logger.error("webhook_quarantined", inbound_id=webhook.pk, error=error[:200])
        _finish(webhook, InboundState.QUARANTINED, error=error, result=result)
        return
    wait = timedelta(seconds=RETRY_SECONDS[webhook.attempts - 1])
    _write(webhook, state=state, next_try_at=Now() + wait, last_error=_clean(error), **_done(result))


def _finish(
    webhook: InboundWebhook, state: InboundState, *, error: str = "", result: _Result | None = None
) -> None:
    ended = None if state == InboundState.QUARANTINED else Now()
    _write(
        webhook, state=state, next_try_at=None, last_error=_clean(error), processed_at=ended, **_done(result)
    )


def _clean(error: str) -> str:
    return redact(error)[:_MAX_ERROR]


def _done(result: _Result | None) -> dict[str, Any]:
    return {"outcome": result.to_dict(), "order_id": result.order_id} if result else {}


def _write(webhook: InboundWebhook, **columns: Any) -> None:
    """Only the worker that holds the row's last claim may say what became of it."""
    if not InboundWebhook.objects.filter(pk=webhook.pk, epoch=webhook.epoch).update(**columns):
        logger.warning("webhook_lease_lost", inbound_id=webhook.pk)


# --- operators ----------------------------------------------------------------------------------------------


def replay(inbound_id: str, *, actor: str) -> InboundWebhook:
    """Apply an archived webhook again, now, by the usual path: payments sees that nothing happens twice.

    `actor` is `user:<username>` or `system`. Raises `ConflictError` while its first try is still to come.
    """
    again = InboundWebhook.objects.filter(pk=inbound_id).exclude(state=InboundState.RECEIVED)
    if not again.update(**_replayed(actor)):
        raise ConflictError(f"{inbound_id} is about to be processed already; nothing was changed")
    process_webhook(inbound_id)
    return InboundWebhook.objects.get(pk=inbound_id)


def replay_failed_since(since: datetime, *, actor: str, account: GatewayAccount | None = None) -> int:
    """Make everything due again that came since then and did not succeed. Returns how many."""
    troubled = InboundWebhook.objects.troubled().filter(received_at__gte=since, conflict_of__isnull=True)
    if account:
        troubled = troubled.filter(account=account)
    return troubled.update(**_replayed(actor))


def _replayed(actor: str) -> dict[str, Any]:
    # A new epoch, so that a worker that still holds the row cannot end the replay with its old result.
    return {
        "state": InboundState.RECEIVED,
        "attempts": 0,
        "epoch": F("epoch") + 1,
        "next_try_at": Now(),
        "processed_at": None,
        "replayed_by": actor,
        "replayed_at": Now(),
    }


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
    replayed = list(archived.exclude(state=InboundState.RECEIVED).values_list("pk", flat=True))
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
    verifier = VERIFIERS[account.gateway]
    fetched = []
    for event in get_gateway(account).list_events(since=since):
        envelope = verifier.read_envelope(json.dumps(event).encode())
        if envelope.subject in references and (inbound_id := archive_listed(account, envelope)):
            fetched.append(inbound_id)
    return fetched
