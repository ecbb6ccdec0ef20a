"""The ledger's law, attacked with plain SQL and real commits; post() and the proof on top of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Barrier

import pytest
from django.core.management import CommandError, call_command
from django.db import Error, IntegrityError, connection, transaction
from django.utils import timezone

from payments import ledger
from payments.ledger import Account, Line, post, transfer
from payments.models import GatewayAccount, LedgerAccount, LedgerEntry, Order, Posting
from payments.money import Money
from payments.proof import prove_ledger
from tests.factories.payments import AttemptFactory, GatewayAccountFactory, OperationFactory, PaymentFactory
from tests.payments.threads import run_in_threads

REFUSED = (IntegrityError, Error)
EUR, JPY = "EUR", "JPY"


@pytest.fixture
def account(db: None) -> GatewayAccount:
    return GatewayAccountFactory()


def open_account(account: GatewayAccount, code: Account, currency: str) -> LedgerAccount:
    return LedgerAccount.objects.get_or_create(gateway_account=account, code=code, currency=currency)[0]


def insert_entry(account: GatewayAccount, external_id: str = "x-1") -> LedgerEntry:
    return LedgerEntry.objects.create(
        gateway_account=account,
        event="attack",
        source="test",
        external_id=external_id,
        created_at=timezone.now(),
    )


def insert_line(entry: LedgerEntry, number: int, code: Account, amount: int, currency: str = EUR) -> None:
    Posting.objects.create(
        entry=entry,
        line=number,
        account=open_account(entry.gateway_account, code, currency),
        currency=currency,
        amount=amount,
    )


def insert_lawful_entry(account: GatewayAccount, external_id: str = "lawful") -> LedgerEntry:
    with transaction.atomic():
        entry = insert_entry(account, external_id)
        insert_line(entry, 1, Account.CLEARING, 500)
        insert_line(entry, 2, Account.SALES, -500)
    return entry


def count_rows() -> tuple[int, int, int]:
    total = sum(Posting.objects.values_list("amount", flat=True))
    return LedgerEntry.objects.count(), Posting.objects.count(), total


@pytest.mark.django_db(transaction=True)
class TestTheLaw:
    @pytest.fixture(autouse=True)
    def nothing_changed(self, account: GatewayAccount) -> Iterator[None]:
        """Whatever is tried, the books are afterwards what they were before."""
        self.old = insert_lawful_entry(account)
        before = count_rows()
        yield
        assert count_rows() == before
        assert prove_ledger() == []

    def refuses(self, attack: Callable[[], object], match: str) -> None:
        with pytest.raises(REFUSED, match=match), transaction.atomic():
            attack()

    @pytest.mark.parametrize(
        "lines",
        [
            [(1, Account.CLEARING, 500, EUR), (2, Account.SALES, -499, EUR)],
            [(2, Account.CLEARING, 500, EUR), (3, Account.SALES, -499, EUR)],
            [(1, Account.CLEARING, 500, EUR), (2, Account.SALES, -500, JPY)],
        ],
        ids=["by one cent", "numbered from two", "balanced across currencies only"],
    )
    def test_an_unbalanced_entry_is_refused(
        self, account: GatewayAccount, lines: list[tuple[int, Account, int, str]]
    ) -> None:
        def attack() -> None:
            entry = insert_entry(account)
            for line in lines:
                insert_line(entry, *line)

        self.refuses(attack, "does not balance")

    def test_a_line_added_to_a_committed_entry_is_refused(self) -> None:
        self.refuses(lambda: insert_line(self.old, 3, Account.FEES, 1), "is sealed")

    def test_a_balanced_pair_added_to_a_committed_entry_is_refused(self) -> None:
        def attack() -> None:
            insert_line(self.old, 3, Account.FEES, 7)
            insert_line(self.old, 4, Account.CLEARING, -7)

        self.refuses(attack, "is sealed")

    def test_an_empty_entry_is_refused(self, account: GatewayAccount) -> None:
        self.refuses(lambda: insert_entry(account), "fewer than two postings")

    def test_a_line_of_nothing_is_refused(self, account: GatewayAccount) -> None:
        def attack() -> None:
            entry = insert_entry(account)
            insert_line(entry, 1, Account.CLEARING, 0)
            insert_line(entry, 2, Account.SALES, 0)

        self.refuses(attack, "posting_not_zero")

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE payments_posting SET amount = amount * 2",
            "UPDATE payments_posting SET amount = amount",
            "UPDATE payments_ledgerentry SET note = 'mine'",
            "UPDATE payments_ledgerentry SET transaction_id = pg_current_xact_id()",
            "DELETE FROM payments_posting",
            "DELETE FROM payments_ledgerentry",
            "TRUNCATE payments_posting",
            "TRUNCATE payments_ledgerentry CASCADE",
        ],
    )
    def test_what_is_written_stays(self, statement: str) -> None:
        with pytest.raises(REFUSED, match="append-only"), connection.cursor() as cursor:
            cursor.execute(statement)

    def test_the_same_source_and_external_id_is_refused(self, account: GatewayAccount) -> None:
        self.refuses(lambda: insert_lawful_entry(account), "ledger_entry_once")

    def test_checking_early_opens_no_door_for_a_later_line(self, account: GatewayAccount) -> None:
        def attack() -> None:
            entry = insert_entry(account)
            insert_line(entry, 1, Account.CLEARING, 500)
            insert_line(entry, 2, Account.SALES, -500)
            with connection.cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
                cursor.execute("SET CONSTRAINTS ALL DEFERRED")
            insert_line(entry, 3, Account.FEES, 1)

        self.refuses(attack, "does not balance")

    def test_a_posting_on_an_account_of_another_currency_is_refused(self, account: GatewayAccount) -> None:
        def attack() -> None:
            entry = insert_entry(account)
            yen = open_account(account, Account.CLEARING, JPY)
            Posting.objects.create(entry=entry, line=1, account=yen, currency=EUR, amount=5)

        self.refuses(attack, "another currency")

    def test_a_rolled_back_savepoint_leaves_no_line_behind(self, account: GatewayAccount) -> None:
        def attack() -> None:
            entry = insert_entry(account)
            insert_line(entry, 1, Account.CLEARING, 500)
            with transaction.atomic():
                insert_line(entry, 2, Account.SALES, -500)
                transaction.set_rollback(True)

        self.refuses(attack, "does not balance|fewer than two")


@pytest.mark.django_db(transaction=True)
def test_savepoints_do_not_break_the_seal(account: GatewayAccount) -> None:
    with transaction.atomic():
        with transaction.atomic():
            entry = insert_entry(account)
        with transaction.atomic():
            insert_line(entry, 1, Account.CLEARING, 500)
        insert_line(entry, 2, Account.SALES, -500)
    assert entry.postings.count() == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.concurrency
def test_twenty_threads_post_the_same_thing_once(account: GatewayAccount) -> None:
    barrier = Barrier(20)

    def work(_: int) -> bool:
        barrier.wait()
        with transaction.atomic():
            return post_sale(account)

    assert sum(run_in_threads(work, 20)) == 1
    assert count_rows() == (1, 2, 0)


def post_sale(account: GatewayAccount, money: Money | None = None, external_id: str = "sale") -> bool:
    lines = transfer(debit=Account.CLEARING, credit=Account.SALES, money=money or Money(500, EUR))
    return post(account, lines, event="sale", source="test", external_id=external_id)


@pytest.mark.django_db
class TestPost:
    def test_posts_once_per_source_and_external_id(self, account: GatewayAccount) -> None:
        assert [post_sale(account), post_sale(account)] == [True, False]
        assert count_rows() == (1, 2, 0)

    def test_a_repetition_with_another_amount_changes_nothing(self, account: GatewayAccount) -> None:
        post_sale(account)
        assert not post_sale(account, Money(999, EUR))
        assert set(Posting.objects.values_list("amount", flat=True)) == {500, -500}

    def test_opens_the_chart_of_a_new_currency(self, account: GatewayAccount) -> None:
        post_sale(account, Money(500, JPY))
        assert LedgerAccount.objects.filter(gateway_account=account, currency=JPY).count() == len(Account)

    def test_two_accounts_keep_two_charts(self, account: GatewayAccount) -> None:
        other = GatewayAccountFactory()
        post_sale(account, external_id="a")
        post_sale(other, external_id="b")
        for mine in (account, other):
            assert set(
                Posting.objects.filter(entry__gateway_account=mine).values_list("amount", flat=True)
            ) == {
                500,
                -500,
            }
            assert not Posting.objects.filter(entry__gateway_account=mine).exclude(
                account__gateway_account=mine
            )

    @pytest.mark.parametrize(
        "lines",
        [
            [],
            [Line(Account.CLEARING, Money(5, EUR))],
            [Line(Account.CLEARING, Money(5, EUR)), Line(Account.SALES, Money(-5, JPY))],
            [Line(Account.CLEARING, Money(5, EUR)), Line(Account.SALES, Money(-4, EUR))],
        ],
    )
    def test_refuses_lines_that_do_not_balance_before_asking_the_database(
        self, account: GatewayAccount, lines: list[Line]
    ) -> None:
        with pytest.raises(ValueError, match="does not balance"):
            post(account, lines, event="x", source="test", external_id="x")
        assert not LedgerEntry.objects.exists()

    def test_one_entry_may_hold_two_currencies_that_each_balance(self, account: GatewayAccount) -> None:
        lines = [
            *transfer(debit=Account.FX_DIFFERENCE, credit=Account.RECEIVABLE, money=Money(500, EUR)),
            *transfer(debit=Account.CLEARING, credit=Account.FX_DIFFERENCE, money=Money(80000, JPY)),
        ]
        assert post(account, lines, event="fx", source="test", external_id="fx")
        connection.check_constraints()


# --- the proof ----------------------------------------------------------------------------------------------


@contextmanager
def no_triggers() -> Iterator[None]:
    """Plant what the law forbids, as a superuser with a bad day could."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        try:
            yield
        finally:
            cursor.execute("SET session_replication_role = DEFAULT")


def run(statement: str) -> None:
    with no_triggers(), connection.cursor() as cursor:
        cursor.execute(statement)
        assert cursor.rowcount, "nothing was planted"


@pytest.mark.django_db
class TestProof:
    @pytest.fixture
    def paid(self, account: GatewayAccount) -> Order:
        """129.50 captured, 20.00 of it refunded, 5.00 on its way back; all of it lawful."""
        payment = PaymentFactory(
            account=account,
            is_captured=True,
            refunded=2000,
            refund_pending=500,
        )
        attempt = AttemptFactory(payment=payment)
        operations = {
            "authorize": OperationFactory(attempt=attempt, kind="authorize"),
            "capture": OperationFactory(attempt=attempt, kind="capture"),
            "refund": OperationFactory(attempt=attempt, kind="refund", amount=2000),
            "pending": OperationFactory(attempt=attempt, kind="refund", amount=500, state="pending"),
        }
        ids = {name: operation.id for name, operation in operations.items()}
        ledger.post_authorization(payment, ids["authorize"], payment.total)
        ledger.post_capture(payment, ids["capture"], payment.total, released=payment.total)
        ledger.post_refund_asked(payment, ids["refund"], Money(2000, EUR))
        ledger.post_refund_settled(payment, ids["refund"], Money(2000, EUR))
        ledger.post_refund_asked(payment, ids["pending"], Money(500, EUR))
        connection.check_constraints()
        return payment.order

    def test_lawful_books_hold(self, paid: Order, capsys: pytest.CaptureFixture[str]) -> None:
        assert prove_ledger() == []
        call_command("prove_ledger")
        assert "The books hold." in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("statement", "says"),
        [
            ("UPDATE payments_posting SET amount = amount + 1 WHERE amount = 500", "does not balance: 1 EUR"),
            ("DELETE FROM payments_posting", "fewer than two postings"),
            ("UPDATE payments_posting SET amount = amount * 2", "clearing"),
            ("UPDATE payments_posting SET currency = 'JPY'", "another currency"),
            ("UPDATE payments_ledgeraccount SET currency = 'JPY' WHERE code = 1100", "another currency"),
            ("UPDATE payments_payment SET captured = captured - 1", "captured 12949"),
            ("UPDATE payments_payment SET refunded = refunded - 1", "refunded 1999"),
            ("UPDATE payments_payment SET refund_pending = 0", "pending 0"),
            ("UPDATE payments_payment SET authorized = authorized + 1", "authorized 12951"),
            ("UPDATE payments_operation SET amount = 12000 WHERE kind = 'capture'", "captured 12000"),
            ("UPDATE payments_operation SET state = 'failed' WHERE state = 'pending'", "pending 0"),
            ("UPDATE payments_operation SET state = 'failed' WHERE kind = 'authorize'", "authorized 0"),
            ("UPDATE payments_ledgerentry SET payment_id = NULL WHERE event = 'capture'", "sales 0"),
            (
                "UPDATE payments_ledgerentry SET payment_id = NULL WHERE event = 'authorization'",
                "held -12950",
            ),
        ],
    )
    def test_a_planted_difference_is_found_and_the_command_fails(
        self, paid: Order, statement: str, says: str
    ) -> None:
        run(statement)
        assert any(says in difference for difference in prove_ledger())
        with pytest.raises(CommandError, match="the books do not hold") as refusal:
            call_command("prove_ledger")
        assert refusal.value.returncode == 1

    def test_a_posting_on_another_gateway_account_is_found(self, paid: Order) -> None:
        other = GatewayAccountFactory()
        run(f"UPDATE payments_ledgerentry SET gateway_account_id = '{other.pk}' WHERE event = 'capture'")
        assert any("gateway account" in difference for difference in prove_ledger())
