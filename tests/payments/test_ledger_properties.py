"""Whatever happens to a shop, told any number of times: each currency sums to zero, and clearing is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal

import pytest
from django.db import transaction
from django.db.models import Sum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from payments import ledger, services
from payments.ledger import Account, Evidence
from payments.models import Dispute, GatewayAccount, LedgerPeriod, Payment, Posting
from payments.money import Money
from payments.proof import prove_ledger
from tests.factories.payments import GatewayAccountFactory, OperationFactory
from tests.payments.test_ledger_worked_month import Shop

pytestmark = pytest.mark.django_db

NEW_YEAR = date(2026, 1, 1)
Event = tuple[str, int, int, int]  # what, an amount, whom it is about, on which day
PAYMENT_WORDS = ("sell", "sell_open", "refund", "refund_late", "dispute", "win", "lose", "refee")
OTHER_WORDS = (
    "fee",
    "payout",
    "arrive",
    "bounce",
    "reserve",
    "free",
    "fx",
    "suspense",
    "write_off",
    "close",
    "again",
)
WORDS = (
    3 * (*PAYMENT_WORDS, "win", "lose") + OTHER_WORDS
)  # what depends on what came before is the more interesting
BEGINNING: list[Event] = [("sell", 10_000, 0, 0), ("dispute", 2_000, 0, 0)]
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(WORDS),
        st.integers(1, 10**9),
        st.integers(0, 5),
        st.integers(0, 40),
    ),
    min_size=6,
    max_size=25,
)


class Story:
    """Does what it is told through the ledger's functions, and counts on its fingers what clearing must hold."""

    def __init__(self) -> None:
        self.account: GatewayAccount = GatewayAccountFactory()
        self.shop = Shop(self.account)
        self.payments: list[Payment] = []
        self.disputes: list[Dispute] = []
        self.clearing: Counter[str] = Counter()
        self.done = 0
        self.last: Callable[[], object] = lambda: None

    def tell(self, event: Event) -> None:
        what, amount, whom, day = event
        self.done += 1
        if what == "again":
            self.last()
        elif what in ("sell", "sell_open"):
            self.sell(amount, is_open=what == "sell_open")
        elif what in ("refund", "refund_late") and self.payments:
            self.refund(self.payments[whom % len(self.payments)], amount, fails=what == "refund_late")
        elif what == "dispute" and self.payments:
            self.dispute(self.payments[whom % len(self.payments)], amount)
        elif what in ("win", "lose", "refee") and self.disputes:
            self.move(self.disputes[whom % len(self.disputes)], what, amount)
        elif what == "close":
            self.close(NEW_YEAR + timedelta(days=day))
        else:
            self.settle(what, amount, Evidence("report", str(self.done), NEW_YEAR + timedelta(days=day)))

    def sell(self, amount: int, *, is_open: bool) -> None:
        part = max(amount // 2, 1)
        parts = (part,) if amount > 1 else ()
        self.payments.append(self.shop.sell(amount, *parts, is_open=is_open and amount > 1))
        self.clearing["EUR"] += part if parts else amount

    def refund(self, payment: Payment, amount: int, *, fails: bool) -> None:
        payment.refresh_from_db()
        amount = min(amount, payment.refundable)
        if not amount:
            return
        operation = OperationFactory(
            attempt=payment.attempts.get(),
            kind="refund",
            amount=amount,
            state="reversed" if fails else "succeeded",
        )
        money = Money(amount, "EUR")
        for _ in range(2):
            ledger.post_refund_asked(payment, operation.pk, money)
            ledger.post_refund_settled(payment, operation.pk, money)
            if fails:
                ledger.post_refund_withdrawn(payment, operation.pk, money, was_settled=True)
        if not fails:
            payment.refunded += amount
            payment.save()
            self.clearing["EUR"] -= amount

    def dispute(self, payment: Payment, amount: int) -> None:
        payment.refresh_from_db()
        if payment.refundable and not payment.disputes.exists():
            amount = min(amount, payment.refundable)
            self.disputes.append(self.shop.dispute(payment, amount, fee=15))
            self.clearing["EUR"] -= amount + 15

    def move(self, dispute: Dispute, what: str, amount: int) -> None:
        """Won, lost, or its fee changed; withdrawn once more when it is won a second time."""
        dispute.refresh_from_db()
        payment = dispute.payment
        if what == "refee":
            self.clearing["EUR"] -= amount - dispute.fee
            dispute.fee = amount
            dispute.save()
            self.last = lambda: ledger.post_dispute_fee(dispute)
        elif what == "win" and dispute.is_withdrawn:
            payment.disputed_lost = 0
            dispute.is_withdrawn, dispute.state = False, "won"
            self.clearing["EUR"] += dispute.amount
            self.last = lambda: ledger.post_dispute_won(dispute)
        elif what == "win" and payment.refundable >= dispute.amount:
            dispute.is_withdrawn, dispute.state = True, "needs_response"
            self.clearing["EUR"] -= dispute.amount
            self.last = lambda: ledger.post_dispute_opened(dispute)
        elif what == "lose" and dispute.is_withdrawn and payment.refundable >= dispute.amount:
            payment.disputed_lost = dispute.amount
            dispute.state = "lost"
            self.last = lambda: ledger.post_dispute_lost(dispute)
        payment.save()
        dispute.save()
        self.last()

    def settle(self, what: str, amount: int, evidence: Evidence) -> None:
        money, account = Money(amount, "EUR"), self.account
        posts: dict[str, tuple[Callable[[], object], int]] = {
            "fee": (lambda: ledger.post_fee(account, money, evidence=evidence), -amount),
            "payout": (lambda: ledger.post_payout_sent(account, money, evidence=evidence), -amount),
            "arrive": (lambda: ledger.post_payout_on_bank(account, money, evidence=evidence), 0),
            "bounce": (lambda: ledger.post_payout_returned(account, money, evidence=evidence), amount),
            "reserve": (lambda: ledger.post_reserve_held(account, money, evidence=evidence), -amount),
            "free": (lambda: ledger.post_reserve_released(account, money, evidence=evidence), amount),
            "suspense": (lambda: ledger.post_suspense(account, money, evidence=evidence), amount),
            "write_off": (
                lambda: ledger.post_write_off(account, money, evidence=evidence, reason="r", actor="user:f"),
                -amount,
            ),
        }
        if what == "fx":
            self.clearing["EUR"] -= amount
            self.clearing["JPY"] += 3 * amount
            self.last = lambda: ledger.post_settled_in_currency(
                account, money, Money(3 * amount, "JPY"), rate=Decimal(3), evidence=evidence
            )
        elif what in posts:
            self.last, change = posts[what]
            self.clearing["EUR"] += change
        else:
            return
        self.last()

    def close(self, day: date) -> None:
        """A day, where nothing hinders it; what is told of it afterwards is late."""
        suspense = Posting.objects.filter(
            account__gateway_account=self.account, account__code=Account.SUSPENSE, booked_on__lte=day
        )
        is_closed = LedgerPeriod.objects.closed().overlapping(self.account, day, day).exists()
        if not suspense.exists() and not is_closed:
            services.close_period(self.account, first_day=day, last_day=day, actor="user:f")

    def read(self, **filters: object) -> dict[str, int]:
        postings = Posting.objects.filter(account__gateway_account=self.account, **filters)
        return dict(postings.values_list("currency").annotate(Sum("amount")).order_by())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(EVENTS)
def test_any_story_leaves_books_that_hold(events: list[Event]) -> None:
    with transaction.atomic():
        story = Story()
        for event in BEGINNING + events:
            story.tell(event)
        assert set(story.read().values()) <= {0}
        clearing = story.read(account__code=Account.CLEARING)
        assert {code: clearing.get(code, 0) for code in story.clearing} == dict(story.clearing)
        assert prove_ledger() == []
        transaction.set_rollback(True)
