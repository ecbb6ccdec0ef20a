"""Eight threads deliver one event at the moment when the answer that says the same is being written: one effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Barrier

import pytest
from django.test import Client

from payments import services
from payments.models import Order, Payment, SagaRun
from payments.proof import prove_ledger
from tests.payments.conftest import screener as screener
from tests.payments.gateway_faults import expire_leases
from tests.payments.threads import run_in_threads
from tests.webhooks.orders import PART, TOTAL, Signed, Teller, come_to_rest
from tests.webhooks.tellers import kind as kind
from tests.webhooks.tellers import teller as teller
from webhooks import processing
from webhooks.models import InboundState, InboundWebhook

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.concurrency]

THREADS = 8


def authorize(teller: Teller) -> Order:
    return teller.place(capture="manual", hold="authorize")


def capture(teller: Teller) -> Order:
    return teller.place(hold="capture")


def refund(teller: Teller) -> Order:
    order = teller.place()
    teller.hear_of_the_capture()
    teller.refund(order, PART, hold=True)
    return order


# What is in doubt, and the totals that it ends in: authorized, captured, refunded.
RACES: Mapping[str, tuple[Callable[[Teller], Order], tuple[int, int, int]]] = {
    "authorize": (authorize, (TOTAL, 0, 0)),
    "capture": (capture, (TOTAL, TOTAL, 0)),
    "refund": (refund, (TOTAL, TOTAL, PART)),
}


@pytest.mark.parametrize("name", RACES)
def test_one_effect_of_eight_deliveries_and_the_answer(name: str, teller: Teller) -> None:
    begin, totals = RACES[name]
    order = begin(teller)
    told = teller.collect()
    if not told:
        pytest.skip("Braintree's webhooks say nothing of an authorization")
    before = InboundWebhook.objects.count()
    statuses = race(teller, told[-1])
    come_to_rest()

    payment = Payment.objects.get(order=order)
    assert statuses == [200] * THREADS
    assert (payment.authorized, payment.captured, payment.refunded) == totals
    assert payment.operations.filter(kind=name).count() == 1
    assert set(payment.operations.values_list("state", flat=True)) == {"succeeded"}
    event = InboundWebhook.objects.order_by("pk").last()
    assert event is not None
    assert InboundWebhook.objects.count() == before + 1
    assert (event.duplicates, event.attempts, event.last_error) == (THREADS - 1, 1, "")
    assert event.state in (InboundState.PROCESSED, InboundState.IGNORED)
    assert set(SagaRun.objects.values_list("last_error", flat=True)) <= {"", None}
    assert prove_ledger() == []


def race(teller: Teller, signed: Signed) -> list[int]:
    """The statuses that the eight were answered with; the ninth thread drives the saga that wants the answer."""
    together = Barrier(THREADS + 1)
    waits = [together]
    teller.gateway.hold = ""
    teller.gateway.meanwhile = lambda: waits.pop().wait() if waits else None
    expire_leases()

    def work(index: int) -> int:
        if index == 0:
            services.sweep_sagas()
            return 0
        together.wait()
        kind = signed.headers.get("content-type", "application/x-www-form-urlencoded")
        answer = Client().post(
            f"/webhooks/{teller.account.gateway}/{teller.account.name}/",
            signed.body,
            content_type=kind,
            headers=signed.headers,
        )
        processing.process_due()
        return answer.status_code

    statuses = run_in_threads(work, THREADS + 1)[1:]
    assert not waits, "nobody wanted the answer"
    return statuses
