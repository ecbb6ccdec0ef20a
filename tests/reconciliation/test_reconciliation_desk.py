"""Finance works the desk: sees both sides, assigns, resolves with a reason, starts runs and brings reports."""

from __future__ import annotations

import csv
import io
from itertools import count
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from payments.models import GatewayAccount
from reconciliation import services
from reconciliation.admin.panel import reconciliation_panel
from reconciliation.models import Discrepancy, ReasonCode, Run, RunState
from reconciliation.services import execute_run
from tests.factories.payments import OrderFactory
from tests.factories.reconciliation import DAY, Report, RunDay, at_noon, make_capture

pytestmark = pytest.mark.django_db
LIST = "admin:reconciliation_discrepancy_changelist"
NOON = at_noon(DAY)
_numbers = count()


def make_user(name: str, *permissions: str) -> User:
    user = User.objects.create_user(name, password="a long password", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="reconciliation", codename__in=permissions)
    )
    return user


VIEW = ("view_run", "view_discrepancy")
ACTIONS = ("assign_discrepancy", "resolve_discrepancy", "export_discrepancy", "start_run", "upload_report")


@pytest.fixture
def ann() -> User:
    return make_user("ann", *VIEW, *ACTIONS)


@pytest.fixture
def desk(ann: User) -> Client:
    client = Client(enforce_csrf_checks=False)
    client.force_login(ann)
    return client


@pytest.fixture
def auditor() -> Client:
    client = Client()
    client.force_login(make_user("auditor", *VIEW))
    return client


@pytest.fixture
def run(account: GatewayAccount, report: Report, run_day: RunDay) -> Run:
    """One amount that differs, one row missing here, one missing there."""
    report.add_charge(make_capture(account, at=NOON), amount=2400)
    report.add("charge", 500, payment_intent_id="=cmd()", source_id="ch_1")
    make_capture(account, at=NOON)
    return run_day(report)


@pytest.fixture
def item(run: Run) -> Discrepancy:
    return Discrepancy.objects.get(kind="amount_mismatch")


def address(name: str, item: Discrepancy) -> str:
    return reverse(f"admin:reconciliation_discrepancy_{name}", args=[item.pk])


def token(**data: str) -> dict[str, str]:
    """A dialog's answer, with the token that lets it act once."""
    return {"token": f"showing-{next(_numbers)}", **data}


def texts(response: Any) -> str:
    return str(response.content.decode())


class TestTheList:
    def test_opens_on_mine_and_unassigned(self, desk: Client, ann: User, item: Discrepancy) -> None:
        mine, others, _ = Discrepancy.objects.order_by("kind")
        services.assign(mine, to=ann, actor="user:ann")
        services.assign(others, to=make_user("bob"), actor="user:bob")
        shown = list(desk.get(reverse(LIST)).context["cl"].queryset)
        assert mine in shown
        assert others not in shown
        assert len(shown) == 2

    def test_shows_the_oldest_first(self, desk: Client, item: Discrepancy) -> None:
        Discrepancy.objects.filter(pk=item.pk).update(first_seen=NOON)
        assert desk.get(reverse(LIST)).context["cl"].queryset[0] == item

    def test_says_the_age_in_words(self, desk: Client, item: Discrepancy) -> None:
        Discrepancy.objects.filter(pk=item.pk).update(first_seen=NOON)
        assert " days" in texts(desk.get(reverse(LIST)))

    def test_has_a_tab_for_each_kind_that_waits_with_its_number(
        self, desk: Client, item: Discrepancy
    ) -> None:
        tabs = {tab["label"]: tab["count"] for tab in desk.get(reverse(LIST)).context["kind_tabs"]}
        assert tabs == {"All kinds": 3, "Missing here": 1, "Missing at the gateway": 1, "Other amount": 1}

    @pytest.mark.parametrize(("view", "count"), [("open", 2), ("resolved", 1), ("closed", 0), ("all", 3)])
    def test_shows_what_is_asked_for(self, view: str, count: int, desk: Client, item: Discrepancy) -> None:
        services.resolve(item, reason=ReasonCode.TEST, note="", actor="user:ann")
        assert desk.get(reverse(LIST), {"view": view}).context["cl"].result_count == count

    def test_is_limited_to_a_run_by_the_links_of_its_page(self, desk: Client, run: Run) -> None:
        page = desk.get(reverse("admin:reconciliation_run_change", args=[run.pk]))
        link = f"?view=all&amp;kind__exact=amount_mismatch&amp;sightings__run={run.pk}"
        assert link in texts(page)
        found = desk.get(reverse(LIST) + link.replace("&amp;", "&")).context["cl"].queryset
        assert [item.kind for item in found] == ["amount_mismatch"]

    def test_is_found_by_the_order_reference(self, desk: Client, item: Discrepancy) -> None:
        assert item.order
        found = desk.get(reverse(LIST), {"q": item.order.reference}).context["cl"].queryset
        assert list(found) == [item]

    def test_asks_a_bounded_number_of_queries(
        self, desk: Client, run: Run, django_assert_max_num_queries: Any
    ) -> None:
        with django_assert_max_num_queries(16):
            desk.get(reverse(LIST))


class TestThePage:
    def test_marks_what_differs(self, desk: Client, item: Discrepancy) -> None:
        text = texts(desk.get(address("change", item)))
        assert 'data-differs="amount"' in text
        assert 'data-differs="currency"' not in text
        assert "€25.00" in text
        assert "€24.00" in text

    @pytest.mark.parametrize("kind", ["missing_internal", "missing_gateway"])
    def test_shows_nothing_where_a_side_is_missing(self, kind: str, desk: Client, run: Run) -> None:
        response = desk.get(address("change", Discrepancy.objects.get(kind=kind)))
        side = "ours" if kind == "missing_internal" else "theirs"
        assert {row[side] for row in response.context["sides"]} == {"nothing"}

    def test_asks_a_bounded_number_of_queries(
        self, desk: Client, item: Discrepancy, django_assert_max_num_queries: Any
    ) -> None:
        with django_assert_max_num_queries(12):
            desk.get(address("change", item))

    def test_has_no_buttons_for_who_may_only_look(self, auditor: Client, item: Discrepancy) -> None:
        text = texts(auditor.get(address("change", item)))
        assert address("assign", item) not in text
        assert address("resolve", item) not in text

    def test_is_closed_to_who_may_not_look(self, client: Client, item: Discrepancy) -> None:
        client.force_login(make_user("eve"))
        assert client.get(address("change", item)).status_code == 403


class TestActions:
    def test_assign_makes_it_mine(self, desk: Client, ann: User, item: Discrepancy) -> None:
        desk.post(address("assign", item), token())
        item.refresh_from_db()
        assert item.assigned_to == ann
        desk.post(address("release", item), token())
        item.refresh_from_db()
        assert item.assigned_to is None

    def test_resolve_keeps_reason_and_note(self, desk: Client, item: Discrepancy) -> None:
        response = desk.post(
            address("resolve", item), token(reason="gateway_error", note="told them"), follow=True
        )
        item.refresh_from_db()
        assert (item.state, item.reason, item.note, item.resolved_by) == (
            "resolved",
            "gateway_error",
            "told them",
            "user:ann",
        )
        assert f"{item.pk} is resolved." in texts(response)

    def test_resolve_without_a_reason_shows_the_dialog_again(self, desk: Client, item: Discrepancy) -> None:
        response = desk.post(address("resolve", item), token(reason="because", note="typed text"))
        item.refresh_from_db()
        assert (response.status_code, item.state) == (422, "open")
        assert "typed text" in texts(response)

    def test_resolve_as_other_needs_a_note(self, desk: Client, item: Discrepancy) -> None:
        response = desk.post(address("resolve", item), token(reason="other"), follow=True)
        item.refresh_from_db()
        assert item.state == "open"
        assert "was not resolved" in texts(response)

    def test_a_dialog_that_is_sent_twice_acts_once(self, desk: Client, item: Discrepancy) -> None:
        data = token(reason="timing")
        for _ in range(2):
            response = desk.post(address("resolve", item), data, follow=True)
        assert item.events.filter(type="resolved").count() == 1
        assert "sent already" in texts(response)

    def test_reopen_takes_it_back(self, desk: Client, item: Discrepancy) -> None:
        services.resolve(item, reason=ReasonCode.TEST, note="", actor="user:ann")
        desk.post(address("reopen", item), token(note="wrong one"))
        item.refresh_from_db()
        assert item.state == "open"

    @pytest.mark.parametrize("name", ["assign", "release", "resolve", "reopen"])
    def test_nothing_is_done_by_get(self, name: str, desk: Client, item: Discrepancy) -> None:
        assert desk.get(address(name, item)).status_code == 405

    @pytest.mark.parametrize("name", ["assign", "release", "resolve", "reopen"])
    def test_nothing_is_done_without_the_permission(
        self, name: str, auditor: Client, item: Discrepancy
    ) -> None:
        assert auditor.post(address(name, item), token(reason="test")).status_code == 403
        item.refresh_from_db()
        assert item.state == "open"

    @pytest.mark.parametrize("name", ["assign", "resolve"])
    def test_nothing_is_done_without_a_token(self, name: str, ann: User, item: Discrepancy) -> None:
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(ann)
        assert strict.post(address(name, item), token(reason="test")).status_code == 403


class TestExport:
    def test_holds_what_the_list_shows_and_no_formula(self, desk: Client, run: Run) -> None:
        response: Any = desk.get(
            reverse("admin:reconciliation_discrepancy_export"), {"kind__exact": "missing_internal"}
        )
        rows = list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode())))
        assert [(row["kind"], row["key"]) for row in rows] == [("missing_internal", "'=cmd()")]

    def test_needs_its_own_permission(self, auditor: Client, run: Run) -> None:
        assert auditor.get(reverse("admin:reconciliation_discrepancy_export")).status_code == 403


class TestRuns:
    def test_are_listed_with_their_result(self, desk: Client, run: Run) -> None:
        text = texts(desk.get(reverse("admin:reconciliation_run_changelist")))
        assert "0 of 3" in text

    def test_show_their_progress_while_they_are_at_work(self, desk: Client, run: Run) -> None:
        Run.objects.update(state=RunState.STAGING, rows_read=20000)
        text = texts(desk.get(reverse("admin:reconciliation_run_change", args=[run.pk])))
        assert "20,000 rows read" in text
        assert 'http-equiv="refresh"' in text

    def test_run_now_makes_a_pending_run(self, desk: Client, account: GatewayAccount) -> None:
        response = desk.post(
            reverse("admin:reconciliation_run_start"), {"account": account.pk, "day": DAY.isoformat()}
        )
        run = Run.objects.get()
        assert (run.state, run.trigger, run.requested_by) == ("pending", "admin", "user:ann")
        assert response.headers["Location"] == reverse("admin:reconciliation_run_change", args=[run.pk])

    def test_an_uploaded_report_is_reconciled(
        self, desk: Client, account: GatewayAccount, report: Report
    ) -> None:
        report.add_charge(make_capture(account, at=NOON))
        upload(desk, account, report.build())
        run = execute_run(Run.objects.get().pk)
        assert run.summarize() == "1/1 matched, 0 discrepancies"
        assert (run.file and run.file.name, run.trigger) == ("report.csv", "upload")

    def test_a_wrong_upload_is_told_and_leaves_nothing(self, desk: Client, account: GatewayAccount) -> None:
        response = upload(desk, account, b"a;b;c\n1;2;3\n")
        assert "not separated by commas" in texts(response)
        assert not Run.objects.exists()

    def test_a_form_without_a_day_is_told(self, desk: Client, account: GatewayAccount) -> None:
        response = desk.post(
            reverse("admin:reconciliation_run_start"), {"account": account.pk, "day": "soon"}, follow=True
        )
        assert "Nothing was started" in texts(response)

    @pytest.mark.parametrize("name", ["start", "upload"])
    def test_need_their_own_permission(self, name: str, auditor: Client, account: GatewayAccount) -> None:
        data = {"account": account.pk, "day": DAY.isoformat()}
        assert auditor.post(reverse(f"admin:reconciliation_run_{name}"), data).status_code == 403
        assert not Run.objects.exists()


class TestTheOrderPanel:
    def test_shows_the_discrepancies_of_the_order(self, rf: Any, ann: User, item: Discrepancy) -> None:
        assert item.order
        request = rf.get("/")
        request.user = ann
        shown = reconciliation_panel(item.order, request)
        assert shown
        assert "Other amount" in shown
        assert "€1.00" in shown

    def test_shows_nothing_without_one_or_without_the_right(
        self, rf: Any, ann: User, item: Discrepancy
    ) -> None:
        assert item.order
        request = rf.get("/")
        request.user = ann
        assert reconciliation_panel(OrderFactory.create(), request) is None
        request.user = make_user("eve")
        assert reconciliation_panel(item.order, request) is None


def upload(desk: Client, account: GatewayAccount, content: bytes) -> Any:
    return desk.post(
        reverse("admin:reconciliation_run_upload"),
        {
            "account": account.pk,
            "day": DAY.isoformat(),
            "report": SimpleUploadedFile("report.csv", content),
        },
        follow=True,
    )
