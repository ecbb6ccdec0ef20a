"""Routing rules in the admin: refused with a reason, ordered by number, rehearsed before they go live."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from payments.controls.roles import ROLES
from payments.models import GatewayAccount, RoutingRule, RoutingTarget
from tests.factories.payments import GatewayAccountFactory, OrderFactory, PaymentFactory
from tests.payments.admin.conftest import Login

pytestmark = pytest.mark.django_db
ADD = "admin:payments_routingrule_add"
LIST = "admin:payments_routingrule_changelist"
REHEARSE = "admin:payments_routingrule_rehearse"
PREVIEW = "admin:payments_routingrule_preview"


@pytest.fixture
def stripe(db: None) -> GatewayAccount:
    GatewayAccount.objects.update(is_active=False)
    return GatewayAccountFactory(name="ruled", priority=1)


@pytest.fixture
def adyen(stripe: GatewayAccount) -> GatewayAccount:
    return GatewayAccountFactory(gateway="adyen", name="ruled", priority=2)


@pytest.fixture
def rule(adyen: GatewayAccount) -> RoutingRule:
    rule = RoutingRule.objects.create(name="Switzerland", priority=10, currencies=["CHF"], min_amount=500)
    RoutingTarget.objects.create(rule=rule, account=adyen, position=1)
    return rule


def fill(
    *targets: tuple[GatewayAccount, str], rule: RoutingRule | None = None, **changes: str
) -> dict[str, Any]:
    """The form as a browser sends it; targets with their shares."""
    saved = list(rule.targets.all()) if rule else []
    form: dict[str, Any] = {
        "name": "Europe",
        "priority": "20",
        "is_active": "on",
        "currencies": "eur, chf",
        "countries": "",
        "min_amount": "",
        "max_amount": "",
        "is_merchant_initiated": "",
        "client": "",
        "targets-TOTAL_FORMS": str(len(targets)),
        "targets-INITIAL_FORMS": str(len(saved)),
        **changes,
    }
    for place, (account, share) in enumerate(targets):
        form |= {
            f"targets-{place}-account": account.pk,
            f"targets-{place}-position": str(place + 1),
            f"targets-{place}-share": share,
        }
        if place < len(saved):
            form |= {f"targets-{place}-id": saved[place].pk, f"targets-{place}-rule": saved[place].rule_id}
    return form


def send(client: Client, form: dict[str, Any], url: str = "") -> str:
    response = client.post(url or reverse(ADD), form, follow=True)
    return str(response.content.decode())


class TestTheForm:
    def test_makes_a_rule(self, log_in: Login, stripe: GatewayAccount, adyen: GatewayAccount) -> None:
        form = fill((adyen, "70"), (stripe, "30"), currencies="eur", countries="de, at", max_amount="99.95")
        send(log_in("Admin"), {**form, "is_merchant_initiated": "false", "healthy_only": "on"})
        rule = RoutingRule.objects.get()
        assert (rule.currencies, rule.countries) == (["EUR"], ["DE", "AT"])
        assert (rule.min_amount, rule.max_amount) == (None, 9995)
        assert (rule.is_merchant_initiated, rule.healthy_only) == (False, True)
        assert [(target.account, target.share) for target in rule.targets.all()] == [
            (adyen, 70),
            (stripe, 30),
        ]

    def test_opens_with_what_is_kept(self, log_in: Login, rule: RoutingRule) -> None:
        html = (
            log_in("Admin").get(reverse("admin:payments_routingrule_change", args=[rule.pk])).content.decode()
        )
        assert 'value="CHF"' in html
        assert 'value="5.00"' in html

    def test_changes_a_rule(
        self, log_in: Login, rule: RoutingRule, stripe: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        form = fill((adyen, ""), (stripe, ""), rule=rule, name="Alps", currencies="CHF", min_amount="10")
        send(log_in("Admin"), form, reverse("admin:payments_routingrule_change", args=[rule.pk]))
        rule.refresh_from_db()
        assert (rule.name, rule.priority, rule.min_amount) == ("Alps", 20, 1000)
        assert rule.targets.count() == 2

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"currencies": "EUR, XTS"}, "No payable ISO 4217 currency: XTS"),
            ({"countries": "Germany"}, "A country is two capital letters"),
            ({"currencies": "EUR", "min_amount": "2", "max_amount": "1"}, "no order would ever fit"),
            ({"min_amount": "1.00"}, "An amount needs one currency"),
            ({"currencies": "JPY", "max_amount": "1.50"}, "not a whole number of minor units"),
            ({"currencies": "EUR", "max_amount": "a lot"}, "is not an amount"),
        ],
    )
    def test_says_what_is_wrong(
        self, log_in: Login, stripe: GatewayAccount, changes: dict[str, str], message: str
    ) -> None:
        assert message in send(log_in("Admin"), fill((stripe, ""), **changes))
        assert not RoutingRule.objects.exists()

    def test_says_what_is_wrong_with_the_targets(
        self, log_in: Login, stripe: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        client = log_in("Admin")
        assert "at least one target account. Nothing was changed." in send(client, fill())
        assert "The shares sum to 90, not to 100" in send(client, fill((adyen, "60"), (stripe, "30")))
        GatewayAccount.objects.filter(pk=adyen.pk).update(is_active=False)
        assert "adyen/ruled is not active" in send(client, fill((adyen, "")))
        assert not RoutingRule.objects.exists()
        assert "was added successfully" in send(client, {**fill((adyen, "")), "is_active": ""})

    def test_is_for_the_admin_alone(self, log_in: Login, rule: RoutingRule, stripe: GatewayAccount) -> None:
        change = reverse("admin:payments_routingrule_change", args=[rule.pk])
        for role in set(ROLES) - {"Admin"}:
            client = log_in(role)
            for url in (reverse(ADD), change, reverse(PREVIEW, args=[rule.pk]), reverse(f"{PREVIEW}_new")):
                assert client.post(url, fill((stripe, ""))).status_code == 403, (role, url)
        assert RoutingRule.objects.get() == rule

    def test_on_call_reads_it_in_sentences(self, log_in: Login, rule: RoutingRule) -> None:
        html = (
            log_in("On-call")
            .get(reverse("admin:payments_routingrule_change", args=[rule.pk]))
            .content.decode()
        )
        assert "CHF, from CHF" in html
        assert "What would it do?" not in html

    def test_needs_the_csrf_token(self, log_in: Login, rule: RoutingRule, stripe: GatewayAccount) -> None:
        client = log_in("Admin", check_csrf=True)
        for url in (reverse(ADD), reverse(PREVIEW, args=[rule.pk])):
            assert client.post(url, fill((stripe, ""))).status_code == 403

    def test_nobody_deletes_a_rule(self, log_in: Login, rule: RoutingRule) -> None:
        url = reverse("admin:payments_routingrule_delete", args=[rule.pk])
        assert log_in("Admin").post(url, {"post": "yes"}).status_code == 403
        assert RoutingRule.objects.exists()


class TestTheList:
    def test_is_ordered_by_its_numbers(self, log_in: Login, rule: RoutingRule) -> None:
        client = log_in("Admin")
        RoutingRule.objects.create(name="Rest", priority=30)
        form = {
            "form-TOTAL_FORMS": "2",
            "form-INITIAL_FORMS": "2",
            "form-0-id": rule.pk,
            "form-0-priority": "40",
            "form-1-id": RoutingRule.objects.get(name="Rest").pk,
            "form-1-priority": "30",
            "_save": "Save",
        }
        client.post(reverse(LIST), form)
        assert [rule.name for rule in RoutingRule.objects.all()] == ["Rest", "Switzerland"]
        assert log_in("On-call").post(reverse(LIST), form).status_code in (200, 302, 403)
        assert RoutingRule.objects.get(pk=rule.pk).priority == 40

    def test_a_rule_that_is_wrong_otherwise_can_be_moved(self, log_in: Login, rule: RoutingRule) -> None:
        RoutingRule.objects.filter(pk=rule.pk).update(currencies=["XXX"])
        form = {
            "form-TOTAL_FORMS": "1",
            "form-INITIAL_FORMS": "1",
            "form-0-id": rule.pk,
            "form-0-priority": "2",
            "_save": "Save",
        }
        assert log_in("Admin").post(reverse(LIST), form).status_code == 302
        assert RoutingRule.objects.get().priority == 2

    def test_says_it_in_words(self, log_in: Login, rule: RoutingRule) -> None:
        html = log_in("On-call").get(reverse(LIST)).content.decode()
        assert "CHF, from CHF" in html
        assert "adyen/ruled" in html

    def test_without_rules_says_what_happens_then(self, log_in: Login) -> None:
        html = log_in("Admin").get(reverse(LIST)).content.decode()
        assert "orders go to the active account with the lowest priority" in html


class TestTheRehearsal:
    @pytest.fixture
    def orders(self, stripe: GatewayAccount) -> None:
        for currency in ("EUR", "CHF", "CHF"):
            PaymentFactory(order=OrderFactory(currency=currency), account=stripe)

    def show(self, client: Client, **wish: Any) -> str:
        defaults = {"amount": "100.00", "currency": "CHF", "tokens": ["payment_method", "adyen"]}
        return str(client.get(reverse(REHEARSE), {**defaults, **wish}).content.decode())

    def test_shows_where_an_order_would_go_and_why(self, log_in: Login, rule: RoutingRule) -> None:
        html = self.show(log_in("On-call"))
        assert html.index("adyen/ruled</b> with the one for adyen") < html.index(
            "stripe/ruled</b> with the plain"
        )
        assert "rule “Switzerland”, number 1" in html
        assert "after the rule “Switzerland”, by priority" in html

    def test_shows_who_is_left_out(self, log_in: Login, rule: RoutingRule, adyen: GatewayAccount) -> None:
        adyen.switch_off(by="user:ann", reason="x")
        html = self.show(log_in("On-call"), tokens=["adyen"])
        assert "No account may be tried" in html
        assert "switched off by user:ann" in html
        assert "there is no token for it" in html

    def test_a_saved_method_goes_home(self, log_in: Login, rule: RoutingRule, stripe: GatewayAccount) -> None:
        assert "the saved payment method belongs to it" in self.show(log_in("Admin"), saved_account=stripe.pk)

    def test_says_what_it_cannot_read(self, log_in: Login, rule: RoutingRule) -> None:
        client = log_in("Admin")
        assert "is not a payable ISO 4217 currency" in self.show(client, currency="EUX")
        assert "is not an amount" in self.show(client, amount="many")

    def test_counts_the_newest_orders_under_the_rules(
        self, log_in: Login, orders: None, rule: RoutingRule
    ) -> None:
        html = log_in("On-call").get(reverse(REHEARSE)).content.decode()
        assert "Of the newest 3 orders 2 would go to another account first." in html

    def test_is_not_for_everybody(self, log_in: Login) -> None:
        for role in ("Finance", "Fraud analyst", "Integrator"):
            assert log_in(role).get(reverse(REHEARSE)).status_code == 403

    def test_a_rule_is_tried_without_saving_it(
        self, log_in: Login, orders: None, stripe: GatewayAccount, adyen: GatewayAccount
    ) -> None:
        html = send(log_in("Admin"), fill((adyen, ""), currencies="EUR"), reverse(f"{PREVIEW}_new"))
        assert "Of the newest 3 orders 1 would go to another account first." in html
        assert not RoutingRule.objects.exists()

    def test_a_change_is_tried_without_saving_it(
        self, log_in: Login, orders: None, rule: RoutingRule, stripe: GatewayAccount
    ) -> None:
        form = fill((stripe, ""), rule=rule, name="Alps", currencies="CHF")
        html = send(log_in("Admin"), form, reverse(PREVIEW, args=[rule.pk]))
        assert "Of the newest 3 orders 0 would go to another account first." in html
        rule.refresh_from_db()
        assert rule.name == "Switzerland"
        assert rule.targets.get().account.gateway == "adyen"

    def test_a_wrong_rule_is_told_and_not_counted(
        self, log_in: Login, orders: None, rule: RoutingRule, stripe: GatewayAccount
    ) -> None:
        client = log_in("Admin")
        url = reverse(f"{PREVIEW}_new")
        response = client.post(url, fill(currencies="XTS"))
        assert response.status_code == 422
        html = response.content.decode()
        assert "No payable ISO 4217 currency: XTS" in html
        assert "at least one target account" in html
        assert "would go" not in html


def test_an_empty_row_is_no_target(log_in: Login, stripe: GatewayAccount) -> None:
    """The page offers some, numbered; what was left empty is not asked for."""
    form = fill((stripe, ""))
    form |= {"targets-TOTAL_FORMS": "3", "targets-1-position": "2", "targets-2-position": "1"}
    assert "was added successfully" in send(log_in("Admin"), form)
    assert RoutingTarget.objects.count() == 1
