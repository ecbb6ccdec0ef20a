"""Keys are shown once, secrets never; roles are given from their file; the house's other pages hold their line."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from payments.controls import roles
from payments.models import ApiKey, GatewayAccount
from tests.factories.payments import ApiClientFactory, ApiKeyFactory, GatewayAccountFactory, StockItemFactory
from tests.payments.admin.conftest import Login

pytestmark = pytest.mark.django_db


class TestKeys:
    def test_a_new_key_is_shown_once_and_works(self, log_in: Login) -> None:
        client = log_in("Integrator")
        data = {"client": ApiClientFactory().pk, "name": "checkout", "scopes": ["orders:read"], "days": "90"}
        response = client.post(reverse("admin:payments_apikey_add"), data)
        secret = re.search(r"data-secret>([^<]+)<", response.content.decode())
        assert secret
        assert ApiKey.objects.is_valid(secret[1])
        assert "no-store" in response["Cache-Control"]
        page = client.get(reverse("admin:payments_apikey_change", args=[ApiKey.objects.get().pk]))
        assert secret[1] not in page.content.decode()

    def test_a_revoked_key_is_refused_from_then_on(self, log_in: Login) -> None:
        key = ApiKeyFactory()
        url = reverse("admin:payments_apikey_revoke", args=[key.pk])
        log_in("Integrator").post(url, {"token": "t" * 20})
        assert not ApiKey.objects.is_valid(key.secret)

    def test_finance_makes_none(self, log_in: Login) -> None:
        client = log_in("Finance")
        assert client.post(reverse("admin:payments_apikey_add"), {}).status_code == 403
        assert client.get(reverse("admin:payments_apikey_changelist")).status_code == 403


class TestGatewayAccounts:
    FORM = {
        "gateway": "stripe",
        "name": "main",
        "api_key": "",
        "api_base": "",
        "is_active": "on",
        "priority": "5",
        "settlement_lag_days": "2",
        "secrets-TOTAL_FORMS": "0",
        "secrets-INITIAL_FORMS": "0",
    }

    def test_a_stored_secret_never_reaches_the_page(self, log_in: Login) -> None:
        account = GatewayAccountFactory(api_key="sk_live_topsecret_1")
        account.secrets.create(value="whsec_topsecret_2")
        url = reverse("admin:payments_gatewayaccount_change", args=[account.pk])
        for role in ("Admin", "Auditor", "Finance"):
            html = log_in(role).get(url).content.decode()
            assert "topsecret" not in html, role

    def test_an_empty_field_keeps_the_stored_key(self, log_in: Login) -> None:
        account = GatewayAccountFactory(name="main", api_key="sk_kept")
        url = reverse("admin:payments_gatewayaccount_change", args=[account.pk])
        assert log_in("Admin").post(url, self.FORM).status_code == 302
        account = GatewayAccount.objects.get(pk=account.pk)
        assert (account.api_key, account.priority) == ("sk_kept", 5)


def test_stock_may_not_fall_below_what_is_reserved(log_in: Login) -> None:
    item = StockItemFactory(on_hand=10, reserved=4)
    url = reverse("admin:payments_stockitem_change", args=[item.pk])
    client = log_in("Admin")
    assert "4 are reserved" in client.post(url, {"on_hand": "3"}).content.decode()
    client.post(url, {"on_hand": "7"})
    item.refresh_from_db()
    assert (item.on_hand, item.reserved) == (7, 4)


class TestRoles:
    def test_are_given_exactly_what_the_file_says(self, log_in: Login) -> None:
        group = Group.objects.get(name="Auditor")
        before = group.permissions.count()
        group.permissions.clear()
        roles.sync_roles()
        assert group.permissions.count() == before > 0

    def test_a_line_that_fits_nothing_changes_no_role(
        self, log_in: Login, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(roles, "ROLES", {"Auditor": ("payments.veiw_order",)})
        with pytest.raises(LookupError, match=r"payments\.veiw_order"):
            roles.sync_roles()
        assert Group.objects.get(name="Auditor").permissions.exists()

    def test_an_auditor_may_change_nothing(self) -> None:
        assert all(".view_" in line or ".export_" in line for line in roles.ROLES["Auditor"])

    def test_an_admin_makes_no_superuser_of_anybody(self, log_in: Login) -> None:
        client = log_in("Admin")
        user = User.objects.get(username="admin")
        url = reverse("admin:auth_user_change", args=[user.pk])
        client.post(url, {"username": "admin", "is_active": "on", "is_staff": "on", "is_superuser": "on"})
        user.refresh_from_db()
        assert not user.is_superuser

    def test_nobody_gets_another_name_to_sign_with(self, admin_client: Client) -> None:
        user = User.objects.create_user("anna", password="a long password")
        url = reverse("admin:auth_user_change", args=[user.pk])
        assert admin_client.get(url).status_code == 200
        data = {"username": "ben", "email": "anna@example.com", "is_active": "on"}
        dates = {"last_login_0": "", "last_login_1": "", "date_joined_0": "", "date_joined_1": ""}
        assert admin_client.post(url, {**data, **dates}).status_code == 302
        user.refresh_from_db()
        assert (user.username, user.email) == ("anna", "anna@example.com")

    def test_an_admin_takes_no_superuser_over(self, log_in: Login) -> None:
        root = User.objects.create_superuser("root", password="a long password")
        url = reverse("admin:auth_user_password_change", args=[root.pk])
        data = {"password1": "another long one", "password2": "another long one", "usable_password": "true"}
        assert log_in("Admin").post(url, data).status_code == 403


def test_who_only_looks_at_the_schedule_cannot_switch_it(log_in: Login) -> None:
    every = IntervalSchedule.objects.create(every=1, period="days")
    task = PeriodicTask.objects.create(name="nightly", task="x", interval=every)
    data = {"action": "disable_tasks", "_selected_action": [task.pk]}
    log_in("On-call").post(reverse("admin:django_celery_beat_periodictask_changelist"), data)
    task.refresh_from_db()
    assert task.enabled
