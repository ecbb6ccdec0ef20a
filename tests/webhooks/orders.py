"""Stories of one payment at a gateway's stand-in: what it told, signed, and the one answer that is held back."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import permutations
from random import Random
from typing import Any
from urllib.parse import urlencode

from django.db import transaction
from django.db.models import Sum
from django.forms.models import model_to_dict
from django.utils import timezone

from payments import services
from payments.gateways.base import CaptureRequest, PaymentGateway, RefundRequest
from payments.ids import new_id
from payments.kinds import DisputeStage
from payments.models import ApiClient, GatewayAccount, Order, Payment, Posting
from payments.money import Money
from payments.proof import prove_ledger
from tests.payments.gateway_faults import expire_leases
from tests.wire.shop import ProcessDiedError
from webhooks import processing
from webhooks.inbound import Verdict, receive
from webhooks.models import InboundWebhook
from webhooks.verifiers import stripe

# How many orders of each story: a number of seeds, or "all" for every one with the answer at every place.
SEEDS = os.environ.get("ORDER_SEEDS", "9")
TOTAL, PART, REST = 1999, 300, 500
KEYS = {"stripe": "whsec_orders", "adyen": "44782DEF547AAA06C910C43932B1EB0C", "braintree": "public|private"}
ROUNDS = 8

Look = dict[str, Any]


@dataclass(frozen=True)
class Signed:
    """One delivery as the gateway would post it."""

    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class HeldGateway:
    """The real adapter. The answer to the call named in `hold` is kept back by a death, and given at the next try.

    `meanwhile` happens while that answer is under way.
    """

    def __init__(self, gateway: PaymentGateway) -> None:
        self.capabilities = gateway.capabilities
        self.hold = ""
        self.meanwhile: Callable[[], None] = lambda: None
        self.moved: list[str] = []  # the gateway's references of what was captured and refunded
        self._gateway = gateway
        self.held: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._gateway, name)

        def act(request: Any, **more: Any) -> Any:
            held = self.held.get(getattr(request, "operation_id", ""))
            if held is not None:
                self.meanwhile()
                return held
            answer = call(request, **more)
            if name in ("capture", "refund"):
                self.moved.append(answer.reference)
            if name != self.hold:
                return answer
            self.held[request.operation_id] = answer
            raise ProcessDiedError(name)

        return act


@dataclass
class Teller:
    """One account at one stand-in, a shop that pays there, and what was told of it since."""

    account: GatewayAccount
    world: Any
    client: ApiClient
    gateway: HeldGateway

    # --- the shop -------------------------------------------------------------------------------------------

    def place(self, *, capture: str = "automatic", hold: str = "") -> Order:
        """An order driven until the call `hold`, whose answer nobody has seen."""
        self.gateway.hold = hold
        token = self.world.card("ok")
        draft = services.OrderDraft(
            new_id("ord"), Money(TOTAL, "EUR"), token, capture=capture, shipping={"country": "DE"}
        )
        order = services.place_order(self.client, draft, drive=False)
        with suppress(ProcessDiedError):
            services.resume_order(order)
        return Order.objects.get(pk=order.pk)

    def refund(self, order: Order, amount: int, *, hold: bool = False) -> None:
        self.gateway.hold = "refund" if hold else ""
        with suppress(ProcessDiedError):
            services.refund_order(order, amount=amount, reason="requested_by_customer", actor="api:shop")

    # --- the gateway's own pages ----------------------------------------------------------------------------

    def capture_there(self, reference: str) -> None:
        self.gateway.hold, name = "", new_id("op")
        self.gateway.capture(CaptureRequest(name, name, reference, Money(TOTAL, "EUR")))

    def refund_there(self, reference: str, amount: int) -> None:
        self.gateway.hold, name = "", new_id("op")
        self.gateway.refund(RefundRequest(name, name, reference, Money(amount, "EUR")))

    def dispute(self, reference: str, *, won: bool) -> None:
        dispute = self.world.dispute(reference, stage=DisputeStage.CHARGEBACK)
        if won:
            self.world.tomorrow()
            self.world.decide(dispute, won=True)

    # --- what it told ---------------------------------------------------------------------------------------

    def collect(self) -> list[Signed]:
        """Everything told since the world began, each signed as its gateway signs."""
        self.world.settle()
        return list(SIGNERS[self.account.gateway](self))

    def hear_of_the_capture(self) -> None:
        """Where a capture is only received, the shop can refund what its webhook has told."""
        if self.gateway.capabilities.asynchronous_captures:
            for signed in self.collect():
                self.deliver(signed)
            come_to_rest()

    def deliver(self, signed: Signed) -> None:
        """Through the receipt to the archive, and from there by the worker."""
        receipt = receive(self.account.gateway, self.account.name, headers=signed.headers, body=signed.body)
        assert receipt.verdict in (Verdict.STORED, Verdict.DUPLICATE), receipt
        processing.process_due()


def sign_stripe(teller: Teller) -> Iterator[Signed]:
    for event in teller.world.events():
        body = json.dumps(event).encode()
        header = stripe.sign(body, secret=KEYS["stripe"], timestamp=int(time.time()))
        yield Signed(body, {"stripe-signature": header})


def take_adyen(teller: Teller) -> Iterator[Signed]:
    """Signed by the stand-in, with the account's key."""
    for webhook in teller.world.events():
        yield Signed(json.dumps(webhook).encode())


def take_braintree(teller: Teller) -> Iterator[Signed]:
    """Of movements it is asked, when all have settled; disputes it has told of by itself."""
    for reference in dict.fromkeys(teller.gateway.moved):
        teller.world.tell("transaction_settled", transaction=reference)
    for form in teller.world.forms:
        yield Signed(urlencode(form).encode())


SIGNERS: dict[str, Callable[[Teller], Iterator[Signed]]] = {
    "stripe": sign_stripe,
    "adyen": take_adyen,
    "braintree": take_braintree,
}


# --- orders -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrival:
    """One order in which deliveries come, and how many of them come before the answer has been written."""

    deliveries: Sequence[Signed]
    before: int


def choose_arrivals(told: Sequence[Signed], seed: int) -> Iterator[Arrival]:
    """Every event twice. The answer's first, last and middle places are always among the seeded ones."""
    if SEEDS == "all":
        rng = Random(seed)
        for order in permutations(told):
            doubled = double(order, rng)
            yield from (Arrival(doubled, before) for before in range(len(doubled) + 1))
        return
    for number in range(int(SEEDS)):
        rng = Random(f"{seed}-{number}")
        doubled = double(rng.sample(told, len(told)), rng)
        places = (0, len(doubled), rng.randint(1, len(doubled) - 1))
        yield Arrival(doubled, places[number % len(places)])


def double(order: Sequence[Signed], rng: Random) -> list[Signed]:
    """Each a second time, anywhere after or before its first."""
    doubled = list(order)
    for signed in order:
        doubled.insert(rng.randint(0, len(doubled)), signed)
    return doubled


def look_after(teller: Teller, order: Order, arrival: Arrival) -> Look:
    """What an order of arrival leaves; nothing of it stays."""
    with transaction.atomic():
        arrive(teller, arrival)
        look = look_at(order)
        transaction.set_rollback(True)
    return look


def arrive(teller: Teller, arrival: Arrival) -> None:
    """The answer is given once, while the first deliveries are taken; all else follows it."""
    waiting = [list(arrival.deliveries[: arrival.before])]

    def tell() -> None:
        for signed in waiting.pop() if waiting else ():
            teller.deliver(signed)

    teller.gateway.hold, teller.gateway.meanwhile = "", tell
    expire_leases()
    services.sweep_sagas()
    assert not waiting, "nobody wanted the answer"
    for signed in arrival.deliveries[arrival.before :]:
        teller.deliver(signed)
    come_to_rest()


def come_to_rest() -> None:
    for _ in range(ROUNDS):
        expire_leases()
        driven = services.sweep_sagas()
        parked = InboundWebhook.objects.open()
        if not driven and not parked.exists():
            return
        parked.update(next_try_at=timezone.now())
        processing.process_due()
    raise AssertionError(f"no rest: {list(InboundWebhook.objects.open().values('event_type', 'last_error'))}")


def look_at(order: Order) -> Look:
    payment = Payment.objects.get(order=order)
    postings = Posting.objects.filter(entry__payment=payment)
    balances = postings.values_list("account__code").annotate(total=Sum("amount")).order_by()
    webhooks = InboundWebhook.objects.all()
    return {
        "order": Order.objects.get(pk=order.pk).state,
        "payment": {
            name: value for name, value in model_to_dict(payment).items() if not name.endswith("_at")
        },
        "operations": sorted(
            payment.operations.values_list("kind", "state", "amount", "gateway_reference", "source")
        ),
        "disputes": sorted(
            payment.disputes.values_list("gateway_reference", "state", "stage", "amount", "is_withdrawn")
        ),
        "balances": sorted(balances.exclude(total=0)),
        "archive": sorted(webhooks.values_list("event_type", "state", "duplicates")),
        "proof": prove_ledger(),
    }
