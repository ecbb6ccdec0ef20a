"""The dashboard, the sidebar and the search say what is so, each to whom it concerns."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone

from config import navigation
from payments.controls.roles import sync_roles
from payments.models import Operation, OperationState
from tests.factories.payments import (
    AttemptFactory,
    OperationFactory,
    PaidOrderFactory,
    PaymentFactory,
    SagaRunFactory,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def no_old_counts() -> None:
    cache.clear()


def log_in(role: str = "") -> Client:
    sync_roles()
    user = User.objects.create_user(f"person {role}", is_staff=True)
    if role:
        user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


def tiles_of(client: Client) -> dict[str, Any]:
    return {tile.label: tile for tile in client.get(reverse("admin:index")).context["tiles"]}


def capture(amount: int, currency: str = "EUR", **changes: Any) -> Operation:
    order = PaidOrderFactory(amount=amount, currency=currency)
    operation: Operation = OperationFactory(attempt=AttemptFactory(payment=order.payment), **changes)
    return operation


class TestTiles:
    def test_sum_today_by_currency_and_open_the_list_behind(self) -> None:
        yesterday = timezone.now() - timedelta(days=1)
        capture(1000)
        capture(250)
        capture(500, "JPY")
        capture(9999, created_at=yesterday, resolved_at=yesterday)
        client = log_in("Finance")
        tile = tiles_of(client)["Captured today"]
        assert (tile.value, tile.note) == ("€12.50 + ¥500", "3 operations")
        behind = client.get(tile.url)
        assert behind.context["cl"].result_count == 3

    def test_tell_what_stuck_sagas_put_at_risk(self) -> None:
        order = PaidOrderFactory()
        SagaRunFactory(order=order, state="QUARANTINED")
        SagaRunFactory(order=order, subject="another", state="QUARANTINED")
        client = log_in("On-call")
        tile = tiles_of(client)["Stuck sagas"]
        assert (tile.value, tile.note) == ("2", "€129.50 at risk")
        assert client.get(tile.url).context["cl"].result_count == 2

    def test_count_what_a_walk_back_could_not_refund_as_at_risk(self) -> None:
        order = PaidOrderFactory()
        attempt = AttemptFactory(payment=order.payment)
        OperationFactory(attempt=attempt, kind="refund", state=OperationState.UNKNOWN)
        order.payment.refund_pending = order.amount
        order.payment.save(update_fields=["refund_pending"])
        SagaRunFactory(order=order, state="FAILED_COMPENSATION")
        tiles = tiles_of(log_in("On-call"))
        assert tiles["Stuck sagas"].note == "€129.50 at risk"
        assert (tiles["Unknown outcomes"].value, tiles["Unknown outcomes"].tone) == ("1", "warning")

    def test_every_one_opens_its_list(self) -> None:
        client = log_in("Finance")
        tiles = tiles_of(client)
        assert len(tiles) >= 6
        for tile in tiles.values():
            assert client.get(tile.url).status_code == 200, tile.label

    def test_belong_to_the_roles_that_may_see_them(self) -> None:
        assert "Open discrepancies" not in tiles_of(log_in("Fraud analyst"))
        assert "Open reviews" in tiles_of(log_in("Auditor"))

    def test_without_a_role_there_is_a_word_instead(self) -> None:
        response = log_in().get(reverse("admin:index"))
        assert "You have no role yet" in response.content.decode()


class TestCharts:
    def test_have_their_numbers_in_a_table_beneath(self) -> None:
        capture(1050)
        response = log_in("Finance").get(reverse("admin:index"))
        chart = response.context["charts"][0]
        assert json.loads(chart.data)["datasets"][0]["data"][-1] == "10.50"
        assert chart.rows[-1][1] == "€10.50"
        assert len(chart.rows) == 14

    def test_say_why_they_are_empty(self) -> None:
        html = log_in("Finance").get(reverse("admin:index")).content.decode()
        assert "Nothing was captured in the last 14 days" in html


class TestTheSidebar:
    def test_counts_the_work_behind_a_page(self) -> None:
        for _ in range(2):
            SagaRunFactory(state="QUARANTINED")
        attempt = AttemptFactory()
        OperationFactory(attempt=attempt, state=OperationState.UNKNOWN)
        counts = navigation.count_queues()
        assert {name: count for name, count in counts.items() if count} == {"stuck": 2, "unknown": 1}

    def test_shows_no_page_and_no_count_to_who_may_not_see_them(self) -> None:
        SagaRunFactory(state="QUARANTINED")
        html = log_in("Integrator").get(reverse("admin:index")).content.decode()
        assert reverse("admin:payments_sagarun_changelist") not in html
        assert reverse("admin:payments_apikey_changelist") in html

    @pytest.mark.parametrize(
        ("title", "link"),
        [
            ("Webhooks in", "/admin/webhooks/inboundwebhook/inb_5F01/change/"),
            ("Webhook health", "/admin/webhooks/inboundwebhook/health/"),
            ("Event types", "/admin/webhooks/endpoint/event-types/"),
        ],
    )
    def test_marks_one_page_as_the_one_that_is_shown(self, title: str, link: str) -> None:
        request = RequestFactory().get(link)
        request.user = User.objects.create_superuser("root")
        groups = navigation.build_navigation(request)
        lines = [line for group in groups for line in group["items"]]
        assert [line["title"] for line in lines if line.get("active")] == [title]

    def test_every_line_leads_somewhere(self) -> None:
        user = User.objects.create_superuser("root")
        client = Client()
        client.force_login(user)
        for items in navigation.NAVIGATION.values():
            for item in items:
                assert client.get(item.link).status_code == 200, item.title


class TestTheSearch:
    def search(self, client: Client, term: str) -> str:
        return client.get(reverse("admin:search"), {"s": term, "extended": "1"}).content.decode()

    def test_finds_an_order_placed_a_moment_ago(self) -> None:
        client = log_in("Finance")
        assert "Order web-new" not in self.search(client, "web-new")
        PaymentFactory(order__reference="web-new-1")
        assert "Order web-new-1" in self.search(client, "web-new")

    def test_stops_at_a_few_rows(self) -> None:
        for number in range(15):
            PaymentFactory(order__reference=f"bulk-{number}")
        assert self.search(log_in("Finance"), "bulk-").count("Order bulk-") <= 2 * 10

    def test_shows_no_rows_to_who_may_not_see_them(self) -> None:
        PaymentFactory(order__reference="web-secret")
        assert "Order web-secret" not in self.search(log_in(), "web-secret")

    def test_finds_a_page_by_its_name(self) -> None:
        assert "Discrepancies" in self.search(log_in("Finance"), "discrep")
        assert "Discrepancies" not in self.search(log_in("Integrator"), "discrep")
