"""Manages the storefronts' endpoints: make, change, rotate, switch, test, resend, recover, revive."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from payments.errors import ConflictError, InvalidRequestError
from payments.events import check_event_types
from payments.models import ApiClient, Order
from webhooks.addresses import RefusedAddressError, check_url
from webhooks.endpoint_health import (
    PROBE_HOURS,
    disable_endpoint,
    give_up_pending,
    hold_claims,
    tell_client,
)
from webhooks.models import Delivery, DeliveryState, Endpoint, EndpointSecret
from webhooks.notices import owe_notice
from webhooks.outbox import MOST_AT_ONCE, enqueue_missed
from webhooks.signatures import generate_secret

logger = structlog.stdlib.get_logger(__name__)

ROTATION_OVERLAP = timedelta(hours=24)
HIGHEST_RATE = 1000  # starts a second
MOST_ENDPOINTS = 50  # of one client: each is looked at by every claim, and gets every event
MOST_TESTS = 20  # on their way to one endpoint
RECOVERY_PORTION = 500  # rows for which everybody's claims wait
LOST = (DeliveryState.FAILED, DeliveryState.ABANDONED)
# What counts against an endpoint; it begins anew with a new address, and when it is enabled.
_CLEAN: dict[str, Any] = {"failing_since": None, "paused_until": None, "silences": 0}


# --- the endpoint itself ------------------------------------------------------------------------------------


def create_endpoint(
    client: ApiClient,
    url: str,
    *,
    event_types: Sequence[str] = (),
    description: str = "",
    rate_per_second: int | None = None,
    is_ordered: bool = False,
    notify_email: str = "",
) -> tuple[Endpoint, str]:
    """A new endpoint and its secret, which is shown now and never again.

    Raises `RefusedAddressError`, `InvalidRequestError` for any other field, and `ConflictError` when the client has
    `MOST_ENDPOINTS`; nothing is made then.
    """
    fields = _check_fields(
        {
            "url": url,
            "event_types": event_types,
            "description": description,
            "rate_per_second": rate_per_second,
            "is_ordered": is_ordered,
            "notify_email": notify_email,
        },
        outcome="no endpoint was made",
    )
    secret = generate_secret()
    with transaction.atomic():
        ApiClient.objects.select_for_update(no_key=True).get(pk=client.pk)  # one counts at a time
        if Endpoint.objects.listed().filter(client=client).count() >= MOST_ENDPOINTS:
            raise ConflictError(
                f"{client.name} has {MOST_ENDPOINTS} endpoints, the most it can have: remove one first; "
                "no endpoint was made"
            )
        endpoint = Endpoint.objects.create(client=client, **fields)
        EndpointSecret.objects.create(endpoint=endpoint, value=secret)
    return endpoint, secret


def update_endpoint(endpoint: Endpoint, *, actor: str, **changes: Any) -> Endpoint:
    """The endpoint with its changes: any of url, description, event_types, rate_per_second, is_ordered, notify_email.

    A new address of an enabled endpoint begins with a clean record. Raises `RefusedAddressError`,
    `InvalidRequestError`, and `ConflictError` for one that was removed.
    """
    fields = _check_fields(changes, outcome="nothing was changed")
    with transaction.atomic():
        current = _lock_kept(endpoint)
        if current.is_enabled and fields.get("url", current.url) != current.url:
            fields |= _CLEAN  # of a disabled one, `failing_since` still says what it has missed
        for name, value in fields.items():
            setattr(current, name, value)
        current.save(update_fields=list(fields))
    logger.info("webhook_endpoint_changed", endpoint_id=endpoint.pk, actor=actor, fields=sorted(fields))
    return current


def remove_endpoint(endpoint: Endpoint, *, actor: str) -> None:
    """Take it off every list, and give up what is on its way; its deliveries stay on record.

    Raises `ConflictError` when it was removed before.
    """
    reason = f"removed by {actor}"
    with transaction.atomic():
        hold_claims()
        kept = Endpoint.objects.listed().filter(pk=endpoint.pk)
        if not kept.update(removed_at=Now(), is_enabled=False, disabled_reason=reason, probe_at=None):
            raise ConflictError(f"{endpoint.pk} was removed already; nothing was changed")
        give_up_pending(endpoint, reason=reason)
    logger.info("webhook_endpoint_removed", endpoint_id=endpoint.pk, actor=actor)


def rotate_secret(endpoint: Endpoint) -> str:
    """A new secret, shown now only; the one before it signs too for 24 hours, older ones end at once.

    Raises `ConflictError` for an endpoint that was removed.
    """
    secret = generate_secret()
    with transaction.atomic():
        _lock_kept(endpoint)
        current = EndpointSecret.objects.filter(endpoint=endpoint, expires_at__isnull=True)
        older = EndpointSecret.objects.filter(endpoint=endpoint, expires_at__gt=timezone.now())
        older.update(expires_at=timezone.now())
        current.update(expires_at=timezone.now() + ROTATION_OVERLAP)
        EndpointSecret.objects.create(endpoint=endpoint, value=secret)
    return secret


def enable_endpoint(endpoint: Endpoint) -> None:
    """Deliver there again, what happens from now on. Raises `ConflictError` when enabled already, or removed."""
    if not _enable(endpoint):
        raise ConflictError(f"{endpoint.pk} is enabled already or was removed; nothing was changed")


def switch_off_endpoint(endpoint: Endpoint, *, actor: str) -> None:
    """Stop delivering there. Raises `ConflictError` when it is disabled already."""
    if not disable_endpoint(endpoint, reason=f"switched off by {actor}"):
        raise ConflictError(f"{endpoint.pk} is disabled already; nothing was changed")


def _lock_kept(endpoint: Endpoint) -> Endpoint:
    current = Endpoint.objects.locked(endpoint.pk)
    if current.removed_at:
        raise ConflictError(f"{endpoint.pk} was removed; nothing was changed")
    return current


def _enable(endpoint: Endpoint) -> bool:
    disabled = Endpoint.objects.listed().filter(pk=endpoint.pk, is_enabled=False)
    return bool(disabled.update(is_enabled=True, disabled_reason="", probe_at=None, **_CLEAN))


# --- what it was not told -----------------------------------------------------------------------------------


def send_test(endpoint: Endpoint) -> Delivery:
    """A message of type `endpoint.test`, on its way like any other.

    Raises `ConflictError` for a disabled endpoint, and while `MOST_TESTS` are on their way there.
    """
    _require_enabled(endpoint, "nothing was sent")
    waiting = endpoint.deliveries.filter(event__isnull=True, state=DeliveryState.PENDING)
    if waiting.count() >= MOST_TESTS:
        raise ConflictError(f"{MOST_TESTS} tests are on their way to {endpoint.pk}; nothing was sent")
    return Delivery.objects.create(endpoint=endpoint, next_try_at=timezone.now())


def resend_delivery(delivery: Delivery) -> None:
    """Make one delivery due again with all its tries. Raises `ConflictError` for a disabled endpoint."""
    enabled = Delivery.objects.filter(endpoint__is_enabled=True, is_probe=False, pk=delivery.pk)
    if not enabled.update(**_anew()):
        raise ConflictError(f"the endpoint of {delivery.pk} is disabled; nothing was sent")


def recover_failed(endpoint: Endpoint, *, since: datetime) -> int:
    """Make every failed or abandoned delivery made since then due again, oldest first and at most 10,000.

    Returns how many. Raises `ConflictError` for a disabled endpoint.
    """
    _require_enabled(endpoint, "nothing is sent again")
    lost = Delivery.objects.filter(endpoint=endpoint, state__in=LOST, is_probe=False, created_at__gte=since)
    oldest = list(lost.order_by("id").values_list("id", flat=True)[:MOST_AT_ONCE])
    portions = (oldest[start : start + RECOVERY_PORTION] for start in range(0, len(oldest), RECOVERY_PORTION))
    return sum(_recover(portion) for portion in portions)


def _recover(portion: Sequence[str]) -> int:
    with transaction.atomic():
        hold_claims()
        return Delivery.objects.filter(pk__in=portion, state__in=LOST).update(**_anew())


def replay_missing(endpoint: Endpoint, *, since: datetime) -> int:
    """Send the public events since then, of its types, that have no delivery there; at most 10,000, oldest first.

    So an endpoint hears of the time in which it was disabled, or not yet made. Returns how many. Raises
    `ConflictError` for a disabled endpoint.
    """
    _require_enabled(endpoint, "nothing is sent")
    return enqueue_missed(endpoint, since=since)


def _anew() -> dict[str, Any]:
    """Due now with all its tries; one that is being sent is taken when that lease has ended."""
    return {
        "state": DeliveryState.PENDING,
        "attempts": 0,
        "epoch": F("epoch") + 1,
        "next_try_at": Now(),
    }


def _require_enabled(endpoint: Endpoint, outcome: str) -> None:
    if not Endpoint.objects.filter(pk=endpoint.pk, is_enabled=True).exists():
        raise ConflictError(f"{endpoint.pk} is disabled; {outcome}")


# --- the probe ----------------------------------------------------------------------------------------------


def make_probes() -> int:
    """A signed `endpoint.probe` to each endpoint that was disabled for its failures and whose hour has come."""
    due = Endpoint.objects.listed().filter(is_enabled=False, probe_at__lte=Now())
    return sum(_make_probe(endpoint) for endpoint in due)


def _make_probe(endpoint: Endpoint) -> bool:
    probes = endpoint.deliveries.filter(
        is_probe=True, created_at__gte=endpoint.failing_since or timezone.now()
    )
    following = probes.count() + 1
    more = following < len(PROBE_HOURS)
    due = Endpoint.objects.filter(pk=endpoint.pk, is_enabled=False, probe_at=endpoint.probe_at)
    with transaction.atomic():
        if not due.update(probe_at=Now() + timedelta(hours=PROBE_HOURS[following]) if more else None):
            return False  # another worker made it
        Delivery.objects.create(endpoint=endpoint, is_probe=True, next_try_at=timezone.now())
    return True


def revive_endpoint(endpoint: Endpoint) -> bool:
    """Enable an endpoint whose probe was answered, tell of it, and send what it has missed.

    Returns False when it was enabled or removed meanwhile.
    """
    order = _find_last_order(endpoint)
    with transaction.atomic():
        if order:
            Order.objects.locked(order.pk)
        hold_claims()
        current = Endpoint.objects.locked(endpoint.pk)
        since = current.failing_since or current.created_at
        if not _enable(current):
            return False
        recovered, missed = recover_failed(current, since=since), replay_missing(current, since=since)
        if order:
            tell_client(current, order, "webhook_endpoint.enabled", reason="it answers again")
        lines = ["The endpoint answers again, and webhooks are sent to it again."]
        lines += [f"Of what it has missed, {recovered + missed} are on their way."]
        owe_notice(current, subject="A webhook endpoint was enabled again", lines=lines)
    logger.info("webhook_endpoint_revived", endpoint_id=endpoint.pk, recovered=recovered, missed=missed)
    return True


def _find_last_order(endpoint: Endpoint) -> Order | None:
    told = endpoint.deliveries.filter(event__isnull=False).select_related("event__order").order_by("-id")
    last = told.first()
    return last.event.order if last and last.event else None


# --- fields -------------------------------------------------------------------------------------------------


def _check_fields(fields: dict[str, Any], *, outcome: str) -> dict[str, Any]:
    """The fields as they are stored. Raises `InvalidRequestError` that ends with the outcome."""
    unknown = fields.keys() - _CHECKS.keys()
    if unknown:
        raise InvalidRequestError(f"an endpoint has no {sorted(unknown)[0]!r} that could be set; {outcome}")
    try:
        return {name: _CHECKS[name](value) for name, value in fields.items()}
    except RefusedAddressError as error:
        raise RefusedAddressError(f"{error.message}; {outcome}", pointer="/url") from None
    except _WrongFieldError as error:
        raise InvalidRequestError(f"{error}; {outcome}") from None


class _WrongFieldError(Exception):
    """What is wrong with a field, in words."""


def _check_address(url: Any) -> str:
    check_url(str(url), allow_private=settings.WEBHOOK_ALLOW_PRIVATE)
    return str(url)


def _check_types(event_types: Any) -> list[str]:
    if isinstance(event_types, str) or not all(isinstance(name, str) and name for name in event_types):
        raise _WrongFieldError("event_types must be a list of names")
    check_event_types(event_types)
    return sorted(set(event_types))


def _check_description(description: Any) -> str:
    if len(str(description)) > 200:
        raise _WrongFieldError("description can have 200 characters")
    return str(description)


def _check_rate(rate: Any) -> int | None:
    if rate is not None and (type(rate) is not int or not 0 < rate <= HIGHEST_RATE):
        raise _WrongFieldError(f"rate_per_second must be a whole number from 1 to {HIGHEST_RATE}, or nothing")
    return rate


def _check_email(email: Any) -> str:
    try:
        if email:
            validate_email(email)
    except ValidationError:
        raise _WrongFieldError(f"notify_email {email!r} is not an e-mail address") from None
    return str(email or "")


_CHECKS = {
    "url": _check_address,
    "event_types": _check_types,
    "description": _check_description,
    "rate_per_second": _check_rate,
    "is_ordered": bool,
    "notify_email": _check_email,
}
