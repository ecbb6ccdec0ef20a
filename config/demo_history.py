"""The past of the demo's shop, lived through the product's own services: orders, people, mishaps, nightly runs."""

from __future__ import annotations

import heapq
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from random import Random
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from config import demo_access, demo_fraud, demo_shop
from config.demo_clock import Bank, PastClock, date_first_rules
from fraud.models import Review
from payments import services
from payments.controls.roles import sync_roles
from payments.errors import ConflictError, PaymentError
from payments.models import (
    ApiClient,
    Dispute,
    GatewayAccount,
    Order,
    OrderState,
    RoutingRule,
    RoutingTarget,
    SagaRun,
    SagaState,
    SavedPaymentMethod,
    StockItem,
)
from payments.services import OrderDraft
from reconciliation import services as reconciliation
from reconciliation.kinds import DiscrepancyType
from reconciliation.models import Discrepancy
from reconciliation.models import ReasonCode as Settlement
from webhooks import processing
from webhooks.inbound import receive
from webhooks.verifiers import stripe as signatures

Play = Callable[[datetime], None]

API = f"api:{demo_access.CLIENT}"
NIGHT_RUN = timedelta(hours=4, minutes=30)  # after midnight
OPEN_REVIEWS = 8
PATIENCE = 12  # more tries than a saga has
ORDERS_A_DAY = (24, 33)  # besides the events
RESOLVED_BEFORE = timedelta(days=4)  # what is newer is still on finance's desk
CLOSED_BEFORE = timedelta(days=7)  # the books of days before are closed
SUBSCRIBER = 23  # the customer whose card is kept
TEA = {"TEA-POT": 1, "TEA-SENCHA": 4}  # an order that comes in two parcels
EVIDENCE = {
    "shipping_documentation": "Handed over three days after the order.",
    "customer_communication": "The customer thanked us for the parcel by mail.",
    "uncategorized": "The same card paid two earlier orders to the same address.",
}
STORIES = {
    "paid": 700,
    "declined": 85,
    "authenticated": 60,
    "abandoned": 18,
    "refunded": 70,
    "reviewed": 40,
    "captured_later": 40,
    "canceled": 12,
    "noted": 10,
}
DECLINES = {
    "chargeDeclined": 4,
    "chargeDeclinedInsufficientFunds": 4,
    "chargeDeclinedExpiredCard": 2,
    "chargeDeclinedIncorrectCvc": 2,
    "chargeDeclinedLostCard": 1,
}
# What happens besides, so many days ago.
EVENTFUL_DAYS = {
    12: ["unserved", "lost_answer", "dispute_won"],
    11: ["dropped_row", "limited", "saved_card"],
    10: ["blocked", "altered_row", "dispute_lost", "card_testing"],
    9: ["rescued", "late_webhook", "parts", "escalated"],
    8: ["limited", "foreign_refund", "second_rules", "import"],
    7: ["failed_capture", "blocked", "parts_refunded"],
    6: ["dropped_row", "limited"],
    5: ["invented_row", "lost_answer", "dispute_open"],
    4: ["stuck", "limited", "dispute_inquiry", "parts_released", "card_testing"],
    3: ["mismatch", "altered_row", "dropped_row", "parts"],
    2: ["stuck", "limited", "foreign_refund"],
    1: ["foreign_order", "limited", "blocked", "closing"],
    0: ["forged_webhook", "open_reviews"],
}
REFUND_NOTES = {
    "requested_by_customer": "Returned unused, parcel checked in.",
    "duplicate": "Ordered twice by mistake.",
    "damaged": "Arrived broken, photo in the mail.",
}
SETTLEMENTS = {
    DiscrepancyType.MISSING_GATEWAY: (
        Settlement.GATEWAY_ERROR,
        "The gateway confirmed it; the row comes later.",
    ),
    DiscrepancyType.MISSING_INTERNAL: (
        Settlement.CORRECTED_HERE,
        "Found in the gateway's dashboard, booked here.",
    ),
    DiscrepancyType.AMOUNT_MISMATCH: (Settlement.GATEWAY_ERROR, "The report was corrected by the gateway."),
}


ROLES = ("Finance", "Fraud analyst", "Fraud supervisor", "On-call")


@dataclass(frozen=True)
class People:
    """Who works in the back office."""

    finance: User
    analyst: User
    supervisor: User
    oncall: User

    @classmethod
    def find(cls) -> People:
        """The demo's logins, made now when there are none yet."""
        if not all(User.objects.filter(groups__name=name).exists() for name in ROLES):
            sync_roles()
            demo_access.demo_logins()
        return cls(*(User.objects.filter(groups__name=name).earliest("pk") for name in ROLES))


@dataclass(frozen=True)
class Calendar:
    """The days of a history, and how far they are lived. Each order keeps the last day, so that it is known again."""

    last: date
    days: int
    begun: frozenset[date] = frozenset()

    @classmethod
    def read(cls, client: ApiClient, *, days: int, now: datetime) -> Calendar:
        """The calendar that was begun, else a new one up to today; before the nightly run it is still yesterday."""
        told = client.orders.filter(metadata__has_key="history").order_by("id")
        first = told.first()
        if first is None:
            return cls((now - NIGHT_RUN - timedelta(minutes=30)).date(), days)
        last, count = first.metadata["history"].split("/")
        begun = frozenset(told.values_list("created_at__date", flat=True))
        return cls(date.fromisoformat(last), int(count), begun)

    @property
    def mark(self) -> str:
        return f"{self.last}/{self.days}"

    def left(self) -> list[date]:
        """The days after the last one begun: half a day stays half, so that nothing happens twice."""
        every = [self.last - timedelta(days=ago) for ago in reversed(range(self.days))]
        return [day for day in every if not self.begun or day > max(self.begun)]


@dataclass(order=True)
class Act:
    """Something that happens at a moment; `number` keeps the order of those at the same one."""

    at: datetime
    number: int
    play: Play = field(compare=False)


class History:
    """Plays the days, oldest first, and what follows from them later."""

    def __init__(self, calendar: Calendar, *, bank: Bank, now: datetime, say: Callable[[str], None]) -> None:
        self._calendar, self._bank, self._now, self._say = calendar, bank, now, say
        self._client = ApiClient.objects.get(name=demo_access.CLIENT)
        self._account = GatewayAccount.objects.get(gateway="stripe", name="default")
        self._people = People.find()
        self._acts: list[Act] = []
        self._numbers = itertools.count()
        self._dice = demo_shop.roll("history")
        self.failed: list[str] = []

    def fill(self) -> None:
        """Live every day that is left. Refused acts are kept in `failed`; whatever else goes wrong is raised."""
        days = self._calendar.left()
        self._stock()
        with PastClock(midnight(days[0])) as self._clock:
            for day in days:
                self._plan_day(day)
                is_last = day == self._calendar.last
                self._play_until(self._now if is_last else midnight(day) + timedelta(days=1))
                placed = self._client.orders.filter(created_at__date=day).count()
                self._say(f"{day}: {placed} orders")
            self._leave_desk(midnight(days[0]))

    def _stock(self) -> None:
        items = [StockItem(sku=sku, on_hand=number) for sku, number in demo_shop.STOCK.items()]
        StockItem.objects.bulk_create(items, ignore_conflicts=True)

    # --- the plan -------------------------------------------------------------------------------------------

    def _plan_day(self, day: date) -> None:
        dice = self._dice = demo_shop.roll(f"day {self._calendar.last - day}")
        ago = (self._calendar.last - day).days
        begin = midnight(day)
        self._schedule(begin + timedelta(minutes=20), partial(self._pay_out, day))
        self._schedule(begin + timedelta(hours=10), self._settle_discrepancies)
        for name in EVENTFUL_DAYS.get(ago, []):
            moment = draw_moment(dice, day) if ago else self._now - timedelta(minutes=dice.randint(20, 40))
            self._schedule(moment, getattr(self, f"_play_{name}"))
        if ago == self._calendar.days - 1:
            self._schedule(begin, self._begin_fraud_desk)
            self._schedule(begin + timedelta(minutes=2), self._route_dollars)
        else:
            self._schedule(begin + NIGHT_RUN, self._reconcile)
            self._schedule(begin + NIGHT_RUN, partial(self._collect, day - timedelta(days=1)))
        for _ in range(dice.randint(*ORDERS_A_DAY)):
            name = demo_shop.pick(dice, STORIES)
            self._schedule(draw_moment(dice, day), getattr(self, f"_play_{name}"))

    def _schedule(self, at: datetime, play: Play) -> None:
        heapq.heappush(self._acts, Act(at, next(self._numbers), play))

    def _play_until(self, end: datetime) -> None:
        while self._acts and self._acts[0].at < end:
            act = heapq.heappop(self._acts)
            try:
                act.play(act.at)
            except PaymentError as error:
                name = getattr(act.play, "func", act.play).__name__
                self.failed.append(f"{act.at:%F %T} {name}: {error}")

    # --- orders ---------------------------------------------------------------------------------------------

    def _place(self, at: datetime, **wishes: Any) -> Order:
        """One order by the storefront, and the webhooks that follow."""
        return self._place_together(at, wishes)[0]

    def _place_together(self, at: datetime, *wanted: dict[str, Any]) -> list[Order]:
        """Within a second: by the database's clock, velocity counts what is not yet moved to the past."""
        with self._acting(at) as touched:
            orders = [services.place_order(self._client, self._draft(at, wishes)) for wishes in wanted]
            touched.update(order.pk for order in orders)
        for order in orders:
            self._tell(order, at)
        return orders

    def _draft(self, at: datetime, wishes: dict[str, Any]) -> OrderDraft:
        reference = f"W-{at:%y%m%d}-{next(self._numbers):05}"
        mark = self._calendar.mark
        return demo_shop.draft_order(self._dice, reference=reference, at=at, history=mark, **wishes)

    @contextmanager
    def _acting(self, at: datetime, order: Order | None = None) -> Iterator[set[str]]:
        with self._clock.at(at) as scene:
            if order is not None:
                scene.orders.add(order.pk)
            yield scene.orders

    def _tell(self, order: Order, since: datetime) -> None:
        """The gateway's webhooks about an order come a little later."""
        reference = order.payment.gateway_reference
        until = since + timedelta(seconds=5)
        with self._clock.at(until) as scene:
            scene.orders.add(order.pk)
            told = self._bank.list_events(since=since, until=until)
            for event in choose_events(told, reference):
                scene.webhooks.add(self._hand_over(event))

    def _hand_over(self, event: dict[str, Any], *, is_processed: bool = True) -> str:
        body = json.dumps(event, indent=2).encode()
        receipt = receive("stripe", self._account.name, headers=self._sign(body), body=body)
        if is_processed and receipt.inbound_id:
            processing.process_webhook(receipt.inbound_id)
        return receipt.inbound_id

    def _sign(self, body: bytes, secret: str = "") -> dict[str, str]:
        secret = secret or self._account.webhook_secrets()[0]
        header = signatures.sign(body, secret=secret, timestamp=int(time.time()))
        return {"stripe-signature": header, "content-type": "application/json", "user-agent": "Stripe/1.0"}

    def _play_paid(self, at: datetime) -> None:
        self._place(at)

    def _play_declined(self, at: datetime) -> None:
        """Some try another card."""
        order = self._place(at, card=demo_shop.pick(self._dice, DECLINES))
        if self._dice.random() < 0.4:
            later = at + timedelta(minutes=self._dice.randint(1, 6))
            self._schedule(later, partial(self._try_again, order))

    def _try_again(self, order: Order, at: datetime) -> None:
        customer = demo_shop.make_customer(int(order.customer_id.removeprefix("cus_")) - 1000)
        with self._acting(at, order):
            order = services.confirm_order(order, payment_method=customer.token)
        self._tell(order, at)

    def _play_authenticated(self, at: datetime) -> None:
        order = self._place(at, card="threeDSecure2Required")
        later = at + timedelta(seconds=self._dice.randint(20, 150))
        self._schedule(later, partial(self._authenticate, order, self._dice.random() < 0.9))

    def _authenticate(self, order: Order, succeeds: bool, at: datetime) -> None:
        with self._acting(at, order):
            self._bank.control(f"_authenticate/{order.payment.gateway_reference}", success=succeeds)
            services.confirm_order(order)
        self._tell(order, at)

    def _play_abandoned(self, at: datetime) -> None:
        order = self._place(at, card="threeDSecure2Required")
        self._schedule(at + timedelta(minutes=16), partial(self._expire, order))

    def _expire(self, order: Order, at: datetime) -> None:
        """The customer's quarter of an hour is over, and the sweeper comes by."""
        with self._acting(at, order):
            SagaRun.objects.filter(order=order, state=SagaState.WAITING).update(deadline_at=timezone.now())
            services.resume_order(order)
        self._tell(order, at)

    def _play_captured_later(self, at: datetime) -> None:
        order = self._place(at, capture="manual")
        later = at + timedelta(hours=self._dice.randint(20, 70))
        self._schedule(later, partial(self._capture, order))

    def _capture(self, order: Order, at: datetime) -> None:
        """One in three was sent in part."""
        part = order.amount * 2 // 3 if self._dice.random() < 0.33 else None
        with self._acting(at, order):
            services.capture_order(order, amount=part, actor=API)
        self._tell(order, at)

    def _play_canceled(self, at: datetime) -> None:
        order = self._place(at, capture="manual")
        self._schedule(at + timedelta(hours=self._dice.randint(1, 9)), partial(self._cancel, order))

    def _cancel(self, order: Order, at: datetime) -> None:
        with self._acting(at, order):
            services.cancel_order(order, reason="requested_by_customer", actor=API)
        self._tell(order, at)

    def _play_refunded(self, at: datetime) -> None:
        order = self._place(at)
        later = at + timedelta(hours=self._dice.randint(8, 90))
        self._schedule(later, partial(self._refund, order, self._dice.random() < 0.45))

    def _refund(self, order: Order, is_whole: bool, at: datetime) -> None:
        reason = self._dice.choice(sorted(REFUND_NOTES))
        actor = name_of(self._people.finance) if self._dice.random() < 0.6 else API
        amount = None if is_whole else order.amount * self._dice.randint(1, 3) // 4
        with self._acting(at, order):
            services.refund_order(order, amount=amount, reason=reason, note=REFUND_NOTES[reason], actor=actor)
        self._tell(order, at)

    def _play_noted(self, at: datetime) -> None:
        order = self._place(at)
        with self._acting(at + timedelta(minutes=9), order):
            text = "Customer asked on the phone to leave the parcel with the neighbour."
            services.add_note(order, text=text, actor=name_of(self._people.finance))

    def _play_limited(self, at: datetime) -> None:
        """A print of which there are four: who comes too late is not charged."""
        self._place(at, goods={demo_shop.LIMITED: 1})

    def _route_dollars(self, at: datetime) -> None:
        """One rule, so that there is one to read; with one account it changes nothing."""
        with self._clock.at(at), transaction.atomic():
            rule, is_new = RoutingRule.objects.get_or_create(
                name="Dollars and yen", defaults={"currencies": ["USD", "JPY"]}
            )
            if is_new:
                RoutingTarget.objects.create(rule=rule, account=self._account)

    def _play_saved_card(self, at: datetime) -> None:
        """A subscriber lets the shop keep the card, and is charged for the next parcel without being there."""
        order = self._place(at, customer=SUBSCRIBER, goods={"TEA-SENCHA": 2}, save_payment_method=True)
        if order.state == OrderState.PAID:
            self._schedule(at + timedelta(days=7), partial(self._charge_saved_card, order))

    def _charge_saved_card(self, order: Order, at: datetime) -> None:
        method = SavedPaymentMethod.objects.usable().get(
            customer__client=self._client, customer__storefront_id=order.customer_id
        )
        wishes = {"customer": SUBSCRIBER, "goods": {"TEA-SENCHA": 2}, "off_session": True}
        self._place(at, payment_method=method.pk, **wishes)

    # --- captures in parts ----------------------------------------------------------------------------------

    def _play_parts(self, at: datetime) -> None:
        """Two parcels, two captures."""
        self._send_first_part(at, partial(self._capture_part, is_final=True))

    def _play_parts_refunded(self, at: datetime) -> None:
        """As above, and something out of the first parcel comes back."""
        order = self._send_first_part(at, partial(self._capture_part, is_final=True))
        self._schedule(at + timedelta(days=4), partial(self._refund_part, order))

    def _play_parts_released(self, at: datetime) -> None:
        """The second parcel is never sent: the rest of the hold goes back."""
        self._send_first_part(at, self._cancel)

    def _send_first_part(self, at: datetime, go_on: Callable[[Order, datetime], None]) -> Order:
        order = self._place(at, goods=TEA, capture="manual")
        if order.payment.capturable:
            self._schedule(at + timedelta(hours=16), partial(self._capture_part, order, is_final=False))
            self._schedule(at + timedelta(hours=40), partial(go_on, order))
        return order

    def _capture_part(self, order: Order, at: datetime, *, is_final: bool) -> None:
        amount = None if is_final else order.amount // 2
        with self._acting(at, order):
            order = services.find_order(order.pk)
            services.capture_order(order, amount=amount, final=is_final, actor=API)
        self._tell(order, at)

    def _refund_part(self, order: Order, at: datetime) -> None:
        order = services.find_order(order.pk)
        captures = services.refundable_captures(order.payment)
        if not captures:
            return
        first = captures[0][0]
        reason, actor = "damaged", name_of(self._people.finance)
        ask = partial(services.refund_order, order, amount=first.amount // 3, capture=first.pk)
        with self._acting(at, order):
            ask(reason=reason, note=REFUND_NOTES[reason], actor=actor)
        self._tell(order, at)

    # --- disputes -------------------------------------------------------------------------------------------

    def _play_dispute_won(self, at: datetime) -> None:
        self._sell_disputed(at, end="won")

    def _play_dispute_lost(self, at: datetime) -> None:
        self._sell_disputed(at, end="lost")

    def _play_dispute_open(self, at: datetime) -> None:
        """Finance has begun to collect, and has still some days for it."""
        self._sell_disputed(at, reason="product_not_received")

    def _play_dispute_inquiry(self, at: datetime) -> None:
        """The bank only asks; no money has moved."""
        self._sell_disputed(at, reason="general", inquiry=True)

    def _sell_disputed(self, at: datetime, *, end: str = "", **complaint: Any) -> None:
        order = self._place(at, goods={"VASE-TALL": 1})
        if order.state == OrderState.PAID:
            self._schedule(at + timedelta(days=2), partial(self._dispute, order, end, complaint))

    def _dispute(self, order: Order, end: str, complaint: dict[str, Any], at: datetime) -> None:
        with self._acting(at, order):
            self._bank.control("_disputes", payment_intent=order.payment.gateway_reference, **complaint)
        self._tell(order, at)
        dispute = Dispute.objects.get(payment=order.payment)
        self._schedule(at + timedelta(hours=20), partial(self._answer, order, dispute, end))

    def _answer(self, order: Order, dispute: Dispute, end: str, at: datetime) -> None:
        """One that is decided later is answered; else the evidence is only collected."""
        actor = name_of(self._people.finance)
        with self._acting(at, order):
            for kind, text in EVIDENCE.items():
                services.add_evidence(dispute, kind=kind, text=text, actor=actor)
            if end:
                services.submit_evidence(dispute, actor=actor)
        if end:
            self._schedule(at + timedelta(days=2), partial(self._decide_dispute, order, dispute, end))

    def _decide_dispute(self, order: Order, dispute: Dispute, end: str, at: datetime) -> None:
        with self._acting(at, order):
            self._bank.control("_disputes", dispute=dispute.gateway_reference, status=end)
        self._tell(order, at)

    # --- fraud ----------------------------------------------------------------------------------------------

    def _begin_fraud_desk(self, at: datetime) -> None:
        date_first_rules(at - timedelta(days=30))
        with self._clock.at(at), suppress(ConflictError):
            demo_fraud.fill_lists(name_of(self._people.analyst))

    def _play_second_rules(self, at: datetime) -> None:
        with self._clock.at(at):
            demo_fraud.publish_second_set(
                analyst=name_of(self._people.analyst), supervisor=name_of(self._people.supervisor)
            )

    def _play_import(self, at: datetime) -> None:
        with self._clock.at(at):
            demo_fraud.import_drops(name_of(self._people.analyst))

    def _leave_desk(self, since: datetime) -> None:
        """How the desk stands when the visitor comes."""
        at = self._now - timedelta(minutes=10)
        self._collect(since.date(), at)
        with self._clock.at(at):
            demo_fraud.leave_draft(analyst=name_of(self._people.analyst), since=since)

    def _collect(self, day: date, at: datetime) -> None:
        """What of that day's and later orders workers read from events."""
        with self._clock.at(at) as scene:
            scene.orders.update(
                self._client.orders.filter(created_at__date__gte=day).values_list("pk", flat=True)
            )
            demo_fraud.collect(midnight(day))

    def _play_card_testing(self, at: datetime) -> None:
        """Stolen cards are tried from one device, each with another address; some are good."""
        tried = [self._describe_test(number, at) for number in range(6)]
        for order in self._place_together(at, *tried):
            if order.state == OrderState.PAID:
                self._schedule(at + timedelta(hours=30), partial(self._warn, order))
            elif order.state == OrderState.BLOCKED:
                self._schedule(at + timedelta(hours=22), partial(self._label, order))

    def _describe_test(self, number: int, at: datetime) -> dict[str, Any]:
        context = {"ip": "192.0.2.255", "device": demo_fraud.TEST_DEVICE, "user_agent": "okhttp/4.9"}
        card = "" if number % 3 else "chargeDeclinedLostCard"
        email = f"jx{number}{at:%d}@example.com"
        who = {"customer": 100 + number, "customer_id": "", "customer_email": email}
        return {"goods": {"INK-BLUE": 1}, "card": card, "context": context, **who}

    def _warn(self, order: Order, at: datetime) -> None:
        """The issuer reports the card, and the order is refunded as fraud."""
        warning = {
            "object": "radar.early_fraud_warning",
            "id": f"issfr_{order.reference}",
            "payment_intent": order.payment.gateway_reference,
            "fraud_type": "unauthorized_use_of_card",
        }
        event = {"object": "event", "id": f"evt_issfr_{order.reference}", "created": int(at.timestamp())}
        told = {**event, "type": "radar.early_fraud_warning.created", "data": {"object": warning}}
        with self._clock.at(at) as scene:
            scene.orders.add(order.pk)
            scene.webhooks.add(self._hand_over(told))
        actor = name_of(self._people.finance)
        with self._acting(at + timedelta(minutes=20), order):
            note = "The issuer's warning."
            services.refund_order(order, amount=None, reason="fraudulent", note=note, actor=actor)
        self._tell(order, at + timedelta(minutes=20))

    def _label(self, order: Order, at: datetime) -> None:
        with self._clock.at(at):
            demo_fraud.label_by_hand(order, name_of(self._people.analyst))

    def _play_escalated(self, at: datetime) -> None:
        """Held by the review list, escalated, rejected by the supervisor."""
        who = {"customer_email": f"box12@{demo_fraud.DROP_DOMAIN}", "customer_id": "cus_777"}
        order = self._place(at, context={"ip": "192.0.2.254", "device": "d_0777"}, **who)
        review = Review.objects.filter(order=order).first()
        if review is None:
            return
        with self._acting(at + timedelta(minutes=35), order):
            demo_fraud.escalate(review, self._people.analyst)
        later = at + timedelta(hours=2)
        with self._acting(later, order):
            demo_fraud.reject_and_list(review, self._people.supervisor)
        self._tell(order, later)

    def _play_blocked(self, at: datetime) -> None:
        self._place(at, customer_email=demo_fraud.FRAUDSTER, customer_id="cus_666", ship_to="AE")

    def _play_reviewed(self, at: datetime) -> None:
        order = self._place_suspicious(at)
        if order.state == OrderState.REVIEW:
            is_good = self._dice.random() < 0.7
            later = at + timedelta(minutes=self._dice.randint(5, 240))
            if later < self._now - timedelta(hours=1):
                self._decide(order, is_good, later)

    def _place_suspicious(self, at: datetime) -> Order:
        """Dear, or a failed address check together with a parcel to somewhere else."""
        if self._dice.random() < 0.6:
            return self._place(at, goods={self._dice.choice(sorted(demo_shop.DEAR_GOODS)): 1})
        return self._place(at, card="avsFail", ship_to="US" if self._dice.random() < 0.5 else "BR")

    def _decide(self, order: Order, is_good: bool, at: datetime) -> None:
        """Decided here and not by the calendar, so that few reviews are open while the site runs beside us."""
        by = self._people.supervisor if self._dice.random() < 0.3 else self._people.analyst
        with self._acting(at, order):
            demo_fraud.decide(Review.objects.get(order=order), by, is_good=is_good)
        self._tell(order, at)

    def _play_open_reviews(self, at: datetime) -> None:
        """So many wait for somebody, in every state that a waiting case has."""
        orders = [self._place(at - timedelta(minutes=5), goods={"SIDEBOARD": 4})]
        while Review.objects.open().count() < OPEN_REVIEWS:  # some look less suspicious to the rules
            orders.append(self._place_suspicious(at - timedelta(minutes=70 * len(orders))))
        analyst, supervisor = self._people.analyst, self._people.supervisor
        acts: list[Callable[[Review, User], None]] = [
            demo_fraud.propose,
            demo_fraud.escalate,
            demo_fraud.snooze,
            partial(demo_fraud.hand_over, to=supervisor),
        ]
        waiting = [order for order in orders if order.state == OrderState.REVIEW]
        for act, order in zip(acts, waiting, strict=False):
            with self._acting(at, order):
                act(Review.objects.get(order=order), analyst)

    # --- mishaps of sagas -----------------------------------------------------------------------------------

    def _play_unserved(self, at: datetime) -> None:
        """No carrier goes there: the capture is refunded, and the order canceled."""
        self._place(at, ship_to="AQ")

    def _play_failed_capture(self, at: datetime) -> None:
        self._place(at, payment_method="tok_capture_fails")

    def _play_lost_answer(self, at: datetime) -> None:
        """The authorization's answer was lost; the gateway is asked, and the saga goes on."""
        order = self._place(at, payment_method="tok_500_after")
        later = at + timedelta(seconds=6)
        with self._acting(later, order):
            services.resume_order(order)
        self._tell(order, later)

    def _play_mismatch(self, at: datetime) -> None:
        """The gateway authorized another amount: nothing that a machine should decide."""
        self._place(at, payment_method="tok_wrong_amount")

    def _play_stuck(self, at: datetime) -> Order:
        """The refund that should undo the capture gets lost: left for on-call."""
        self._lose_refund()
        order = self._place(at, ship_to="AQ")
        for number in range(1, PATIENCE):
            if SagaRun.objects.stuck().filter(order=order).exists():
                break
            with self._acting(at + timedelta(seconds=15) * number**2, order):
                self._lose_refund()
                services.resume_order(order)
        return order

    def _lose_refund(self) -> None:
        """One at a time: when on-call retries, none is left."""
        self._bank.control("_faults", fault="500", operation="refund", times=1)

    def _play_rescued(self, at: datetime) -> None:
        """As above, and on-call takes it up again."""
        order = self._play_stuck(at)
        stuck = SagaRun.objects.stuck().filter(order=order).first()
        later = at + timedelta(minutes=42)
        if stuck is not None:
            reason = "The gateway's incident is over."
            with self._acting(later, order):
                services.retry_saga(stuck.pk, actor=name_of(self._people.oncall), reason=reason)
        self._tell(order, later)

    # --- webhooks -------------------------------------------------------------------------------------------

    def _play_foreign_order(self, at: datetime) -> None:
        """Somebody took a payment in the gateway's dashboard: its webhook finds no payment here and is parked."""
        with self._clock.at(at) as scene:
            taken = {"amount": 12500, "currency": "eur", "payment_method": "pm_card_de", "confirm": "true"}
            intent = self._bank.post("payment_intents", **taken, description="Phone order")
            for event in self._bank.list_events(since=at, until=at + timedelta(seconds=5)):
                if event["type"] == "payment_intent.succeeded" and intent["id"] in subjects(event):
                    scene.webhooks.add(self._hand_over(event))

    def _play_forged_webhook(self, at: datetime) -> None:
        """A known event comes back with another amount, and one with a signature of somebody else."""
        order = self._place(at)
        with self._clock.at(at + timedelta(seconds=30)) as scene:
            for event in self._bank.list_events(since=at, until=at + timedelta(seconds=5)):
                if event[
                    "type"
                ] == "payment_intent.succeeded" and order.payment.gateway_reference in subjects(event):
                    event["data"]["object"]["amount_received"] += 100
                    self._hand_over(event, is_processed=False)
                    body = json.dumps(event).encode()
                    headers = self._sign(body, secret="whsec_of_somebody_else")  # noqa: S106 - a forger's
                    receive("stripe", self._account.name, headers=headers, body=body, ip="203.0.113.66")
            known = self._account.inbound_webhooks.filter(conflict_of__isnull=False)
            scene.webhooks.update(known.values_list("pk", flat=True))

    # --- money that does not fit ----------------------------------------------------------------------------

    def _pay_out(self, day: date, at: datetime) -> None:
        """What was captured the day before reaches the bank."""
        with self._clock.at(at):
            self._bank.control("_payouts", date=day.isoformat())

    def _reconcile(self, at: datetime) -> None:
        """The nightly run, as beat starts it."""
        with self._clock.at(at):
            reconciliation.reconcile_due(today=at.date())

    def _play_dropped_row(self, at: datetime) -> None:
        self._spoil_report(at, action="drop")

    def _play_altered_row(self, at: datetime) -> None:
        self._spoil_report(at, action="alter", amount=-100)

    def _spoil_report(self, at: datetime, **fault: Any) -> None:
        order = self._place(at)
        if order.state == OrderState.PAID:
            self._bank.control("_report_faults", payment_intent=order.payment.gateway_reference, **fault)

    def _play_invented_row(self, at: datetime) -> None:
        self._bank.control("_report_faults", action="add", amount=4200, currency="eur")

    def _play_foreign_refund(self, at: datetime) -> None:
        """Refunded in the gateway's dashboard, and the webhook never came."""
        order = self._place(at)
        with self._clock.at(at + timedelta(minutes=50)):
            self._bank.post(
                "refunds", payment_intent=order.payment.gateway_reference, amount=order.amount // 2
            )

    def _play_late_webhook(self, at: datetime) -> None:
        """The same, but the webhook comes after the nightly run has found it missing."""
        order = self._place(at)
        refunded = at + timedelta(minutes=50)
        with self._clock.at(refunded):
            self._bank.post(
                "refunds", payment_intent=order.payment.gateway_reference, amount=order.amount // 3
            )
        late = midnight(at.date()) + timedelta(days=1, hours=9)
        self._schedule(late, partial(self._tell_late, order, refunded))

    def _tell_late(self, order: Order, since: datetime, at: datetime) -> None:
        with self._clock.at(at) as scene:
            scene.orders.add(order.pk)
            for event in self._bank.list_events(since=since, until=since + timedelta(seconds=5)):
                if event["type"] == "refund.created" and order.payment.gateway_reference in subjects(event):
                    scene.webhooks.add(self._hand_over(event))
            reconciliation.recheck_unsettled()

    def _play_closing(self, at: datetime) -> None:
        """Finance closes the books of the first days; a short history has none that are old enough."""
        first = self._calendar.last - timedelta(days=self._calendar.days - 1)
        last = self._calendar.last - CLOSED_BEFORE
        if first <= last:
            with self._clock.at(at):
                actor = name_of(self._people.finance)
                services.close_period(self._account, first_day=first, last_day=last, actor=actor)

    def _settle_discrepancies(self, at: datetime) -> None:
        """Finance's morning: what is older than four days is explained, the oldest of the rest is taken on."""
        actor = name_of(self._people.finance)
        with self._clock.at(at):
            unsettled = Discrepancy.objects.unsettled().order_by("first_seen", "pk")
            known = min(at - timedelta(days=1), self._now - RESOLVED_BEFORE)
            for item in unsettled.filter(first_seen__lt=known):
                reason, note = SETTLEMENTS.get(DiscrepancyType(item.kind), (Settlement.TIMING, ""))
                reconciliation.resolve(item, reason=reason, note=note, actor=actor)
            oldest = unsettled.filter(assigned_to__isnull=True).first()
            if oldest is not None and at > self._now - timedelta(days=2):
                reconciliation.assign(oldest, to=self._people.finance, actor=actor)


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def draw_moment(dice: Random, day: date) -> datetime:
    """People shop from breakfast to midnight, most of all in the evening."""
    hour = min(max(dice.triangular(6, 23.9, 19.5), 0.0), 23.9)
    return midnight(day) + timedelta(hours=hour)


def name_of(user: User) -> str:
    return f"user:{user.username}"


def choose_events(events: Sequence[dict[str, Any]], reference: str) -> list[dict[str, Any]]:
    """Of what the gateway said of a payment, its last state, refunds and disputes: the rest would be ignored."""
    about = [event for event in events if reference and reference in subjects(event)]
    states = [event for event in about if event["type"].startswith("payment_intent.")]
    return states[-1:] + [
        event for event in about if event["type"].startswith(("refund.", "charge.dispute."))
    ]


def subjects(event: dict[str, Any]) -> tuple[str, str]:
    """The payment intent that an event is about: the object itself, or the one that it names."""
    subject = event["data"]["object"]
    return str(subject["id"]), str(subject.get("payment_intent", ""))
