"""Monthly partitions: made ahead, dropped whole, never refusing a row, and made out of a plain table with its rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone

from payments import partitions
from payments.models import SagaEvent, SagaRun, SagaState
from payments.partitions import add_months, drop_partition, list_partitions, partition_by_month
from payments.purge import purge
from tests.factories import SagaRunFactory
from tests.factories.webhooks import DeliveryFactory
from webhooks.models import DeliveryAttempt

DIARY = "payments_sagaevent"


def execute(statement: str, *parameters: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def place_of(at: datetime) -> str:
    """The partition that a line of the diary lies in."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT tableoid::regclass::text FROM {DIARY} WHERE at = %s", [at])
        return str(cursor.fetchone()[0])


def write(run: SagaRun, at: datetime) -> SagaEvent:
    return SagaEvent.objects.create(run=run, at=at, kind="note")


@pytest.mark.django_db
class TestMonths:
    def test_the_coming_months_are_there_after_migrating(self) -> None:
        for table in (DIARY, "webhooks_deliveryattempt"):
            found = list_partitions(table)
            assert found[-1].is_default
            covered = [p for p in found if p.since and p.until and p.until > timezone.now()]
            assert len(covered) >= 4, table

    def test_a_line_of_today_lies_in_its_month(self) -> None:
        now = timezone.now()
        write(SagaRunFactory(), now)
        assert place_of(now) == f"{DIARY}_{now.astimezone(UTC):%Y_%m}"

    def test_new_months_follow_the_calendar_without_gaps(self) -> None:
        before = {p.name for p in list_partitions(DIARY)}
        made = add_months(DIARY, "at", now=datetime(2031, 11, 15, tzinfo=UTC))
        assert made == [
            f"{DIARY}_{month}" for month in ("2031_10", "2031_11", "2031_12", "2032_01", "2032_02")
        ]
        assert add_months(DIARY, "at", now=datetime(2031, 11, 30, tzinfo=UTC)) == []
        bounds = [(p.since, p.until) for p in list_partitions(DIARY) if p.name in made]
        assert all(one[1] == other[0] for one, other in pairwise(bounds))
        assert before < {p.name for p in list_partitions(DIARY)}

    def test_nothing_is_refused_when_nobody_made_the_month(self) -> None:
        at = datetime(2031, 11, 15, tzinfo=UTC)
        later = datetime(2033, 1, 1, tzinfo=UTC)
        run = SagaRunFactory()
        line, other = write(run, at), write(run, later)
        assert place_of(at) == place_of(later) == f"{DIARY}_default"
        add_months(DIARY, "at", now=at)
        assert place_of(at) == f"{DIARY}_2031_11"
        assert place_of(later) == f"{DIARY}_default"
        assert set(run.diary.all()) == {line, other}

    @pytest.mark.parametrize("statement", ["UPDATE {} SET kind = 'x'", "DELETE FROM {}"])
    @pytest.mark.parametrize("year", [2031, 2040])  # a month made later, and the default partition
    def test_every_partition_is_append_only(self, statement: str, year: int) -> None:
        at = datetime(year, 11, 15, tzinfo=UTC)
        if year == 2031:
            add_months(DIARY, "at", now=at)
        write(SagaRunFactory(), at)
        for table in (DIARY, place_of(at)):
            with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
                execute(statement.format(table))

    def test_a_number_is_given_once(self) -> None:
        run = SagaRunFactory()
        numbers = [write(run, timezone.now() + timedelta(days=40 * n)).pk for n in range(3)]
        assert numbers == sorted(set(numbers))
        assert [line.pk for line in run.diary.all()] == numbers


@pytest.mark.django_db
class TestDropping:
    @pytest.fixture
    def old_month(self) -> datetime:
        """A line in a month that is three years past, of a run that has ended."""
        at = datetime(timezone.now().year - 3, 5, 15, tzinfo=UTC)
        add_months(DIARY, "at", now=at)
        write(SagaRunFactory(state=SagaState.COMPLETED, wake_at=None, created_at=at), at)
        return at

    def test_old_months_are_dropped_whole(self, old_month: datetime) -> None:
        run = SagaRunFactory(state=SagaState.COMPLETED, wake_at=None)
        young = write(run, timezone.now())
        [tally] = purge(table=DIARY, dry_run=True)
        assert tally.count == 5
        assert SagaEvent.objects.count() == 2
        [tally] = purge(table=DIARY)
        assert (tally.count, tally.error) == (5, "")
        assert list(SagaEvent.objects.all()) == [young]
        assert all(
            p.until is None or p.until > old_month + timedelta(days=400) for p in list_partitions(DIARY)
        )

    def test_the_diary_of_a_run_that_waits_for_an_operator_stays(self, old_month: datetime) -> None:
        SagaRunFactory(state=SagaState.QUARANTINED, wake_at=None, created_at=old_month)
        [tally] = purge(table=DIARY)
        assert "still needed" in tally.note
        assert place_of(old_month).endswith(f"{old_month:%Y_%m}")

    def test_tries_of_deliveries_go_after_90_days(self) -> None:
        table, delivery = "webhooks_deliveryattempt", DeliveryFactory()
        at = timezone.now() - timedelta(days=200)
        add_months(table, "started_at", now=at)
        for moment in (at, timezone.now()):
            delivery.tries.create(started_at=moment, duration_ms=1, answer="hello")
        execute("SET CONSTRAINTS ALL IMMEDIATE")
        [tally] = purge(table=table)
        assert (tally.count > 0, tally.error) == (True, "")
        assert DeliveryAttempt.objects.get().started_at > at

    def test_a_partition_keeps_the_relation_to_its_delivery(self) -> None:
        execute("SET CONSTRAINTS ALL IMMEDIATE")
        with pytest.raises(IntegrityError), transaction.atomic():
            DeliveryAttempt.objects.create(delivery_id="dlv_none", started_at=timezone.now(), duration_ms=1)

    def test_a_reader_in_the_way_is_waited_for(self) -> None:
        tries = []

        def change() -> None:
            tries.append(1)
            if len(tries) < 3:
                execute("DO $$ BEGIN RAISE lock_not_available; END $$")

        partitions._patiently(change)
        assert len(tries) == 3


@pytest.mark.django_db(transaction=True)
class TestFromAPlainTable:
    """On a table of the same shape: the migration has long run on the real one."""

    TABLE = "scratch_diary"

    @pytest.fixture(autouse=True)
    def plain(self) -> Iterator[None]:
        execute(
            f"CREATE TABLE {self.TABLE} (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, "
            "at timestamptz NOT NULL, note text NOT NULL CHECK (note <> ''), "
            "client_id varchar(32) REFERENCES payments_apiclient (id) DEFERRABLE INITIALLY DEFERRED)"
        )
        execute(f"CREATE INDEX scratch_note ON {self.TABLE} (note, id)")
        execute(
            f"CREATE TRIGGER scratch_append_only BEFORE UPDATE OR DELETE ON {self.TABLE} "
            "FOR EACH ROW EXECUTE FUNCTION payments_refuse_change()"
        )
        yield
        execute(f"DROP TABLE {self.TABLE} CASCADE")

    def write(self, *notes: str, at: datetime | None = None) -> None:
        for note in notes:
            execute(f"INSERT INTO {self.TABLE} (at, note) VALUES (%s, %s)", at or timezone.now(), note)

    def read(self) -> list[tuple[int, str]]:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT id, note FROM {self.TABLE} ORDER BY id")
            return list(cursor.fetchall())

    def test_rows_stay_and_new_ones_follow(self) -> None:
        self.write("a", at=timezone.now() - timedelta(days=900))
        self.write("b")
        partition_by_month(self.TABLE, "at")
        self.write("c")
        self.write("d", at=timezone.now() + timedelta(days=80))
        assert self.read() == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
        first, *_, default = list_partitions(self.TABLE)
        assert (first.name, first.since, default.is_default) == (f"{self.TABLE}_first", None, True)
        for table in (self.TABLE, first.name):
            with pytest.raises(DatabaseError, match="append-only"):
                execute(f"DELETE FROM {table}")
        with pytest.raises(IntegrityError):
            self.write("")
        with pytest.raises(IntegrityError):
            execute(f"INSERT INTO {self.TABLE} (at, note, client_id) VALUES (now(), 'e', 'cli_none')")

    def test_an_empty_table_leaves_no_first_partition(self) -> None:
        partition_by_month(self.TABLE, "at")
        assert all(p.since or p.is_default for p in list_partitions(self.TABLE))
        self.write("a")
        assert self.read() == [(1, "a")]

    def test_again_changes_nothing(self) -> None:
        self.write("a")
        partition_by_month(self.TABLE, "at")
        before = list_partitions(self.TABLE)
        partition_by_month(self.TABLE, "at")
        assert list_partitions(self.TABLE) == before

    def test_after_a_kill_it_begins_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write("a")
        with monkeypatch.context() as patch:
            patch.setattr(partitions, "_swap", lambda *_: (_ for _ in ()).throw(RuntimeError))
            with pytest.raises(RuntimeError):
                partition_by_month(self.TABLE, "at")
        self.write("b")
        partition_by_month(self.TABLE, "at")
        assert self.read() == [(1, "a"), (2, "b")]

    def test_the_first_partition_is_dropped_like_any_other(self) -> None:
        self.write("a")
        partition_by_month(self.TABLE, "at")
        drop_partition(self.TABLE, f"{self.TABLE}_first")
        self.write("b")
        assert self.read() == [(2, "b")]
