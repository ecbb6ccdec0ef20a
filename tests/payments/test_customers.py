"""Customers, the methods they save, pay with and remove, and what a gateway is told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone

from payments import cards_on_file, services
from payments.errors import InvalidRequestError, NetworkError
from payments.gateways.base import CardDetails, ChargeRequest, ChargeResult, SavedToken
from payments.models import ApiClient, Customer, OnCallPage, Order, OrderState, SavedPaymentMethod
from payments.services import customers
from tests.factories import ApiClientFactory, PaymentFactory
from tests.factories.customers import CustomerFactory, SavedPaymentMethodFactory
from tests.fakes import FakeGateway

pytestmark = pytest.mark.django_db
VISA = CardDetails(brand="visa", last4="4242", exp_month=12, exp_year=2030, fingerprint="fp_1")


class Vault(FakeGateway):
    """Saves what it is asked to, remembers what it was sent, and deletes tokens unless it is down."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[ChargeRequest] = []
        self.forgotten: list[SavedToken] = []
        self.is_down = False

    def _authorize(self, request: ChargeRequest) -> ChargeResult:
        self.requests.append(request)
        result = super()._authorize(request)
        saved = SavedToken(f"pm_kept_{len(self.requests)}", "cus_at_gateway")
        return replace(result, saved=saved) if request.save_payment_method else result

    def forget_payment_method(self, saved: SavedToken) -> None:
        assert not connection.in_atomic_block or connection.savepoint_ids == self.outermost
        if self.is_down:
            raise NetworkError("The gateway is down.")
        self.forgotten.append(saved)

    outermost: list[str]


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Vault:
    fake = Vault()
    fake.outermost = list(connection.savepoint_ids)
    monkeypatch.setattr("payments.sagas.effects.get_gateway", lambda account: fake)
    monkeypatch.setattr(customers, "get_gateway", lambda account: fake)
    return fake


@pytest.fixture
def saved(shop: ApiClient) -> SavedPaymentMethod:
    method: SavedPaymentMethod = SavedPaymentMethodFactory(
        customer__client=shop, customer__storefront_id="cus_42", token="pm_saved"
    )
    return method


class TestKeeping:
    def test_a_customer_is_one_row_per_storefront_and_id(self, shop: ApiClient) -> None:
        first, is_new = services.find_or_create_customer(shop, "cus_42", email="a@example.com", name="Ann")
        again, is_new_again = services.find_or_create_customer(shop, "cus_42", email="b@example.com")
        other, _ = services.find_or_create_customer(ApiClientFactory(), "cus_42")
        assert (is_new, is_new_again) == (True, False)
        assert (again.pk, again.email, again.name) == (first.pk, "b@example.com", "Ann")
        assert other.pk != first.pk

    def test_whoever_is_slower_finds_the_row_of_the_faster(
        self, shop: ApiClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        faster = CustomerFactory(client=shop, storefront_id="cus_42")
        original = cards_on_file.Customer.objects.filter

        class Blind:
            """Sees nothing the first time."""

            def __init__(self) -> None:
                self.first = lambda: None
                self.get = original(client=shop, storefront_id="cus_42").get
                self.filter = original(client=shop, storefront_id="cus_42").filter

        monkeypatch.setattr(cards_on_file.Customer.objects, "filter", lambda **_: Blind())
        found, is_new = cards_on_file.find_or_create_customer(shop, "cus_42")
        assert (found.pk, is_new) == (faster.pk, False)

    def test_a_card_is_saved_with_the_order_that_pays(
        self, place: Callable[..., Order], gateway: Vault, shop: ApiClient
    ) -> None:
        order = place(customer_id="cus_42", customer_email="buyer@example.com", save_payment_method=True)
        customer = Customer.objects.get(client=shop, storefront_id="cus_42")
        [method] = services.list_payment_methods(customer)
        assert (method.token, method.gateway_customer, method.last4) == (
            "pm_kept_1",
            "cus_at_gateway",
            "4242",
        )
        assert (customer.email, order.payment.saved_method) == ("buyer@example.com", method)
        with connection.cursor() as cursor:
            cursor.execute("SELECT token FROM payments_savedpaymentmethod")
            assert "pm_kept" not in cursor.fetchone()[0]

    def test_it_is_not_saved_unless_asked_or_paid(self, place: Callable[..., Order], gateway: Vault) -> None:
        place(customer_id="cus_42")
        place(customer_id="cus_42", save_payment_method=True, payment_method="pm_card_Declined")
        assert not SavedPaymentMethod.objects.exists()

    def test_the_same_card_stays_one_method_and_the_old_token_is_forgotten(
        self, place: Callable[..., Order], gateway: Vault
    ) -> None:
        for _ in range(2):
            place(customer_id="cus_42", save_payment_method=True)
        method = SavedPaymentMethod.objects.usable().get()
        assert method.token == "pm_kept_2"
        assert services.forget_removed_methods() == 1
        assert [saved.token for saved in gateway.forgotten] == ["pm_kept_1"]

    def test_the_same_token_again_only_refreshes(self) -> None:
        payment = PaymentFactory()
        token = SavedToken("pm_1")
        first = services.save_payment_method(payment, token, VISA)
        again = services.save_payment_method(payment, token, replace(VISA, exp_year=2034))
        assert first
        assert again
        assert (again.pk, again.exp_year) == (first.pk, 2034)
        assert SavedPaymentMethod.objects.count() == 1

    def test_cards_without_a_fingerprint_are_told_apart_by_token(self) -> None:
        payment = PaymentFactory()
        for token in ("pm_1", "pm_2", "pm_1"):
            services.save_payment_method(payment, SavedToken(token), None)
        assert SavedPaymentMethod.objects.usable().count() == 2

    def test_a_guest_has_nowhere_to_keep_it(self) -> None:
        payment = PaymentFactory(order__customer_id="")
        assert services.save_payment_method(payment, SavedToken("pm_1"), VISA) is None


class TestPaying:
    def test_the_token_is_charged_where_it_is(
        self, place: Callable[..., Order], gateway: Vault, saved: SavedPaymentMethod
    ) -> None:
        order = place(customer_id="cus_42", payment_method=saved.pk, off_session=True)
        [request] = gateway.requests
        assert order.state in (OrderState.PAID, OrderState.FULFILLED)
        assert (request.payment_method, request.customer_reference) == ("pm_saved", "cus_at_gateway")
        assert (request.is_merchant_initiated, request.customer_id) == (True, "cus_42")
        assert (order.payment.account, order.payment.saved_method) == (saved.account, saved)
        assert order.payment.payment_method == saved.pk, "the token itself is kept encrypted alone"

    def test_after_a_decline_one_may_be_named(
        self, place: Callable[..., Order], gateway: Vault, saved: SavedPaymentMethod
    ) -> None:
        order = place(customer_id="cus_42", payment_method="pm_card_Declined")
        order = services.confirm_order(order, payment_method=saved.pk)
        assert order.state in (OrderState.PAID, OrderState.FULFILLED)
        assert gateway.requests[-1].payment_method == "pm_saved"

    @pytest.mark.parametrize(
        ("method", "draft", "pointer"),
        [
            ({}, {"customer_id": "cus_43"}, "/payment_method"),
            ({"customer__client": None}, {}, "/payment_method"),
            ({"removed_at": timezone.now(), "forget_at": timezone.now()}, {}, "/payment_method"),
            ({"exp_year": 2020}, {}, "/payment_method"),
            ({"customer__erasure_requested_at": timezone.now()}, {}, "/payment_method"),
            ({}, {"customer_id": ""}, "/customer/id"),
            ({}, {"payment_method": "spm_nonsense"}, "/payment_method"),
            ({}, {"payment_method": "pm_card_visa", "off_session": True}, "/off_session"),
        ],
    )
    def test_what_may_not_be_charged_is_refused_before_anything_is(
        self,
        place: Callable[..., Order],
        gateway: Vault,
        shop: ApiClient,
        method: dict[str, Any],
        draft: dict[str, Any],
        pointer: str,
    ) -> None:
        method = {"customer__client": shop, **method}
        method["customer__client"] = method["customer__client"] or ApiClientFactory()
        saved = SavedPaymentMethodFactory(customer__storefront_id="cus_42", **method)
        with pytest.raises(InvalidRequestError, match=r"(?i)nothing was charged") as caught:
            place(**{"customer_id": "cus_42", "payment_method": saved.pk, **draft})
        assert caught.value.details["pointer"] == pointer
        assert not Order.objects.exists()
        assert gateway.requests == []

    def test_a_card_is_good_until_the_end_of_its_month(self) -> None:
        today = timezone.now().date()
        card = SavedPaymentMethodFactory(exp_year=today.year, exp_month=today.month)
        assert not card.has_expired(today)
        assert card.has_expired(today + timedelta(days=32))

    def test_one_removed_between_order_and_charge_is_not_charged(
        self, place: Callable[..., Order], gateway: Vault, saved: SavedPaymentMethod, screener: Any
    ) -> None:
        screen = screener.screen
        removed = SavedPaymentMethod.objects.filter(pk=saved.pk)

        def remove_then_screen(*args: Any, **options: Any) -> Any:
            removed.update(removed_at=timezone.now(), forget_at=timezone.now())
            return screen(*args, **options)

        screener.screen = remove_then_screen
        order = place(customer_id="cus_42", payment_method=saved.pk)
        assert order.state not in (OrderState.PAID, OrderState.FULFILLED)
        assert gateway.requests == []


class TestRemoving:
    def test_it_is_unusable_and_gone_at_the_gateway(self, gateway: Vault, saved: SavedPaymentMethod) -> None:
        services.remove_payment_method(saved)
        saved.refresh_from_db()
        assert gateway.forgotten == [SavedToken("pm_saved", "cus_at_gateway")]
        assert (saved.token, saved.forget_at, saved.last4) == ("", None, "4242")
        assert saved.removed_at
        services.remove_payment_method(saved)
        assert len(gateway.forgotten) == 1

    def test_with_the_gateway_down_it_is_unusable_and_the_token_waits(
        self, gateway: Vault, saved: SavedPaymentMethod
    ) -> None:
        gateway.is_down = True
        services.remove_payment_method(saved)
        assert not SavedPaymentMethod.objects.usable().exists()
        saved.refresh_from_db()
        assert saved.token == "pm_saved"
        assert services.forget_removed_methods() == 0, "not due yet"
        gateway.is_down = False
        SavedPaymentMethod.objects.update(forget_at=timezone.now())
        assert services.forget_removed_methods() == 1
        saved.refresh_from_db()
        assert (saved.token, saved.forget_at) == ("", None)

    def test_it_waits_longer_each_time_and_then_somebody_is_called(
        self, gateway: Vault, saved: SavedPaymentMethod
    ) -> None:
        gateway.is_down = True
        services.remove_payment_method(saved)
        waits = []
        for _ in range(customers.PAGE_AFTER_TRIES - 1):
            SavedPaymentMethod.objects.update(forget_at=timezone.now())
            services.forget_removed_methods()
            saved.refresh_from_db()
            assert saved.forget_at
            waits.append(saved.forget_at - timezone.now())
        assert waits == sorted(waits)
        assert waits[-1] <= customers.FORGET_BACKOFF_MOST
        assert OnCallPage.objects.count() == 1

    def test_a_killed_worker_is_followed_by_another(
        self, gateway: Vault, saved: SavedPaymentMethod, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(
                gateway, "forget_payment_method", lambda _: (_ for _ in ()).throw(KeyboardInterrupt)
            )
            with pytest.raises(KeyboardInterrupt):
                services.remove_payment_method(saved)
        assert services.forget_removed_methods() == 0, "leased"
        SavedPaymentMethod.objects.update(forget_at=timezone.now())
        assert services.forget_removed_methods() == 1

    def test_the_database_keeps_no_token_that_nobody_will_delete(self, saved: SavedPaymentMethod) -> None:
        with pytest.raises(IntegrityError), transaction.atomic():
            SavedPaymentMethod.objects.update(removed_at=timezone.now())

    def test_one_live_row_per_card(self, saved: SavedPaymentMethod) -> None:
        twin = {"customer": saved.customer, "account": saved.account, "fingerprint": saved.fingerprint}
        with pytest.raises(DatabaseError), transaction.atomic():
            SavedPaymentMethodFactory(**twin)
