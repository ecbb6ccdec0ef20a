"""Every page of the admin opens within a bounded number of queries, and only for whom the roles' file says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from payments.controls.roles import ROLES, sync_roles
from payments.models import Order
from tests.factories import fraud, payments, reconciliation, webhooks

pytestmark = pytest.mark.django_db
MOST_QUERIES = 25
MODELS = sorted(admin.site._registry, key=lambda model: model._meta.label)


def name_of(model: type[Model]) -> str:
    return f"{model._meta.app_label}_{model._meta.model_name}"


@pytest.fixture
def roles() -> dict[str, int]:
    cache.clear()
    return sync_roles()


@pytest.fixture
def rows(roles: dict[str, int]) -> dict[type[Model], Model]:
    """One row of each model that has a factory; the rest is judged by its list."""
    order = payments.PaidOrderFactory()
    attempt = payments.AttemptFactory(payment=order.payment)
    payments.OperationFactory(attempt=attempt)
    payments.SagaRunFactory(order=order)
    payments.EventFactory(order=order)
    payments.ApiKeyFactory()
    payments.StockItemFactory()
    for module in (fraud, reconciliation, webhooks):
        for name in dir(module):
            if name.endswith("Factory"):
                make_one(getattr(module, name))
    found = {model: model._default_manager.first() for model in MODELS} | {Order: order}
    return {model: row for model, row in found.items() if row is not None}


def make_one(factory: Any) -> None:
    model = factory._meta.model
    if model in MODELS and model._meta.app_label != "payments":
        factory()


def log_in(*, role: str = "", superuser: bool = False) -> Client:
    user = User.objects.create_user(f"a {role}", is_staff=True, is_superuser=superuser)
    if role:
        user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


def count_queries(client: Client, url: str) -> tuple[int, Any]:
    with CaptureQueriesContext(connection) as captured:
        response = client.get(url)
    return len(captured), response


class TestForASuperuser:
    @pytest.fixture
    def client(self, rows: dict[type[Model], Model]) -> Client:
        return log_in(superuser=True)

    def test_every_list_opens_within_bounds(self, client: Client) -> None:
        for model in MODELS:
            queries, response = count_queries(client, reverse(f"admin:{name_of(model)}_changelist"))
            assert response.status_code == 200, model
            assert queries <= MOST_QUERIES, model

    def test_every_list_can_be_searched_for_anything(self, client: Client) -> None:
        for model in MODELS:
            for term in ("4242", "pi_123", "a b\x00c%"):
                response = client.get(reverse(f"admin:{name_of(model)}_changelist"), {"q": term})
                assert response.status_code in (200, 302), (model, term)

    def test_every_form_to_add_opens_or_is_refused(self, client: Client) -> None:
        for model in MODELS:
            response = client.get(reverse(f"admin:{name_of(model)}_add"))
            may = admin.site._registry[model].has_add_permission(response.wsgi_request)
            assert response.status_code == (200 if may else 403), model

    def test_every_row_opens_within_bounds(self, client: Client, rows: dict[type[Model], Model]) -> None:
        assert len(rows) >= 15
        for model, row in rows.items():
            queries, response = count_queries(
                client, reverse(f"admin:{name_of(model)}_change", args=[row.pk])
            )
            assert response.status_code == 200, model
            assert queries <= MOST_QUERIES, model

    def test_no_page_brings_a_script_of_its_own(self, client: Client, rows: dict[type[Model], Model]) -> None:
        """The content security policy would refuse it, and the page would be dead."""
        urls = [reverse("admin:index")]
        urls += [reverse(f"admin:{name_of(model)}_changelist") for model in MODELS]
        urls += [reverse(f"admin:{name_of(model)}_change", args=[row.pk]) for model, row in rows.items()]
        for url in urls:
            html = client.get(url).content.decode()
            inline = re.findall(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)[^>]*>", html)
            assert not inline, url
            assert not re.findall(r'(?:src|href)="(?:https?:)?//(?!127\.0\.0\.1|testserver)', html), url


class TestForEachRole:
    @pytest.mark.parametrize("role", ROLES)
    def test_lists_open_exactly_as_the_file_says(self, role: str, rows: dict[type[Model], Model]) -> None:
        client = log_in(role=role)
        allowed = Group.objects.get(name=role).permissions.values_list("content_type__app_label", "codename")
        names = {f"{app}.{codename}" for app, codename in allowed}
        for model in MODELS:
            app, name = model._meta.app_label, model._meta.model_name
            views = {f"{app}.view_{name}", f"{app}.change_{name}"}
            expected = 200 if views & names else 403
            url = reverse(f"admin:{name_of(model)}_changelist")
            assert client.get(url).status_code == expected, f"{role}: {url}"
            if model in rows:
                row_url = reverse(f"admin:{name_of(model)}_change", args=[rows[model].pk])
                assert client.get(row_url).status_code == expected, f"{role}: {row_url}"

    def test_the_dashboard_opens_for_everybody(self, rows: dict[type[Model], Model]) -> None:
        for role in ROLES:
            queries, response = count_queries(log_in(role=role), reverse("admin:index"))
            assert response.status_code == 200, role
            assert queries <= MOST_QUERIES, role

    def test_the_auditor_may_post_nowhere(self, rows: dict[type[Model], Model]) -> None:
        client = log_in(role="Auditor")
        for name, url in action_urls(rows):
            assert client.post(url).status_code == 403, name


def test_no_page_stays_in_a_cache(roles: dict[str, int]) -> None:
    client = log_in(superuser=True)
    for name in ("index", "payments_order_changelist", "password_change", "jsi18n"):
        assert "no-store" in client.get(reverse(f"admin:{name}")).headers["Cache-Control"], name


def test_no_address_beyond_the_usual_ones_answers_a_get_with_a_change(rows: dict[type[Model], Model]) -> None:
    """Every action's own address refuses GET, or only shows something: nothing is written."""
    client = log_in(superuser=True)
    client.get(reverse("admin:index"))
    for name, url in action_urls(rows):
        with CaptureQueriesContext(connection) as captured:
            response = client.get(url)
        assert response.status_code in (200, 302, 400, 404, 405), name
        writes = [
            query["sql"] for query in captured if re.match(r"\s*(INSERT|UPDATE|DELETE|WITH)", query["sql"])
        ]
        assert not [sql for sql in writes if "django_session" not in sql], name


def action_urls(rows: dict[type[Model], Model]) -> Iterator[tuple[str, str]]:
    """The addresses that our admins add to Django's, filled with the rows that we have."""
    usual = {"changelist", "add", "history", "delete", "change"}
    for model in MODELS:
        prefix = f"{name_of(model)}_"
        for pattern in admin.site._registry[model].get_urls():
            name = getattr(pattern, "name", None) or ""
            own = name.removeprefix(prefix)
            if (
                not name.startswith(prefix)
                or own in usual
                or "<" not in str(pattern.pattern)
                or model not in rows
            ):
                continue
            yield name, reverse(f"admin:{name}", args=[rows[model].pk])
