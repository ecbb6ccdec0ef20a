"""The dispute desk: a queue by deadline, evidence that is kept as it came, and one answer, for good."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from payments import facts, services
from payments.admin import panels
from payments.errors import NetworkError
from payments.gateways.base import DisputeFact, EvidenceFile
from payments.kinds import DisputeStage, DisputeState
from payments.models import Dispute, Event, Order
from payments.money import Money
from payments.services import disputes
from tests.factories.customers import OpenDisputeFactory
from tests.fakes import FakeGateway
from tests.payments.admin.conftest import Login

pytestmark = pytest.mark.django_db
PDF = b"%PDF-1.7 a slip"
LIST = "/admin/payments/dispute/"


@pytest.fixture
def dispute(
    paid: Order, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path
) -> Dispute:
    """50.00 of 129.50 are charged back; 30 hours are left."""
    settings.MEDIA_ROOT = str(tmp_path)
    monkeypatch.setattr(disputes, "get_gateway", lambda account: gateway)
    fact = DisputeFact(
        reference="dp_bank_1",
        payment_reference=paid.payment.gateway_reference,
        stage=DisputeStage.CHARGEBACK,
        state=DisputeState.NEEDS_RESPONSE,
        amount=Money(5000, "EUR"),
        reason="fraudulent",
        network_code="10.4",
        is_withdrawn=True,
        due_by=timezone.now() + timedelta(hours=30),
        occurred_at=timezone.now() - timedelta(minutes=1),
    )
    services.apply_gateway_fact(paid.payment.account, fact)
    gateway.disputes["dp_bank_1"] = fact
    return Dispute.objects.get()


def name_of(dispute: Dispute) -> str:
    """As it stands in addresses, where the admin quotes the underscore."""
    return dispute.pk.removeprefix("dp_")


def url_of(dispute: Dispute, action: str = "change") -> str:
    return reverse(f"admin:payments_dispute_{action}", args=[dispute.pk])


def read(client: Client, dispute: Dispute) -> str:
    response = client.get(url_of(dispute))
    assert response.status_code == 200
    return unescape(response.content.decode())


def find_value(html: str, action: str, name: str = "token") -> str:
    found = re.search(rf'name="{name}" value="([^"]+)"[^>]*id="id_{action}_{name}"', html)
    assert found
    return found[1]


def send(client: Client, dispute: Dispute, action: str, **data: Any) -> Any:
    if "token" not in data:
        data["token"] = find_value(read(client, dispute), action)
    return client.post(url_of(dispute, action), data, follow=True)


def told(response: Any) -> str:
    return " ".join(str(message) for message in response.context["messages"])


def upload(content: bytes = PDF, content_type: str = "application/pdf") -> SimpleUploadedFile:
    return SimpleUploadedFile("slip.pdf", content, content_type)


def add_receipt(dispute: Dispute, text: str = "Paid on the 1st.") -> None:
    services.add_evidence(dispute, kind="receipt", text=text, actor="user:fin")


class TestTheList:
    def test_opens_on_what_must_be_answered_the_soonest_first(self, log_in: Login, dispute: Dispute) -> None:
        later = OpenDisputeFactory(due_by=timezone.now() + timedelta(days=9), reason="duplicate")
        untold = OpenDisputeFactory(due_by=None)
        won = OpenDisputeFactory(state=DisputeState.WON)
        html = log_in("Finance").get(LIST).content.decode()
        places = [html.index(name_of(one)) for one in (dispute, later, untold)]
        assert places == sorted(places)
        assert name_of(won) not in html
        for words in ("1 day left", "8 days left", "no deadline told", "Not authorized", "Charged twice"):
            assert words in html

    @pytest.mark.parametrize(
        ("tab", "states"),
        [
            ("review", ["under_review"]),
            ("won", ["won"]),
            ("lost", ["lost", "accepted", "expired"]),
            ("all", [state.value for state in DisputeState]),
        ],
    )
    def test_has_a_tab_for_every_end(self, log_in: Login, db: None, tab: str, states: list[str]) -> None:
        made = {state.value: OpenDisputeFactory(state=state) for state in DisputeState}
        html = log_in("Finance").get(LIST, {"view": tab}).content.decode()
        assert [state for state in made if name_of(made[state]) in html] == states

    def test_is_searched_by_any_name(self, log_in: Login, dispute: Dispute) -> None:
        other = OpenDisputeFactory()
        client = log_in("Finance")
        for term in (dispute.pk, "dp_bank_1", dispute.payment.order.reference):
            html = client.get(LIST, {"q": term}).content.decode()
            assert name_of(dispute) in html, term
            assert name_of(other) not in html, term

    def test_is_counted_in_the_navigation(self, log_in: Login, dispute: Dispute) -> None:
        client = log_in("Finance")
        cache.clear()
        assert re.search(r"Disputes.{0,600}?>\s*1\s*<", client.get(LIST).content.decode(), re.DOTALL)

    def test_asks_as_often_for_many_as_for_few(self, log_in: Login, dispute: Dispute) -> None:
        client = log_in("Finance")
        counts = []
        for _ in range(2):
            client.get(LIST)
            with CaptureQueriesContext(connection) as captured:
                client.get(LIST)
            counts.append(len(captured))
            OpenDisputeFactory.create_batch(5)
        assert counts[0] == counts[1]


class TestWhoMay:
    @pytest.mark.parametrize("role", ["Finance", "On-call", "Auditor", "Admin"])
    def test_look(self, log_in: Login, dispute: Dispute, role: str) -> None:
        html = read(log_in(role), dispute)
        assert ("Accept the loss" in html) == (role == "Finance")

    @pytest.mark.parametrize("role", ["Fraud analyst", "Integrator"])
    def test_not_even_look(self, log_in: Login, dispute: Dispute, role: str) -> None:
        assert log_in(role).get(url_of(dispute)).status_code == 403

    @pytest.mark.parametrize("action", ["text", "file", "remove", "submit", "accept", "ask"])
    def test_answer(self, log_in: Login, dispute: Dispute, gateway: FakeGateway, action: str) -> None:
        add_receipt(dispute)
        calls = list(gateway.calls)
        data = {"token": "t" * 20, "kind": "receipt", "text": "x"}
        for role in ("On-call", "Auditor", "Admin", "Fraud analyst", "Integrator"):
            assert log_in(role).post(url_of(dispute, action), data).status_code == 403, role
        assert log_in("Finance").get(url_of(dispute, action)).status_code == 405
        assert log_in("Finance", check_csrf=True).post(url_of(dispute, action), data).status_code == 403
        assert gateway.calls == calls
        assert dispute.evidence.get().text == "Paid on the 1st."


class TestThePage:
    def test_says_what_is_said_and_what_helps(self, log_in: Login, dispute: Dispute) -> None:
        html = read(log_in("Finance"), dispute)
        for words in (
            "€50.00 are with the bank until it has decided.",
            "somebody else used the card",
            "10.4: Visa: other fraud, without the card at hand",
            "Log of use or access",
            "1 day left",
        ):
            assert words in html, words

    def test_escapes_what_others_wrote(self, log_in: Login, dispute: Dispute) -> None:
        add_receipt(dispute, "<script>alert(1)</script>")
        Dispute.objects.update(reason="<b>", network_code="<i>x")
        html = log_in("Finance").get(url_of(dispute)).content.decode()
        assert "<script>alert" not in html
        assert "<i>x" not in html

    def test_of_a_question_offers_the_refund(self, log_in: Login, dispute: Dispute) -> None:
        Dispute.objects.update(stage=DisputeStage.INQUIRY, is_withdrawn=False)
        html = read(log_in("Finance"), dispute)
        assert "give in by refunding the order" in html
        assert 'id="accept-dialog"' not in html
        assert "refund the order" in told(send(log_in("Finance"), dispute, "accept", token="t" * 20))

    def test_of_an_answered_dispute_offers_only_to_ask(self, log_in: Login, dispute: Dispute) -> None:
        add_receipt(dispute)
        services.submit_evidence(dispute, actor="user:fin")
        html = read(log_in("Finance"), dispute)
        assert re.findall(r'id="(\w+)-dialog"', html) == ["ask"]
        assert "What was sent" in html


class TestEvidence:
    def test_a_text_is_kept_once(self, log_in: Login, dispute: Dispute) -> None:
        client = log_in("Finance")
        token = find_value(read(client, dispute), "text")
        for _ in range(2):
            response = send(client, dispute, "text", token=token, kind="receipt", text="Paid.")
        assert "not done a second time" in told(response)
        assert dispute.payment.order.events.filter(type="dispute.evidence_added").count() == 1
        assert dispute.evidence.get().added_by == "user:finance"

    def test_a_file_comes_back_as_a_download_and_nothing_else(self, log_in: Login, dispute: Dispute) -> None:
        client = log_in("Finance")
        assert "slip.pdf is kept" in told(send(client, dispute, "file", kind="receipt", file=upload()))
        url = reverse("admin:payments_disputeevidence_download", args=[dispute.pk, "receipt"])
        assert url in read(client, dispute)
        response = log_in("Auditor").get(url)
        assert b"".join(response.streaming_content) == PDF
        assert response["Content-Disposition"] == 'attachment; filename="slip.pdf"'
        assert (response["Content-Type"], response["X-Content-Type-Options"]) == (
            "application/pdf",
            "nosniff",
        )
        assert "no-store" in response["Cache-Control"]
        assert log_in("Integrator").get(url).status_code == 403
        assert client.post(url).status_code == 405
        assert Client().get(url).status_code == 302
        assert client.get(url.replace("receipt", "gossip")).status_code == 404
        Path(dispute.evidence.get().file.path).unlink()
        assert client.get(url).status_code == 404

    def test_a_text_is_no_download(self, log_in: Login, dispute: Dispute) -> None:
        add_receipt(dispute)
        url = reverse("admin:payments_disputeevidence_download", args=[dispute.pk, "receipt"])
        assert log_in("Finance").get(url).status_code == 404

    @pytest.mark.parametrize(
        ("action", "data", "why"),
        [
            ("text", {"text": "card 4242 4242 4242 4242 typed"}, "card number"),
            ("text", {"text": "x" * 20_001}, "longer than 20000"),
            ("text", {"text": " "}, "This field is required"),
            ("file", {"file": (b"MZ", "application/pdf")}, "no PDF, JPEG or PNG"),
            ("file", {"file": (b"<script>", "text/html")}, "no PDF, JPEG or PNG"),
            ("file", {"file": (PDF + b"0" * 4_194_304, "application/pdf")}, "4.0 MiB; at most 4 MiB"),
            ("file", {}, "This field is required"),
        ],
    )
    def test_bad_evidence_comes_back_with_what_was_chosen(
        self, log_in: Login, dispute: Dispute, action: str, data: dict[str, Any], why: str
    ) -> None:
        if "file" in data:
            data = {"file": upload(*data["file"])}
        response = send(log_in("Finance"), dispute, action, kind="refund_policy", **data)
        html = unescape(response.content.decode())
        assert response.status_code == 422
        assert why in html
        assert re.search(r'value="refund_policy" selected', html)
        if str(data.get("text", "")).startswith("card"):
            assert "typed" in html
        assert not dispute.evidence.exists()

    def test_is_removed(self, log_in: Login, dispute: Dispute) -> None:
        add_receipt(dispute)
        assert "is removed" in told(send(log_in("Finance"), dispute, "remove", kind="receipt"))
        assert not dispute.evidence.exists()


class TestAnswering:
    def submit(self, client: Client, dispute: Dispute, html: str) -> Any:
        data = {name: find_value(html, "submit", name) for name in ("token", "shown")}
        return send(client, dispute, "submit", **data)

    def test_pressed_twice_it_is_sent_once(
        self, log_in: Login, dispute: Dispute, gateway: FakeGateway
    ) -> None:
        add_receipt(dispute)
        client = log_in("Finance")
        html = read(client, dispute)
        assert "once and for good" in html
        assert "Receipt or invoice: “Paid on the 1st.”" in html
        assert "under review" in told(self.submit(client, dispute, html))
        assert "not done a second time" in told(self.submit(client, dispute, html))
        assert len(gateway.evidence) == 1

    def test_what_nobody_has_seen_is_not_sent(
        self, log_in: Login, dispute: Dispute, gateway: FakeGateway
    ) -> None:
        add_receipt(dispute)
        client = log_in("Finance")
        html = read(client, dispute)
        add_receipt(dispute, "Paid on the 2nd.")
        response = self.submit(client, dispute, html)
        assert response.status_code == 422
        assert "The evidence was changed since" in response.content.decode()
        assert not gateway.evidence

    def test_a_gateway_that_is_down_is_told_of_and_can_be_tried_again(
        self, log_in: Login, dispute: Dispute, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add_receipt(dispute)
        client = log_in("Finance")
        html = read(client, dispute)

        def fail(request: Any) -> DisputeFact:
            raise NetworkError("The gateway is down.")

        with monkeypatch.context() as patch:
            patch.setattr(gateway, "submit_evidence", fail)
            assert "The gateway is down." in told(self.submit(client, dispute, html))
        assert "under review" in told(self.submit(client, dispute, html))

    def test_accepting_loses_it(self, log_in: Login, dispute: Dispute) -> None:
        assert "€50.00 are lost" in told(send(log_in("Finance"), dispute, "accept"))

    def test_asking_brings_the_news(self, log_in: Login, dispute: Dispute, gateway: FakeGateway) -> None:
        gateway._decide_dispute("dp_bank_1", DisputeState.WON)
        assert "the dispute is won" in told(send(log_in("Finance"), dispute, "ask"))

    def test_is_too_late_after_the_deadline(self, log_in: Login, dispute: Dispute) -> None:
        Dispute.objects.update(due_by=timezone.now() - timedelta(minutes=1))
        html = read(log_in("Finance"), dispute)
        assert "Its deadline has passed." in html
        assert "time is over" in html


class TestTheOrderPage:
    def page(self, client: Client, order: Order) -> str:
        return unescape(client.get(reverse("admin:payments_order_change", args=[order.pk])).content.decode())

    def test_shows_the_dispute_to_who_may_see_it(self, log_in: Login, dispute: Dispute) -> None:
        html = self.page(log_in("Finance"), dispute.payment.order)
        assert "Dispute to answer" in html
        assert 'id="disputes-title"' in html
        assert url_of(dispute) in html
        assert 'id="disputes-title"' not in self.page(log_in("Fraud analyst"), dispute.payment.order)

    def test_asks_no_oftener_for_many_disputes(
        self, log_in: Login, dispute: Dispute, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(panels, "_panels", {})
        OpenDisputeFactory.create_batch(5, payment=dispute.payment, account=dispute.account)
        client = log_in("Finance")
        self.page(client, dispute.payment.order)
        with CaptureQueriesContext(connection) as captured:
            self.page(client, dispute.payment.order)
        assert len(captured) <= 12

    def test_is_marked_in_the_list(self, log_in: Login, dispute: Dispute) -> None:
        html = log_in("Finance").get("/admin/payments/order/", {"view": "all"}).content.decode()
        assert "Disputed" in html

    def test_tells_every_event_in_plain_words(self, log_in: Login, dispute: Dispute) -> None:
        payment = dispute.payment
        services.add_evidence(
            dispute,
            kind="receipt",
            file=EvidenceFile("slip.pdf", "application/pdf", PDF),
            actor="user:fin",
        )
        services.submit_evidence(dispute, actor="user:fin")
        words: dict[str, str] = {
            "payment.authorization_expiring": "The authorization ends soon",
            "payment.authorized_late": "too late: the order had gone on without it",
            "payment.late_success_undone": "Money that came too late was given back",
            "payment.void_failed": "could not be released at the gateway",
            "operation.escalated": "a person has to find out",
            "operation.decided": "A person decided what became of an operation",
            "dispute.updated": "News of the dispute",
            "dispute.closed": "The dispute is over",
            "dispute.due_soon": "must be answered soon",
            "dispute.evidence_removed": "Evidence removed",
            "dispute.accepted": "Gave in to the dispute",
            "dispute.asked": "asked how the dispute stands",
        }
        for kind in words:
            facts.record_event(payment, kind, is_public=False, dispute=dispute.describe())
        html = self.page(log_in("Finance"), payment.order)
        assert "The cardholder disputes the payment" in html
        assert "Evidence sent to the bank" in html
        assert "Receipt or invoice; Not authorized; chargeback, needs response" in html
        assert [kind for kind in words if words[kind] not in html] == []
        assert Event.objects.filter(type__startswith="dispute.", is_public=False).exists()
