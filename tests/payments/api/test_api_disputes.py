"""Disputes over HTTP: found by their client, answered with evidence once, given in to once."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test.client import BOUNDARY, encode_multipart
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from payments.errors import GatewayTimeoutError
from payments.gateways.base import DisputeFact, EvidenceRequest
from payments.kinds import DisputeStage, DisputeState
from payments.models import Dispute, DisputeEvidence, IdempotencyKey
from payments.services import disputes
from tests.factories import PaymentFactory
from tests.factories.customers import OpenDisputeFactory
from tests.fakes import FakeGateway
from tests.storefront import Storefront, assert_problem

FORM = f"multipart/form-data;boundary={BOUNDARY}"  # no blank: the test client would encode it anew
PDF = b"%PDF-1.7 a slip"
CARD = "4242 4242 4242 4242"
KEY = "answer-dispute-0001"


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path) -> FakeGateway:
    settings.MEDIA_ROOT = str(tmp_path)
    fake = FakeGateway()
    monkeypatch.setattr(disputes, "get_gateway", lambda account: fake)
    return fake


@pytest.fixture
def dispute(shop: Storefront, gateway: FakeGateway) -> Dispute:
    made: Dispute = OpenDisputeFactory.create(
        payment__order__client=shop.client, reason="fraudulent", network_code="10.4"
    )
    gateway.disputes[made.gateway_reference] = DisputeFact(
        reference=made.gateway_reference,
        payment_reference="",
        stage=DisputeStage.CHARGEBACK,
        state=DisputeState.NEEDS_RESPONSE,
        amount=made.money,
    )
    return made


def send_form(shop: Storefront, dispute: Dispute, **parts: Any) -> Any:
    body = encode_multipart(BOUNDARY, parts)
    return shop.post(f"disputes/{dispute.pk}/evidence", raw=body, content_type=FORM)


def send_text(shop: Storefront, dispute: Dispute, text: str = "Paid on the 1st.") -> Any:
    return shop.post(f"disputes/{dispute.pk}/evidence", {"kind": "receipt", "text": text}, idempotency_key="")


def upload(content: bytes = PDF, content_type: str = "application/pdf", name: str = "slip.pdf") -> Any:
    return SimpleUploadedFile(name, content, content_type)


def list_pointers(problem: dict[str, Any]) -> list[str]:
    return [error["pointer"] for error in problem["errors"]]


class TestReading:
    def test_a_dispute_is_shown_with_its_deadline_and_its_evidence(
        self, shop: Storefront, dispute: Dispute
    ) -> None:
        send_text(shop, dispute)
        shown = shop.get(f"disputes/{dispute.pk}").json()
        assert (shown["id"], shown["order"]) == (dispute.pk, dispute.payment.order_id)
        assert (shown["state"], shown["reason"], shown["network_code"]) == (
            "needs_response",
            "fraudulent",
            "10.4",
        )
        assert (shown["is_answerable"], shown["submitted_at"]) == (True, None)
        [evidence] = shown["evidence"]
        assert (evidence["kind"], evidence["text"], evidence["file_name"]) == (
            "receipt",
            "Paid on the 1st.",
            "",
        )

    def test_lists_are_narrowed_by_state_stage_order_and_deadline(
        self, shop: Storefront, dispute: Dispute
    ) -> None:
        now = timezone.now()
        other = OpenDisputeFactory.create(
            payment__order__client=shop.client,
            state=DisputeState.WON,
            stage=DisputeStage.INQUIRY,
            due_by=now + timedelta(days=30),
        )
        for query, found in {
            "": [other, dispute],
            "state=needs_response": [dispute],
            "stage=inquiry": [other],
            f"order={dispute.payment.order_id}": [dispute],
            f"due_before={(now + timedelta(days=8)).isoformat().replace('+00:00', 'Z')}": [dispute],
        }.items():
            results = shop.get(f"disputes?{query}").json()["results"]
            assert [row["id"] for row in results] == [one.pk for one in found], query

    def test_pages_follow_their_cursor(self, shop: Storefront, dispute: Dispute) -> None:
        newer = OpenDisputeFactory.create(payment__order__client=shop.client)
        first = shop.get("disputes?page_size=1").json()
        second = shop.http.get(first["next"], headers=shop._headers({})).json()
        assert [first["results"][0]["id"], second["results"][0]["id"]] == [newer.pk, dispute.pk]
        assert second["next"] is None

    @pytest.mark.parametrize("query", ["state=sad", "stage=9", "due_before=soon", "colour=red", "state="])
    def test_a_bad_filter_is_named(self, shop: Storefront, query: str) -> None:
        problem = assert_problem(shop.get(f"disputes?{query}"), 400, "invalid_request")
        assert [error["parameter"] for error in problem["errors"]] == [query.partition("=")[0]]

    def test_a_page_asks_as_often_as_one_dispute_does(
        self, shop: Storefront, dispute: Dispute, django_assert_num_queries: Any
    ) -> None:
        shop.get("disputes")
        OpenDisputeFactory.create_batch(3, payment=PaymentFactory(order__client=shop.client))
        with django_assert_num_queries(2):  # the key and the disputes
            assert len(shop.get("disputes").json()["results"]) == 4


class TestEvidence:
    def test_a_file_is_kept_and_told_by_its_digest(self, shop: Storefront, dispute: Dispute) -> None:
        answer = send_form(shop, dispute, kind="receipt", file=upload())
        assert answer.status_code == 201
        shown = answer.json()
        assert (shown["file_name"], shown["content_type"], shown["size"]) == (
            "slip.pdf",
            "application/pdf",
            len(PDF),
        )
        kept = DisputeEvidence.objects.get()
        assert (kept.sha256, kept.file.read()) == (shown["sha256"], PDF)
        assert kept.added_by == f"api:{shop.client.name}"

    def test_a_form_may_hold_a_text_too(self, shop: Storefront, dispute: Dispute) -> None:
        assert send_form(shop, dispute, kind="receipt", text="Paid.").status_code == 201
        assert DisputeEvidence.objects.get().text == "Paid."

    def test_sent_again_it_takes_the_place_of_the_first(self, shop: Storefront, dispute: Dispute) -> None:
        send_form(shop, dispute, kind="receipt", file=upload())
        assert send_text(shop, dispute, "Paid on the 2nd.").status_code == 201
        assert DisputeEvidence.objects.get().text == "Paid on the 2nd."

    def test_it_is_removed(self, shop: Storefront, dispute: Dispute) -> None:
        send_text(shop, dispute)
        address = f"disputes/{dispute.pk}/evidence/receipt"
        assert shop.delete(address).status_code == 204
        assert not DisputeEvidence.objects.exists()
        assert_problem(shop.delete(address), 404, "not_found")
        assert_problem(shop.delete(f"disputes/{dispute.pk}/evidence/gossip"), 404, "not_found")

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({}, "/kind"),
            ({"kind": "gossip", "text": "x"}, "/kind"),
            ({"kind": 5, "text": "x"}, "/kind"),
            ({"kind": "receipt", "text": 5}, "/text"),
            ({"kind": "receipt", "text": " "}, "/text"),
            ({"kind": "receipt", "text": "x" * 20_001}, "/text"),
            ({"kind": "receipt", "text": "x", "file": "eA=="}, "/file"),
        ],
    )
    def test_a_bad_text_is_refused_by_pointer(
        self, shop: Storefront, dispute: Dispute, body: dict[str, Any], pointer: str
    ) -> None:
        problem = assert_problem(shop.post(f"disputes/{dispute.pk}/evidence", body), 400, "invalid_request")
        assert pointer in list_pointers(problem)
        assert not DisputeEvidence.objects.exists()

    @pytest.mark.parametrize(
        ("parts", "pointer"),
        [
            ({"kind": "receipt"}, "/text"),
            ({"kind": "receipt", "text": "x", "file": (PDF, "application/pdf")}, "/text"),
            ({"kind": "receipt", "file": (b"MZ no pdf", "application/pdf")}, "/file"),
            ({"kind": "receipt", "file": (b"<script>", "text/html")}, "/file"),
            ({"kind": "receipt", "file": (PDF + b"0" * 4_194_304, "application/pdf")}, "/file"),
            ({"kind": "receipt", "file": (b"", "application/pdf")}, "/file"),
            ({"kind": "receipt", "file": "no file"}, "/file"),
            ({"kind": "gossip", "file": (PDF, "application/pdf")}, "/kind"),
            ({"kind": "receipt", "text": "x", "colour": "red"}, "/colour"),
        ],
    )
    def test_a_bad_form_is_refused_by_pointer(
        self, shop: Storefront, dispute: Dispute, parts: dict[str, Any], pointer: str
    ) -> None:
        if isinstance(parts.get("file"), tuple):
            parts = parts | {"file": upload(*parts["file"])}
        problem = assert_problem(send_form(shop, dispute, **parts), 400, "invalid_request")
        assert list_pointers(problem) == [pointer]
        assert not DisputeEvidence.objects.exists()

    def test_card_data_is_refused_wherever_it_stands(self, shop: Storefront, dispute: Dispute) -> None:
        for answer, pointer in [
            (send_text(shop, dispute, f"his card is {CARD}"), "/text"),
            (send_form(shop, dispute, kind="receipt", text=f"his card is {CARD}"), "/text"),
            (send_form(shop, dispute, kind="receipt", file=upload(name=f"{CARD}.pdf")), "/file"),
        ]:
            problem = assert_problem(answer, 422, "card_data_refused")
            assert list_pointers(problem) == [pointer]
            assert CARD.encode() not in answer.content

    def test_a_form_that_is_none_is_refused(self, shop: Storefront, dispute: Dispute) -> None:
        address = f"disputes/{dispute.pk}/evidence"
        twice = encode_multipart(BOUNDARY, {"kind": ["receipt", "receipt"], "text": "x"})
        many = encode_multipart(BOUNDARY, {f"name{n}": "x" for n in range(1100)})
        nul = encode_multipart(BOUNDARY, {"kind": "receipt", "text": "a\0b"})
        for raw in (b"", b"no form", twice, many, nul):
            answer = shop.post(address, raw=raw, content_type=FORM)
            assert answer.status_code == 400, raw[:40]
            assert answer["Content-Type"] == "application/problem+json"
        assert_problem(shop.post(address, raw=b"x", content_type="multipart/form-data"), 400, "invalid_json")
        large = shop.post(address, raw=b"x" * (5 * 1_048_576 + 1), content_type=FORM)
        assert_problem(large, 413, "body_too_large")
        squeezed = shop.post(address, raw=twice, content_type=FORM, content_encoding="gzip")
        assert_problem(squeezed, 415, "unsupported_media_type")
        assert_problem(
            shop.post(f"disputes/{dispute.pk}/submit", raw=twice, content_type=FORM),
            415,
            "unsupported_media_type",
        )
        assert not DisputeEvidence.objects.exists()

    def test_it_is_too_late_after_the_deadline(self, shop: Storefront, dispute: Dispute) -> None:
        send_text(shop, dispute)
        Dispute.objects.update(due_by=timezone.now() - timedelta(minutes=1))
        assert shop.get(f"disputes/{dispute.pk}").json()["is_answerable"] is False
        assert_problem(send_text(shop, dispute, "late"), 409, "conflict")
        assert_problem(shop.delete(f"disputes/{dispute.pk}/evidence/receipt"), 409, "conflict")


class TestAnswering:
    def test_evidence_is_sent_once_whatever_is_repeated(
        self, shop: Storefront, dispute: Dispute, gateway: FakeGateway
    ) -> None:
        send_text(shop, dispute)
        address = f"disputes/{dispute.pk}/submit"
        first = shop.post(address, idempotency_key=KEY)
        assert (first.status_code, first.json()["state"]) == (200, "under_review")
        again = shop.post(address, idempotency_key=KEY)
        assert (again.content, again["Idempotent-Replayed"]) == (first.content, "true")
        assert_problem(shop.post(address), 409, "conflict")
        assert [request.texts for request in gateway.evidence] == [{"receipt": "Paid on the 1st."}]

    def test_a_key_is_needed(self, shop: Storefront, dispute: Dispute) -> None:
        for action in ("submit", "accept"):
            answer = shop.post(f"disputes/{dispute.pk}/{action}", idempotency_key="")
            assert_problem(answer, 400, "idempotency_key_missing")
            assert_problem(shop.post(f"disputes/{dispute.pk}/{action}", {"a": 1}), 400, "invalid_request")

    def test_without_evidence_nothing_is_sent(
        self, shop: Storefront, dispute: Dispute, gateway: FakeGateway
    ) -> None:
        assert_problem(shop.post(f"disputes/{dispute.pk}/submit"), 409, "conflict")
        assert gateway.calls == []

    def test_giving_in_loses_it(self, shop: Storefront, dispute: Dispute) -> None:
        answer = shop.post(f"disputes/{dispute.pk}/accept")
        assert (answer.status_code, answer.json()["state"]) == (200, "accepted")

    def test_an_inquiry_is_refunded_and_not_accepted(self, shop: Storefront, dispute: Dispute) -> None:
        Dispute.objects.update(stage=DisputeStage.INQUIRY)
        problem = assert_problem(shop.post(f"disputes/{dispute.pk}/accept"), 409, "conflict")
        assert "refund the order" in problem["detail"]

    def test_a_gateway_without_an_answer_is_asked_again_with_one_key(
        self, shop: Storefront, dispute: Dispute, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        send_text(shop, dispute)
        sent: list[str] = []
        submit = gateway.submit_evidence

        def lose_answer(request: EvidenceRequest) -> DisputeFact:
            sent.append(request.key)
            if len(sent) == 1:
                raise GatewayTimeoutError("No answer came.")
            return submit(request)

        monkeypatch.setattr(gateway, "submit_evidence", lose_answer)
        assert shop.post(f"disputes/{dispute.pk}/submit", idempotency_key=KEY).status_code == 503
        answer = shop.post(f"disputes/{dispute.pk}/submit", idempotency_key=KEY)
        assert (answer.status_code, answer.json()["state"]) == (200, "under_review")
        assert sent[0] == sent[1]

    def test_a_first_request_that_died_after_it_was_done_is_answered(
        self, shop: Storefront, dispute: Dispute, gateway: FakeGateway
    ) -> None:
        address = f"disputes/{dispute.pk}/accept"
        first = shop.post(address, idempotency_key=KEY)
        IdempotencyKey.objects.update(
            answer=None,
            status=None,
            completed_at=None,
            lease_expires_at=timezone.now() - timedelta(minutes=1),
        )
        again = shop.post(address, idempotency_key=KEY)
        assert (again.status_code, again.json()) == (200, first.json())
        assert len(gateway.calls) == 1


def test_live_answers_are_as_declared(shop: Storefront, dispute: Dispute) -> None:
    schema = json.loads(json.dumps(SchemaGenerator().get_schema(request=None, public=True), default=str))
    address = f"disputes/{dispute.pk}"
    for path, method, answer in [
        ("/disputes", "get", shop.get("disputes")),
        ("/disputes/{id}", "get", shop.get(address)),
        ("/disputes/{id}/evidence", "post", send_text(shop, dispute)),
        ("/disputes/{id}/evidence", "post", send_text(shop, dispute, "")),
        ("/disputes/{id}/evidence/{kind}", "delete", shop.delete(f"{address}/evidence/refund_policy")),
        ("/disputes/{id}/submit", "post", shop.post(f"{address}/submit")),
        ("/disputes/{id}/accept", "post", shop.post(f"{address}/accept")),
        ("/disputes/{id}/evidence/{kind}", "delete", shop.delete(f"{address}/evidence/receipt")),
    ]:
        declared = schema["paths"][f"/api/v1{path}"][method]["responses"][str(answer.status_code)]
        media = declared["content"][answer["Content-Type"].partition(";")[0]]
        whole = {**media["schema"], "components": schema["components"]}
        Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(
            answer.json()
        )
