"""Turns archived webhooks into facts for payments: claim, apply, and never drop one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from django.db import connection
from django.db.models.functions import Now

from payments.gateways import get_gateway
from payments.gateways.base import DisputeFact, Fact, FraudWarning
from payments.models import Payment
from payments.redaction import redact
from payments.services import FactOutcome, apply_gateway_fact, find_fact_order
from webhooks.models import InboundState, InboundWebhook

logger = structlog.stdlib.get_logger(__name__)

BATCH = 200
LEASE_SECONDS = 120
# After the first, second ... try without success; the eighth quarantines.
RETRY_SECONDS = (5, 30, 120, 600, 3600, 4 * 3600, 12 * 3600)
MAX_ATTEMPTS = len(RETRY_SECONDS) + 1
_MAX_ERROR = 2000


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
# that falls due again. A row waits while an earlier one about the same payment has its first try before it, or is
# having it, so that facts usually come in order; one that fails, or kills its worker, does not hold up the others,
# because payments goes by rank.
# With thousands waiting the plan must not depend on statistics from before they came: the order is that of the index
# on `next_try_at` alone, so that the first fit ends the search, and the expression on the state leaves only the index
# on the subject for the earlier ones.
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
              AND earlier.state || '' = 'received' AND earlier.id < w.id
              AND (earlier.attempts = 0 OR earlier.next_try_at > clock_timestamp())
          )
        ORDER BY w.next_try_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING id
"""


def _claim_next(only: str | None = None) -> InboundWebhook | None:
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, {"lease": LEASE_SECONDS, "only": only})
        row = cursor.fetchone()
    return InboundWebhook.objects.select_related("account", "stored").get(pk=row[0]) if row else None


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
    facts: Sequence[Fact] = ()
    outcomes: Sequence[FactOutcome] = ()
    order_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "facts": [
                {**describe_fact(fact), "reference": fact.reference, "outcome": outcome.value}
                for fact, outcome in zip(self.facts, self.outcomes, strict=True)
            ]
        }


def describe_fact(fact: Fact) -> dict[str, str]:
    """What is kept of a fact in the archive: kind, status, amount, and our operation's id when it has one."""
    if isinstance(fact, DisputeFact):
        return {"kind": "dispute", "status": fact.state.value, "amount": str(fact.amount)}
    if isinstance(fact, FraudWarning):
        return {"kind": "fraud warning", "status": fact.reason or "reported"}
    result = fact.result
    return {
        "kind": fact.kind.value,
        "status": result.status.value,
        "amount": str(result.amount),
        "operation": fact.operation_id,
    }


def _apply(webhook: InboundWebhook) -> _Result:
    """One fact that fails does not keep back the others of its batch; they are applied again with the next try."""
    facts = read_facts(webhook)
    outcomes: list[FactOutcome] = []
    failures: list[Exception] = []
    for fact in facts:
        try:
            outcomes.append(apply_gateway_fact(webhook.account, fact))
        except Exception as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return _Result(facts, outcomes, _find_order(webhook, facts))


def read_facts(webhook: InboundWebhook) -> Sequence[Fact]:
    """What an archived event says; asks nobody. Raises `InvalidRequestError` for one that cannot be read."""
    return get_gateway(webhook.account).read_event(json.loads(webhook.payload))


def _find_order(webhook: InboundWebhook, facts: Iterable[Fact]) -> str | None:
    """What the facts are about; an event without any may still name a payment."""
    orders = (find_fact_order(webhook.account, fact) for fact in facts)
    if found := next(filter(None, orders), None):
        return found
    referred = Payment.objects.filter(account=webhook.account, gateway_reference=webhook.subject or "-")
    return referred.values_list("order_id", flat=True).first()


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
    # That it was parked may be known to on-call; that nobody tries it any more is news.
    end = {"alarmed_at": None} if state == InboundState.QUARANTINED else {"processed_at": Now()}
    _write(webhook, state=state, next_try_at=None, last_error=_clean(error), **end, **_done(result))


def _clean(error: str) -> str:
    """As PostgreSQL keeps it: without card data, NUL and half a surrogate pair, whatever an event made it say."""
    text = redact(error.replace("\0", "\\x00")).encode(errors="backslashreplace").decode()
    return text[:_MAX_ERROR]


def _done(result: _Result | None) -> dict[str, Any]:
    return {"outcome": result.to_dict(), "order_id": result.order_id} if result else {}


def _write(webhook: InboundWebhook, **columns: Any) -> None:
    """Only the worker that holds the row's last claim may say what became of it."""
    if not InboundWebhook.objects.filter(pk=webhook.pk, epoch=webhook.epoch).update(**columns):
        logger.warning("webhook_lease_lost", inbound_id=webhook.pk)
