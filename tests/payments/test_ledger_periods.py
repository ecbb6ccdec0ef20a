"""Closed periods, attacked with plain SQL and by threads; what is late goes on the next open day."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from threading import Barrier, Event, Thread

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import Error, connection, transaction

from payments import ledger, services
from payments.errors import ConflictError, InvalidRequestError
from payments.ledger import Account, Evidence, Line, post, transfer
from payments.models import GatewayAccount, LedgerAccount, LedgerEntry, LedgerPeriod, Posting
from payments.money import Money
from payments.proof import Days, prove_ledger
from tests.factories.payments import AttemptFactory, GatewayAccountFactory, OperationFactory, PaymentFactory
from tests.payments.threads import run_in_threads

JANUARY = {"first_day": date(2026, 1, 1), "last_day": date(2026, 1, 31)}
FEBRUARY = {"first_day": date(2026, 2, 1), "last_day": date(2026, 2, 28)}
MID_JANUARY = date(2026, 1, 15)
WHO = "user:finance"


@pytest.fixture
def account(db: None) -> GatewayAccount:
    return GatewayAccountFactory()


def sell(
    account: GatewayAccount, external_id: str, *, on: date | None = None, minor: int = 500, note: str = ""
) -> bool:
    lines = transfer(debit=Account.CLEARING, credit=Account.SALES, money=Money(minor, "EUR"))
    return post(account, lines, event="sale", source="test", external_id=external_id, booked_on=on, note=note)


def sell_alone(account: GatewayAccount, external_id: str, *, on: date | None = None) -> bool:
    with transaction.atomic():
        return sell(account, external_id, on=on)


def close(account: GatewayAccount, **days: date) -> LedgerPeriod:
    return services.close_period(account, **{**JANUARY, **days}, actor=WHO)


@contextmanager
def no_triggers() -> Iterator[None]:
    """What a superuser with a bad day could do."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        try:
            yield
        finally:
            cursor.execute("SET session_replication_role = DEFAULT")


def run(statement: str, *parameters: object) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.rowcount


# --- closing ------------------------------------------------------------------------------------------------


@pytest.mark.django_db
class TestClosing:
    def test_a_period_that_holds_is_closed_with_what_it_held(self, account: GatewayAccount) -> None:
        sell(account, "a", on=MID_JANUARY)
        sell(account, "b", on=date(2026, 2, 1))
        period = close(account)
        assert (period.postings, period.closed_by, period.is_closed) == (2, WHO, True)
        assert period.digest != 0
        assert prove_ledger() == []

    def test_suspense_keeps_it_open(self, account: GatewayAccount) -> None:
        ledger.post_suspense(account, Money(700, "EUR"), evidence=Evidence("report", "r", MID_JANUARY))
        with pytest.raises(ConflictError, match=r"holds €7\.00 on 2026-01-31.*Nothing was closed"):
            close(account)
        ledger.post_adjustment(
            account, Money(700, "EUR"), debit=Account.SUSPENSE, credit=Account.FEES,
            evidence=Evidence("desk", "d", date(2026, 1, 31)), reason="A fee that came back", actor=WHO,
        )  # fmt: skip
        assert close(account).is_closed

    def test_suspense_of_later_days_does_not(self, account: GatewayAccount) -> None:
        ledger.post_suspense(account, Money(700, "EUR"), evidence=Evidence("report", "r", date(2026, 2, 1)))
        assert close(account).is_closed

    def test_a_difference_in_its_days_keeps_it_open(self, account: GatewayAccount) -> None:
        payment = PaymentFactory(account=account, is_captured=True)
        ledger.post_capture(payment, "op_1", payment.total, released=payment.total)
        entry = LedgerEntry.objects.get()
        with no_triggers():
            run("UPDATE payments_ledgerentry SET booked_on = %s", MID_JANUARY)
            run("UPDATE payments_posting SET booked_on = %s", MID_JANUARY)
        with pytest.raises(ConflictError, match=rf"finds 1 difference .*payment {payment.pk} says"):
            close(account)
        assert close(account, **FEBRUARY).is_closed, "another month has none"
        assert not LedgerPeriod.objects.filter(first_day=JANUARY["first_day"]).exists(), entry.pk

    def test_a_difference_of_another_account_does_not(self, account: GatewayAccount) -> None:
        PaymentFactory(is_captured=True)
        assert prove_ledger() != []
        assert close(account).is_closed

    @pytest.mark.parametrize(
        ("days", "says"),
        [
            ({"last_day": date(2025, 12, 31)}, "is after"),
            ({"last_day": datetime.now(UTC).date()}, "is not over"),
            ({"first_day": date(2024, 12, 31)}, "at most"),
        ],
    )
    def test_days_that_cannot_be_a_period_are_refused(
        self, account: GatewayAccount, days: dict[str, date], says: str
    ) -> None:
        with pytest.raises(InvalidRequestError, match=says):
            close(account, **days)

    def test_a_part_that_is_closed_is_not_closed_again(self, account: GatewayAccount) -> None:
        close(account)
        with pytest.raises(ConflictError, match="is closed already"):
            close(account, first_day=date(2026, 1, 31), last_day=date(2026, 2, 1))
        assert close(GatewayAccountFactory()).is_closed, "another account's books are its own"

    def test_the_days_around_it_stay_open(self, account: GatewayAccount) -> None:
        close(account)
        for day in (date(2025, 12, 31), date(2026, 2, 1)):
            sell(account, str(day), on=day)
            assert LedgerEntry.objects.get(external_id=str(day)).booked_on == day


@pytest.mark.django_db
class TestReopening:
    def test_is_recorded_and_lets_entries_in(self, account: GatewayAccount) -> None:
        period = close(account)
        services.reopen_period(period.pk, reason="A report came late", actor="user:head")
        sell(account, "a", on=MID_JANUARY)
        period.refresh_from_db()
        assert (period.reopened_by, period.reopen_reason) == ("user:head", "A report came late")
        assert LedgerEntry.objects.get().booked_on == MID_JANUARY
        assert close(account).postings == 2, "and it can be closed again"
        assert LedgerPeriod.objects.count() == 2

    def test_needs_a_reason(self, account: GatewayAccount) -> None:
        with pytest.raises(InvalidRequestError, match="needs a reason"):
            services.reopen_period(close(account).pk, reason="  ", actor=WHO)

    def test_twice_is_refused(self, account: GatewayAccount) -> None:
        period = close(account)
        services.reopen_period(period.pk, reason="x", actor=WHO)
        with pytest.raises(ConflictError, match="is open already"):
            services.reopen_period(period.pk, reason="x", actor=WHO)

    def test_waits_for_a_later_period_to_be_reopened_first(self, account: GatewayAccount) -> None:
        january, february = close(account), close(account, **FEBRUARY)
        with pytest.raises(ConflictError, match="reopen it first"):
            services.reopen_period(january.pk, reason="x", actor=WHO)
        services.reopen_period(february.pk, reason="x", actor=WHO)
        services.reopen_period(january.pk, reason="x", actor=WHO)


@pytest.mark.django_db
class TestLateFacts:
    def test_go_on_the_first_open_day_and_say_so(self, account: GatewayAccount) -> None:
        close(account)
        close(account, **FEBRUARY)
        sell(account, "late", on=MID_JANUARY, note="Row 7")
        entry = LedgerEntry.objects.get()
        assert entry.booked_on == date(2026, 3, 1)
        assert entry.note == "Late: of 2026-01-15, which is closed. Row 7"
        assert set(entry.postings.values_list("booked_on", flat=True)) == {date(2026, 3, 1)}

    def test_told_twice_are_booked_once(self, account: GatewayAccount) -> None:
        close(account)
        assert [sell(account, "late", on=MID_JANUARY) for _ in range(2)] == [True, False]

    def test_a_long_note_is_cut_not_refused(self, account: GatewayAccount) -> None:
        close(account)
        assert sell(account, "late", on=MID_JANUARY, note="n" * 200)


# --- the database's own law ---------------------------------------------------------------------------------

ENTRY = """
INSERT INTO payments_ledgerentry (gateway_account_id, event, source, external_id, note, created_at, booked_on)
VALUES (%s, 'attack', 'test', 'attack', '', now(), %s) RETURNING id
"""
LINES = """
INSERT INTO payments_posting (entry_id, line, account_id, currency, amount, booked_on)
SELECT entry.id, row_number() OVER (ORDER BY code), account.id, 'EUR', CASE code WHEN 1100 THEN 5 ELSE -5 END, %s
FROM payments_ledgerentry AS entry, payments_ledgeraccount AS account
WHERE entry.external_id = 'attack' AND account.gateway_account_id = %s AND currency = 'EUR' AND code IN (1100, 4000)
"""


@pytest.mark.django_db(transaction=True)
class TestTheLaw:
    @pytest.fixture(autouse=True)
    def nothing_changed(self, account: GatewayAccount) -> Iterator[None]:
        """January is closed, and afterwards what it was; the books hold."""
        with transaction.atomic():
            sell(account, "lawful", on=MID_JANUARY)
        self.period = close(account)
        before = list(Posting.objects.order_by("id").values())
        yield
        assert list(Posting.objects.order_by("id").values()) == before
        assert LedgerPeriod.objects.get().is_closed
        assert prove_ledger() == []

    def test_an_entry_dated_back_is_refused(self, account: GatewayAccount) -> None:
        with pytest.raises(Error, match="that day is closed"), transaction.atomic():
            run(ENTRY, account.pk, MID_JANUARY)

    def test_code_that_asks_for_the_day_itself_is_refused_too(self, account: GatewayAccount) -> None:
        with pytest.raises(Error, match="that day is closed"), transaction.atomic():
            LedgerEntry.objects.create(
                gateway_account=account, event="x", source="test", external_id="x",
                created_at=datetime.now(UTC), booked_on=date(2026, 1, 31),
            )  # fmt: skip

    def test_an_entry_of_a_day_to_come_is_refused(self, account: GatewayAccount) -> None:
        with pytest.raises(Error, match="still to come"), transaction.atomic():
            run(ENTRY, account.pk, datetime.now(UTC).date() + timedelta(days=2))

    def test_deferring_every_constraint_opens_no_door(self, account: GatewayAccount) -> None:
        def attack() -> None:
            run("SET CONSTRAINTS ALL DEFERRED")
            run(ENTRY, account.pk, MID_JANUARY)

        with pytest.raises(Error, match="that day is closed"), transaction.atomic():
            attack()

    def test_a_posting_takes_its_entrys_day_whatever_it_says(self, account: GatewayAccount) -> None:
        with transaction.atomic():
            run(ENTRY, account.pk, date(2026, 2, 2))
            assert run(LINES, MID_JANUARY, account.pk) == 2
            days = Posting.objects.filter(entry__external_id="attack").values_list("booked_on", flat=True)
            assert set(days) == {date(2026, 2, 2)}
            transaction.set_rollback(True)

    @pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
    def test_a_snapshot_from_before_the_closing_opens_no_door(
        self, account: GatewayAccount, level: str
    ) -> None:
        def attack() -> None:
            run(f"SET TRANSACTION ISOLATION LEVEL {level}")
            run(ENTRY, account.pk, date(2026, 2, 2))

        with pytest.raises(Error, match="READ COMMITTED"), transaction.atomic():
            attack()

    @pytest.mark.parametrize(
        ("statement", "says"),
        [
            ("UPDATE payments_ledgerentry SET booked_on = '2026-02-02'", "append-only"),
            ("UPDATE payments_posting SET booked_on = '2026-02-02'", "append-only"),
            ("DELETE FROM payments_ledgerperiod", "stays on record"),
            ("TRUNCATE payments_ledgerperiod", "stays on record"),
            ("UPDATE payments_ledgerperiod SET last_day = '2026-01-02'", "stays on record"),
            ("UPDATE payments_ledgerperiod SET postings = 0", "stays on record"),
            (
                "UPDATE payments_ledgerperiod SET reopened_at = now(), reopened_by = 'me', reopen_reason = 'x', "
                "last_day = '2026-01-02'",
                "stays on record",
            ),
            ("UPDATE payments_ledgerperiod SET reopened_at = now()", "reopened_with_reason"),
        ],
    )
    def test_what_is_written_stays(self, statement: str, says: str) -> None:
        with pytest.raises(Error, match=says):
            run(statement)

    @pytest.mark.parametrize(
        ("first_day", "last_day", "says"),
        [
            ("2026-01-31", "2026-02-01", "closed already"),
            ("2024-01-01", "2025-12-31", "at most a year"),
            ("2026-02-01", "2999-12-31", "only days that are over"),
        ],
    )
    def test_a_period_written_by_hand_obeys_too(
        self, account: GatewayAccount, first_day: str, last_day: str, says: str
    ) -> None:
        insert = (
            "INSERT INTO payments_ledgerperiod (gateway_account_id, first_day, last_day, closed_at, closed_by, note, "
            "postings, digest, reopened_by, reopen_reason) VALUES (%s, %s, %s, now(), 'me', '', 0, 0, '', '')"
        )
        with pytest.raises(Error, match=says):
            run(insert, account.pk, first_day, last_day)

    def test_a_posting_on_another_gateway_accounts_book_is_refused(self, account: GatewayAccount) -> None:
        other = GatewayAccountFactory()
        mine = LedgerAccount.objects.get(gateway_account=account, code=Account.SALES, currency="EUR")
        theirs = LedgerAccount.objects.create(gateway_account=other, code=Account.CLEARING, currency="EUR")

        def attack() -> None:
            entry = LedgerEntry.objects.create(
                gateway_account=account,
                event="x",
                source="test",
                external_id="x",
                created_at=datetime.now(UTC),
            )
            for number, (row, amount) in enumerate([(mine, 5), (theirs, -5)], start=1):
                entry.postings.create(line=number, account=row, currency="EUR", amount=amount)

        with pytest.raises(Error, match="another gateway account"), transaction.atomic():
            attack()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE payments_posting SET amount = amount * 2",
        "DELETE FROM payments_posting WHERE amount > 0",
        "UPDATE payments_posting SET booked_on = '2026-02-02'",
        "UPDATE payments_ledgerperiod SET postings = 3",
    ],
)
def test_the_proof_finds_what_was_changed_in_a_closed_period(account: GatewayAccount, statement: str) -> None:
    sell(account, "a", on=MID_JANUARY)
    connection.check_constraints()
    close(account)
    with no_triggers():
        run(statement)
    assert any("is not what was closed" in difference for difference in prove_ledger())


@pytest.mark.django_db
def test_the_proof_finds_what_was_added_to_a_closed_period(account: GatewayAccount) -> None:
    sell(account, "a", on=MID_JANUARY)
    close(account)
    with no_triggers():
        run(ENTRY, account.pk, MID_JANUARY)
        run(LINES, MID_JANUARY, account.pk)
    assert any("2 postings then, 4 now" in difference for difference in prove_ledger())


# --- the proof of what else there is ------------------------------------------------------------------------


@pytest.mark.django_db
class TestProof:
    def test_names_an_entry_on_accounts_that_its_event_does_not_touch(self, account: GatewayAccount) -> None:
        lines = transfer(debit=Account.FEES, credit=Account.SALES, money=Money(5, "EUR"))
        post(account, lines, event="fee", source="test", external_id="x")
        assert prove_ledger() == [
            f"entry {LedgerEntry.objects.get().pk} has a posting on an account that fee does not touch"
        ]

    def test_names_half_a_memo_pair(self, account: GatewayAccount) -> None:
        lines = [Line(Account.AUTHORIZED, Money(5, "EUR")), Line(Account.CLEARING, Money(-5, "EUR"))]
        post(account, lines, event="odd", source="test", external_id="x")
        assert "moves one account of the memo pair" in prove_ledger()[0]

    def test_names_a_hold_that_may_capture_more_than_its_attempt(self, account: GatewayAccount) -> None:
        payment = PaymentFactory(account=account, is_authorized=True, capturable=12950)
        attempt = AttemptFactory(payment=payment, state="live")
        hold = OperationFactory(attempt=attempt, kind="authorize")
        ledger.post_authorization(payment, hold.pk, payment.total)
        assert prove_ledger() == []
        attempt.state = "done"
        attempt.save()
        assert "capturable 12950" in prove_ledger()[0]

    def test_of_some_days_sees_the_whole_payment(self, account: GatewayAccount) -> None:
        """Authorized in January, captured in February: each month's payments are proved with all their entries."""
        payment = PaymentFactory(account=account, is_captured=True)
        attempt = AttemptFactory(payment=payment)
        for kind in ("authorize", "capture"):
            OperationFactory(attempt=attempt, kind=kind)
        hold, capture = payment.operations.order_by("kind")
        ledger.post_authorization(payment, hold.pk, payment.total)
        with no_triggers():
            run("UPDATE payments_ledgerentry SET booked_on = '2026-01-15'")
            run("UPDATE payments_posting SET booked_on = '2026-01-15'")
        ledger.post_capture(payment, capture.pk, payment.total, released=payment.total)
        assert prove_ledger(Days(account, JANUARY["first_day"], JANUARY["last_day"])) == []
        assert prove_ledger() == []


# --- many at once -------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.concurrency
class TestTogether:
    def test_a_closing_waits_for_an_entry_on_its_way(self, account: GatewayAccount) -> None:
        """And counts it, though it was committed after the closing had begun."""
        written, go = Event(), Event()

        def write() -> None:
            try:
                with transaction.atomic():
                    sell(account, "slow", on=MID_JANUARY)
                    written.set()
                    assert go.wait(120)
            finally:
                connection.close()

        writer = Thread(target=write)
        writer.start()
        assert written.wait(120)
        closer = run_in_background(lambda: close(account))
        wait_for_a_lock()
        go.set()
        assert closer().postings == 2
        writer.join()
        assert prove_ledger() == []

    def test_an_entry_waits_for_a_closing_and_goes_on_the_next_open_day(
        self, account: GatewayAccount
    ) -> None:
        with transaction.atomic():
            close(account)
            late = run_in_background(lambda: sell_alone(account, "late", on=MID_JANUARY))
            wait_for_a_lock()
        assert late()
        assert LedgerEntry.objects.get().booked_on == date(2026, 2, 1)

    def test_todays_entries_do_not_wait(self, account: GatewayAccount) -> None:
        with transaction.atomic():
            close(account)
            assert run_in_background(lambda: sell_alone(account, "today"))()

    def test_postings_and_closings_in_any_order_leave_closed_days_alone(
        self, account: GatewayAccount
    ) -> None:
        """Ten write into ten days while five close two of them each: who loses goes on a later day."""
        barrier = Barrier(15)

        def work(index: int) -> None:
            barrier.wait(120)
            if index >= 10:
                first = date(2026, 1, 1) + timedelta(days=2 * (index - 10))
                close(account, first_day=first, last_day=first + timedelta(days=1))
                return
            for number in range(10):
                with transaction.atomic():
                    sell(account, f"{index}-{number}", on=date(2026, 1, 1) + timedelta(days=number))

        run_in_threads(work, 15)
        assert (LedgerEntry.objects.count(), LedgerPeriod.objects.count()) == (100, 5)
        assert prove_ledger() == []

    def test_two_who_close_the_same_days_close_them_once(self, account: GatewayAccount) -> None:
        barrier = Barrier(8)

        def work(_: int) -> bool:
            barrier.wait(120)
            try:
                return close(account).is_closed
            except ConflictError:
                return False

        assert sum(run_in_threads(work, 8)) == 1

    def test_many_accounts_and_repeated_facts_meet_without_a_deadlock(self, account: GatewayAccount) -> None:
        accounts = [account, *(GatewayAccountFactory() for _ in range(3))]
        barrier = Barrier(12)

        def work(index: int) -> int:
            barrier.wait(120)
            posted = 0
            for number in range(20):
                with transaction.atomic():
                    posted += sell(accounts[(index + number) % 4], f"fact-{number}", minor=100 + number)
            return posted

        assert sum(run_in_threads(work, 12)) == 20
        assert LedgerEntry.objects.count() == 20
        assert prove_ledger() == []


def run_in_background(work):  # type: ignore[no-untyped-def]
    """Begin now; the result, or what was raised, when it is called."""
    results: list[object] = []

    def target() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)
        finally:
            connection.close()

    thread = Thread(target=target)
    thread.start()

    def result():  # type: ignore[no-untyped-def]
        thread.join(120)
        assert results, "it still waits"
        if isinstance(results[0], Exception):
            raise results[0]
        return results[0]

    return result


def wait_for_a_lock() -> None:
    """Until somebody waits for an advisory lock of this database."""
    for _ in range(100_000):
        waiting = (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        with connection.cursor() as cursor:
            cursor.execute(waiting)
            if cursor.fetchone()[0]:
                return
    pytest.fail("nobody waits")


# --- commands -----------------------------------------------------------------------------------------------


@pytest.mark.django_db
class TestCommands:
    @pytest.fixture
    def clerk(self) -> User:
        user = User.objects.create_user("clerk")
        names = ("close_ledgerperiod", "reopen_ledgerperiod")
        user.user_permissions.set(Permission.objects.filter(codename__in=names))
        return user

    def test_close_a_month_and_reopen_it(self, account: GatewayAccount, clerk: User) -> None:
        call_command(
            "close_period", f"--account={account}", "--month=2026-02", "--by=clerk", note="Reports are in"
        )
        period = LedgerPeriod.objects.get()
        assert (str(period.first_day), str(period.last_day)) == ("2026-02-01", "2026-02-28")
        assert (period.closed_by, period.note) == ("user:clerk", "Reports are in")
        call_command("reopen_period", str(period.pk), "--by=clerk", "--reason=One was missing")
        period.refresh_from_db()
        assert (period.reopened_by, period.reopen_reason) == ("user:clerk", "One was missing")

    def test_who_may_not_is_refused(self, account: GatewayAccount) -> None:
        User.objects.create_user("visitor")
        for name in ("visitor", "nobody"):
            with pytest.raises(CommandError, match="may not do that; nothing was changed"):
                call_command("close_period", f"--account={account}", "--month=2026-01", f"--by={name}")

    def test_the_reason_why_not_is_told(self, account: GatewayAccount, clerk: User) -> None:
        close(account)
        with pytest.raises(CommandError, match="is closed already"):
            call_command("close_period", f"--account={account}", "--month=2026-01", "--by=clerk")
        with pytest.raises(CommandError, match="no gateway account stripe/none"):
            call_command("close_period", "--account=stripe/none", "--month=2026-01", "--by=clerk")
