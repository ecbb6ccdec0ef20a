"""The records: an order's links and counted events are found by the order, and others by what they share."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from tests.factories.fraud import EntityLinkFactory, VelocityEventFactory

pytestmark = pytest.mark.django_db


def test_who_shares_a_value_is_one_click_away(admin_client: Client) -> None:
    mine, friend = EntityLinkFactory(), EntityLinkFactory()
    stranger = EntityLinkFactory(value_hash="1" * 32)
    page = reverse("admin:fraud_entitylink_changelist")
    found = admin_client.get(page, {"q": mine.order_id}).content.decode()
    assert mine.order.reference in found
    assert friend.order.reference not in found
    shared = {"kind__exact": "device", "value_hash": mine.value_hash}
    assert f"kind__exact=device&amp;value_hash={mine.value_hash}" in found
    both = admin_client.get(page, shared).content.decode()
    assert mine.order.reference in both
    assert friend.order.reference in both
    assert stranger.order.reference not in both


def test_a_counted_event_says_by_what_it_counts(admin_client: Client) -> None:
    event = VelocityEventFactory(email="2" * 32)
    found = admin_client.get(reverse("admin:fraud_velocityevent_change", args=[event.pk])).content.decode()
    assert "card, email" in found
    assert event.order.reference in found
