"""Factories for the tables of fraud."""

from __future__ import annotations

from datetime import timedelta

import factory
from django.db.models import Max
from django.utils import timezone

from fraud import live, rulesets
from fraud.models import Assessment, EntityLink, Label, Review, Rule, RuleSet, VelocityEvent, Verdict
from payments.models import OrderState, PaymentState, SagaState
from tests.factories.payments import OrderFactory, PaymentFactory, SagaRunFactory


class RuleSetFactory(factory.django.DjangoModelFactory[RuleSet]):
    """An empty draft, of somebody whom no test logs in as."""

    class Meta:
        model = RuleSet

    number = factory.LazyFunction(lambda: (RuleSet.objects.aggregate(most=Max("number"))["most"] or 0) + 1)
    created_by = "user:drafter"
    editors = factory.LazyFunction(lambda: ["user:drafter"])


class RuleFactory(factory.django.DjangoModelFactory[Rule]):
    """A rule that is on: more than four orders of one card in an hour are blocked."""

    class Meta:
        model = Rule

    ruleset = factory.SubFactory(RuleSetFactory)
    key = factory.Sequence(lambda number: f"rule-{number}")
    name = factory.Sequence(lambda number: f"Rule {number}")
    expression = 'velocity("card", "1h") > {limit}'
    parameters = factory.LazyFunction(lambda: {"limit": 4})
    outcome = "block"
    mode = "on"


def put_in_force(*rules: Rule) -> RuleSet:
    """Publish a set of just these rules (unsaved, as `RuleFactory.build(ruleset=None)` makes them), from now on."""
    draft = RuleSetFactory()
    for position, rule in enumerate(rules):
        rule.ruleset, rule.position = draft, position
        rule.save()
    rulesets.submit(draft.pk, actor="user:drafter")
    rulesets.publish(draft.pk, actor="user:publisher")
    live.forget_plan()  # a test's transaction never commits
    return RuleSet.objects.get(pk=draft.pk)


class HeldOrderFactory(OrderFactory):
    """An order whose saga waits for an analyst."""

    class Meta:
        skip_postgeneration_save = True

    state = OrderState.REVIEW
    saga = factory.RelatedFactory(
        SagaRunFactory,
        factory_related_name="order",
        state=SagaState.WAITING,
        step="review",
        waiting_for="review",
        wake_at=None,
    )


class HeldPaymentFactory(PaymentFactory):
    """An authorized payment whose order waits for an analyst."""

    order = factory.SubFactory(HeldOrderFactory)
    state = PaymentState.REQUIRES_CAPTURE
    authorized = factory.SelfAttribute("amount")
    gateway_reference = factory.Sequence(lambda number: f"pi_held_{number}")
    card = factory.LazyFunction(
        lambda: {"brand": "visa", "last4": "4242", "country": "US", "avs": "fail", "cvc": "pass"}
    )


class AssessmentFactory(factory.django.DjangoModelFactory[Assessment]):
    class Meta:
        model = Assessment

    payment = factory.SubFactory(HeldPaymentFactory)
    order = factory.SelfAttribute("payment.order")
    stage = "after"
    decision = "review"
    score = 70
    context = factory.LazyFunction(dict)
    microseconds = 40


class VerdictFactory(factory.django.DjangoModelFactory[Verdict]):
    class Meta:
        model = Verdict

    assessment = factory.SubFactory(AssessmentFactory)
    rule_key = factory.SelfAttribute("rule_name")
    rule_name = "Card velocity"
    rule_kind = "expression"
    status = "hit"
    outcome = "review"
    value = "card used on 6 orders"
    threshold = "limit 4 in 1 h"


class ReviewFactory(factory.django.DjangoModelFactory[Review]):
    """An open case with a day left."""

    class Meta:
        model = Review

    assessment = factory.SubFactory(AssessmentFactory)
    payment = factory.SelfAttribute("assessment.payment")
    order = factory.SelfAttribute("payment.order")
    score = factory.SelfAttribute("assessment.score")
    amount = factory.SelfAttribute("order.amount")
    expires_at = factory.LazyFunction(lambda: timezone.now() + timedelta(days=1))


class LabelFactory(factory.django.DjangoModelFactory[Label]):
    """Fraud, by hand, known now."""

    class Meta:
        model = Label

    order = factory.SubFactory(OrderFactory)
    is_fraud = True
    source = "manual"
    reason = "the customer called"
    actor = "user:ana"
    at = factory.LazyFunction(timezone.now)


class EntityLinkFactory(factory.django.DjangoModelFactory[EntityLink]):
    """An order made with some device."""

    class Meta:
        model = EntityLink

    kind = "device"
    value_hash = "0" * 32
    order = factory.SubFactory(OrderFactory)


class VelocityEventFactory(factory.django.DjangoModelFactory[VelocityEvent]):
    """An attempt that was counted by its card."""

    class Meta:
        model = VelocityEvent

    order = factory.SubFactory(OrderFactory)
    amount = factory.SelfAttribute("order.amount")
    currency = factory.SelfAttribute("order.currency")
    card = "0" * 32
    at = factory.LazyFunction(timezone.now)
