"""Receives a gateway's webhook: verify, archive once, and only then say yes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog
from django.db import Error as DatabaseFailure
from django.db import connection

from payments import sql
from payments.errors import WebhookSignatureError
from payments.ids import new_id
from payments.models import GatewayAccount
from payments.redaction import contains_card_data, redact_data
from webhooks.accounts import Receiver, find_receiver
from webhooks.models import InboundSource
from webhooks.verifiers import VERIFIERS, Envelope

logger = structlog.stdlib.get_logger(__name__)

MAX_BODY_BYTES = 256 * 1024
REJECTED_ROWS_PER_HOUR = 500  # per account; what is more is only counted
KEPT_HEADERS = ("content-type", "user-agent", "stripe-signature", "x-request-id")
_MAX_HEADER = 500


class Verdict(StrEnum):
    """What became of a delivery."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"  # a known event id with other content: kept, and a person must look
    UNKNOWN_ACCOUNT = "unknown_account"
    NO_SECRET = "no_secret"  # noqa: S105
    TOO_LARGE = "body_too_large"
    INVALID_SIGNATURE = "webhook_signature"
    OUTSIDE_WINDOW = "webhook_replay"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The verdict, and the archive's row when there is one."""

    verdict: Verdict
    inbound_id: str = ""
    detail: str = ""


def receive(gateway: str, account: str, *, headers: Mapping[str, str], body: bytes, ip: str = "") -> Receipt:
    """Verify one delivery and commit it to the archive; `headers` has lower-case names.

    At most three statements and one commit. Raises `django.db.Error` when the archive cannot be written: the
    gateway must then be told to come again.
    """
    receiver = find_receiver(gateway, account) if gateway in VERIFIERS else None
    if receiver is None:
        return Receipt(Verdict.UNKNOWN_ACCOUNT)
    if not receiver.secrets:
        logger.error("webhook_without_secret", gateway=gateway, account=account)
        return Receipt(Verdict.NO_SECRET)
    if len(body) > MAX_BODY_BYTES:
        return _reject(receiver, Verdict.TOO_LARGE, f"more than {MAX_BODY_BYTES} bytes", b"", len(body), ip)
    verifier = VERIFIERS[gateway]
    try:
        index = verifier.verify(headers=headers, body=body, secrets=receiver.secrets, now=time.time())
        envelope = verifier.read_envelope(body)
    except WebhookSignatureError as error:
        return _reject(receiver, Verdict(error.code), error.message, body, len(body), ip)
    delivery = _prepare(
        receiver.account_id, envelope, body, headers, verified_with=receiver.secret_names[index]
    )
    return _archive(gateway, delivery)


def archive_listed(account: GatewayAccount, envelope: Envelope) -> str:
    """Keep an event of the gateway's own list. Returns the new row's id, or "" when the event is known."""
    body = json.dumps(envelope.payload, separators=(",", ":")).encode()
    delivery = _prepare(
        account.pk,
        envelope,
        body,
        {},
        source=InboundSource.GATEWAY_LIST,
        verified_with="the gateway's own list",
    )
    return delivery.row_id if _insert(delivery) else ""


# --- the archive --------------------------------------------------------------------------------------------

_INSERT = """
    INSERT INTO webhooks_inboundwebhook (
        id, account_id, event_id, event_type, subject, source,
        payload, is_redacted, sha256, headers, verified_with, received_at, duplicates,
        conflict_of_id, state, attempts, epoch, next_try_at, last_error, outcome, replayed_by
    ) VALUES (
        %s, %s, %s, %s, %s, %s,
        %s, %s, %s, %s::jsonb, %s, clock_timestamp(), 0,
        %s, %s, 0, 0, clock_timestamp(), %s, '{}', ''
    )
"""
# Names the partial unique index that is the dedup key.
_INSERT_EVENT = _INSERT + "ON CONFLICT (account_id, event_id) WHERE conflict_of_id IS NULL DO NOTHING"
_INSERT_CONFLICT = (
    _INSERT + "ON CONFLICT (account_id, event_id, sha256) WHERE conflict_of_id IS NOT NULL"
    " DO UPDATE SET duplicates = webhooks_inboundwebhook.duplicates + 1"
)
_COUNT_DUPLICATE = """
    UPDATE webhooks_inboundwebhook SET duplicates = duplicates + 1
    WHERE account_id = %s AND event_id = %s AND conflict_of_id IS NULL AND sha256 = %s
    RETURNING id
"""
_SELECT_EVENT = """
    SELECT id, source, payload FROM webhooks_inboundwebhook
    WHERE account_id = %s AND event_id = %s AND conflict_of_id IS NULL
"""
_COUNT_BY_ID = "UPDATE webhooks_inboundwebhook SET duplicates = duplicates + 1 WHERE id = %s"


@dataclass(frozen=True, slots=True)
class _Delivery:
    row_id: str
    account_id: str
    envelope: Envelope
    source: str
    payload: bytes
    is_redacted: bool
    sha256: str
    headers: str
    verified_with: str


def _prepare(
    account_id: str,
    envelope: Envelope,
    body: bytes,
    headers: Mapping[str, str],
    *,
    verified_with: str,
    source: str = InboundSource.WEBHOOK,
) -> _Delivery:
    is_redacted = contains_card_data(envelope.payload) is not None
    return _Delivery(
        row_id=new_id("inb"),
        account_id=account_id,
        envelope=envelope,
        source=source,
        payload=json.dumps(redact_data(envelope.payload)).encode() if is_redacted else body,
        is_redacted=is_redacted,
        sha256=hashlib.sha256(body).hexdigest(),
        headers=json.dumps({name: headers[name][:_MAX_HEADER] for name in KEPT_HEADERS if name in headers}),
        verified_with=verified_with,
    )


def _archive(gateway: str, delivery: _Delivery) -> Receipt:
    if _insert(delivery):
        return Receipt(Verdict.STORED, delivery.row_id)
    with connection.cursor() as cursor:
        cursor.execute(_COUNT_DUPLICATE, [delivery.account_id, delivery.envelope.event_id, delivery.sha256])
        if row := cursor.fetchone():
            return Receipt(Verdict.DUPLICATE, row[0])
    return _compare(gateway, delivery)


def _insert(delivery: _Delivery) -> bool:
    return bool(sql.run(_INSERT_EVENT, _columns(delivery, conflict_of=None, state="received", error="")))


def _compare(gateway: str, delivery: _Delivery) -> Receipt:
    """Another body under a known id: a redelivery that the gateway wrote anew, or a conflict."""
    with connection.cursor() as cursor:
        cursor.execute(_SELECT_EVENT, [delivery.account_id, delivery.envelope.event_id])
        first_id, source, payload = cursor.fetchone()
        # The list may render an event by another API version, so its text proves nothing.
        is_same = source == InboundSource.GATEWAY_LIST or VERIFIERS[gateway].is_same_event(
            json.loads(bytes(payload)), json.loads(delivery.payload)
        )
        if is_same:
            cursor.execute(_COUNT_BY_ID, [first_id])
            return Receipt(Verdict.DUPLICATE, first_id)
        error = f"the event id is that of {first_id}, the content is not; nothing was applied"
        cursor.execute(
            _INSERT_CONFLICT, _columns(delivery, conflict_of=first_id, state="quarantined", error=error)
        )
    logger.error("webhook_conflict", inbound_id=first_id, event_id=delivery.envelope.event_id)
    return Receipt(Verdict.CONFLICT, first_id)


def _columns(delivery: _Delivery, *, conflict_of: str | None, state: str, error: str) -> list[Any]:
    envelope = delivery.envelope
    return [
        delivery.row_id,
        delivery.account_id,
        envelope.event_id,
        envelope.event_type,
        envelope.subject,
        delivery.source,
        delivery.payload,
        delivery.is_redacted,
        delivery.sha256,
        delivery.headers,
        delivery.verified_with,
        conflict_of,
        state,
        error,
    ]


# --- refusals -----------------------------------------------------------------------------------------------

_COUNT_REJECTED = """
    INSERT INTO webhooks_rejecteddelivery (account_id, hour, reason, detail, sha256, size, ip, times, last_at)
    SELECT %(account)s, date_trunc('hour', now()), %(reason)s, %(detail)s,
           CASE WHEN count(*) < %(cap)s THEN %(sha256)s ELSE '' END, %(size)s, %(ip)s, 1, clock_timestamp()
    FROM webhooks_rejecteddelivery WHERE account_id = %(account)s AND hour = date_trunc('hour', now())
    ON CONFLICT (hour, account_id, reason, sha256) DO UPDATE
    SET times = webhooks_rejecteddelivery.times + 1, last_at = excluded.last_at, ip = excluded.ip
"""


def _reject(receiver: Receiver, verdict: Verdict, detail: str, body: bytes, size: int, ip: str) -> Receipt:
    """Leave a trace without the body. A trace that cannot be written must not turn a refusal into a retry."""
    trace = {
        "account": receiver.account_id,
        "reason": verdict.value,
        "detail": detail[:200],
        "sha256": hashlib.sha256(body).hexdigest() if body else "",
        "size": size,
        "ip": ip or None,
        "cap": REJECTED_ROWS_PER_HOUR,
    }
    try:
        with connection.cursor() as cursor:
            cursor.execute(_COUNT_REJECTED, trace)
    except DatabaseFailure as error:
        logger.warning("webhook_rejection_not_counted", error=str(error))
    return Receipt(verdict, detail=detail)
