"""Receives a gateway's webhook: verify, archive once, and only then say yes."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import structlog
from django.db import Error as DatabaseFailure
from django.db import connection

from payments import sql
from payments.errors import WebhookReplayError, WebhookSignatureError
from payments.ids import new_id
from payments.models import GatewayAccount
from payments.networks import is_within
from payments.redaction import contains_card_data, redact, redact_data
from webhooks.accounts import Receiver, find_receiver
from webhooks.forgeries import THROTTLED, count_forgery
from webhooks.models import InboundSource
from webhooks.schemes import find_verifier
from webhooks.verifiers import CHALLENGES, Envelope, Verifier, read_everything

T = TypeVar("T")
logger = structlog.stdlib.get_logger(__name__)

MAX_BODY_BYTES = 256 * 1024
REJECTED_ROWS_PER_HOUR = 500  # per account; what is more is only counted
CONFLICTS_PER_EVENT = 10  # with other content under one id; what is more is only counted
# A sender of many bad signatures makes us look for new secrets this often, and no oftener.
THROTTLED_REFRESH_SECONDS = 1.0
KEPT_HEADERS = (
    "content-type",
    "user-agent",
    "stripe-signature",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "x-request-id",
)
_MAX_HEADER = 500
_NO_TEXT = re.compile(r"[^\x20-\x7e\xa0-\xff]")  # jsonb takes neither NUL nor half a surrogate pair


class Verdict(StrEnum):
    """What became of a delivery."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"  # a known event id with other content: kept, and a person must look
    UNKNOWN_ACCOUNT = "unknown_account"
    NO_SECRET = "no_secret"  # noqa: S105
    TOO_LARGE = "body_too_large"
    FOREIGN_ADDRESS = "foreign_address"
    THROTTLED = "too_many_bad_signatures"
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
    verifier = find_verifier(gateway)
    receiver = find_receiver(gateway, account) if verifier else None
    if verifier is None or receiver is None:
        return Receipt(Verdict.UNKNOWN_ACCOUNT)
    if not receiver.secrets:
        logger.error("webhook_without_secret", gateway=gateway, account=account)
        return Receipt(Verdict.NO_SECRET)
    if receiver.networks is not None and not is_within(ip, receiver.networks):
        foreign = "not from one of the account's networks"
        return _turn_away(gateway, receiver, Verdict.FOREIGN_ADDRESS, foreign, ip=ip)
    if len(body) > MAX_BODY_BYTES:
        too_large = f"more than {MAX_BODY_BYTES} bytes"
        return _turn_away(gateway, receiver, Verdict.TOO_LARGE, too_large, size=len(body), ip=ip)
    arrival = _Arrival(gateway, account, headers, body, ip)
    try:
        verified_with = _verify(verifier, receiver, arrival)
        envelope = _ask(lambda: verifier.read_envelope(body, headers))
        delivery = _prepare(receiver.account_id, envelope, body, headers, verified_with=verified_with)
    except WebhookSignatureError as error:
        return _reject(receiver, Verdict(error.code), error.message, body, size=len(body), ip=ip)
    except _TooManyForgeriesError:
        THROTTLED.labels(gateway).inc()
        return Receipt(Verdict.THROTTLED)
    return _archive(verifier, delivery)


def answer_challenge(gateway: str, account: str, query: Mapping[str, str]) -> str:
    """What a gateway wants to hear before it delivers to an account's address; "" when it asked nothing."""
    answer = CHALLENGES.get(gateway)
    receiver = find_receiver(gateway, account) if answer else None
    return answer(query, receiver.secrets) if answer and receiver else ""


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


# --- the signature ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Arrival:
    gateway: str
    account: str
    headers: Mapping[str, str]
    body: bytes
    ip: str


class _TooManyForgeriesError(Exception):
    """The signature is bad, and so were the sender's before."""


def _verify(verifier: Verifier, receiver: Receiver, arrival: _Arrival) -> str:
    """The name of the secret that signed. A right signature is never held up by the wrong ones before it.

    Raises `WebhookSignatureError`, or `_TooManyForgeriesError` instead when the sender is over the limit.
    """
    try:
        return _find_signer(verifier, receiver, arrival)
    except WebhookReplayError:
        raise
    except WebhookSignatureError as error:
        return _verify_again(verifier, receiver, arrival, error)


def _verify_again(
    verifier: Verifier, stale: Receiver, arrival: _Arrival, refusal: WebhookSignatureError
) -> str:
    """With the secrets as they are now: a new one may have signed, which this process has not heard of yet."""
    is_over = count_forgery(arrival.ip)
    max_age = THROTTLED_REFRESH_SECONDS if is_over else 0
    fresh = find_receiver(arrival.gateway, arrival.account, max_age=max_age)
    if fresh is not None and fresh.secrets != stale.secrets:
        try:
            return _find_signer(verifier, fresh, arrival)
        except WebhookReplayError:
            raise
        except WebhookSignatureError as error:
            refusal = error
    if is_over:
        raise _TooManyForgeriesError
    raise refusal


def _find_signer(verifier: Verifier, receiver: Receiver, arrival: _Arrival) -> str:
    index = _ask(
        lambda: verifier.verify(
            headers=arrival.headers, body=arrival.body, secrets=receiver.secrets, now=time.time()
        )
    )
    return receiver.secret_names[index]


def _ask(question: Callable[[], T]) -> T:
    """What a verifier says. Whatever it raises beside its refusals is one too: nothing is taken for verified."""
    try:
        return question()
    except WebhookSignatureError:
        raise
    except Exception as error:
        logger.exception("webhook_verifier_failed")
        raise WebhookSignatureError(f"the verifier failed: {type(error).__name__}") from error


# --- the archive --------------------------------------------------------------------------------------------

# One statement, so that neither half can be without the other; it touches one row for a new event, none for a known.
_INSERT = """
    WITH event AS (
        INSERT INTO webhooks_inboundwebhook (
            id, account_id, event_id, event_type, subject, source, sha256, verified_with, received_at, duplicates,
            conflict_of_id, state, attempts, epoch, next_try_at, last_error, outcome, replayed_by
        ) VALUES (
            %s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp(), 0,
            %s, %s, 0, 0, clock_timestamp(), %s, '{{}}', ''
        )
        {on_conflict} RETURNING id, received_at
    )
    INSERT INTO webhooks_inboundpayload (webhook_id, received_at, body, headers, is_redacted)
    SELECT id, received_at, %s::bytea, %s::jsonb, %s FROM event
    ON CONFLICT DO NOTHING
"""
# Names the partial unique index that is the dedup key.
_INSERT_EVENT = _INSERT.format(
    on_conflict="ON CONFLICT (account_id, event_id) WHERE conflict_of_id IS NULL DO NOTHING"
)
_INSERT_CONFLICT = _INSERT.format(
    on_conflict="ON CONFLICT (account_id, event_id, sha256) WHERE conflict_of_id IS NOT NULL"
    " DO UPDATE SET duplicates = webhooks_inboundwebhook.duplicates + 1"
)
# Counts an exact repetition, and otherwise gives what it takes to tell a rewritten one from a conflict.
_COUNT_DUPLICATE = """
    WITH event AS (
        SELECT id, source, sha256 FROM webhooks_inboundwebhook
        WHERE account_id = %(account)s AND event_id = %(event)s AND conflict_of_id IS NULL
    ), counted AS (
        UPDATE webhooks_inboundwebhook repeated SET duplicates = duplicates + 1
        FROM event WHERE repeated.id = event.id AND event.sha256 = %(sha256)s
        RETURNING repeated.id
    )
    SELECT event.id, counted.id IS NOT NULL, event.source, stored.body,
           ARRAY(
               SELECT id FROM webhooks_inboundwebhook
               WHERE account_id = %(account)s AND event_id = %(event)s AND conflict_of_id IS NOT NULL
               ORDER BY id LIMIT %(cap)s
           )
    FROM event LEFT JOIN counted USING (id)
    LEFT JOIN webhooks_inboundpayload stored ON stored.webhook_id = event.id AND counted.id IS NULL
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
    content = envelope.content or body
    # Of what would be stored, which may say more than what is read: see `read_everything`.
    is_redacted = contains_card_data(read_everything(content)) is not None
    return _Delivery(
        row_id=new_id("inb"),
        account_id=account_id,
        envelope=envelope,
        source=source,
        payload=json.dumps(redact_data(envelope.payload)).encode() if is_redacted else content,
        is_redacted=is_redacted,
        sha256=hashlib.sha256(body).hexdigest(),
        headers=json.dumps(
            {name: _mask_header(name, headers[name]) for name in KEPT_HEADERS if name in headers}
        ),
        verified_with=verified_with,
    )


def _mask_header(name: str, value: str) -> str:
    """As it came, without card data; a signature, which is digits, was just found right."""
    text = _NO_TEXT.sub("?", value[:_MAX_HEADER])
    return text if name.endswith("signature") else redact(text)


def _archive(verifier: Verifier, delivery: _Delivery) -> Receipt:
    """At most three statements, of which one writes: each is a transaction of its own."""
    if _insert(delivery):
        return Receipt(Verdict.STORED, delivery.row_id)
    key: dict[str, str | int] = {
        "account": delivery.account_id,
        "event": delivery.envelope.event_id,
        "sha256": delivery.sha256,
        "cap": CONFLICTS_PER_EVENT,
    }
    with connection.cursor() as cursor:
        cursor.execute(_COUNT_DUPLICATE, key)
        row = cursor.fetchone()
    if row is None:
        raise DatabaseFailure(f"the event {delivery.envelope.event_id} was removed meanwhile")
    known = _Known(*row)
    if known.is_counted:
        return Receipt(Verdict.DUPLICATE, known.row_id)
    return _compare(verifier, delivery, known)


def _insert(delivery: _Delivery) -> bool:
    return bool(sql.run(_INSERT_EVENT, _columns(delivery, conflict_of=None, state="received", error="")))


@dataclass(frozen=True, slots=True)
class _Known:
    """The event whose id came again; `conflicts` are the first rows with other content under it."""

    row_id: str
    is_counted: bool
    source: str
    payload: bytes | None
    conflicts: list[str]


def _compare(verifier: Verifier, delivery: _Delivery, known: _Known) -> Receipt:
    """Another body under a known id: a redelivery that the gateway wrote anew, or a conflict."""
    if _is_same(verifier, delivery, known):
        _count(known.row_id)
        return Receipt(Verdict.DUPLICATE, known.row_id)
    error = f"the event id is that of {known.row_id}, the content is not; nothing was applied"
    if len(known.conflicts) < CONFLICTS_PER_EVENT:
        with connection.cursor() as cursor:
            cursor.execute(
                _INSERT_CONFLICT,
                _columns(delivery, conflict_of=known.row_id, state="quarantined", error=error),
            )
    else:  # enough to look at; the newest of them counts the rest
        _count(known.conflicts[-1])
    logger.error("webhook_conflict", inbound_id=known.row_id, event_id=delivery.envelope.event_id)
    return Receipt(Verdict.CONFLICT, known.row_id)


def _is_same(verifier: Verifier, delivery: _Delivery, known: _Known) -> bool:
    """The list may render an event by another API version, so its text proves nothing; nor does one that is purged."""
    if known.source == InboundSource.GATEWAY_LIST or not known.payload:
        return True
    try:
        return verifier.is_same_event(json.loads(bytes(known.payload)), json.loads(delivery.payload))
    except WebhookSignatureError:  # redacted beyond reading
        return False


def _count(row_id: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_COUNT_BY_ID, [row_id])


def _columns(delivery: _Delivery, *, conflict_of: str | None, state: str, error: str) -> list[Any]:
    envelope = delivery.envelope
    return [
        delivery.row_id,
        delivery.account_id,
        envelope.event_id,
        envelope.event_type,
        envelope.subject,
        delivery.source,
        delivery.sha256,
        delivery.verified_with,
        conflict_of,
        state,
        error,
        delivery.payload,
        delivery.headers,
        delivery.is_redacted,
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


def _turn_away(
    gateway: str, receiver: Receiver, verdict: Verdict, detail: str, *, size: int = 0, ip: str
) -> Receipt:
    """Refuse what nobody has looked at the signature of; it counts as a bad one, or a flood of it would be written."""
    if count_forgery(ip):
        THROTTLED.labels(gateway).inc()
        return Receipt(Verdict.THROTTLED)
    return _reject(receiver, verdict, detail, size=size, ip=ip)


def _reject(
    receiver: Receiver, verdict: Verdict, detail: str, body: bytes = b"", *, size: int = 0, ip: str
) -> Receipt:
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
