"""Factories for customers, what they have saved, and disputes about what they paid."""

from __future__ import annotations

from datetime import timedelta

import factory
from django.utils import timezone

from payments.kinds import DisputeStage, DisputeState
from payments.models import Customer, Dispute, SavedPaymentMethod
from tests.factories.payments import ApiClientFactory, GatewayAccountFactory, PaymentFactory


class CustomerFactory(factory.django.DjangoModelFactory[Customer]):
    class Meta:
        model = Customer

    client = factory.SubFactory(ApiClientFactory)
    storefront_id = factory.Sequence(lambda number: f"cus-{number}")
    email = "buyer@example.com"
    name = "Bea Buyer"
    created_at = factory.LazyFunction(timezone.now)


class SavedPaymentMethodFactory(factory.django.DjangoModelFactory[SavedPaymentMethod]):
    """A Visa that is good for two years."""

    class Meta:
        model = SavedPaymentMethod

    customer = factory.SubFactory(CustomerFactory)
    account = factory.SubFactory(GatewayAccountFactory)
    token = factory.Sequence(lambda number: f"pm_saved_{number}")
    gateway_customer = "cus_at_gateway"
    brand = "visa"
    last4 = "4242"
    exp_month = 12
    exp_year = factory.LazyFunction(lambda: timezone.now().year + 2)
    fingerprint = factory.Sequence(lambda number: f"{number:032}")
    created_at = factory.LazyFunction(timezone.now)


class OpenDisputeFactory(factory.django.DjangoModelFactory[Dispute]):
    class Meta:
        model = Dispute

    payment = factory.SubFactory(PaymentFactory, is_captured=True)
    account = factory.SelfAttribute("payment.account")
    gateway_reference = factory.Sequence(lambda number: f"dp_test_{number}")
    stage = DisputeStage.CHARGEBACK
    state = DisputeState.NEEDS_RESPONSE
    amount = factory.SelfAttribute("payment.amount")
    currency = factory.SelfAttribute("payment.currency")
    due_by = factory.LazyFunction(lambda: timezone.now() + timedelta(days=7))
    opened_at = factory.LazyFunction(timezone.now)
