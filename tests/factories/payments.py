"""Factories for the tables of the floor."""

from __future__ import annotations

from typing import Any, cast

import factory
from django.utils import timezone

from payments import ids
from payments.kinds import OperationKind
from payments.models import (
    ApiClient,
    ApiKey,
    Attempt,
    AttemptState,
    Event,
    GatewayAccount,
    GatewaySecret,
    Operation,
    OperationState,
    Order,
    OrderState,
    Payment,
    PaymentState,
    SagaRun,
    SagaState,
    StockItem,
)
from payments.models.client import Scope


class ApiClientFactory(factory.django.DjangoModelFactory[ApiClient]):
    class Meta:
        model = ApiClient

    name = factory.Sequence(lambda number: f"shop-{number}")


class ApiKeyFactory(factory.django.DjangoModelFactory[ApiKey]):
    """A key with every scope. Its secret, which no row keeps, is on the instance: `key.secret`."""

    class Meta:
        model = ApiKey

    client = factory.SubFactory(ApiClientFactory)
    name = "test key"
    scopes = factory.LazyFunction(lambda: list(Scope.values))

    @classmethod
    def _create(cls, model_class: type[ApiKey], *args: Any, **kwargs: Any) -> ApiKey:
        key, secret = model_class.objects.create_key(**kwargs)
        key.secret = secret  # type: ignore[attr-defined]
        return cast(ApiKey, key)


class GatewayAccountFactory(factory.django.DjangoModelFactory[GatewayAccount]):
    class Meta:
        model = GatewayAccount

    gateway = "stripe"
    name = factory.Sequence(lambda number: f"account-{number}")
    api_key = "sk_test_of_the_factory"
    api_base = "http://127.0.0.1:1"  # nobody listens: a test that calls a gateway says so


class GatewaySecretFactory(factory.django.DjangoModelFactory[GatewaySecret]):
    class Meta:
        model = GatewaySecret

    account = factory.SubFactory(GatewayAccountFactory)
    value = factory.Sequence(lambda number: f"whsec_test_{number:032}")


class OrderFactory(factory.django.DjangoModelFactory[Order]):
    """A placed order of 129.50 EUR without a payment; PaymentFactory makes both."""

    class Meta:
        model = Order

    client = factory.SubFactory(ApiClientFactory)
    reference = factory.Sequence(lambda number: f"web-{number}")
    amount = 12950
    currency = "EUR"
    customer_id = "cus_42"
    customer_email = "buyer@example.com"
    billing = factory.LazyFunction(lambda: {"country": "DE", "postal_code": "10115"})
    shipping = factory.LazyFunction(lambda: {"country": "DE"})
    lines = factory.LazyFunction(lambda: [{"sku": "MUG-1", "quantity": 2, "unit_amount": 6475}])
    context = factory.LazyFunction(
        lambda: {"ip": "198.51.100.7", "user_agent": "Mozilla/5.0", "device": "d_abc"}
    )
    created_at = factory.LazyFunction(timezone.now)
    updated_at = factory.SelfAttribute("created_at")


class PaymentFactory(factory.django.DjangoModelFactory[Payment]):
    """A payment that is being processed; with `is_captured=True` a paid one."""

    class Meta:
        model = Payment

    class Params:
        is_authorized = factory.Trait(
            state=PaymentState.REQUIRES_CAPTURE,
            authorized=factory.SelfAttribute("amount"),
            gateway_reference=factory.Sequence(lambda number: f"pi_test_{number}"),
        )
        is_captured = factory.Trait(
            state=PaymentState.SUCCEEDED,
            authorized=factory.SelfAttribute("amount"),
            captured=factory.SelfAttribute("amount"),
            gateway_reference=factory.Sequence(lambda number: f"pi_test_{number}"),
        )

    order = factory.SubFactory(OrderFactory)
    account = factory.SubFactory(GatewayAccountFactory)
    amount = factory.SelfAttribute("order.amount")
    currency = factory.SelfAttribute("order.currency")
    capture_method = factory.SelfAttribute("order.capture_method")
    payment_method = "pm_card_visa"
    created_at = factory.SelfAttribute("order.created_at")
    updated_at = factory.SelfAttribute("created_at")


class PaidOrderFactory(OrderFactory):
    """An order that is paid, with its captured payment (but no operations and no ledger entries)."""

    class Meta:
        skip_postgeneration_save = True

    state = OrderState.PAID
    payment = factory.RelatedFactory(PaymentFactory, factory_related_name="order", is_captured=True)


class AttemptFactory(factory.django.DjangoModelFactory[Attempt]):
    class Meta:
        model = Attempt

    payment = factory.SubFactory(PaymentFactory)
    account = factory.SelfAttribute("payment.account")
    number = factory.LazyAttribute(lambda attempt: attempt.payment.attempts.count() + 1)
    state = AttemptState.DONE
    payment_method = factory.SelfAttribute("payment.payment_method")
    created_at = factory.LazyFunction(timezone.now)


class OperationFactory(factory.django.DjangoModelFactory[Operation]):
    """A finished operation of its payment's whole amount; refunds get ids of their own prefix."""

    class Meta:
        model = Operation

    id = factory.LazyAttribute(
        lambda operation: ids.new_id("re" if operation.kind == OperationKind.REFUND else "op")
    )
    attempt = factory.SubFactory(AttemptFactory)
    payment = factory.SelfAttribute("attempt.payment")
    account = factory.SelfAttribute("attempt.account")
    kind = OperationKind.CAPTURE
    state = OperationState.SUCCEEDED
    amount = factory.SelfAttribute("payment.amount")
    currency = factory.SelfAttribute("payment.currency")
    gateway_key = factory.LazyAttribute(lambda operation: f"key:{operation.id}")
    created_at = factory.LazyFunction(timezone.now)
    resolved_at = factory.LazyAttribute(
        lambda operation: operation.created_at if operation.state == OperationState.SUCCEEDED else None
    )


class EventFactory(factory.django.DjangoModelFactory[Event]):
    """The next event of its order."""

    class Meta:
        model = Event

    order = factory.SubFactory(OrderFactory)
    client = factory.SelfAttribute("order.client")
    type = "order.paid"
    data = factory.LazyAttribute(lambda event: {"order": {"id": event.order.pk, "state": event.order.state}})
    sequence = factory.LazyAttribute(lambda event: event.order.events.count() + 1)
    created_at = factory.LazyFunction(timezone.now)


class SagaRunFactory(factory.django.DjangoModelFactory[SagaRun]):
    """A checkout that is due now."""

    class Meta:
        model = SagaRun

    kind = "checkout"
    definition_version = 1
    order = factory.SubFactory(OrderFactory)
    subject = factory.SelfAttribute("order.id")
    state = SagaState.PENDING
    wake_at = factory.LazyFunction(timezone.now)
    created_at = factory.LazyFunction(timezone.now)
    updated_at = factory.SelfAttribute("created_at")


class StockItemFactory(factory.django.DjangoModelFactory[StockItem]):
    class Meta:
        model = StockItem

    sku = factory.Sequence(lambda number: f"SKU-{number}")
    on_hand = 10
