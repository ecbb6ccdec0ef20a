"""A month of a shop, each story with the balances an accountant would write by hand (minor units, debit positive)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from django.db.models import Sum
from django.utils import timezone

from payments import ledger
from payments.errors import InvalidRequestError
from payments.kinds import DisputeStage, DisputeState
from payments.ledger import Account, Evidence
from payments.models import Dispute, GatewayAccount, LedgerEntry, Payment, Posting
from payments.money import Money
from payments.proof import prove_ledger
from tests.factories.payments import AttemptFactory, GatewayAccountFactory, OperationFactory, PaymentFactory

pytestmark = pytest.mark.django_db

Balances = dict[str, int]
DAY = date(2026, 1, 15)


def eur(minor: int) -> Money:
    return Money(minor, "EUR")


@dataclass
class Shop:
    """One gateway account, whose payments are booked as the facts would book them."""

    account: GatewayAccount

    def evidence(self, name: str) -> Evidence:
        return Evidence("report", name, DAY)

    def sell(self, minor: int, *parts: int, currency: str = "EUR", is_open: bool = False) -> Payment:
        """Authorized, then captured in parts; the last one releases the rest unless the hold stays open."""
        captures = parts or (minor,)
        captured = sum(captures)
        left = minor - captured if is_open else 0
        payment = PaymentFactory(
            account=self.account,
            order__amount=minor,
            order__currency=currency,
            authorized=minor,
            captured=captured,
            capturable=left,
        )
        attempt = AttemptFactory(payment=payment, state="live" if is_open else "done")
        hold = OperationFactory(attempt=attempt, kind="authorize")
        ledger.post_authorization(payment, hold.pk, Money(minor, currency))
        for number, part in enumerate(captures, start=1):
            operation = OperationFactory(attempt=attempt, kind="capture", amount=part)
            is_last = number == len(captures) and not is_open
            released = minor - sum(captures[: number - 1]) if is_last else part
            ledger.post_capture(
                payment, operation.pk, Money(part, currency), released=Money(released, currency)
            )
        return payment

    def refund(self, payment: Payment, minor: int, *, fails: str = "") -> None:
        """Asked for and settled; `fails` is before or after the settlement."""
        operation = OperationFactory(
            attempt=payment.attempts.get(),
            kind="refund",
            amount=minor,
            state={"": "succeeded", "before": "failed", "after": "reversed"}[fails],
        )
        money = Money(minor, payment.currency)
        ledger.post_refund_asked(payment, operation.pk, money)
        if fails != "before":
            ledger.post_refund_settled(payment, operation.pk, money)
        if fails:
            ledger.post_refund_withdrawn(payment, operation.pk, money, was_settled=fails == "after")
        else:
            Payment.objects.filter(pk=payment.pk).update(refunded=minor)

    def dispute(self, payment: Payment, minor: int, *, fee: int = 0) -> Dispute:
        """Withdrawn, with its fee."""
        dispute = Dispute.objects.create(
            payment=payment,
            account=self.account,
            gateway_reference=f"du_{payment.pk}",
            stage=DisputeStage.CHARGEBACK,
            state=DisputeState.NEEDS_RESPONSE,
            amount=minor,
            currency=payment.currency,
            fee=fee,
            fee_currency=payment.currency,
            is_withdrawn=True,
            opened_at=timezone.now(),
        )
        assert ledger.post_dispute_opened(dispute)
        assert ledger.post_dispute_fee(dispute) == bool(fee)
        return dispute

    def win(self, dispute: Dispute) -> None:
        Payment.objects.filter(pk=dispute.payment_id).update(disputed_lost=0)
        _move(dispute, state=DisputeState.WON, is_withdrawn=False)
        assert ledger.post_dispute_won(dispute)

    def lose(self, dispute: Dispute) -> None:
        Payment.objects.filter(pk=dispute.payment_id).update(disputed_lost=dispute.amount)
        _move(dispute, state=DisputeState.LOST)
        assert ledger.post_dispute_lost(dispute)

    def balances(self, currency: str = "EUR") -> Balances:
        """The accounts that are not at zero."""
        postings = Posting.objects.filter(account__gateway_account=self.account, currency=currency)
        sums = postings.values_list("account__code").annotate(Sum("amount")).order_by("account__code")
        return {Account(code).name: total for code, total in sums if total}


def _move(dispute: Dispute, **changes: object) -> None:
    for name, value in changes.items():
        setattr(dispute, name, value)
    dispute.save()


@pytest.fixture
def shop() -> Shop:
    return Shop(GatewayAccountFactory())


# --- stories ------------------------------------------------------------------------------------------------


def parts_of_an_open_hold(shop: Shop) -> None:
    shop.sell(10000, 3000, 2500, is_open=True)


def parts_until_the_last(shop: Shop) -> None:
    shop.sell(10000, 3000, 2500)


def capture_reversed(shop: Shop) -> None:
    payment = shop.sell(10000)
    operation = payment.operations.get(kind="capture")
    payment.operations.filter(pk=operation.pk).update(state="reversed")
    Payment.objects.filter(pk=payment.pk).update(captured=0)
    for _ in range(2):
        ledger.post_capture_reversed(payment, operation.pk, eur(10000))


def capture_reversed_while_the_hold_stands(shop: Shop) -> None:
    payment = shop.sell(10000, 4000, is_open=True)
    operation = payment.operations.get(kind="capture")
    payment.operations.filter(pk=operation.pk).update(state="reversed")
    Payment.objects.filter(pk=payment.pk).update(captured=0, capturable=10000)
    ledger.post_capture_reversed(payment, operation.pk, eur(4000), restored=eur(4000))


def refund_that_failed_late(shop: Shop) -> None:
    shop.refund(shop.sell(10000), 2500, fails="after")


def dispute_in_the_open(shop: Shop) -> None:
    shop.dispute(shop.sell(10000), 10000, fee=1500)


def dispute_won_and_its_fee_returned(shop: Shop) -> None:
    dispute = shop.dispute(shop.sell(10000), 10000, fee=1500)
    shop.win(dispute)
    _move(dispute, fee=0)
    ledger.post_dispute_fee(dispute)


def dispute_won_told_twice(shop: Shop) -> None:
    dispute = shop.dispute(shop.sell(10000), 10000)
    assert not ledger.post_dispute_opened(dispute)
    shop.win(dispute)
    assert not ledger.post_dispute_won(dispute)


def dispute_lost(shop: Shop) -> None:
    dispute = shop.dispute(shop.sell(10000), 6000, fee=1500)
    shop.lose(dispute)
    assert not ledger.post_dispute_lost(dispute)


def dispute_won_then_lost_in_pre_arbitration(shop: Shop) -> None:
    dispute = shop.dispute(shop.sell(10000), 10000, fee=1500)
    shop.win(dispute)
    _move(dispute, stage=DisputeStage.PRE_ARBITRATION, state=DisputeState.NEEDS_RESPONSE, is_withdrawn=True)
    assert ledger.post_dispute_opened(dispute)
    assert not ledger.post_dispute_opened(dispute)
    _move(dispute, fee=3000)
    ledger.post_dispute_fee(dispute)
    ledger.post_dispute_fee(dispute)
    shop.lose(dispute)


def dispute_lost_then_won(shop: Shop) -> None:
    dispute = shop.dispute(shop.sell(10000), 10000)
    shop.lose(dispute)
    shop.win(dispute)


def fees(shop: Shop) -> None:
    payment = shop.sell(10000)
    for _ in range(2):  # the same row of the same report
        ledger.post_fee(shop.account, eur(320), evidence=shop.evidence("row-1"), payment=payment)
    ledger.post_fee(shop.account, eur(-20), evidence=shop.evidence("row-2"), payment=payment)
    ledger.post_fee(shop.account, eur(1000), evidence=shop.evidence("invoice-1"), note="Monthly fee")


def payout(shop: Shop) -> None:
    shop.sell(10000)
    ledger.post_payout_sent(shop.account, eur(9000), evidence=shop.evidence("po_1"))


def payout_on_the_bank(shop: Shop) -> None:
    payout(shop)
    ledger.post_payout_on_bank(shop.account, eur(9000), evidence=shop.evidence("po_1"))


def payout_returned_on_its_way(shop: Shop) -> None:
    payout(shop)
    ledger.post_payout_returned(shop.account, eur(9000), evidence=shop.evidence("po_1"))


def payout_returned_by_the_bank(shop: Shop) -> None:
    payout_on_the_bank(shop)
    ledger.post_payout_returned(shop.account, eur(9000), evidence=shop.evidence("po_1"), was_on_bank=True)


def reserve(shop: Shop) -> None:
    shop.sell(10000)
    ledger.post_reserve_held(shop.account, eur(1000), evidence=shop.evidence("rs_1"))
    ledger.post_reserve_released(shop.account, eur(400), evidence=shop.evidence("rs_1"))


def unknown_row_explained(shop: Shop) -> None:
    ledger.post_suspense(shop.account, eur(-700), evidence=shop.evidence("row-9"), note="Type 47")
    ledger.post_adjustment(
        shop.account,
        eur(700),
        debit=Account.FEES,
        credit=Account.SUSPENSE,
        evidence=shop.evidence("disc-1"),
        reason="It is a scheme fee",
        actor="user:finance",
    )


def write_off(shop: Shop) -> None:
    shop.sell(10000)
    ledger.post_write_off(
        shop.account,
        eur(2),
        evidence=shop.evidence("disc-2"),
        reason="Below the tolerance",
        actor="user:finance",
    )


STORIES: dict[Callable[[Shop], None], Balances] = {
    parts_of_an_open_hold: {
        "CLEARING": 5500,
        "SALES": -5500,
        "AUTHORIZED": 4500,
        "AUTHORIZED_CONTRA": -4500,
    },
    parts_until_the_last: {"CLEARING": 5500, "SALES": -5500},
    capture_reversed: {},
    capture_reversed_while_the_hold_stands: {"AUTHORIZED": 10000, "AUTHORIZED_CONTRA": -10000},
    refund_that_failed_late: {"CLEARING": 10000, "SALES": -10000},
    dispute_in_the_open: {
        "CLEARING": -1500,
        "DISPUTES_HELD": 10000,
        "SALES": -10000,
        "DISPUTE_FEES": 1500,
    },
    dispute_won_and_its_fee_returned: {"CLEARING": 10000, "SALES": -10000},
    dispute_won_told_twice: {"CLEARING": 10000, "SALES": -10000},
    dispute_lost: {"CLEARING": 2500, "SALES": -10000, "DISPUTE_LOSSES": 6000, "DISPUTE_FEES": 1500},
    dispute_won_then_lost_in_pre_arbitration: {
        "CLEARING": -3000,
        "SALES": -10000,
        "DISPUTE_LOSSES": 10000,
        "DISPUTE_FEES": 3000,
    },
    dispute_lost_then_won: {"CLEARING": 10000, "SALES": -10000},
    fees: {"CLEARING": 8700, "SALES": -10000, "FEES": 1300},
    payout: {"PAYOUT_IN_TRANSIT": 9000, "CLEARING": 1000, "SALES": -10000},
    payout_on_the_bank: {"BANK": 9000, "CLEARING": 1000, "SALES": -10000},
    payout_returned_on_its_way: {"CLEARING": 10000, "SALES": -10000},
    payout_returned_by_the_bank: {"CLEARING": 10000, "SALES": -10000},
    reserve: {"CLEARING": 9400, "RESERVE": 600, "SALES": -10000},
    unknown_row_explained: {"CLEARING": -700, "FEES": 700},
    write_off: {"CLEARING": 9998, "SALES": -10000, "ROUNDING": 2},
}


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_story(shop: Shop, story: Callable[[Shop], None]) -> None:
    story(shop)
    assert shop.balances() == STORIES[story]
    assert prove_ledger() == []


def test_settled_in_another_currency_sums_to_zero_in_each(shop: Shop) -> None:
    payment = shop.sell(10000, currency="USD")
    for _ in range(2):
        ledger.post_settled_in_currency(
            shop.account,
            Money(10000, "USD"),
            eur(9215),
            rate=Decimal("0.9215"),
            evidence=shop.evidence("row-1"),
            payment=payment,
        )
    assert shop.balances("USD") == {"SALES": -10000, "FX_DIFFERENCE": 10000}
    assert shop.balances("EUR") == {"CLEARING": 9215, "FX_DIFFERENCE": -9215}
    entry = LedgerEntry.objects.get(event="settled_in_currency")
    assert (entry.note, entry.booked_on) == ("100.00 USD settled as 92.15 EUR, rate 0.9215", DAY)
    assert prove_ledger() == []


def test_a_month_of_a_shop(shop: Shop) -> None:
    """The trial balance at the end, written out by hand: EUR, and the dollars beside it."""
    shop.sell(10000)  # 100.00
    shop.sell(20000, 5000, 7000)  # 120.00 of 200.00, the rest released
    shop.refund(shop.sell(8000), 3000)  # 80.00, 30.00 given back
    shop.refund(shop.sell(4000), 1000, fails="before")  # 40.00
    shop.win(shop.dispute(shop.sell(5000), 5000, fee=1500))  # 50.00, the fee is kept
    shop.lose(shop.dispute(shop.sell(6000), 6000, fee=1500))  # 60.00 gone
    dollars = shop.sell(10000, currency="USD")
    account, row = shop.account, shop.evidence
    ledger.post_settled_in_currency(
        account,
        Money(10000, "USD"),
        eur(9215),
        rate=Decimal("0.9215"),
        evidence=row("fx"),
        payment=dollars,
    )
    ledger.post_fee(account, eur(1200), evidence=row("fees"))
    ledger.post_reserve_held(account, eur(2000), evidence=row("rs"))
    ledger.post_payout_sent(account, eur(20000), evidence=row("po_1"))
    ledger.post_payout_on_bank(account, eur(20000), evidence=row("po_1"))
    ledger.post_payout_sent(account, eur(7000), evidence=row("po_2"))
    ledger.post_payout_returned(account, eur(7000), evidence=row("po_2"))
    ledger.post_write_off(account, eur(15), evidence=row("w"), reason="Rounding", actor="user:finance")
    expected = {
        "BANK": 20000,
        # 100 + 120 + 80 - 30 + 40 + 50 + 60 - 60 - 15 - 15 + 92.15 - 12 - 20 - 200 - 0.15
        "CLEARING": 19000,
        "RESERVE": 2000,
        "SALES": -45000,
        "REFUNDS": 3000,
        "FEES": 1200,
        "DISPUTE_LOSSES": 6000,
        "DISPUTE_FEES": 3000,
        "FX_DIFFERENCE": -9215,
        "ROUNDING": 15,
    }
    assert shop.balances() == expected
    assert sum(expected.values()) == 0
    assert shop.balances("USD") == {"SALES": -10000, "FX_DIFFERENCE": 10000}
    assert prove_ledger() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"debit": Account.AUTHORIZED},
        {"credit": Account.AUTHORIZED_CONTRA},
        {"debit": Account.CLEARING},
        {"reason": " "},
        {"actor": ""},
        {"money": eur(0)},
    ],
    ids=str,
)
def test_an_adjustment_that_cannot_be_is_refused(shop: Shop, wrong: dict[str, object]) -> None:
    lawful = {
        "money": eur(5),
        "debit": Account.FEES,
        "credit": Account.CLEARING,
        "evidence": shop.evidence("a"),
        "reason": "why",
        "actor": "user:finance",
    }
    with pytest.raises(InvalidRequestError, match="Nothing was booked"):
        ledger.post_adjustment(shop.account, **{**lawful, **wrong})  # type: ignore[arg-type]
    assert not LedgerEntry.objects.exists()


def test_an_entry_belongs_to_the_day_of_its_creation(shop: Shop) -> None:
    before = datetime.now(UTC).date()
    shop.sell(10000)
    days = set(LedgerEntry.objects.values_list("booked_on", flat=True))
    assert days <= {before, datetime.now(UTC).date()}
    assert set(Posting.objects.values_list("booked_on", flat=True)) == days
