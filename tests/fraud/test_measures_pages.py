"""The pages of measures and labels: what they say, how they sort, what they download, and who may see them."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from fraud.admin.labels import label_panel
from fraud.models import Label
from payments.models import Order
from tests.factories.fraud import AssessmentFactory, LabelFactory, ReviewFactory, VerdictFactory

pytestmark = pytest.mark.django_db
PAGE, RULE = "/admin/fraud/label/measures/", "/admin/fraud/label/measures/rule/"


def log_in(*rights: str) -> Client:
    user = User.objects.create_user("ana", password="a long password", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="fraud", codename__in=rights))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def analyst() -> Client:
    return log_in("view_label", "add_label", "view_review")


@pytest.fixture
def screened() -> list[Order]:
    """Twelve orders that Velocity hit, eight of them fraud; Watcher saw two in shadow."""
    orders = []
    for number in range(12):
        assessment = AssessmentFactory(stage="before", decision="block" if number == 0 else "review")
        VerdictFactory(assessment=assessment, rule_name="Velocity")
        VerdictFactory(
            assessment=assessment, rule_name="Watcher", status="shadow" if number < 2 else "miss", outcome=""
        )
        LabelFactory(order=assessment.order, is_fraud=number < 8)
        orders.append(assessment.order)
    return orders


def words(response: Any) -> str:
    return " ".join(response.content.decode().split())


@pytest.mark.usefixtures("screened")
def test_the_page_says_what_each_rule_is_worth(
    analyst: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_max_num_queries(
        45
    ):  # ten statements, most in a savepoint and with settings of their own
        text = words(analyst.get(PAGE))
    assert "66.7%" in text  # the precision of Velocity: 8 of 12
    assert "39.1% to 86.2%, n = 12" in text
    assert "2 of 2" in text
    assert "too few" in text
    assert "€129.50 of €1,554.00 (8.33%)" in text  # blocked
    assert "Blocked by a rule, with a label" in text


@pytest.mark.usefixtures("screened")
def test_the_table_sorts_by_any_column(analyst: Client) -> None:
    for sort, first in (
        ("rule", "Velocity"),
        ("-rule", "Watcher"),
        ("hits", "Watcher"),
        ("-hits", "Velocity"),
    ):
        text = words(analyst.get(PAGE, {"sort": sort})).partition("<tbody")[2]
        rows = text[text.index("measures/rule/") :]
        assert f"rule={first}" in rows[:60], sort
    assert 'aria-sort="descending"' in words(analyst.get(PAGE, {"sort": "-precision"}))


@pytest.mark.usefixtures("screened")
@pytest.mark.parametrize(
    "query", [{"days": "7000"}, {"days": "x"}, {"mode": "no"}, {"sort": "no"}, {"days": "90"}]
)
def test_nonsense_in_the_address_opens_the_page(analyst: Client, query: dict[str, str]) -> None:
    assert analyst.get(PAGE, query).status_code == 200


@pytest.mark.usefixtures("screened")
def test_the_mode_narrows_the_table(analyst: Client) -> None:
    text = words(analyst.get(PAGE, {"mode": "shadow"}))
    table = text[text.index('id="rules"') : text.index("Each order counts once for a rule")]
    assert "Watcher" in table
    assert "Velocity" not in table


def test_the_page_of_a_rule_links_to_orders_and_cases(analyst: Client, screened: list[Order]) -> None:
    review = ReviewFactory(assessment=screened[3].assessments.get())
    text = words(analyst.get(RULE, {"rule": "Velocity"}))
    assert "In shadow" not in text
    assert "Watcher" in text  # hits with it
    assert reverse("admin:fraud_review_change", args=[review.pk]) in text
    assert screened[9].reference in text
    assert "In shadow: what it would have done" in words(analyst.get(RULE, {"rule": "Watcher"}))


def test_an_unknown_rule_has_no_page(analyst: Client) -> None:
    assert analyst.get(RULE, {"rule": "Nobody"}).status_code == 404
    assert analyst.get(RULE).status_code == 404


@pytest.mark.usefixtures("screened")
def test_the_download_has_a_line_for_each_rule_mode_and_currency(analyst: Client) -> None:
    response = analyst.get(f"{PAGE}export/", {"days": "28"})
    rows = list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode())))
    told = [(row["rule"], row["mode"], row["currency"], row["hits"], row["precision"]) for row in rows]
    assert told == [("Velocity", "on", "EUR", "12", "0.6667"), ("Watcher", "shadow", "EUR", "2", "1.0000")]
    assert (rows[0]["saved_orders"], rows[0]["saved_amount"]) == ("1", "129.50")
    assert (rows[0]["precision_low"], rows[0]["precision_n"]) == ("0.3906", "12")


@pytest.mark.parametrize("address", [PAGE, RULE, f"{PAGE}export/"])
def test_who_may_not_see_labels_sees_none_of_it(address: str) -> None:
    assert log_in("view_review").get(address).status_code == 403


@pytest.mark.parametrize("address", [PAGE, RULE, f"{PAGE}export/"])
def test_nothing_is_posted_here(analyst: Client, address: str) -> None:
    assert analyst.post(address).status_code == 405


@pytest.mark.parametrize("address", [PAGE, f"{PAGE}export/"])
def test_a_new_shop_has_pages_too(analyst: Client, address: str) -> None:
    assert analyst.get(address).status_code == 200


# --- labels -------------------------------------------------------------------------------------------------


def test_an_analyst_labels_an_order(analyst: Client, screened: list[Order]) -> None:
    order = screened[11]
    add = reverse("admin:fraud_label_add")
    assert order.pk in words(analyst.get(add, {"order": order.pk}))
    wish = {"order_id": f" {order.pk} ", "verdict": "fraud", "reason": "police report 12"}
    response = analyst.post(add, wish, follow=True)
    assert response.status_code == 200
    label = Label.objects.filter(order=order).latest("id")
    assert (label.is_fraud, label.source, label.actor, label.reason) == (
        True,
        "manual",
        "user:ana",
        "police report 12",
    )
    assert "police report 12" in words(analyst.get(reverse("admin:fraud_label_change", args=[label.pk])))
    assert "police report 12" in words(analyst.get(reverse("admin:fraud_label_changelist")))


def test_no_card_number_is_kept_in_a_reason(analyst: Client, screened: list[Order]) -> None:
    wish = {"order_id": screened[11].pk, "verdict": "fraud", "reason": f"{'x' * 190} cvv 123"}
    analyst.post(reverse("admin:fraud_label_add"), wish)
    analyst.post(reverse("admin:fraud_label_add"), {**wish, "reason": "card 4111111111111111"})
    reasons = Label.objects.order_by("-id").values_list("reason", flat=True)[:2]
    assert reasons[0].startswith("card ")
    assert reasons[1].startswith("xxx")
    assert not any("4111111111111111" in reason or "123" in reason for reason in reasons)


@pytest.mark.parametrize("change", [{"order_id": "ord_x"}, {"verdict": ""}, {"reason": ""}])
def test_what_is_no_label_is_not_written(
    analyst: Client, screened: list[Order], change: dict[str, str]
) -> None:
    wish = {"order_id": screened[0].pk, "verdict": "genuine", "reason": "called back", **change}
    assert analyst.post(reverse("admin:fraud_label_add"), wish).status_code == 200
    assert Label.objects.count() == 12


def test_who_may_only_look_cannot_label() -> None:
    assert log_in("view_label").get(reverse("admin:fraud_label_add")).status_code == 403


def test_the_page_of_an_order_says_which_label_counts(
    rf: RequestFactory, analyst: Client, screened: list[Order]
) -> None:
    LabelFactory(order=screened[0], source="dispute", is_fraud=False, at=timezone.now() - timedelta(days=3))
    request = rf.get("/")
    request.user = User.objects.get(username="ana")
    text = str(label_panel(screened[0], request))
    assert text.index("Genuine") < text.index("by dispute") < text.index("By hand")
    assert f"?order={screened[0].pk}" in text
    request.user = User.objects.create_user("eve")
    assert label_panel(screened[0], request) is None
