"""Gathers what is known of an order into the facts that the rules judge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from django.utils import timezone

from fraud.facts import FraudContext, VelocityKey
from fraud.history import read_history
from fraud.links import count_linked
from fraud.lists import card_values, domain_of, find_matches, mask_email, order_values
from fraud.told import text_of
from fraud.velocity import count_order, values_of
from payments.decisions import Stage
from payments.models import Order, Payment


def gather_before(order: Order, payment: Payment, keys: Iterable[VelocityKey]) -> FraudContext:
    """Everything that is known before the gateway is asked; the order is counted here, once."""
    figures = count_order(order.pk, order.total, values_of(order, payment), keys)
    history = read_history(order, payment)
    linked = count_linked(order, payment)
    return replace(
        _gather_order(order, payment),
        list_matches=find_matches(order_values(order, payment), client_id=order.client_id),
        velocity=figures.by_name,
        velocity_source=figures.source,
        linked_orders=linked.orders,
        linked_fraud=linked.fraud,
        **history.to_facts(),
    )


def gather_after(order: Order, payment: Payment, before: Mapping[str, Any], *, score: int) -> FraudContext:
    """The facts as they were before the authorization, and what the gateway's answer adds.

    Without a screening before it (it failed), what can still be known is gathered now; nothing is counted.
    """
    is_known = bool(before.get("stage"))
    known = FraudContext.from_dict(before) if is_known else _gather_order(order, payment)
    card = payment.card
    values = card_values(payment) if is_known else order_values(order, payment)
    matches = {*known.list_matches, *find_matches(values, client_id=order.client_id)}
    return replace(
        known,
        stage=Stage.AFTER_AUTHORIZATION,
        card_country=text_of(card, "country").upper(),
        card_brand=text_of(card, "brand"),
        card_funding=text_of(card, "funding"),
        card_last4=text_of(card, "last4"),
        avs=text_of(card, "avs"),
        cvv=text_of(card, "cvc"),
        three_d_secure=text_of(card, "three_d_secure"),
        risk_score=card.get("risk_score"),
        list_matches=tuple(sorted(matches, key=lambda match: (match.list, match.kind, match.value))),
        score=score,
    )


def _gather_order(order: Order, payment: Payment) -> FraudContext:
    created_at, now = order.customer_created_at, timezone.now()
    postcodes = [text_of(address, "postal_code").casefold() for address in (order.billing, order.shipping)]
    lines = [line for line in order.lines if isinstance(line, dict)]
    return FraudContext(
        stage=Stage.BEFORE_AUTHORIZATION,
        amount=order.amount,
        currency=order.currency,
        order_id=order.pk,
        assessed_at=int(now.timestamp()),
        is_guest=not order.customer_id,
        is_saved_card=payment.saved_method_id is not None,
        is_merchant_initiated=payment.is_merchant_initiated,
        line_count=len(lines) or None,
        item_count=sum(int(line.get("quantity") or 0) for line in lines) or None,
        customer_id=order.customer_id,
        customer_email=mask_email(order.customer_email),
        email_domain=domain_of(order.customer_email),
        customer_since=int(created_at.timestamp()) if created_at else None,
        customer_age_days=(now - created_at).days if created_at else None,
        ip=text_of(order.context, "ip"),
        device=text_of(order.context, "device"),
        billing_country=text_of(order.billing, "country").upper(),
        shipping_country=text_of(order.shipping, "country").upper(),
        ip_country=text_of(order.context, "ip_country").upper(),
        is_same_postcode=postcodes[0] == postcodes[1] if all(postcodes) else None,
    )
