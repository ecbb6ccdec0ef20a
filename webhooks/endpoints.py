"""Manages the storefronts' endpoints: make, rotate, switch, test, resend."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from payments.errors import ConflictError
from payments.models import ApiClient
from webhooks.addresses import check_url
from webhooks.models import Delivery, DeliveryState, Endpoint, EndpointSecret
from webhooks.outbound import disable_endpoint
from webhooks.signatures import generate_secret

ROTATION_OVERLAP = timedelta(hours=24)


def create_endpoint(
    client: ApiClient, url: str, *, event_types: Sequence[str] = (), description: str = ""
) -> tuple[Endpoint, str]:
    """A new endpoint and its secret, which is shown now and never again. Raises `RefusedAddressError`."""
    check_url(url, allow_private=bool(getattr(settings, "WEBHOOK_ALLOW_PRIVATE", False)))
    secret = generate_secret()
    with transaction.atomic():
        endpoint = Endpoint.objects.create(
            client=client, url=url, event_types=sorted(event_types), description=description
        )
        EndpointSecret.objects.create(endpoint=endpoint, value=secret)
    return endpoint, secret


def rotate_secret(endpoint: Endpoint) -> str:
    """A new secret, shown now only; the one before it signs too for 24 hours, older ones end at once."""
    secret = generate_secret()
    with transaction.atomic():
        Endpoint.objects.locked(endpoint.pk)
        current = EndpointSecret.objects.filter(endpoint=endpoint, expires_at__isnull=True)
        older = EndpointSecret.objects.filter(endpoint=endpoint, expires_at__gt=timezone.now())
        older.update(expires_at=timezone.now())
        current.update(expires_at=timezone.now() + ROTATION_OVERLAP)
        EndpointSecret.objects.create(endpoint=endpoint, value=secret)
    return secret


def enable_endpoint(endpoint: Endpoint) -> None:
    """Deliver there again, what happens from now on. Raises `ConflictError` when it is enabled already."""
    disabled = Endpoint.objects.filter(pk=endpoint.pk, is_enabled=False)
    if not disabled.update(is_enabled=True, disabled_reason="", failing_since=None):
        raise ConflictError(f"{endpoint.pk} is enabled already; nothing was changed")


def switch_off_endpoint(endpoint: Endpoint, *, actor: str) -> None:
    """Stop delivering there. Raises `ConflictError` when it is disabled already."""
    if not disable_endpoint(endpoint, reason=f"switched off by {actor}"):
        raise ConflictError(f"{endpoint.pk} is disabled already; nothing was changed")


def send_test(endpoint: Endpoint) -> Delivery:
    """A message of type `endpoint.test`, on its way like any other. Raises `ConflictError` if disabled."""
    if not Endpoint.objects.filter(pk=endpoint.pk, is_enabled=True).exists():
        raise ConflictError(f"{endpoint.pk} is disabled; nothing was sent")
    return Delivery.objects.create(endpoint=endpoint, next_try_at=timezone.now())


def resend_delivery(delivery: Delivery) -> None:
    """Make one delivery due again with all its tries. Raises `ConflictError` for a disabled endpoint."""
    enabled = Delivery.objects.filter(Q(endpoint__is_enabled=True), pk=delivery.pk)
    if not enabled.update(state=DeliveryState.PENDING, attempts=0, epoch=F("epoch") + 1, next_try_at=Now()):
        raise ConflictError(f"the endpoint of {delivery.pk} is disabled; nothing was sent")
