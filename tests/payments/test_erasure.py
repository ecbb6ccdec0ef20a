"""Erasure on request: nobody is left in the rows, the books stay, and it goes on after a kill or an open order."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from fraud.models import Assessment
from payments import services
from payments.gateways.base import SavedToken
from payments.models import (
    ApiClient,
    Customer,
    Event,
    IdempotencyKey,
    Operation,
    Order,
    Posting,
    SagaState,
    SavedPaymentMethod,
)
from payments.services import erasure
from tests.factories import OperationFactory, OrderFactory, PaymentFactory, SagaRunFactory
from tests.factories.customers import CustomerFactory, OpenDisputeFactory, SavedPaymentMethodFactory
from tests.factories.fraud import AssessmentFactory
from tests.factories.webhooks import DeliveryFactory, InboundWebhookFactory
from tests.payments.test_customers import Vault
from tests.payments.test_customers import gateway as gateway  # the fixture
from webhooks.models import InboundState

pytestmark = pytest.mark.django_db
TOKEN = SavedToken("pm_late")
ACTOR, REASON = "user:ann", "Asked for by letter."
# What of a person appears nowhere afterwards, whichever table, row or column.
PERSONAL = (
    "cus-of-the-shop",
    "zoe@example.com",
    "Zoe Zimmermann",
    "Zedernweg",
    "198.51.100.77",
    "device-zoe",
    "agent-zoe",
    "cart-of-zoe",
    "return-zoe",
    "Zoe called",
    "pm_kept_1",
)
PERSON: dict[str, Any] = {
    "customer_id": "cus-of-the-shop",
    "customer_email": "zoe@example.com",
    "billing": {"name": "Zoe Zimmermann", "line1": "Zedernweg 1", "country": "DE", "postal_code": "10115"},
    "shipping": {"name": "Zoe Zimmermann", "line1": "Zedernweg 1", "country": "DE"},
    "context": {"ip": "198.51.100.77", "user_agent": "agent-zoe", "device": "device-zoe"},
    "metadata": {"cart": "cart-of-zoe"},
    "return_url": "https://shop.example/return-zoe",
}


def dump() -> str:
    """Every row of every table of ours, as text."""
    texts = []
    for model in apps.get_models():
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM \"{model._meta.db_table}\" t"
            )
            texts.append(cursor.fetchone()[0])
    with connection.cursor() as cursor:
        cursor.execute("SELECT body FROM webhooks_inboundpayload")
        texts += [bytes(row[0]).decode() for row in cursor.fetchall()]
        cursor.execute("SELECT answer FROM payments_idempotencykey WHERE answer IS NOT NULL")
        texts += [bytes(row[0]).decode() for row in cursor.fetchall()]
    return "\n".join(texts)


def found_in_rows() -> set[str]:
    everything = dump()
    return {word for word in PERSONAL if word in everything}


@pytest.fixture
def order(place: Callable[..., Order], gateway: Vault, shop: ApiClient) -> Order:
    """A paid and noted order, with its traces in every neighbour."""
    order = place(**PERSON, save_payment_method=True)
    services.find_or_create_customer(shop, "cus-of-the-shop", email="zoe@example.com", name="Zoe Zimmermann")
    services.add_note(order, text="Zoe called", actor="user:bob")
    services.refund_order(order, amount=100, reason="x", note="Zoe called", actor="user:bob")
    AssessmentFactory(order=order, payment=order.payment, context={"device": "device-zoe", "amount": 1})
    payload = json.dumps({"email": "zoe@example.com"}).encode()
    InboundWebhookFactory(order=order, payload=payload, state=InboundState.PROCESSED, next_try_at=None)
    delivery = DeliveryFactory(event=Event.objects.filter(order=order).last(), endpoint__client=shop)
    delivery.tries.create(started_at=timezone.now(), duration_ms=1, answer="Thanks, Zoe Zimmermann")
    make_answer(shop, order)
    return services.find_order(order.pk)


def make_answer(shop: ApiClient, order: Order) -> None:
    now = timezone.now()
    IdempotencyKey.objects.create(
        scope=shop.pk,
        route="POST orders",
        key="k" * 20,
        fingerprint="f",
        resource=order.pk,
        lease_expires_at=now,
        created_at=now,
        completed_at=now,
        status=201,
        content_type="application/json",
        answer=b'{"metadata": {"cart": "cart-of-zoe"}}',
    )


def erase(shop: ApiClient) -> services.Erasure:
    customer = services.find_customer_to_erase(shop, "cus-of-the-shop")
    return services.erase_customer(customer, actor=ACTOR, reason=REASON)


class TestWhatGoesAndWhatStays:
    def test_the_judge_sees_everything_before(self, order: Order) -> None:
        assert found_in_rows() >= set(PERSONAL) - {"pm_kept_1"}

    def test_nobody_is_left_in_any_row(self, order: Order, shop: ApiClient, gateway: Vault) -> None:
        assert erase(shop).is_done
        assert found_in_rows() == set()
        assert [saved.token for saved in gateway.forgotten] == ["pm_kept_1"]
        assert SavedPaymentMethod.objects.get().token == ""

    def test_the_books_stay(self, order: Order, shop: ApiClient) -> None:
        before = (
            list(Posting.objects.order_by("pk").values()),
            list(Operation.objects.order_by("pk").values_list("pk", "amount", "state", "requested_by")),
        )
        erase(shop)
        after = services.find_order(order.pk)
        assert (after.amount, after.reference, after.lines) == (order.amount, order.reference, order.lines)
        assert (after.billing, after.shipping) == ({"country": "DE"}, {"country": "DE"})
        assert after.payment.captured == order.payment.captured
        assert before == (
            list(Posting.objects.order_by("pk").values()),
            list(Operation.objects.order_by("pk").values_list("pk", "amount", "state", "requested_by")),
        )
        call_command("prove_ledger")

    def test_it_is_told_who_asked_and_why(self, order: Order, shop: ApiClient) -> None:
        erase(shop)
        event = Event.objects.get(type="order.customer_erased")
        customer = Customer.objects.get()
        assert (event.actor, event.order_id, event.is_public) == (ACTOR, order.pk, True)
        assert event.data["customer"] == customer.pk
        assert (customer.erasure_requested_by, customer.erasure_reason) == (ACTOR, REASON)
        assert customer.state == "erased"

    def test_notes_keep_who_wrote_them_and_when(self, order: Order, shop: ApiClient) -> None:
        erase(shop)
        note = Event.objects.get(type="order.note")
        assert (note.actor, note.data["note"]) == ("user:bob", "[erased]")

    def test_an_old_key_still_never_charges_again(self, order: Order, shop: ApiClient) -> None:
        erase(shop)
        key = IdempotencyKey.objects.get(key="k" * 20)
        assert (key.is_tombstone, key.answer, key.resource) == (True, None, order.pk)

    def test_other_customers_are_not_touched(self, order: Order, place: Any, shop: ApiClient) -> None:
        other = place(**{**PERSON, "customer_id": "cus-other"})
        foreign = PaymentFactory(order__customer_id="cus-of-the-shop").order
        erase(shop)
        other.refresh_from_db()
        foreign.refresh_from_db()
        assert other.customer_email == "zoe@example.com"
        assert foreign.customer_id == "cus-of-the-shop"
        assert not Assessment.objects.filter(order=other, context={}).exists()


class TestWhatIsOpen:
    def make(self, shop: ApiClient, **fields: Any) -> Order:
        payment = PaymentFactory(
            order=OrderFactory(client=shop, state="paid", **PERSON, **fields), is_captured=True
        )
        CustomerFactory(client=shop, storefront_id="cus-of-the-shop")
        return Order.objects.get(pk=payment.order_id)

    @pytest.mark.parametrize("why", ["saga", "dispute", "operation", "state"])
    def test_an_open_order_is_left_alone_and_comes_later(
        self, why: str, shop: ApiClient, gateway: Vault
    ) -> None:
        order = self.make(shop)
        if why == "saga":
            open_row: Any = SagaRunFactory(order=order, state=SagaState.QUARANTINED, wake_at=None)
            closing = {"state": SagaState.FORCED}
        elif why == "dispute":
            open_row, closing = OpenDisputeFactory(payment=order.payment), {"state": "won"}
        elif why == "operation":
            open_row = OperationFactory(attempt__payment=order.payment, state="unknown")
            closing = {"state": "succeeded"}
        else:
            open_row, closing = order, {"state": "paid"}
            Order.objects.update(state="processing")
        told = erase(shop)
        assert (told.is_done, told.open_orders) == (False, 1)
        order.refresh_from_db()
        assert order.customer_email == "zoe@example.com"
        assert services.continue_erasures() == 0
        type(open_row).objects.filter(pk=open_row.pk).update(**closing)
        assert services.continue_erasures() == 1
        assert "zoe@example.com" not in dump()
        assert services.continue_erasures() == 0

    def test_the_customer_is_gone_at_once_all_the_same(self, shop: ApiClient, gateway: Vault) -> None:
        self.make(shop)
        Order.objects.update(state="processing")
        erase(shop)
        with pytest.raises(Customer.DoesNotExist):
            services.find_customer(shop, "cus-of-the-shop")
        customer = Customer.objects.get()
        assert (customer.email, customer.name, customer.state) == ("", "", "erasing")
        assert "cus-of-the-shop" not in str(list(Customer.objects.values("storefront_id")))

    def test_a_token_that_its_gateway_keeps_holds_the_end_up(self, shop: ApiClient, gateway: Vault) -> None:
        SavedPaymentMethodFactory(customer__client=shop, customer__storefront_id="cus-of-the-shop")
        gateway.is_down = True
        told = erase(shop)
        assert (told.is_done, told.open_tokens) == (False, 1)
        gateway.is_down = False
        SavedPaymentMethod.objects.update(forget_at=timezone.now())
        assert services.continue_erasures() == 1
        assert (SavedPaymentMethod.objects.get().token, SavedPaymentMethod.objects.get().last4) == ("", "")

    def test_what_an_order_saves_after_the_request_is_forgotten(
        self, shop: ApiClient, gateway: Vault
    ) -> None:
        order = self.make(shop)
        Order.objects.update(state="processing")
        erase(shop)
        saved = services.save_payment_method(order.payment, TOKEN, None)
        assert saved
        assert saved.removed_at
        assert not SavedPaymentMethod.objects.usable().exists()
        Order.objects.update(state="paid")
        assert services.continue_erasures() == 1
        assert gateway.forgotten == [TOKEN]


class TestAgain:
    def test_asking_again_changes_nothing(self, order: Order, shop: ApiClient) -> None:
        assert erase(shop).is_done
        before = dump()
        assert erase(shop).is_done
        assert dump() == before

    def test_after_a_kill_it_goes_on(
        self, order: Order, shop: ApiClient, place: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place(**PERSON)
        blank, calls = erasure._blank_order, []

        def die_at_the_second(*args: Any) -> None:
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            blank(*args)

        with monkeypatch.context() as patch:
            patch.setattr(erasure, "_blank_order", die_at_the_second)
            with pytest.raises(KeyboardInterrupt):
                erase(shop)
        assert Order.objects.filter(customer_email="").count() == 1
        assert services.continue_erasures() == 1
        assert found_in_rows() == set()
        assert Event.objects.filter(type="order.customer_erased").count() == 2

    def test_many_orders_are_blanked_a_batch_at_a_time(
        self, order: Order, shop: ApiClient, place: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(erasure, "ORDERS_AT_ONCE", 1)
        place(**PERSON)
        assert erase(shop).open_orders == 1
        assert services.continue_erasures() == 1

    def test_whoever_comes_back_is_somebody_new(self, order: Order, shop: ApiClient, place: Any) -> None:
        erase(shop)
        again = place(**PERSON, save_payment_method=True)
        services.continue_erasures()
        again.refresh_from_db()
        assert again.customer_email == "zoe@example.com"
        assert Customer.objects.known().get().storefront_id == "cus-of-the-shop"
        assert erase(shop).is_done
        assert Customer.objects.filter(erased_at__isnull=False).count() == 2
        assert found_in_rows() == set()

    def test_who_has_only_ordered_is_erased_too_and_again(self, shop: ApiClient, place: Any) -> None:
        for times in (1, 2):
            place(**PERSON)
            assert erase(shop).is_done
            assert found_in_rows() == set()
            assert Customer.objects.count() == times

    def test_nobody_erases_a_customer_who_never_was(self, shop: ApiClient) -> None:
        with pytest.raises(Customer.DoesNotExist):
            erase(shop)
