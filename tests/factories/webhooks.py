"""Factories for the archive of webhooks and the deliveries to storefronts."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import factory
from django.utils import timezone

from payments.events import CATALOGUE
from payments.models import Event
from tests.factories.payments import ApiClientFactory, GatewayAccountFactory, OrderFactory
from webhooks.models import Delivery, Endpoint, EndpointSecret, InboundPayload, InboundWebhook
from webhooks.signatures import generate_secret
from webhooks.verifiers import stripe

SECRET = "whsec_the_secret_of_the_tests"


class InboundWebhookFactory(factory.django.DjangoModelFactory[InboundWebhook]):
    """A verified event that waits for its worker."""

    class Meta:
        model = InboundWebhook

    account = factory.SubFactory(GatewayAccountFactory)
    event_id = factory.Sequence(lambda number: f"evt_test_{number}")
    event_type = "payment_intent.succeeded"
    subject = factory.Sequence(lambda number: f"pi_test_inbound_{number}")
    payload = factory.LazyAttribute(
        lambda webhook: encode(
            make_event(webhook.event_id, type=webhook.event_type, data={"object": {"id": webhook.subject}})
        )
    )
    sha256 = factory.LazyAttribute(lambda webhook: hashlib.sha256(webhook.payload).hexdigest())
    received_at = factory.LazyFunction(timezone.now)
    next_try_at = factory.SelfAttribute("received_at")

    @classmethod
    def _create(cls, model_class: Any, *args: Any, **kwargs: Any) -> InboundWebhook:
        body = kwargs.pop("payload")
        stored = {name: kwargs.pop(name) for name in ("headers", "is_redacted") if name in kwargs}
        webhook: InboundWebhook = super()._create(model_class, *args, **kwargs)
        InboundPayload.objects.create(webhook=webhook, received_at=webhook.received_at, body=body, **stored)
        return webhook


class EndpointFactory(factory.django.DjangoModelFactory[Endpoint]):
    """An enabled endpoint for all event types, with one secret: `endpoint.secrets.get().value`."""

    class Meta:
        model = Endpoint
        skip_postgeneration_save = True

    client = factory.SubFactory(ApiClientFactory)
    url = "http://127.0.0.1:1/hooks"
    secret = factory.RelatedFactory(
        "tests.factories.webhooks.EndpointSecretFactory", factory_related_name="endpoint"
    )


class EndpointSecretFactory(factory.django.DjangoModelFactory[EndpointSecret]):
    class Meta:
        model = EndpointSecret

    endpoint = factory.SubFactory(EndpointFactory, secret=None)
    value = factory.LazyFunction(generate_secret)


class DeliveryFactory(factory.django.DjangoModelFactory[Delivery]):
    """A delivery that is due now."""

    class Meta:
        model = Delivery

    endpoint = factory.SubFactory(EndpointFactory)
    event = factory.LazyAttribute(
        lambda delivery: Event.objects.record(
            OrderFactory(client=delivery.endpoint.client),
            "order.paid",
            data=dict(CATALOGUE["order.paid"].data),
        )
    )
    next_try_at = factory.LazyFunction(timezone.now)


# --- what a gateway sends -----------------------------------------------------------------------------------


def make_event(event_id: str = "evt_1", **changes: Any) -> dict[str, Any]:
    intent = {
        "id": "pi_1",
        "object": "payment_intent",
        "amount": 12950,
        "currency": "eur",
        "status": "succeeded",
    }
    event = {
        "id": event_id,
        "object": "event",
        "type": "payment_intent.succeeded",
        "created": 1_800_000_000,
        "pending_webhooks": 1,
        "data": {"object": intent},
    }
    return event | changes


def encode(event: dict[str, Any]) -> bytes:
    return json.dumps(event, indent=2).encode()


def sign(body: bytes, *, secret: str = SECRET, age: int = 0) -> str:
    return stripe.sign(body, secret=secret, timestamp=int(time.time()) - age)
