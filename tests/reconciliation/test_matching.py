"""Planted differences are found, each as what it is, and nothing else is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model

from payments.kinds import OperationKind
from payments.models import GatewayAccount, Operation, OperationState
from reconciliation.kinds import DiscrepancyType
from reconciliation.models import (
    ClosedCause,
    Discrepancy,
    DiscrepancyEvent,
    DiscrepancyState,
    ReasonCode,
    Run,
    Sighting,
    Tolerance,
)
from reconciliation.services import assign, recheck_unsettled, resolve
from tests.factories.payments import OperationFactory, PaymentFactory
from tests.factories.reconciliation import DAY, Report, RunDay, at_noon, make_capture, make_refund

pytestmark = pytest.mark.django_db
NOON = at_noon(DAY)


def only() -> Discrepancy:
    return Discrepancy.objects.get()


def test_a_day_that_agrees_has_no_discrepancy(
    account: GatewayAccount, report: Report, run_day: RunDay
) -> None:
    captures = [make_capture(account, at=NOON) for _ in range(5)]
    refund = make_refund(captures[0], at=NOON)
    for capture in captures:
        report.add_charge(capture)
    report.add_refund(refund)
    report.add("fee", -50)
    run = run_day(report)
    assert run.summarize() == "6/6 matched, 0 discrepancies"
    assert run.totals == {
        "EUR": {"our_charges": 12500, "their_charges": 12500, "our_refunds": 1000, "their_refunds": 1000}
    }


def test_each_planted_kind_is_found_exactly(account: GatewayAccount, report: Report, run_day: RunDay) -> None:
    planted: dict[str, str] = {}
    for number in range(40):
        capture = make_capture(account, at=NOON, amount=2500 + number)
        plant_difference(number, capture, report, planted)
    report.add("charge", 777, payment_intent_id="pi_stranger", source_id="ch_stranger")
    planted["pi_stranger"] = "missing_internal"
    row = report.add("quantum_fee", 5, source_id="qf_1")
    planted[row["balance_transaction_id"]] = "unknown_row_type"

    run = run_day(report)

    assert dict(Discrepancy.objects.values_list("key", "kind")) == planted
    assert sorted(run.counts) == sorted({*planted.values()})
    assert (run.total, run.matched) == (43, 43 - len(planted))


def plant_difference(number: int, capture: Operation, report: Report, planted: dict[str, str]) -> None:
    reference = capture.attempt.gateway_reference
    if number == 3:
        planted[reference] = "missing_gateway"
        return
    row = report.add_charge(capture)
    if number == 7:
        row["gross"], row["net"] = "26.07", "25.77"
        planted[reference] = "amount_mismatch"
    if number == 11:
        row["currency"] = "usd"
        planted[reference] = "currency_mismatch"
    if number == 13:
        report.rows.append(dict(row))
        planted[reference] = "duplicate_gateway"
    if number == 17:
        Operation.objects.filter(pk=capture.pk).update(state=OperationState.UNKNOWN)
        planted[reference] = "status_mismatch"
    if number == 19:
        OperationFactory.create(
            attempt=capture.attempt, kind=OperationKind.CAPTURE, created_at=NOON, resolved_at=NOON
        )
        planted[reference] = "duplicate_internal"
    if number == 23:
        planted[make_refund(capture, at=NOON).gateway_reference] = "missing_gateway"


def test_one_item_lists_every_field_that_differs(
    account: GatewayAccount, report: Report, run_day: RunDay
) -> None:
    report.add_charge(make_capture(account, at=NOON), amount=2400)["currency"] = "usd"
    run_day(report)
    assert only().kind == DiscrepancyType.CURRENCY_MISMATCH
    assert only().fields == ["currency", "amount"]


def test_both_sides_are_kept_with_the_order(account: GatewayAccount, report: Report, run_day: RunDay) -> None:
    capture = make_capture(account, at=NOON)
    row = report.add_charge(capture, amount=2400)
    run_day(report)
    item = only()
    assert (item.order, item.payment, item.amount, item.currency) == (
        capture.payment.order,
        capture.payment,
        100,
        "EUR",
    )
    assert item.ours["amount"] == 2500
    assert item.ours["operations"][0]["id"] == capture.pk
    assert item.theirs["amount"] == 2400
    assert item.theirs["rows"][0]["id"] == row["balance_transaction_id"]


def test_a_partial_capture_is_two_rows_that_sum_up(
    account: GatewayAccount, report: Report, run_day: RunDay
) -> None:
    capture = make_capture(account, at=NOON, amount=6000)
    report.add_charge(capture, amount=10000)
    report.add("partial_capture_reversal", -4000, payment_intent_id=capture.attempt.gateway_reference)
    assert run_day(report).summarize() == "1/1 matched, 0 discrepancies"


def test_a_failed_refund_at_both_sides_is_no_difference(
    account: GatewayAccount, report: Report, run_day: RunDay
) -> None:
    capture = make_capture(account, at=NOON)
    report.add_charge(capture)
    refund = make_refund(capture, at=NOON, state=OperationState.FAILED)
    report.add_refund(refund)
    report.add("refund_failure", refund.amount, source_id=refund.gateway_reference)
    assert run_day(report).summarize() == "1/1 matched, 0 discrepancies"


def test_a_refund_that_failed_only_there_has_another_status(
    account: GatewayAccount, report: Report, run_day: RunDay
) -> None:
    capture = make_capture(account, at=NOON)
    report.add_charge(capture)
    refund = make_refund(capture, at=NOON)
    report.add_refund(refund)
    report.add("refund_failure", refund.amount, source_id=refund.gateway_reference)
    run_day(report)
    assert (only().kind, only().fields, only().theirs["status"]) == (
        "status_mismatch",
        ["status"],
        "reversed",
    )


def test_a_refund_made_at_the_gateway_is_missing_here_and_shows_its_order(
    account: GatewayAccount, report: Report, run_day: RunDay
) -> None:
    capture = make_capture(account, at=NOON)
    report.add_charge(capture)
    report.add("refund", -500, source_id="re_dashboard", payment_intent_id=capture.attempt.gateway_reference)
    run_day(report)
    assert (only().kind, only().key, only().order) == (
        "missing_internal",
        "re_dashboard",
        capture.payment.order,
    )


def test_the_metadata_finds_a_payment_whose_reference_was_lost(
    account: GatewayAccount, report: Report, run_day: RunDay
) -> None:
    capture = make_capture(account, at=NOON)
    report.add_charge(capture)["payment_metadata[operation_id]"] = capture.pk
    type(capture.attempt).objects.filter(pk=capture.attempt_id).update(gateway_reference="")
    assert run_day(report).summarize() == "1/1 matched, 0 discrepancies"


def test_two_charges_for_one_operation_are_twice_at_the_gateway(
    account: GatewayAccount, report: Report, run_day: RunDay
) -> None:
    capture = make_capture(account, at=NOON)
    report.add_charge(capture)
    report.add_charge(capture, payment_intent_id="pi_z")["payment_metadata[operation_id]"] = capture.pk
    run_day(report)
    assert (only().kind, only().amount) == ("duplicate_gateway", 2500)


def test_a_row_of_another_account_is_not_ours(
    account: GatewayAccount, report: Report, run_day: RunDay
) -> None:
    elsewhere = make_capture(PaymentFactory.create().account, at=NOON)
    report.add_charge(elsewhere)
    run_day(report)
    assert only().kind == "missing_internal"


class TestWhatIsNotDueYet:
    def test_is_expected_and_no_discrepancy(
        self, account: GatewayAccount, report: Report, run_day: RunDay
    ) -> None:
        account.settlement_lag_days = 2
        account.save()
        make_capture(account, at=NOON)
        run = run_day(report)
        assert (run.expected, run.total, Discrepancy.objects.count()) == (1, 0, 0)

    def test_goes_missing_when_its_days_are_over(self, account: GatewayAccount, run_day: RunDay) -> None:
        account.settlement_lag_days = 2
        account.save()
        make_capture(account, at=NOON)
        for days in range(2):
            run_day(Report(DAY + timedelta(days=days)))
            assert not Discrepancy.objects.exists()
        run = run_day(Report(DAY + timedelta(days=2)))
        assert run.summarize() == "0/1 matched, 1 discrepancy: 1 missing_gateway"

    def test_is_not_lost_in_a_gap_of_nights(self, account: GatewayAccount, run_day: RunDay) -> None:
        account.settlement_lag_days = 1
        account.save()
        run_day(Report(DAY - timedelta(days=1)))
        make_capture(account, at=NOON)
        run = run_day(Report(DAY + timedelta(days=6)))
        assert run.counts == {"missing_gateway": 1}

    def test_may_be_listed_a_day_later(self, account: GatewayAccount, run_day: RunDay) -> None:
        capture = make_capture(account, at=NOON.replace(hour=23, minute=59))
        run_day(Report(DAY))
        later = Report(DAY + timedelta(days=1))
        later.add_charge(capture)
        run = run_day(later)
        assert run.summarize() == "1/1 matched, 0 discrepancies"
        assert not Discrepancy.objects.exists()

    def test_a_pending_refund_may_be_listed_before_it_succeeds(
        self, account: GatewayAccount, report: Report, run_day: RunDay
    ) -> None:
        account.settlement_lag_days = 1
        account.save()
        capture = make_capture(account, at=NOON)
        report.add_charge(capture)
        report.add_refund(make_refund(capture, at=NOON, state=OperationState.PENDING))
        assert run_day(report).expected == 1
        assert not Discrepancy.objects.exists()


class TestTolerance:
    def test_forgives_so_many_minor_units(
        self, account: GatewayAccount, report: Report, run_day: RunDay
    ) -> None:
        Tolerance.objects.create(currency="EUR", minor_units=2)
        report.add_charge(make_capture(account, at=NOON), amount=2498)
        report.add_charge(make_capture(account, at=NOON), amount=2497)
        assert run_day(report).counts == {"amount_mismatch": 1}

    def test_is_of_one_currency_only(self, account: GatewayAccount, report: Report, run_day: RunDay) -> None:
        Tolerance.objects.create(currency="JPY", minor_units=2)
        report.add_charge(make_capture(account, at=NOON), amount=2498)
        assert run_day(report).counts == {"amount_mismatch": 1}


class TestRunningAgain:
    def test_changes_nothing(self, account: GatewayAccount, report: Report, run_day: RunDay) -> None:
        make_capture(account, at=NOON)
        report.add("charge", 777, payment_intent_id="pi_stranger")
        first = run_day(report)
        before = sorted(Discrepancy.objects.values_list("id", "kind", "state", "first_seen"))
        second = run_day(report)
        assert second.pk == first.pk
        assert second.summarize() == first.summarize()
        assert sorted(Discrepancy.objects.values_list("id", "kind", "state", "first_seen")) == before
        assert Sighting.objects.count() == 2
        assert DiscrepancyEvent.objects.filter(type="found").count() == 2

    def test_the_next_night_sees_the_same_discrepancy(self, account: GatewayAccount, run_day: RunDay) -> None:
        account.settlement_lag_days = 1
        account.save()
        make_capture(account, at=NOON)
        for days in range(4):
            run_day(Report(DAY + timedelta(days=days)))
        assert only().state == DiscrepancyState.OPEN
        assert Run.objects.count() == 4

    def test_an_earlier_day_does_not_close_what_was_due_later(
        self, account: GatewayAccount, run_day: RunDay
    ) -> None:
        account.settlement_lag_days = 2
        account.save()
        make_capture(account, at=NOON)
        run_day(Report(DAY + timedelta(days=2)))
        assert only().state == DiscrepancyState.OPEN
        run_day(Report(DAY))
        assert only().state == DiscrepancyState.OPEN

    def test_a_corrected_report_closes_the_difference(
        self, account: GatewayAccount, report: Report, run_day: RunDay
    ) -> None:
        row = report.add_charge(make_capture(account, at=NOON), amount=2400)
        run_day(report)
        row["gross"], row["net"] = "25.00", "24.70"
        run_day(report)
        assert (only().state, only().closed_cause) == (DiscrepancyState.CLOSED, ClosedCause.AGREES)


class TestSelfClosing:
    def test_a_late_webhook_closes_what_was_missing_here(
        self, account: GatewayAccount, report: Report, run_day: RunDay
    ) -> None:
        report.add("charge", 2500, payment_intent_id="pi_late", source_id="ch_late")
        run_day(report)
        make_capture(account, at=NOON, reference="pi_late")
        assert recheck_unsettled() == 1
        assert (only().state, only().closed_cause) == (DiscrepancyState.CLOSED, ClosedCause.LATE_WEBHOOK)
        assert only().events.get(type="closed").text == ClosedCause.LATE_WEBHOOK

    def test_the_next_run_does_it_too(self, account: GatewayAccount, report: Report, run_day: RunDay) -> None:
        report.add("charge", 2500, payment_intent_id="pi_late")
        run_day(report)
        make_capture(account, at=NOON, reference="pi_late")
        run_day(Report(DAY + timedelta(days=1)))
        assert only().closed_cause == ClosedCause.LATE_WEBHOOK

    def test_a_late_webhook_with_another_amount_opens_another_kind(
        self, account: GatewayAccount, report: Report, run_day: RunDay
    ) -> None:
        report.add("charge", 2500, payment_intent_id="pi_late")
        run_day(report)
        make_capture(account, at=NOON, reference="pi_late", amount=2600)
        recheck_unsettled()
        assert dict(Discrepancy.objects.values_list("kind", "state")) == {
            "missing_internal": "closed",
            "amount_mismatch": "open",
        }
        assert Discrepancy.objects.get(state="closed").closed_cause == ClosedCause.SUPERSEDED

    def test_a_late_report_closes_what_was_missing_there(
        self, account: GatewayAccount, report: Report, run_day: RunDay
    ) -> None:
        capture = make_capture(account, at=NOON)
        run_day(report)
        later = Report(DAY + timedelta(days=3))
        later.add_charge(capture)
        run_day(later)
        assert (only().state, only().closed_cause) == (DiscrepancyState.CLOSED, ClosedCause.LATE_REPORT)

    def test_what_turned_out_not_to_have_happened_is_no_late_report(
        self, account: GatewayAccount, report: Report, run_day: RunDay
    ) -> None:
        capture = make_capture(account, at=NOON)
        run_day(report)
        Operation.objects.filter(pk=capture.pk).update(state=OperationState.FAILED)
        assert recheck_unsettled() == 1
        assert only().closed_cause == ClosedCause.AGREES

    def test_an_assigned_one_closes_too(
        self, account: GatewayAccount, report: Report, run_day: RunDay
    ) -> None:
        report.add("charge", 2500, payment_intent_id="pi_late")
        run_day(report)
        assign(only(), to=get_user_model().objects.create_user("ann"), actor="user:ann")
        make_capture(account, at=NOON, reference="pi_late")
        assert recheck_unsettled() == 1

    def test_what_shows_again_is_the_same_row_opened_again(
        self, account: GatewayAccount, report: Report, run_day: RunDay
    ) -> None:
        report.add("charge", 2500, payment_intent_id="pi_late")
        run_day(report)
        capture = make_capture(account, at=NOON, reference="pi_late")
        recheck_unsettled()
        Operation.objects.filter(pk=capture.pk).delete()
        run_day(report)
        assert only().state == DiscrepancyState.OPEN
        assert only().closed_cause == ""
        assert only().events.filter(type="reopened").count() == 1

    def test_nothing_closes_while_it_is_still_there(
        self, account: GatewayAccount, report: Report, run_day: RunDay
    ) -> None:
        make_capture(account, at=NOON)
        report.add("charge", 2500, payment_intent_id="pi_late")
        run_day(report)
        assert recheck_unsettled() == 0
        assert Discrepancy.objects.unsettled().count() == 2


class TestAResolvedOne:
    def test_stays_resolved_while_nothing_changes(
        self, account: GatewayAccount, report: Report, run_day: RunDay
    ) -> None:
        report.add_charge(make_capture(account, at=NOON), amount=2400)
        run_day(report)
        resolve(only(), reason=ReasonCode.ACCEPTED_LOSS, note="", actor="user:ann")
        run = run_day(report)
        assert only().state == DiscrepancyState.RESOLVED
        assert (run.summarize(), run.settled) == ("1/1 matched, 0 discrepancies", 1)

    def test_opens_again_when_a_side_changes(
        self, account: GatewayAccount, report: Report, run_day: RunDay
    ) -> None:
        row = report.add_charge(make_capture(account, at=NOON), amount=2400)
        run_day(report)
        resolve(only(), reason=ReasonCode.ACCEPTED_LOSS, note="", actor="user:ann")
        row["gross"], row["net"] = "23.00", "22.70"
        run_day(report)
        assert (only().state, only().amount, only().reason) == (DiscrepancyState.OPEN, 200, "")
