"""A run can be asked for twice, die anywhere, or get a wrong file, and the result is the same."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from threading import Barrier
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from payments import oncall
from payments.errors import ConflictError, InvalidRequestError, ReportNotReadyError
from payments.models import GatewayAccount, OnCallPage
from reconciliation import services
from reconciliation.models import (
    Discrepancy,
    DiscrepancyEvent,
    ReasonCode,
    ReportFile,
    ReportLine,
    Run,
    RunState,
    RunTrigger,
    Sighting,
)
from reconciliation.services import execute_run, reconcile_due, resume_runs, start_run
from tests.factories.payments import GatewayAccountFactory
from tests.factories.reconciliation import DAY, Report, RunDay, at_noon, make_capture

pytestmark = pytest.mark.django_db
NOON = at_noon(DAY)


@pytest.fixture
def planted(account: GatewayAccount, report: Report) -> Report:
    """Three rows, one of each classic kind: 1 of 4 matches."""
    make_capture(account, at=NOON)
    report.add_charge(make_capture(account, at=NOON))
    report.add_charge(make_capture(account, at=NOON), amount=1)
    report.add("charge", 500, payment_intent_id="pi_stranger")
    return report


RESULT = "1/4 matched, 3 discrepancies: 1 missing_internal, 1 missing_gateway, 1 amount_mismatch"


class FakeGateway:
    """Hands out a report, or fails."""

    def __init__(self, report: Report | None = None, error: Exception | None = None) -> None:
        self.report, self.error, self.asked = report, error, 0

    def settlement_report(self, *, day: date) -> Iterator[bytes]:
        self.asked += 1
        if self.error:
            raise self.error
        assert self.report
        return iter(self.report.chunks())


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> FakeGateway:
    fake = FakeGateway()
    monkeypatch.setattr(services, "get_gateway", lambda account: fake)
    return fake


class TestARun:
    def test_fetches_the_report_of_the_gateway(
        self, account: GatewayAccount, planted: Report, gateway: FakeGateway
    ) -> None:
        gateway.report = planted
        run = execute_run(start_run(account, day=DAY, trigger=RunTrigger.BEAT).pk)
        assert (run.state, run.summarize(), run.rows_read) == (RunState.COMPLETED, RESULT, 0)
        run.refresh_from_db()
        assert run.rows_read == 3

    def test_is_kept_as_failed_when_the_gateway_is_not_ready(
        self, account: GatewayAccount, gateway: FakeGateway
    ) -> None:
        gateway.error = ReportNotReadyError("not complete")
        run = start_run(account, day=DAY, trigger=RunTrigger.BEAT)
        with pytest.raises(ReportNotReadyError):
            execute_run(run.pk)
        run.refresh_from_db()
        assert run.state == RunState.FAILED
        assert "not complete" in run.error

    def test_of_a_day_to_come_is_refused(self, account: GatewayAccount) -> None:
        with pytest.raises(InvalidRequestError, match="has not begun"):
            start_run(account, day=timezone.now().date() + timedelta(days=2), trigger=RunTrigger.COMMAND)
        assert not Run.objects.exists()

    def test_that_is_completed_is_not_carried_out_again(self, planted: Report, run_day: RunDay) -> None:
        run = run_day(planted)
        finished = run.finished_at
        assert execute_run(run.pk).finished_at == finished

    def test_lists_the_rows_that_it_could_not_read(self, report: Report, run_day: RunDay) -> None:
        report.add("fee", -50)
        report.add("fee", -50)["gross"] = "lots"
        report.add("fee", -50)
        run = run_day(report)
        assert run.file
        assert (run.file.rows, run.file.bad_rows) == (2, 1)
        assert run.file.bad_row_list == [{"line": 3, "reason": "'lots' is not an amount"}]


PHASES = [
    "reports.keep_fetched_report",
    "staging.import_report",
    "matching.match_run",
    "paging.open_page",
    "oncall.send_page",
]


@pytest.mark.parametrize("place", PHASES)
def test_a_crash_in_any_phase_is_made_good_by_the_next_attempt(
    place: str,
    account: GatewayAccount,
    planted: Report,
    gateway: FakeGateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway.report = planted
    module, _, name = place.partition(".")
    crash_after(monkeypatch, getattr(services, module), name)
    run = start_run(account, day=DAY, trigger=RunTrigger.BEAT)
    with pytest.raises(SystemExit):
        execute_run(run.pk)
    monkeypatch.undo()
    monkeypatch.setattr(services, "get_gateway", lambda account: gateway)

    assert resume_runs() == 1

    run.refresh_from_db()
    assert (run.state, run.summarize()) == (RunState.COMPLETED, RESULT)
    assert ReportFile.objects.count() == OnCallPage.objects.count() == 1
    assert ReportLine.objects.count() == Sighting.objects.count() == 3
    assert DiscrepancyEvent.objects.filter(type="found").count() == 3


def crash_after(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    """The process dies as soon as the work is done, before anything is noted."""
    work = getattr(module, name)

    def die(*args: Any, **kwargs: Any) -> None:
        work(*args, **kwargs)
        raise SystemExit

    monkeypatch.setattr(module, name, die)


class TestReports:
    def test_the_same_file_under_another_name_is_the_same_report(
        self, account: GatewayAccount, planted: Report
    ) -> None:
        for name in ("a.csv", "b.csv"):
            run = start_run(
                account, day=DAY, trigger=RunTrigger.UPLOAD, report=planted.chunks(), report_name=name
            )
            execute_run(run.pk)
        assert ReportFile.objects.get().name == "a.csv"
        assert ReportLine.objects.count() == 3

    def test_a_file_of_another_day_is_refused(
        self, account: GatewayAccount, planted: Report, run_day: RunDay
    ) -> None:
        run_day(planted)
        with pytest.raises(InvalidRequestError, match="already imported for 2026-03-10"):
            start_run(
                account, day=DAY + timedelta(days=1), trigger=RunTrigger.UPLOAD, report=planted.chunks()
            )
        assert Run.objects.count() == ReportFile.objects.count() == 1

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda data: data.replace(b",", b";"),
            lambda data: data.decode().encode("utf-16"),
            lambda data: data[:-20],
            lambda data: b"",
            lambda data: data.replace(b"2026-03-10", b"last week"),
        ],
    )
    def test_a_wrong_file_leaves_nothing_behind(
        self, spoil: Any, account: GatewayAccount, planted: Report
    ) -> None:
        with pytest.raises(InvalidRequestError, match="Nothing was imported"):
            start_run(account, day=DAY, trigger=RunTrigger.UPLOAD, report=[spoil(planted.build())])
        assert not Run.objects.exists()
        assert not ReportFile.objects.exists()

    def test_a_wrong_file_of_the_gateway_fails_the_run_and_imports_nothing(
        self, account: GatewayAccount, planted: Report, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gateway.report = planted
        monkeypatch.setattr(planted, "chunks", lambda: [planted.build()[:-20]])
        run = start_run(account, day=DAY, trigger=RunTrigger.BEAT)
        with pytest.raises(InvalidRequestError, match="cut off at line 4"):
            execute_run(run.pk)
        run.refresh_from_db()
        assert run.state == RunState.FAILED
        assert not ReportLine.objects.exists()
        assert count_staged() == 0

    def test_a_report_does_not_change_a_run_at_work(self, account: GatewayAccount, planted: Report) -> None:
        start_run(account, day=DAY, trigger=RunTrigger.BEAT)
        with pytest.raises(ConflictError, match="at work"):
            start_run(account, day=DAY, trigger=RunTrigger.UPLOAD, report=planted.chunks())
        assert Run.objects.get().file is None

    def test_a_newer_report_of_the_gateway_takes_the_place_of_the_older(
        self, account: GatewayAccount, report: Report, gateway: FakeGateway
    ) -> None:
        captures = [make_capture(account, at=NOON) for _ in range(2)]
        for capture in captures:
            report.add_charge(capture)
        shorter = Report(DAY, rows=report.rows[:1])
        results = []
        for handed_out in (report, shorter, report):
            gateway.report = handed_out
            run = execute_run(start_run(account, day=DAY, trigger=RunTrigger.BEAT).pk)
            results.append(run.summarize())
        assert results == [
            "2/2 matched, 0 discrepancies",
            "1/2 matched, 1 discrepancy: 1 missing_gateway",
            "2/2 matched, 0 discrepancies",
        ]

    def test_an_uploaded_report_adds_to_what_the_gateway_said(
        self, account: GatewayAccount, report: Report, gateway: FakeGateway, run_day: RunDay
    ) -> None:
        gateway.report = report
        report.add_charge(make_capture(account, at=NOON))
        execute_run(start_run(account, day=DAY, trigger=RunTrigger.BEAT).pk)
        more = Report(DAY)
        more.add_charge(make_capture(account, at=NOON))
        assert run_day(more).summarize() == "2/2 matched, 0 discrepancies"

    def test_scratch_is_empty_after_a_run(self, planted: Report, run_day: RunDay) -> None:
        run_day(planted)
        assert count_staged() == 0


def count_staged() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM reconciliation_staging")
        return int(cursor.fetchone()[0])


class TestReconcileDue:
    def test_runs_yesterday_of_every_active_account(
        self, account: GatewayAccount, planted: Report, gateway: FakeGateway
    ) -> None:
        GatewayAccountFactory.create(is_active=False)
        GatewayAccount.objects.exclude(pk=account.pk).update(is_active=False)
        gateway.report = planted
        [run] = reconcile_due(today=DAY + timedelta(days=1))
        assert (run.day, run.trigger, run.summarize()) == (DAY, RunTrigger.BEAT, RESULT)

    def test_does_nothing_when_it_is_done(
        self, account: GatewayAccount, planted: Report, gateway: FakeGateway
    ) -> None:
        GatewayAccount.objects.exclude(pk=account.pk).update(is_active=False)
        gateway.report = planted
        reconcile_due(today=DAY + timedelta(days=1))
        assert reconcile_due(today=DAY + timedelta(days=1)) == []
        assert gateway.asked == 1

    def test_tries_again_when_the_report_was_not_ready(
        self, account: GatewayAccount, planted: Report, gateway: FakeGateway
    ) -> None:
        GatewayAccount.objects.exclude(pk=account.pk).update(is_active=False)
        gateway.error = ReportNotReadyError("wait")
        assert reconcile_due(today=DAY + timedelta(days=1)) == []
        gateway.error, gateway.report = None, planted
        assert len(reconcile_due(today=DAY + timedelta(days=1))) == 1

    def test_catches_up_on_nights_that_were_missed(
        self, account: GatewayAccount, gateway: FakeGateway
    ) -> None:
        GatewayAccount.objects.exclude(pk=account.pk).update(is_active=False)
        gateway.report = Report(DAY)
        reconcile_due(today=DAY)
        reconcile_due(today=DAY + timedelta(days=3))
        days = sorted(Run.objects.values_list("day", flat=True))
        assert days == [DAY + timedelta(days=number) for number in (-1, 0, 1, 2)]


class TestPaging:
    @pytest.fixture
    def sent(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        texts: list[str] = []
        monkeypatch.setattr(oncall, "post", lambda body: texts.append(body["text"]))
        return texts

    @pytest.fixture(autouse=True)
    def oncall_url(self, settings: Any) -> None:
        settings.ONCALL_URL = "http://oncall.example/page"

    def test_pages_once_with_the_sum_at_stake(
        self, account: GatewayAccount, report: Report, run_day: RunDay, sent: list[str]
    ) -> None:
        for _ in range(2):
            make_capture(account, at=NOON)
        make_capture(account, at=NOON, amount=900, currency="JPY")
        run_day(report)
        run_day(report)
        run_day(Report(DAY + timedelta(days=1)))
        assert sent == [
            f"3 payments or refunds, €50.00 and ¥900, that we hold for done are not in the settlement report"
            f" of {account} for 2026-03-10"
        ]
        assert Discrepancy.objects.filter(events__type="paged").count() == 3

    def test_nobody_is_paged_for_what_is_missing_here(
        self, report: Report, run_day: RunDay, sent: list[str]
    ) -> None:
        report.add("charge", 500, payment_intent_id="pi_stranger")
        run_day(report)
        assert (sent, OnCallPage.objects.count()) == ([], 0)

    def test_a_page_that_nobody_took_is_sent_again(
        self, account: GatewayAccount, report: Report, run_day: RunDay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(body: dict[str, Any]) -> None:
            raise ConnectionRefusedError("nobody there")

        monkeypatch.setattr(oncall, "post", refuse)
        make_capture(account, at=NOON)
        assert run_day(report).state == RunState.COMPLETED
        page = OnCallPage.objects.get()
        assert (page.sent_at, page.error) == (None, "ConnectionRefusedError: nobody there")
        OnCallPage.objects.update(leased_until=None)
        texts: list[str] = []
        monkeypatch.setattr(oncall, "post", lambda body: texts.append(body["text"]))
        assert oncall.send_unsent_pages() == 1
        assert oncall.send_unsent_pages() == 0
        assert len(texts) == 1

    def test_an_address_that_is_none_is_an_error_of_the_page_alone(
        self, account: GatewayAccount, report: Report, run_day: RunDay, settings: Any
    ) -> None:
        settings.ONCALL_URL = "file:///etc/passwd"
        make_capture(account, at=NOON)
        assert run_day(report).state == RunState.COMPLETED
        assert "http" in OnCallPage.objects.get().error


class TestSettling:
    @pytest.fixture
    def item(self, planted: Report, run_day: RunDay) -> Discrepancy:
        run_day(planted)
        return Discrepancy.objects.get(kind="amount_mismatch")

    def test_assigning_is_written_down(self, item: Discrepancy, django_user_model: Any) -> None:
        ann = django_user_model.objects.create_user("ann")
        services.assign(item, to=ann, actor="user:ann")
        assert (item.state, item.assigned_to) == ("assigned", ann)
        event = item.events.get(type="assigned")
        assert (event.actor, event.text) == ("user:ann", "To ann")
        services.assign(item, to=None, actor="user:ann")
        assert (item.state, item.assigned_to) == ("open", None)

    def test_resolving_keeps_who_why_and_when(self, item: Discrepancy) -> None:
        services.resolve(item, reason=ReasonCode.REFUNDED, note=" by phone ", actor="user:ann")
        assert (item.state, item.reason, item.note, item.resolved_by) == (
            "resolved",
            "refunded",
            "by phone",
            "user:ann",
        )
        assert item.resolved_at
        assert item.events.get(type="resolved").text == "Refunded to the customer. by phone"

    def test_only_one_of_two_resolutions_counts(self, item: Discrepancy) -> None:
        stale = Discrepancy.objects.get(pk=item.pk)
        services.resolve(item, reason=ReasonCode.TIMING, note="", actor="user:ann")
        with pytest.raises(ConflictError, match="is resolved; it was not changed"):
            services.resolve(stale, reason=ReasonCode.REFUNDED, note="", actor="user:bob")
        item.refresh_from_db()
        assert item.resolved_by == "user:ann"

    @pytest.mark.parametrize(("reason", "note"), [("nonsense", "x"), ("", ""), ("other", "  ")])
    def test_a_resolution_needs_a_reason(self, item: Discrepancy, reason: Any, note: str) -> None:
        with pytest.raises(InvalidRequestError, match="not resolved"):
            services.resolve(item, reason=reason, note=note, actor="user:ann")
        item.refresh_from_db()
        assert item.is_unsettled

    def test_a_card_number_in_a_note_is_masked(self, item: Discrepancy) -> None:
        services.resolve(item, reason=ReasonCode.OTHER, note="card 4242 4242 4242 4242", actor="user:ann")
        assert "4242 4242 4242" not in item.note + item.events.get(type="resolved").text

    def test_a_resolution_can_be_taken_back(self, item: Discrepancy) -> None:
        services.resolve(item, reason=ReasonCode.TIMING, note="", actor="user:ann")
        services.reopen(item, note="it never came", actor="user:bob")
        assert (item.state, item.reason, item.resolved_at) == ("open", "", None)
        assert item.events.get(type="reopened").text == "it never came"
        with pytest.raises(ConflictError):
            services.reopen(item, note="", actor="user:bob")


class TestTheCommand:
    def run(self, *arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
        try:
            call_command("reconcile", *arguments)
        except SystemExit as error:
            return int(str(error.code)), capsys.readouterr().out.strip()
        except CommandError as error:
            return error.returncode, str(error)
        return 0, capsys.readouterr().out.strip()

    def write(self, tmp_path: Any, report: Report) -> str:
        path = tmp_path / "report.csv"
        path.write_bytes(report.build())
        return f"--report={path}"

    @pytest.mark.parametrize("form", ["{account}", "{account.name}", "{account.pk}"])
    def test_exits_0_when_balanced(
        self, form: str, account: GatewayAccount, report: Report, tmp_path: Any, capsys: Any
    ) -> None:
        report.add_charge(make_capture(account, at=NOON))
        arguments = (
            f"--account={form.format(account=account)}",
            f"--date={DAY}",
            self.write(tmp_path, report),
        )
        assert self.run(*arguments, capsys=capsys) == (0, "1/1 matched, 0 discrepancies")

    def test_exits_3_with_open_discrepancies(
        self, account: GatewayAccount, planted: Report, tmp_path: Any, capsys: Any
    ) -> None:
        arguments = (f"--account={account}", f"--date={DAY}", self.write(tmp_path, planted))
        assert self.run(*arguments, capsys=capsys) == (3, RESULT)
        assert self.run(*arguments, capsys=capsys) == (3, RESULT)

    def test_exits_1_on_an_error(self, account: GatewayAccount, tmp_path: Any, capsys: Any) -> None:
        code, text = self.run(f"--account={account}", f"--date={DAY}", "--report=/nowhere.csv", capsys=capsys)
        assert code == 1
        assert "No such file" in text

    def test_exits_1_when_the_report_is_not_ready(
        self, account: GatewayAccount, gateway: FakeGateway, capsys: Any
    ) -> None:
        gateway.error = ReportNotReadyError("not complete yet")
        assert self.run(f"--account={account}", f"--date={DAY}", capsys=capsys) == (1, "not complete yet")

    def test_names_the_accounts_when_there_is_no_such(self, account: GatewayAccount, capsys: Any) -> None:
        code, text = self.run("--account=nobody", f"--date={DAY}", capsys=capsys)
        assert code == 1
        assert str(account) in text


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_two_starts_at_once_are_one_run(gateway: FakeGateway) -> None:
    account = GatewayAccountFactory.create(settlement_lag_days=0)
    make_capture(account, at=NOON)
    gateway.report = Report(DAY)
    gateway.report.add("charge", 500, payment_intent_id="pi_stranger")
    barrier = Barrier(4)

    def start(_: int) -> str:
        try:
            barrier.wait()
            run = start_run(account, day=DAY, trigger=RunTrigger.BEAT)
            return execute_run(run.pk).pk
        except ConflictError:
            return "busy"
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        results = set(pool.map(start, range(4)))

    run = Run.objects.get()
    assert results - {"busy"} == {run.pk}
    assert run.state == RunState.COMPLETED
    assert (Discrepancy.objects.count(), Sighting.objects.count(), OnCallPage.objects.count()) == (2, 2, 1)
